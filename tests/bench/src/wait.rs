//! Waiting for a cluster to get where a measurement can begin.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;
use warren_lab::{Lab, Place};

/// How long a cluster may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until the agents of all these nodes have the peers that are wanted, as `warren status --local` tells them.
pub(crate) async fn peers_when(
    lab: &Lab,
    nodes: &[impl AsRef<str>],
    what: &str,
    wanted: impl Fn(&[Value]) -> bool,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for node in nodes {
        loop {
            let peers = peers(lab, node.as_ref()).await?;
            if wanted(&peers) {
                break;
            }
            if Instant::now() > deadline {
                bail!(
                    "{} has not got {what} in {PATIENCE:?}, but {}",
                    node.as_ref(),
                    Value::Array(peers)
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

/// The peers that the agent of a node tells of; none while it does not answer.
async fn peers(lab: &Lab, node: &str) -> anyhow::Result<Vec<Value>> {
    let place = Place::Node(node.to_owned());
    let output = lab
        .run(place, &["warren", "status", "--local", "--output", "json"])
        .await?;
    let status: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
    let peers = status["nodes"][0]["agent"]["peers"].as_array();
    Ok(peers.cloned().unwrap_or_default())
}

/// The directory that a node has for a disk.
pub(crate) async fn disk(lab: &Lab, node: &str) -> anyhow::Result<std::path::PathBuf> {
    let facts = lab.facts().await?;
    let found = facts.nodes.into_iter().find(|it| it.name == node);
    found.map(|it| it.disk).with_context(|| format!("no {node}"))
}
