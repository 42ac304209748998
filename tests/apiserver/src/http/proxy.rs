//! `nodes/NAME[:PORT]/proxy/PATH`: one plain HTTP request to the node's InternalIP.

use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::route::Address;
use super::{Answer, Body, Received, respond};
use crate::api::Api;
use crate::error::ApiError;
use crate::resource::Gvr;

/// The kubelet's port, which is what a node without a port means.
const KUBELET_PORT: u16 = 10250;

pub(crate) async fn forward(api: &Api, address: &Address, received: &Received) -> Answer {
    if received.method != Method::GET {
        return Err(ApiError::MethodNotAllowed);
    }
    if !address.group.is_empty() || address.plural != "nodes" {
        return Err(ApiError::NoSuchPath);
    }
    let (node, port) = node_and_port(&address.name)?;
    let ip = internal_ip(&api.get(Gvr::core("nodes"), "", node)?)
        .ok_or_else(|| ApiError::Unavailable(format!("node \"{node}\" has no InternalIP")))?;
    let authority = if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    };
    let query = received.query.encoded();
    let path = if address.rest.is_empty() {
        "/"
    } else {
        &address.rest
    };
    let uri = if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    };
    match tokio::time::timeout(api.config().proxy_timeout, request(&authority, &uri)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(ApiError::Unavailable(format!(
            "error trying to reach node at {authority}: {error}"
        ))),
        Err(_) => Err(ApiError::Timeout(format!(
            "node at {authority} did not answer in time"
        ))),
    }
}

async fn request(
    authority: &str,
    uri: &str,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(authority).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(uri)
        .header(header::HOST, authority)
        .body(Full::<bytes::Bytes>::default())?;
    let exchange = async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok::<_, hyper::Error>((head, body.collect().await?.to_bytes()))
    };
    // The connection is driven here and ends with this function: no task outlives the request. A server that closes
    // after its answer ends it before the answer has been read, so its end says nothing: the exchange's does.
    let (answered, _ended) = futures::join!(exchange, connection);
    let (head, body) = answered?;
    let kind = head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("text/plain");
    Ok(respond::bytes(head.status, kind, body))
}

/// `NAME`, `NAME:PORT`, `http:NAME` or `http:NAME:PORT`.
fn node_and_port(text: &str) -> Result<(&str, u16), ApiError> {
    let bad = || ApiError::BadRequest(format!("invalid node request {text:?}"));
    let text = text.strip_prefix("http:").unwrap_or(text);
    if text.starts_with("https:") {
        return Err(ApiError::BadRequest(
            "this server forwards plain HTTP only".to_owned(),
        ));
    }
    match text.split_once(':') {
        None => Ok((text, KUBELET_PORT)),
        Some((name, "")) => Ok((name, KUBELET_PORT)),
        Some((name, port)) => Ok((name, port.parse().map_err(|_| bad())?)),
    }
}

fn internal_ip(node: &Value) -> Option<String> {
    let addresses = node["status"]["addresses"].as_array()?;
    let internal = addresses.iter().find(|address| address["type"] == "InternalIP")?;
    internal["address"].as_str().map(str::to_owned)
}
