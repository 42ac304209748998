//! Asking many agents at once.

use std::fs;

use anyhow::{Context, anyhow, bail};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1 as k8s;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use warren_cluster::ClientConfig;
use warren_cluster::api_error::{describe, status_code};
use warren_cluster::decode::decode_node;
use warren_model::{Announcement, AnnouncementError, NodeName};

use crate::answer::AgentError;
use crate::arguments::AgentArguments;
use crate::{admin_socket, node_proxy};

/// How many agents are asked at once.
const AT_ONCE: usize = 32;

/// Nodes per page of the list; one Node has about 10 kB.
const PAGE: u32 = 500;

/// What every agent that was asked answered.
#[derive(Debug)]
pub(crate) struct Survey<T> {
    /// One a node, by name.
    pub(crate) nodes: Vec<Surveyed<T>>,
    /// How many nodes the cluster has; `None` when the API server was not asked.
    pub(crate) cluster_size: Option<usize>,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Surveyed<T> {
    /// Its name.
    pub(crate) node: String,
    /// What it publishes; `None` when it publishes nothing or the API server was not asked.
    pub(crate) announcement: Option<Result<Announcement, AnnouncementError>>,
    /// What its agent answered.
    pub(crate) answer: Result<T, AgentError>,
}

/// Asks the agents for a page, such as `/status`. Fails only when the nodes cannot be listed.
pub(crate) async fn survey<T: DeserializeOwned>(
    arguments: &AgentArguments,
    page: &str,
) -> anyhow::Result<Survey<T>> {
    if arguments.local {
        let answer = admin_socket::ask(&arguments.run_dir.join(admin_socket::FILE_NAME), page).await;
        let surveyed = Surveyed {
            node: host_name()?,
            announcement: None,
            answer,
        };
        return Ok(Survey {
            nodes: vec![surveyed],
            cluster_size: None,
        });
    }
    let config = ClientConfig::new(concat!("warren/", env!("CARGO_PKG_VERSION")));
    let config = config.with_kubeconfig(arguments.kubeconfig.clone());
    let client = config.build().await.context("cannot reach the API server")?;
    let listed = list_nodes(&client).await?;
    let cluster_size = Some(listed.len());
    let asked = chosen(listed, &arguments.nodes)?;
    let asking = asked
        .into_iter()
        .map(|node| ask(&client, node, arguments.agent_port, page));
    Ok(Survey {
        nodes: stream::iter(asking).buffered(AT_ONCE).collect().await,
        cluster_size,
    })
}

/// The name this machine's Node has unless it was given another: the host name, in lower case.
pub(crate) fn host_name() -> anyhow::Result<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").context("cannot read the host name")?;
    Ok(name.trim().to_lowercase())
}

async fn ask<T: DeserializeOwned>(client: &Client, node: k8s::Node, port: u16, page: &str) -> Surveyed<T> {
    let decoded = decode_node(&node);
    let Some(value) = decoded.value else {
        let reasons: Vec<String> = decoded
            .refusals
            .into_iter()
            .map(|refusal| refusal.message)
            .collect();
        return Surveyed {
            node: name_of(&node).to_owned(),
            announcement: None,
            answer: Err(AgentError::Unreachable {
                reason: reasons.join("; "),
            }),
        };
    };
    Surveyed {
        answer: node_proxy::ask(client, &value.name, port, page).await,
        node: value.name.as_str().to_owned(),
        announcement: value.announcement,
    }
}

async fn list_nodes(client: &Client) -> anyhow::Result<Vec<k8s::Node>> {
    let api: Api<k8s::Node> = Api::all(client.clone());
    let mut nodes = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await.map_err(|error| refused(&error))?;
        nodes.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    nodes.sort_by(|a, b| name_of(a).cmp(name_of(b)));
    Ok(nodes)
}

fn refused(error: &kube::Error) -> anyhow::Error {
    let remedy = match status_code(error) {
        Some(401 | 403) => "this takes the permission list on nodes",
        Some(_) => "try again",
        None => "check that the API server runs and that the kubeconfig names its address",
    };
    anyhow!("cannot list the cluster's nodes: {}; {remedy}", describe(error))
}

/// Those of the nodes that were asked for; all, when none was.
fn chosen(listed: Vec<k8s::Node>, names: &[NodeName]) -> anyhow::Result<Vec<k8s::Node>> {
    if names.is_empty() {
        return Ok(listed);
    }
    let unknown = |name: &&NodeName| !listed.iter().any(|node| name_of(node) == name.as_str());
    if let Some(name) = names.iter().find(unknown) {
        bail!(
            "the cluster has no node {}: see `kubectl get nodes`",
            name.as_str()
        );
    }
    let is_chosen = |node: &k8s::Node| names.iter().any(|name| name.as_str() == name_of(node));
    Ok(listed.into_iter().filter(is_chosen).collect())
}

fn name_of(node: &k8s::Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}
