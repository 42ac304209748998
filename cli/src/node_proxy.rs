//! Asking an agent through the API server, which reaches the nodes where the operator's machine may not.

use http::Request;
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use warren_cluster::api_error::describe;
use warren_model::NodeName;

use crate::answer::{self, AgentError, DEADLINE, MAX_BYTES};

/// Asks a node's agent for a page, such as `/status`.
pub(crate) async fn ask<T: DeserializeOwned>(
    client: &Client,
    node: &NodeName,
    port: u16,
    page: &str,
) -> Result<T, AgentError> {
    timeout(DEADLINE, exchange(client, &address(node, port, page)))
        .await
        .unwrap_or(Err(AgentError::TimedOut))
}

/// The page at the API server: the `proxy` subresource of the node, whose name takes a port (and has no scheme: plain
/// HTTP). A node's name is a DNS name, nothing in it needs escaping.
fn address(node: &NodeName, port: u16, page: &str) -> String {
    format!("/api/v1/nodes/{}:{port}/proxy{page}", node.as_str())
}

async fn exchange<T: DeserializeOwned>(client: &Client, address: &str) -> Result<T, AgentError> {
    let unreachable = |reason: String| AgentError::Unreachable { reason };
    let request = Request::get(address)
        .body(Body::empty())
        .map_err(|error| unreachable(error.to_string()))?;
    let response = client
        .send(request)
        .await
        .map_err(|error| unreachable(describe(&error)))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BYTES)
        .collect()
        .await
        .map_err(|error| unreachable(format!("the answer broke off: {error}")))?;
    answer::read(status, &body.to_bytes())
}
