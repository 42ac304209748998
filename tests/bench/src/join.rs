//! A node joins: how long after it has published its key every other node's pods reach it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use warren_lab::{Lab, LabOptions, Place, PodOptions};
use warren_model::announcement::ANNOTATION;

use crate::machine::Machine;
use crate::report::{Report, WARREN};
use crate::statistics::Samples;
use crate::wait::{disk, peers_when};

/// How many nodes there are, the joining one among them.
const NODES: u8 = 10;

/// The one that joins, again and again.
const JOINS: &str = "node10";

/// The node-local address of the one that joins: there before any pod of its.
const ITS_ADDRESS: &str = "10.244.10.1";

/// How often it joins a round.
const TIMES: u32 = 4;

/// Seconds.
const LIMIT: f64 = 1.0;

/// How long a join may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn bench(rounds: u32) -> anyhow::Result<Report> {
    let mut report = Report::new("join", Machine::look(&["iputils-ping", "nftables"]));
    let options = LabOptions {
        nodes: NODES,
        agents: false,
        ..LabOptions::default()
    };
    let lab = Lab::up(options).await?;
    let others: Vec<String> = (1..NODES).map(|n| format!("node{n}")).collect();
    try_join_all(others.iter().map(|node| lab.node_start(node))).await?;
    lab.node_start(JOINS).await?;
    try_join_all(
        others
            .iter()
            .map(|node| lab.pod_add(PodOptions::new(pod_of(node).as_str(), node))),
    )
    .await?;

    let mut seconds = Vec::new();
    for _ in 0..rounds * TIMES {
        leave(&lab, &others).await?;
        seconds.extend(join(&lab, &others).await?);
    }
    let samples = Samples::new(seconds).context("nobody has joined")?;
    let p99 = samples.percentile(0.99);
    let case = format!("{NODES} nodes, the last one joins");
    report.row(&case, WARREN, "annotation to first packet", "s", &samples);
    report.bar_under("annotation to first packet, p99", p99, "s", LIMIT);
    Ok(report)
}

/// The node's agent has ended, its disk is empty, no key of its is published, and nobody has a path to it.
async fn leave(lab: &Lab, others: &[String]) -> anyhow::Result<()> {
    lab.node_stop(JOINS).await?;
    let state = disk(lab, JOINS).await?.join("state");
    for entry in std::fs::read_dir(&state).with_context(|| format!("read {}", state.display()))? {
        let path = entry?.path();
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.with_context(|| format!("remove {}", path.display()))?;
    }
    let nothing = json!({"metadata": {"annotations": {ANNOTATION: Value::Null}}});
    Api::<Node>::all(lab.client())
        .patch(JOINS, &PatchParams::default(), &Patch::Merge(&nothing))
        .await
        .context("take back the annotation")?;
    peers_when(lab, others, "a path to all but the one that joins", |peers| {
        let as_wanted = |it: &Value| it["path"].is_string() == (it["node"] != JOINS);
        peers.len() == others.len() && peers.iter().all(as_wanted)
    })
    .await
}

/// Boots the node, which empties its kernel too, and its agent with it. Returns how many seconds after its annotation appeared each other node's pod got its first
/// answer from it.
async fn join(lab: &Lab, others: &[String]) -> anyhow::Result<Vec<f64>> {
    let published = tokio::spawn(published(lab.client()));
    let answers = try_join_all(others.iter().map(|node| first_answer(lab, node)));
    let (answers, started) = tokio::join!(answers, lab.node_reboot(JOINS));
    started?;
    let published = published.await.context("watch the annotation")??;
    Ok(answers?.into_iter().map(|answer| answer - published).collect())
}

/// When a watch, the same as the agents have, shows the annotation. Seconds since 1970.
async fn published(client: Client) -> anyhow::Result<f64> {
    let mut nodes = watcher(
        Api::<Node>::all(client),
        watcher::Config::default().fields(&format!("metadata.name={JOINS}")),
    )
    .applied_objects()
    .boxed();
    let seen = async {
        while let Some(node) = nodes.try_next().await? {
            if node.annotations().contains_key(ANNOTATION) {
                return anyhow::Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64());
            }
        }
        bail!("the watch has ended")
    };
    timeout(PATIENCE, seen)
        .await
        .with_context(|| format!("no annotation after {PATIENCE:?}"))?
}

/// When a pod of that node gets its first answer, sending every 20 ms. Seconds since 1970.
async fn first_answer(lab: &Lab, node: &str) -> anyhow::Result<f64> {
    // ping -D tells times; grep ends with the first answer, and ping with the next one.
    let ping = format!(
        "timeout {} ping -n -D -i 0.02 {ITS_ADDRESS} | grep --line-buffered -m 1 'bytes from'",
        PATIENCE.as_secs()
    );
    let place = Place::Pod(pod_of(node).as_str().into());
    let output = lab
        .run_for(place, &["sh", "-c", &ping], PATIENCE + Duration::from_secs(5))
        .await?;
    time_of(&output.stdout).with_context(|| format!("no answer to the pod on {node}: {output:?}"))
}

/// `[1700000000.123456] 64 bytes from ...`
fn time_of(line: &str) -> Option<f64> {
    let (time, _) = line.strip_prefix('[')?.split_once(']')?;
    time.parse().ok()
}

fn pod_of(node: &str) -> String {
    format!("on-{node}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_answer_is_what_ping_says() {
        let line = "[1700000000.500000] 64 bytes from 10.244.10.1: icmp_seq=9 ttl=63 time=0.1 ms\n";
        assert_eq!(time_of(line), Some(1_700_000_000.5));
        assert_eq!(
            time_of("From 10.244.1.1 icmp_seq=1 Destination Host Unreachable"),
            None
        );
    }
}
