//! What there is in a lab, for people and for tests.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::capture::Counts;
use crate::options::ApiKind;
use crate::pod::PodKey;

/// A lab as it is now.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Its directory.
    pub dir: PathBuf,
    /// Its API.
    pub api: ApiKind,
    /// Where the host reaches that.
    pub server: String,
    /// Whether it runs in a user namespace, without root.
    pub rootless: bool,
    /// Its nodes, by number.
    pub nodes: Vec<NodeFacts>,
    /// Its pods, by name.
    pub pods: Vec<PodFacts>,
    /// What crossed the underlay.
    pub counts: Counts,
    /// The same, frame by frame.
    pub pcap: PathBuf,
}

/// A node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Which subnet it is in, from 1.
    pub subnet: u8,
    /// On the underlay, IPv4 first.
    pub addresses: Vec<IpNet>,
    /// Of its pods, IPv4 first.
    pub pod_cidrs: Vec<IpNet>,
    /// What its agent does, in words.
    pub agent: String,
    /// Whether its link is cut.
    pub cut: bool,
    /// Its agent's log.
    pub log: PathBuf,
    /// What it has for a disk: `state`, `cni/net.d`, `cni/bin`.
    pub disk: PathBuf,
}

/// A pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodFacts {
    /// Its name.
    #[serde(flatten)]
    pub key: PodKey,
    /// Its node.
    pub node: String,
    /// Its addresses, in the order of the CNI result.
    pub addresses: Vec<String>,
    /// What identifies it to CNI plugins.
    pub container_id: String,
    /// Its network namespace, as the node sees it.
    pub netns: PathBuf,
}
