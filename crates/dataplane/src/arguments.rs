//! The command line of `warren-wg`.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::Parser;

/// A WireGuard interface in userspace, configured with wg(8).
///
/// Makes the TUN interface and goes to the background once it answers on its configuration socket. It ends on SIGTERM
/// or SIGINT, when the interface is deleted, or when the socket's file is removed.
#[derive(Parser)]
#[command(name = "warren-wg", version)]
pub struct Args {
    /// Stay in the foreground (also WG_PROCESS_FOREGROUND=1)
    #[arg(short, long)]
    pub foreground: bool,
    /// Log filter, such as "info" or "warren_dataplane=trace"; takes precedence over --log-level
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// Log level as wireguard-go has it: verbose, debug, info, error or silent. In the background there is a log only
    /// when this, --log or --log-file is given
    #[arg(long, env = "LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Append the log to this file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// Directory of the configuration socket
    #[arg(long, value_name = "DIR", default_value = "/var/run/wireguard")]
    pub run_dir: PathBuf,
    /// Use the TUN interface that is open as this descriptor instead of making one
    #[arg(long, env = "WG_TUN_FD", value_name = "FD")]
    pub tun_fd: Option<RawFd>,
    /// Name of the interface
    pub interface: String,
}

/// The command line, for help and the reference documentation.
pub fn command() -> clap::Command {
    <Args as clap::CommandFactory>::command()
}
