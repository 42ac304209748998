//! Where things are on this node: what the flags say, else what the agent says, else the agent's own defaults.

use std::path::PathBuf;

use anyhow::Context;
use serde::Deserialize;
use warren_model::NodeName;

use crate::arguments::DoctorArguments;
use crate::survey::host_name;

/// What the agent answers on `/config`, as far as it matters here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AgentConfig {
    node_name: Option<NodeName>,
    kubeconfig: Option<PathBuf>,
    publish_kubeconfig: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    cni_conf_dir: Option<PathBuf>,
    cni_bin_dir: Option<PathBuf>,
    key_store: Option<String>,
}

/// Where things are.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// This machine's Node.
    pub(super) node: NodeName,
    /// Sockets.
    pub(super) run_dir: PathBuf,
    /// Keys and pod addresses.
    pub(super) state_dir: PathBuf,
    /// CNI configuration.
    pub(super) cni_conf_dir: PathBuf,
    /// CNI plugins.
    pub(super) cni_bin_dir: PathBuf,
    /// Sockets of userspace devices.
    pub(super) wireguard_dir: PathBuf,
    /// For reading; `None`: whatever there is by default.
    pub(super) kubeconfig: Option<PathBuf>,
    /// For publishing.
    pub(super) publish_kubeconfig: Option<PathBuf>,
    /// Whether the agent keeps its keys in memory alone.
    pub(super) keys_in_memory: bool,
}

impl Settings {
    /// Chooses. Fails only when the machine has no usable name.
    pub(super) fn choose(arguments: DoctorArguments, agent: Option<&AgentConfig>) -> anyhow::Result<Self> {
        let agent = agent.cloned().unwrap_or_default();
        let node = match arguments.node_name.or(agent.node_name) {
            Some(name) => name,
            None => host_name()?
                .parse()
                .context("the host name cannot be a Node's: pass --node-name")?,
        };
        let dir = |flag: Option<PathBuf>, agent: Option<PathBuf>, default: &str| {
            flag.or(agent).unwrap_or_else(|| PathBuf::from(default))
        };
        let kubeconfig = arguments.kubeconfig.or(agent.kubeconfig);
        Ok(Self {
            node,
            run_dir: arguments.run_dir,
            state_dir: dir(arguments.state_dir, agent.state_dir, "/var/lib/warren"),
            cni_conf_dir: dir(arguments.cni_conf_dir, agent.cni_conf_dir, "/etc/cni/net.d"),
            cni_bin_dir: dir(arguments.cni_bin_dir, agent.cni_bin_dir, "/opt/cni/bin"),
            wireguard_dir: arguments.wireguard_dir,
            publish_kubeconfig: arguments
                .publish_kubeconfig
                .or(agent.publish_kubeconfig)
                .or_else(|| kubeconfig.clone()),
            kubeconfig,
            keys_in_memory: agent.key_store.as_deref() == Some("memory"),
        })
    }
}
