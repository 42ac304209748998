//! The memory that an agent and its devices take with many peers.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use warren_lab::{Lab, LabOptions};
use warren_model::Node;
use warren_model::announcement::ANNOTATION;

use crate::cluster::node;
use crate::probe::Usage;
use crate::wait::peers_when;

/// The one node of the lab that has an agent.
const NODE: &str = "node1";

/// Resident memory in MiB, one entry a measurement.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Of the agent.
    pub(crate) agent: Vec<f64>,
    /// Of both devices together.
    pub(crate) devices: Vec<f64>,
}

impl Memory {
    pub(crate) fn add(&mut self, usage: Usage) {
        let mib = |kib: u64| f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0;
        self.agent.push(mib(usage.agent.resident_kib));
        self.devices
            .push(mib(usage.devices.iter().map(|it| it.resident_kib).sum()));
    }
}

/// An agent in a cluster of that many other nodes, once it has a path to each.
pub(crate) async fn measure(others: u16) -> anyhow::Result<Usage> {
    let options = LabOptions {
        nodes: 1,
        agents: false,
        ..LabOptions::default()
    };
    let lab = Lab::up(options).await?;
    let api: Api<NodeObject> = Api::all(lab.client());
    for number in 1..=others {
        create(&api, &node(number)?).await?;
    }
    lab.node_start(NODE).await?;
    peers_when(&lab, &[NODE], "a path to every peer", |peers| {
        peers.len() == usize::from(others) && peers.iter().all(|it| it["path"] == "wireguard")
    })
    .await?;
    let usage = Usage::of(&lab, NODE).await?;
    ensure!(usage.devices.len() == 2, "not a device for each lane: {usage:?}");
    Ok(usage)
}

async fn create(api: &Api<NodeObject>, node: &Node) -> anyhow::Result<()> {
    let name = node.name.as_str();
    let announcement = node.announcement.as_ref().and_then(|it| it.as_ref().ok());
    let announcement = announcement.context("a node without announcement")?;
    let cidrs: Vec<String> = node.pod_cidrs.iter().map(|it| it.net().to_string()).collect();
    let object = serde_json::from_value(json!({
        "metadata": {"name": name, "annotations": {ANNOTATION: announcement.to_json()}},
        "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
    }))?;
    let failed = || format!("create Node {name}");
    api.create(&PostParams::default(), &object)
        .await
        .with_context(failed)?;
    let addresses: Vec<_> = node
        .internal_ips
        .iter()
        .map(|it| json!({"type": "InternalIP", "address": it}))
        .collect();
    let status = json!({"status": {
        "addresses": addresses,
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .with_context(failed)?;
    Ok(())
}
