//! The command line of `warren-wg`.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::Parser;

/// A WireGuard interface in userspace, configured with wg(8).
///
/// Makes the TUN interface and goes to the background once it answers on its configuration socket. It ends on SIGTERM
/// or SIGINT, when the interface is deleted, or when the socket's file is removed. It takes the arguments, variables
/// and descriptors that wireguard-go takes, and has its exit codes: 0 when it ended as it should or is ready in the
/// background, else 1.
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
    #[arg(long, env = "WG_TUN_FD", value_name = "FD", value_parser = descriptor())]
    pub tun_fd: Option<RawFd>,
    /// Use the Unix socket that listens as this descriptor, at its place in the directory, instead of making one
    #[arg(long, env = "WG_UAPI_FD", value_name = "FD", value_parser = descriptor())]
    pub uapi_fd: Option<RawFd>,
    /// Name of the interface
    pub interface: String,
}

/// The numbers of descriptors.
fn descriptor() -> clap::builder::RangedI64ValueParser<RawFd> {
    clap::value_parser!(RawFd).range(0..)
}

/// The command line, for help and the reference documentation.
pub fn command() -> clap::Command {
    <Args as clap::CommandFactory>::command()
}
