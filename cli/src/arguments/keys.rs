//! The arguments of `warren keys`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use warren_model::NodeName;

use super::{AgentArguments, OutputFormat};

/// Of `warren keys`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Show every node's keys, and what a rotation waits for
    ///
    /// The JSON holds "nodes", one each: "node", "keys" ("epoch", "lane", "publicKey"), "settled", "waitsFor", and "agentError"
    /// where its agent did not answer.
    List(KeysListArguments),
    /// Rotate the keys of all nodes, or of some, without losing a packet
    ///
    /// Raises spec.keys.epoch of the Mesh by one; it takes the permissions list on nodes, and get, patch and create on
    /// meshes.warren-mesh.io. A rotation that is asked for while another is under way waits for that. Exit status 1: with --wait,
    /// not every node has followed in time.
    ///
    /// The JSON holds "epoch", "finished", "seconds" and "behind", the nodes that have not followed.
    Rotate(KeysRotateArguments),
    /// Show where the rotation of keys stands, and what waits for an operator
    ///
    /// Exit status 1: a rotation is under way, a key that changed outside one waits to be accepted, or an agent does not answer.
    ///
    /// The JSON holds "epoch", "settled" (the newest that all have settled in), "finished", "waiting" ("node", "for"), "changes"
    /// ("node", "epoch", "before", "now", "inForce", "seenBy") and "unanswered" ("node", "error").
    Status(KeysAgentsArguments),
    /// Compare every agent's view of every key with what the API shows
    ///
    /// An agent tells what its devices hold, not what it has read. What differs is looked at again, three times within two seconds:
    /// it may have changed just now. Exit status 1: something differs, or an agent does not answer.
    ///
    /// The JSON holds "agents" and "compared", how many of them and of their views; "differences", one each: "agent", "node", "lane",
    /// "published" and "held"; and "unanswered" ("node", "error").
    Verify(KeysAgentsArguments),
    /// Take a key that a node changed outside a rotation
    ///
    /// Adds the keys that the node publishes now to spec.keys.accepted of the Mesh, and takes out those that no node has any
    /// more. It takes the permissions list on nodes, and get, patch and create on meshes.warren-mesh.io.
    ///
    /// The JSON holds "node" and "keys".
    Accept(KeysNodeArguments),
    /// Distrust a node's key everywhere at once, for one that was stolen
    ///
    /// Adds the keys that the node publishes now to spec.keys.revoked of the Mesh. Every agent stops using them as soon as it
    /// sees that, and the node's own makes new ones. Connections of that node's pods break off until its peers have taken those up.
    /// It takes the permissions list on nodes, and get, patch and create on meshes.warren-mesh.io.
    ///
    /// The JSON holds "node" and "keys".
    Revoke(KeysNodeArguments),
}

/// Of `warren keys list`.
#[derive(Debug, Args)]
pub(crate) struct KeysListArguments {
    /// Which agents to ask.
    #[command(flatten)]
    pub(crate) agents: AgentArguments,
}

/// Of `warren keys rotate`.
#[derive(Debug, Args)]
pub(crate) struct KeysRotateArguments {
    /// Make a new key for this node only; may be given several times [default: all nodes]
    #[arg(long = "node", value_name = "NAME")]
    pub(crate) nodes: Vec<NodeName>,
    /// Wait until every node has followed
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1200, requires = "wait")]
    pub(crate) timeout: u64,
    /// Kubeconfig to reach the API server with [default: the pod's service account, else KUBECONFIG or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// How to print
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Table)]
    pub(crate) output: OutputFormat,
}

/// Of `warren keys status` and `warren keys verify`.
#[derive(Debug, Args)]
pub(crate) struct KeysAgentsArguments {
    /// Kubeconfig to reach the API server with [default: the pod's service account, else KUBECONFIG or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The port agents serve their status at
    #[arg(long, value_name = "PORT", default_value_t = 9586)]
    pub(crate) agent_port: u16,
    /// How to print
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Table)]
    pub(crate) output: OutputFormat,
}

impl KeysAgentsArguments {
    /// All agents, through the API server.
    pub(crate) fn agents(&self) -> AgentArguments {
        AgentArguments {
            nodes: Vec::new(),
            local: false,
            kubeconfig: self.kubeconfig.clone(),
            run_dir: PathBuf::new(),
            agent_port: self.agent_port,
            output: self.output,
        }
    }
}

/// Of `warren keys accept` and `warren keys revoke`.
#[derive(Debug, Args)]
pub(crate) struct KeysNodeArguments {
    /// The node
    #[arg(value_name = "NODE")]
    pub(crate) node: NodeName,
    /// Kubeconfig to reach the API server with [default: the pod's service account, else KUBECONFIG or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// How to print
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Table)]
    pub(crate) output: OutputFormat,
}
