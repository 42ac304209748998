//! What others write wrongly is refused by name, with a code and a remedy, and harms nobody else.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod cni;
mod mesh;
mod nodes;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::PATIENCE;
use warren_lab::{Lab, LabOptions, Place};

pub(crate) fn two_nodes() -> LabOptions {
    LabOptions {
        nodes: 2,
        ..LabOptions::default()
    }
}

pub(crate) fn agents(status: &Value) -> impl Iterator<Item = &Value> {
    let nodes = status["nodes"].as_array().unwrap().iter();
    nodes
        .filter(|node| node["node"].as_str().unwrap().starts_with("node"))
        .map(|node| &node["agent"])
}

/// Waits until a node's metrics count just these refusals.
pub(crate) async fn refusals_counted(lab: &Lab, node: &str, wanted: &BTreeMap<String, u32>) {
    let ask = "exec 3<>/dev/tcp/127.0.0.1/9586; printf 'GET /metrics HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3";
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = lab
            .run(Place::Node(node.to_owned()), &["bash", "-c", ask])
            .await
            .unwrap();
        let series = output.stdout.lines().filter_map(|line| {
            let (code, count) = line.strip_prefix("warren_refusals{code=\"")?.split_once("\"} ")?;
            Some((code.to_owned(), count.trim().parse().ok()?))
        });
        let counted: BTreeMap<String, u32> = series.collect();
        if counted == *wanted {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{node} counts {counted:?}, not {wanted:?}: {output:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
