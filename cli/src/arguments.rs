//! The command line: what there is to be said, and no more. Commands take it from here.
//!
//! | module | what it is about |
//! |---|---|
//! | `keys`, `policy` | the commands of these names |
//! | `flow` | pods, peers and ports |

mod flow;
mod keys;
mod policy;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use warren_model::NodeName;

pub(crate) use self::keys::{
    KeysAgentsArguments, KeysCommand, KeysListArguments, KeysNodeArguments, KeysRotateArguments,
};
pub(crate) use self::policy::{
    PolicyArguments, PolicyCommand, PolicyExplainArguments, PolicyListArguments, PolicyShowArguments,
};

/// Look at a Warren mesh, and remove it from a node.
///
/// Exit status: 0, it worked; 1, the answer is no (status --check: the mesh is not whole; keys status and verify: see there; policy
/// explain: the connection is denied; doctor: a check failed; uninstall-node: something is left); 2, it could not be done: wrong
/// arguments, or the API server cannot be asked.
#[derive(Debug, Parser)]
#[command(name = "warren", version, max_term_width = 110)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the mesh: every node, and the path between every two of them
    ///
    /// Agents are asked through the API server, which takes the permissions list on nodes and get on nodes/proxy. An
    /// agent that does not answer is a row that says why, not a failure of the command.
    ///
    /// The JSON holds "nodes", one each: "node", "announcement" (what the node publishes) or "announcementError",
    /// "agent" (what its agent answers on /status) or "agentError"; and "summary": "nodes", "ready", "whole", and
    /// "paths" by kind: "wireguard", "vxlan", "ipip", "direct", "none" (no path) and "unknown" (the agent did not
    /// answer); "steward", who reports for the mesh; and "inTheClear", what the configuration has cross in the clear:
    /// "path", "reason", and "pairs" of nodes, "from" and "to".
    Status(StatusArguments),
    /// Show what each agent would change on its node now, and why
    ///
    /// The JSON holds "nodes", one each: "node", and "plan" (what its agent answers on /plan) or "agentError"; and
    /// "summary": "nodes", "answered", "steps".
    Plan(PlanArguments),
    /// Show the mesh's keys, check, rotate and revoke them
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Explain network policy: what there is, what a connection meets, what a pod's policies come to
    ///
    /// Reads the API server alone, with the permission list on pods, namespaces, nodes, networkpolicies.networking.k8s.io and the
    /// policy kinds of warren-mesh.io, and get on meshes.warren-mesh.io. It says what policies mean, by the same rules that agents
    /// follow; no agent is asked whether it has followed them yet.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Check this node, and say what is wrong and what to do about it
    ///
    /// Run it as root on the node, or in its agent's container. It looks at the kernel, the
    /// agent, the paths to all peers, the API server, CNI files, keys and what is left of an agent that is gone. It
    /// changes nothing: what has to be tried is tried in a network namespace of its own, or at the API server as a dry
    /// run. Each peer is sent a few ICMP echo requests through its path, some as large as packets of pods may be.
    ///
    /// The JSON holds "node", "findings", one each: "check" (a name that stays), "subject" (the peer, file or interface,
    /// where there are several), "result" ("ok", "warn", "fail", "skipped"), "found" and "remedy"; and "summary", how
    /// many of each result. Warnings do not change the exit status.
    Doctor(DoctorArguments),
    /// Remove everything Warren made on this node
    ///
    /// Run it as root on the node, after the node was drained and its agent stopped; pods that are still there lose
    /// their network. Removed are the CNI configuration and plugin, WireGuard devices, interfaces, routes, the nft
    /// table, keys and pod addresses; sysctls get their old values back. The guard goes last, so that nothing leaves in
    /// the clear meanwhile. Doing it again is harmless. On a terminal it asks first.
    UninstallNode(UninstallArguments),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the version
    Version,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people.
    Table,
    /// For programs; fields are added, never changed or removed.
    Json,
}

/// Which agents to ask.
#[derive(Debug, Args)]
pub(crate) struct AgentArguments {
    /// Ask only this node's agent; may be given several times
    #[arg(long = "node", value_name = "NAME")]
    pub(crate) nodes: Vec<NodeName>,
    /// Ask only the agent of the machine this runs on, through its Unix socket, without the API server
    #[arg(long, conflicts_with_all = ["nodes", "kubeconfig"])]
    pub(crate) local: bool,
    /// Kubeconfig to reach the API server with [default: the pod's service account, else KUBECONFIG or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The agent's folder of sockets, for --local
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/run/warren",
        env = "WARREN_RUN_DIR"
    )]
    pub(crate) run_dir: PathBuf,
    /// The port agents serve their status at
    #[arg(long, value_name = "PORT", default_value_t = 9586)]
    pub(crate) agent_port: u16,
    /// How to print
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Table)]
    pub(crate) output: OutputFormat,
}

/// Of `warren status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Which agents to ask.
    #[command(flatten)]
    pub(crate) agents: AgentArguments,
    /// Exit with 1 unless the mesh is whole: every agent answers and is ready, and every peer has a path
    #[arg(long)]
    pub(crate) check: bool,
    /// List every path also when there are more than 90; otherwise only those with trouble are listed then
    #[arg(long, visible_alias = "wide")]
    pub(crate) peers: bool,
}

/// Of `warren plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    /// Which agents to ask.
    #[command(flatten)]
    pub(crate) agents: AgentArguments,
}

/// Of `warren doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// The agent's folder of sockets
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/run/warren",
        env = "WARREN_RUN_DIR"
    )]
    pub(crate) run_dir: PathBuf,
    /// The agent's folder of keys and pod addresses [default: what the agent says, else /var/lib/warren]
    #[arg(long, value_name = "DIR", env = "WARREN_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// The folder the container runtime reads its CNI configuration from [default: what the agent says, else
    /// /etc/cni/net.d]
    #[arg(long, value_name = "DIR", env = "WARREN_CNI_CONF_DIR")]
    pub(crate) cni_conf_dir: Option<PathBuf>,
    /// The folder of the CNI plugins [default: what the agent says, else /opt/cni/bin]
    #[arg(long, value_name = "DIR", env = "WARREN_CNI_BIN_DIR")]
    pub(crate) cni_bin_dir: Option<PathBuf>,
    /// The folder of userspace WireGuard devices' sockets
    #[arg(long, value_name = "DIR", default_value = "/var/run/wireguard")]
    pub(crate) wireguard_dir: PathBuf,
    /// Name of this machine's Node [default: what the agent says, else the host name, in lower case]
    #[arg(long, value_name = "NAME", env = "WARREN_NODE_NAME")]
    pub(crate) node_name: Option<NodeName>,
    /// Kubeconfig the agent reads the cluster with [default: what the agent says, else the pod's service account, else
    /// ~/.kube/config]
    #[arg(long, value_name = "FILE", env = "WARREN_KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Kubeconfig the agent publishes the node's key with [default: what the agent says, else as for reading]
    #[arg(long, value_name = "FILE", env = "WARREN_PUBLISH_KUBECONFIG")]
    pub(crate) publish_kubeconfig: Option<PathBuf>,
    /// How to print
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Table)]
    pub(crate) output: OutputFormat,
}

/// Of `warren uninstall-node`.
#[derive(Debug, Args)]
pub(crate) struct UninstallArguments {
    /// The agent's folder of keys and pod addresses
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/warren",
        env = "WARREN_STATE_DIR"
    )]
    pub(crate) state_dir: PathBuf,
    /// The agent's folder of sockets
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/run/warren",
        env = "WARREN_RUN_DIR"
    )]
    pub(crate) run_dir: PathBuf,
    /// The folder the container runtime reads its CNI configuration from
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/etc/cni/net.d",
        env = "WARREN_CNI_CONF_DIR"
    )]
    pub(crate) cni_conf_dir: PathBuf,
    /// The folder of the CNI plugins
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/opt/cni/bin",
        env = "WARREN_CNI_BIN_DIR"
    )]
    pub(crate) cni_bin_dir: PathBuf,
    /// The folder of userspace WireGuard devices' sockets
    #[arg(long, value_name = "DIR", default_value = "/var/run/wireguard")]
    pub(crate) wireguard_dir: PathBuf,
    /// Leave the keys and pod addresses where they are
    #[arg(long)]
    pub(crate) keep_state: bool,
    /// Do not ask on the terminal
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Also remove what the node publishes: the annotation of its Node
    #[arg(long)]
    pub(crate) withdraw: bool,
    /// Name of this machine's Node, for --withdraw [default: the host name, in lower case]
    #[arg(long, value_name = "NAME", env = "WARREN_NODE_NAME")]
    pub(crate) node_name: Option<NodeName>,
    /// Kubeconfig that may write the Node, for --withdraw
    #[arg(long, value_name = "FILE", requires = "withdraw")]
    pub(crate) kubeconfig: Option<PathBuf>,
}
