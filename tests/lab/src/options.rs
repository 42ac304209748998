//! What a lab is built from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::layout::{Families, MAX_NODES};

/// Which Kubernetes API a lab has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ApiKind {
    /// In the keeper's process: instant, and can be told to misbehave.
    #[default]
    Embedded,
    /// etcd and kube-apiserver, found by `hack/real-api.sh`.
    Real,
}

/// Options of [`Lab::up`](crate::Lab::up). The default is three nodes in one subnet on the embedded API.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabOptions {
    /// How many nodes, 1 to 240.
    pub nodes: u8,
    /// How many subnets the nodes are dealt to, in turn.
    pub subnets: u8,
    /// The API.
    pub api: ApiKind,
    /// Address families of nodes and pods.
    pub families: Families,
    /// Whether each node runs an agent from the start. Without, they are started one by one.
    pub agents: bool,
    /// `--wireguard` of the agents; several, with commas between them, are dealt to the nodes in turn.
    pub wireguard: String,
    /// `--log` of the agents.
    pub log: String,
    /// What agents, and the devices they start, find in their environment besides.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// A program and its arguments that agents are started by: it is given an agent's command line, and executes that in the end. It
    /// finds in its environment what programs that people run on the node find there.
    #[serde(default)]
    pub launcher: Vec<String>,
    /// The folder with `etcd` and `kube-apiserver`; asked of `hack/real-api.sh` when it is needed and absent.
    pub assets: Option<PathBuf>,
    /// The lab's directory; `None`: a fresh temporary one, removed with the lab.
    #[serde(skip)]
    pub dir: Option<PathBuf>,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            nodes: 3,
            subnets: 1,
            api: ApiKind::Embedded,
            families: Families::Dual,
            agents: true,
            wireguard: "auto".to_owned(),
            log: "info".to_owned(),
            environment: BTreeMap::new(),
            launcher: Vec::new(),
            assets: None,
            dir: None,
        }
    }
}

impl LabOptions {
    /// Whether a lab can be built from these; the error says which one cannot be.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            (1..=MAX_NODES).contains(&self.nodes),
            "a lab has 1 to {MAX_NODES} nodes, not {}",
            self.nodes
        );
        anyhow::ensure!(
            (1..=self.nodes).contains(&self.subnets),
            "{} subnets for {} nodes: each subnet needs a node, and there is at least one",
            self.subnets,
            self.nodes
        );
        Ok(())
    }
}
