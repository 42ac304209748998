//! HTTP/1.1 in front of the API: connections, identity and faults here, what a path means in the modules below.

mod body;
mod identity;
mod negotiate;
mod objects;
mod protobuf;
mod proxy;
mod query;
mod respond;
mod review;
mod route;
mod stream;

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::Api;
use crate::config::User;
use crate::error::{ApiError, Subject};
use crate::faults::{Call, Fate, Fault, WatchEnd};
use crate::{discovery, openapi};
use query::Query;
use route::{Address, Route};

pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;
pub(crate) type Answer = Result<Response<Body>, ApiError>;

/// As much as etcd takes, and then some.
const MAX_BODY: usize = 4 << 20;

/// What a handler knows of its request.
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) headers: http::HeaderMap,
    pub(crate) query: Query,
    pub(crate) user: User,
    pub(crate) body: Bytes,
    /// How it ends, if it is a watch.
    pub(crate) ends: watch::Receiver<WatchEnd>,
}

impl Received {
    /// A header as text, empty when absent.
    pub(crate) fn header(&self, name: header::HeaderName) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("connection dropped on request")]
struct Dropped;

pub(crate) async fn serve(api: Api, listener: TcpListener) -> std::io::Result<()> {
    // Dropping the set aborts the connections with the server.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(api.clone(), stream))),
                Err(error) if is_passing(&error) => tracing::debug!(%error, "connection lost before it was accepted"),
                Err(error) => return Err(error),
            },
            // Finished ones are taken out, so that the set does not grow for ever.
            Some(_) = connections.join_next() => {}
        }
    }
}

fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    [
        ErrorKind::ConnectionAborted,
        ErrorKind::ConnectionReset,
        ErrorKind::Interrupted,
    ]
    .contains(&error.kind())
}

async fn connection(api: Api, stream: TcpStream) {
    // Watch lines are small, and a test waits for each of them. Failing to say so costs time, nothing else.
    drop(stream.set_nodelay(true));
    let service = service_fn(move |request| answer(api.clone(), request));
    let served = hyper::server::conn::http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

async fn answer(api: Api, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
    let (head, body) = request.into_parts();
    let user = match identity::authenticate(api.config(), &head.headers) {
        Ok(user) => user,
        Err(error) => return Ok(respond::error(&error)),
    };
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let route = route::parse(head.uri.path());
    let call = call(&route, &head.method, &query, &user);
    let Fate { delay, fault, ends } = if route == Route::Faults {
        api.faults().spare()
    } else {
        api.faults().decide(&call)
    };
    tokio::time::sleep(delay).await;
    match &fault {
        None | Some(Fault::DropAnswer) => {}
        Some(Fault::Delay { ms }) => tokio::time::sleep(Duration::from_millis(*ms)).await,
        Some(Fault::Drop) => {
            api.record(call, 0);
            return Err(Dropped);
        }
        Some(Fault::Hang) => {
            api.record(call, 0);
            match std::future::pending::<Infallible>().await {}
        }
        Some(Fault::Error { code, retry_after }) => {
            let error = refusal(*code, *retry_after, &call);
            // A watch learns of lost history by an event, as from the real server.
            let by_event = call.verb == "watch" && error.code() == 410;
            let answer = if by_event {
                stream::refused(&error)
            } else {
                respond::error(&error)
            };
            api.record(call, answer.status().as_u16());
            return Ok(answer);
        }
    }
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return Ok(respond::error(&ApiError::BadRequest(format!(
                "cannot read the body: {error}"
            ))));
        }
    };
    let received = Received {
        method: head.method,
        headers: head.headers,
        query,
        user,
        body,
        ends,
    };
    let answer = dispatch(&api, route, &received)
        .await
        .unwrap_or_else(|error| respond::error(&error));
    if fault == Some(Fault::DropAnswer) {
        api.record(call, 0);
        return Err(Dropped);
    }
    api.record(call, answer.status().as_u16());
    Ok(answer)
}

async fn dispatch(api: &Api, route: Route, received: &Received) -> Answer {
    let found = |document: Option<Value>| {
        document
            .map(|d| respond::json(StatusCode::OK, &d))
            .ok_or(ApiError::NoSuchPath)
    };
    match route {
        Route::Health => Ok(respond::plain("ok")),
        Route::Version => found(Some(discovery::version())),
        Route::CoreVersions => found(Some(discovery::core_versions())),
        Route::Groups => found(Some(discovery::groups(&api.state().registry))),
        Route::Group(name) => found(discovery::group(&api.state().registry, &name)),
        Route::Resources(group, version) => {
            found(discovery::resources(&api.state().registry, &group, &version))
        }
        Route::OpenApiV2 => Ok(openapi_v2(api, received)),
        Route::OpenApiV3Index => found(Some(openapi::v3_index(&api.state().registry))),
        Route::OpenApiV3(root) => found(openapi::v3_document(&api.state().registry, &root)),
        Route::Faults => faults(api, received),
        Route::Object(address) if review::is_review(&address) => review::answer(&address, received),
        Route::Object(address) if address.sub == "proxy" => proxy::forward(api, &address, received).await,
        Route::Object(address) => objects::answer(api, &address, received),
        Route::Unknown => Err(ApiError::NoSuchPath),
    }
}

fn openapi_v2(api: &Api, received: &Received) -> Response<Body> {
    let accept = received
        .headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if accept.contains(openapi::V2_PROTOBUF) {
        let document = openapi::v2_protobuf(&api.state().registry);
        return respond::bytes(StatusCode::OK, openapi::V2_PROTOBUF_ANSWER, document.into());
    }
    respond::json(StatusCode::OK, &openapi::v2_json(&api.state().registry))
}

fn faults(api: &Api, received: &Received) -> Answer {
    if received.method == Method::PUT {
        let plan = serde_json::from_slice(&received.body)
            .map_err(|error| ApiError::BadRequest(format!("not a fault plan: {error}")))?;
        api.set_faults(plan);
    } else if received.method == Method::DELETE {
        api.faults().clear();
    } else if received.method != Method::GET {
        return Err(ApiError::MethodNotAllowed);
    }
    Ok(respond::json(StatusCode::OK, &json!(api.faults().plan())))
}

fn call(route: &Route, method: &Method, query: &Query, user: &User) -> Call {
    let verb = |address: &Address| match method.as_str() {
        _ if address.sub == "proxy" => "proxy",
        "GET" | "HEAD" if query.flag("watch") => "watch",
        "GET" | "HEAD" if address.name.is_empty() => "list",
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if address.name.is_empty() => "deletecollection",
        "DELETE" => "delete",
        _ => "unknown",
    };
    match route {
        Route::Object(address) => Call {
            verb: verb(address).to_owned(),
            resource: match address.sub.as_str() {
                "" => address.plural.clone(),
                sub => format!("{}/{sub}", address.plural),
            },
            namespace: address.namespace.clone(),
            name: address.name.clone(),
            user: user.name.clone(),
        },
        // Discovery and health have no resource, so that only a rule without one hits them.
        Route::Health
        | Route::Version
        | Route::CoreVersions
        | Route::Groups
        | Route::Group(_)
        | Route::Resources(..)
        | Route::OpenApiV2
        | Route::OpenApiV3Index
        | Route::OpenApiV3(_)
        | Route::Faults
        | Route::Unknown => Call {
            verb: method.as_str().to_lowercase(),
            user: user.name.clone(),
            ..Call::default()
        },
    }
}

/// The error a fault rule asks for, as the real server would word it.
fn refusal(code: u16, retry_after: Option<u32>, call: &Call) -> ApiError {
    let subject = Subject {
        group: String::new(),
        kind: call.resource.clone(),
        name: call.name.clone(),
    };
    match code {
        401 => ApiError::Unauthorized,
        403 => ApiError::Forbidden {
            subject,
            message: format!("User \"{}\" cannot {}", call.user, call.verb),
        },
        404 => ApiError::NotFound(subject),
        409 => ApiError::Conflict {
            subject,
            message: "the object has been modified".to_owned(),
        },
        410 => ApiError::Expired("The resourceVersion for the provided watch is too old.".to_owned()),
        429 => ApiError::TooManyRequests {
            retry_after: retry_after.unwrap_or(1),
        },
        503 => ApiError::Unavailable("the server is currently unable to handle the request".to_owned()),
        504 => ApiError::Timeout("the server was unable to return a response in time".to_owned()),
        _ => ApiError::Internal("a fault was asked for".to_owned()),
    }
}
