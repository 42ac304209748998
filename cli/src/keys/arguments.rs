//! The arguments of the commands that look at all agents, and of those about one node.

use std::path::PathBuf;

use clap::Args;
use warren_model::NodeName;

use crate::arguments::{AgentArguments, OutputFormat};

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
