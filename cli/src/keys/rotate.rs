//! `warren keys rotate`: raise the Mesh's epoch, and wait until every node has followed.

use std::time::Duration;

use anyhow::{Context, bail};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use warren_cluster::ClientConfig;
use warren_cluster::api_error::{describe, status_code};
use warren_cluster::decode::decode_node;
use warren_cluster::mesh_resource::Mesh;
use warren_model::mesh::MESH_NAME;
use warren_model::{Announcement, Epoch};

use super::listed::TRIES;
use crate::arguments::{KeysRotateArguments, OutputFormat};
use crate::outcome::{self, Outcome};
use crate::units::{count, first_few};

/// How often it is looked whether nodes have followed.
const LOOK: Duration = Duration::from_secs(1);

/// How many nodes that have not followed are named.
const NAMED: usize = 3;

/// Raises the epoch, and waits if it is asked to.
pub(super) async fn rotate(arguments: KeysRotateArguments) -> anyhow::Result<Outcome> {
    let config = ClientConfig::new(concat!("warren/", env!("CARGO_PKG_VERSION")));
    let config = config.with_kubeconfig(arguments.kubeconfig.clone());
    let client = config.build().await.context("cannot reach the API server")?;

    let nodes = nodes(&client).await?;
    for named in &arguments.nodes {
        if !nodes.iter().any(|(name, _)| name == named.as_str()) {
            bail!("there is no node {named}: kubectl get nodes lists them");
        }
    }
    let epoch = raise(&client, &nodes, &arguments).await?;
    let started = Instant::now();
    let mut done = Done {
        epoch,
        finished: false,
        seconds: None,
        behind: Vec::new(),
    };
    if arguments.wait {
        done.behind = wait(&client, epoch, started + Duration::from_secs(arguments.timeout)).await?;
        done.finished = done.behind.is_empty();
        done.seconds = Some(started.elapsed().as_secs());
    }
    match arguments.output {
        OutputFormat::Table => outcome::print(done.render().as_bytes())?,
        OutputFormat::Json => outcome::print_json(&done)?,
    };
    Ok(if arguments.wait && !done.finished {
        Outcome::Short
    } else {
        Outcome::Done
    })
}

/// What `--output json` prints: fields are added, never changed or removed.
#[derive(Debug, Serialize)]
struct Done {
    epoch: Epoch,
    /// Whether every node lives in the epoch and in no other; false where it was not waited for.
    finished: bool,
    seconds: Option<u64>,
    /// The nodes that had not followed when waiting ended.
    behind: Vec<String>,
}

impl Done {
    fn render(&self) -> String {
        match self.seconds {
            None => format!(
                "the rotation to epoch {} begins: warren keys list shows how far it is\n",
                self.epoch
            ),
            Some(seconds) if self.finished => {
                format!("every node lives in epoch {}, {seconds} s later\n", self.epoch)
            }
            Some(seconds) => format!(
                "{} not in epoch {} alone after {seconds} s: {}\n",
                count(self.behind.len(), "node"),
                self.epoch,
                first_few(&self.behind, NAMED)
            ),
        }
    }
}

/// Asks the Mesh for the epoch after the latest that it or any node knows, as the Mesh is by then, each time somebody else was
/// faster: the agent that reports writes its status. Of two operators at once each raises it.
async fn raise(
    client: &Client,
    nodes: &[(String, Option<Announcement>)],
    arguments: &KeysRotateArguments,
) -> anyhow::Result<Epoch> {
    for _ in 0..TRIES {
        if let Some(epoch) = try_to_raise(client, nodes, arguments).await? {
            return Ok(epoch);
        }
    }
    bail!("the Mesh {MESH_NAME} is changed all the time by somebody else: try again")
}

/// The same once; `None`: somebody else has changed the Mesh meanwhile.
async fn try_to_raise(
    client: &Client,
    nodes: &[(String, Option<Announcement>)],
    arguments: &KeysRotateArguments,
) -> anyhow::Result<Option<Epoch>> {
    let meshes: Api<Mesh> = Api::all(client.clone());
    let found = meshes
        .get_opt(MESH_NAME)
        .await
        .map_err(|error| refused("read", &error))?;
    // A Mesh that was deleted and made anew has forgotten how far the nodes are. One node's absurd claim counts no more than
    // what most say.
    let mut settled: Vec<u32> = nodes
        .iter()
        .filter_map(|(_, says)| Some(says.as_ref()?.settled.number()))
        .collect();
    settled.sort_unstable();
    let lived_in = settled.get(settled.len().saturating_sub(1) / 2).copied();
    let most = lived_in.unwrap_or(1);
    let asked_for = match &found {
        Some(mesh) => {
            let spec = serde_json::to_value(&mesh.spec)?["keys"]["epoch"].as_u64();
            // A schedule goes on in the status. Its rotation may be under way.
            let scheduled = mesh.status.as_ref().and_then(|status| status.scheduled_epoch);
            let scheduled = scheduled.and_then(|epoch| u64::try_from(epoch).ok());
            // Any node may write it, and agents take no more of it than this.
            let furthest = lived_in.map_or(u64::MAX, |epoch| u64::from(epoch) + 1);
            let scheduled = scheduled.map(|epoch| epoch.min(furthest));
            spec.max(scheduled).unwrap_or(1)
        }
        None => 1,
    };
    let next = u32::try_from(asked_for).ok().map(|asked_for| asked_for.max(most));
    let epoch = next.and_then(|next| next.checked_add(1)).and_then(Epoch::new);
    let epoch = epoch.context("there is no epoch after the last")?;
    let names: Vec<&str> = arguments.nodes.iter().map(|name| name.as_str()).collect();
    let spec = json!({"keys": {"epoch": epoch, "nodes": names}});
    let (act, written) = match found {
        Some(mesh) => {
            // Bound to what was read.
            let patch = json!({"metadata": {"resourceVersion": mesh.resource_version()}, "spec": spec});
            let patch = Patch::Merge(patch);
            (
                "change",
                meshes.patch(MESH_NAME, &PatchParams::default(), &patch).await,
            )
        }
        None => {
            let mesh = serde_json::from_value(json!({
                "apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh",
                "metadata": {"name": MESH_NAME}, "spec": spec,
            }))?;
            ("make", meshes.create(&PostParams::default(), &mesh).await)
        }
    };
    match written {
        Ok(_) => Ok(Some(epoch)),
        Err(error) if status_code(&error) == Some(409) => Ok(None),
        Err(error) => Err(refused(act, &error)),
    }
}

/// Waits until every node that publishes keys lives in this epoch alone, or until the deadline. Gives those that do not.
async fn wait(client: &Client, epoch: Epoch, deadline: Instant) -> anyhow::Result<Vec<String>> {
    let mut told = usize::MAX;
    loop {
        let nodes = nodes(client).await?;
        let publishing = nodes
            .iter()
            .filter_map(|(name, says)| Some((name, says.as_ref()?)));
        let there = |says: &Announcement| says.settled == epoch && says.keys.len() == 1;
        let behind: Vec<String> = publishing
            .filter(|(_, says)| !there(says))
            .map(|(name, _)| name.clone())
            .collect();
        if behind.is_empty() || Instant::now() >= deadline {
            return Ok(behind);
        }
        if behind.len() != told {
            told = behind.len();
            eprintln!("{} to go: {}", count(told, "node"), first_few(&behind, NAMED));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Nodes, and what they publish.
pub(super) type Published = Vec<(String, Option<Announcement>)>;

/// All nodes.
pub(super) async fn nodes(client: &Client) -> anyhow::Result<Published> {
    let api: Api<k8s_openapi::api::core::v1::Node> = Api::all(client.clone());
    let list = api.list(&ListParams::default()).await;
    let list = list.map_err(|error| refused("list the nodes for", &error))?;
    let published = list.iter().map(|node| {
        let decoded = decode_node(node).value;
        (node.name_any(), decoded.and_then(|node| node.announcement?.ok()))
    });
    Ok(published.collect())
}

pub(super) fn refused(act: &str, error: &kube::Error) -> anyhow::Error {
    let hint = match status_code(error) {
        Some(403) => {
            ": it takes the permissions list on nodes, and get, patch and create on meshes.warren-mesh.io"
        }
        Some(409) => ": somebody else has just changed it; see warren keys list",
        _ => "",
    };
    anyhow::anyhow!("cannot {act} the Mesh {MESH_NAME}: {}{hint}", describe(error))
}
