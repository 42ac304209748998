//! The agent's flags. Each is an environment variable too, and nothing else of the environment is read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use warren_model::NodeName;
use warren_telemetry::LogFormat;

/// The port of `/metrics`, `/healthz`, `/readyz`, `/config`, `/status` and `/plan`.
pub const ADMIN_PORT: u16 = 9586;

/// The Warren node agent: gives pods addresses and routes, and carries what they send each other through WireGuard.
#[derive(Debug, Parser)]
#[command(name = "warren-agent", version, about, max_term_width = 110)]
pub struct Cli {
    /// What to do instead of running the agent.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run the agent.
    #[command(flatten)]
    pub config: Config,
}

/// What the program does besides being the agent.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copy the CNI plugin into the runtime's plugin folder, and end.
    InstallCni {
        /// Folder of the CNI plugins.
        #[arg(
            long,
            env = "WARREN_CNI_BIN_DIR",
            default_value = "/opt/cni/bin",
            value_name = "DIR"
        )]
        cni_bin_dir: PathBuf,
    },
}

/// How the agent runs. It is shown, as it stands, by `/config`: it holds paths to secrets, never a secret.
#[derive(Debug, Clone, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Name of the Node object of this machine. Default: the host name, in lower case.
    #[arg(long, env = "WARREN_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<NodeName>,
    /// Kubeconfig to read the cluster with. Default: the service account of the pod, else ~/.kube/config.
    #[arg(long, env = "WARREN_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Kubeconfig to publish this node's key with: the kubelet's, which may write no other node. Default: as for reading.
    #[arg(long, env = "WARREN_PUBLISH_KUBECONFIG", value_name = "FILE")]
    pub publish_kubeconfig: Option<PathBuf>,
    /// File with the token to use the Lease warren-steward with: of an account that may do nothing else. Default: as for reading.
    #[arg(long, env = "WARREN_STEWARD_TOKEN", value_name = "FILE")]
    pub steward_token: Option<PathBuf>,
    /// Namespace of the Lease warren-steward, by which one agent is elected to report for the mesh: the agents' own.
    #[arg(
        long,
        env = "WARREN_NAMESPACE",
        default_value = "warren-system",
        value_name = "NAME"
    )]
    pub namespace: String,
    /// Folder of what must survive a reboot: keys and pod addresses.
    #[arg(
        long,
        env = "WARREN_STATE_DIR",
        default_value = "/var/lib/warren",
        value_name = "DIR"
    )]
    pub state_dir: PathBuf,
    /// Where this node's private keys are kept.
    #[arg(long, env = "WARREN_KEY_STORE", value_enum, default_value_t = KeyStoreKind::Disk)]
    pub key_store: KeyStoreKind,
    /// Folder of the sockets.
    #[arg(
        long,
        env = "WARREN_RUN_DIR",
        default_value = "/run/warren",
        value_name = "DIR"
    )]
    pub run_dir: PathBuf,
    /// Folder the container runtime reads its CNI configuration from.
    #[arg(
        long,
        env = "WARREN_CNI_CONF_DIR",
        default_value = "/etc/cni/net.d",
        value_name = "DIR"
    )]
    pub cni_conf_dir: PathBuf,
    /// Folder of the CNI plugins.
    #[arg(
        long,
        env = "WARREN_CNI_BIN_DIR",
        default_value = "/opt/cni/bin",
        value_name = "DIR"
    )]
    pub cni_bin_dir: PathBuf,
    /// Chain the CNI plugin `bandwidth` behind Warren's, for the annotations kubernetes.io/ingress-bandwidth and
    /// kubernetes.io/egress-bandwidth of pods. It must be in the folder of the CNI plugins, and costs every pod one more call.
    #[arg(long, env = "WARREN_CNI_BANDWIDTH")]
    pub cni_bandwidth: bool,
    /// Where metrics, health and status are served. Default: every address, port 9586.
    #[arg(long, env = "WARREN_ADMIN_ADDR", value_name = "ADDRESS:PORT")]
    pub admin_addr: Option<SocketAddr>,
    /// Which kind of WireGuard device to use.
    #[arg(long, env = "WARREN_WIREGUARD", value_enum, default_value_t = WireguardKind::Auto)]
    pub wireguard: WireguardKind,
    /// How long a rotation of keys waits for a node whose Node is not ready, in seconds.
    #[arg(
        long,
        env = "WARREN_ROTATION_GRACE",
        default_value_t = 60,
        value_name = "SECONDS"
    )]
    pub rotation_grace: u64,
    /// How long a rotation of keys waits for any node, in seconds. Past that it ends without it, and what that node sends by
    /// its old key is lost until it follows.
    #[arg(
        long,
        env = "WARREN_ROTATION_DEADLINE",
        default_value_t = 900,
        value_name = "SECONDS"
    )]
    pub rotation_deadline: u64,
    /// What to log: a level, or levels by module, such as "info,warren_agent=debug".
    #[arg(
        long,
        env = "WARREN_LOG",
        default_value = "info,kube_client=off",
        value_name = "FILTER"
    )]
    pub log: String,
    /// How to write log lines: text or json.
    #[arg(
        long,
        env = "WARREN_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    #[serde(serialize_with = "as_text")]
    pub log_format: LogFormat,
}

/// Where this node's private keys are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyStoreKind {
    /// In the state folder, so that they survive a restart.
    Disk,
    /// In memory alone, of the agent and of the devices, where an agent that is restarted finds them again: a reboot makes new keys.
    Memory,
}

/// Which kind of WireGuard device to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WireguardKind {
    /// The kernel's where it has one, else the userspace device.
    Auto,
    /// The kernel's.
    Kernel,
    /// The userspace device, warren-wg.
    Userspace,
    /// Neither: peers reach the node by spec.fallback only. Devices that stand stay until no peer needs them.
    None,
}

impl Config {
    /// The folder of private keys.
    pub fn keys_dir(&self) -> PathBuf {
        self.state_dir.join("keys")
    }

    /// The socket that `warren-cni` asks.
    pub fn cni_socket(&self) -> PathBuf {
        self.run_dir.join("cni.sock")
    }

    /// The socket that `warren` asks when it is run on the node.
    pub fn admin_socket(&self) -> PathBuf {
        self.run_dir.join("admin.sock")
    }

    /// Where metrics, health and status are served.
    pub fn admin_addr(&self) -> SocketAddr {
        let has_ipv6 = || Path::new("/proc/net/if_inet6").exists();
        self.admin_addr.unwrap_or_else(|| {
            let every: IpAddr = if has_ipv6() {
                Ipv6Addr::UNSPECIFIED.into()
            } else {
                Ipv4Addr::UNSPECIFIED.into()
            };
            SocketAddr::new(every, ADMIN_PORT)
        })
    }
}

fn as_text<S: serde::Serializer>(format: &LogFormat, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(format)
}
