//! `warren-wg`: a WireGuard interface in userspace.

#![expect(unsafe_code, reason = "taking over an inherited descriptor has no safe form")]

use std::fs::File;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;
use warren_dataplane::arguments::Args;
use warren_dataplane::device::Device;
use warren_dataplane::process::{self, Side};
use warren_dataplane::tun::Tun;
use warren_dataplane::uapi::ConfigSocket;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("warren-wg: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let foreground =
        args.foreground || std::env::var_os("WG_PROCESS_FOREGROUND").is_some_and(|value| value == "1");
    init_log(args)?;
    // The daemon leaves the directory that a relative path would be relative to.
    let run_dir = std::path::absolute(&args.run_dir).context("--run-dir")?;
    process::guard()?;
    let tun = match args.tun_fd {
        // SAFETY: the descriptor was handed to this process for this purpose, and nothing else here uses it.
        Some(fd) => unsafe { Tun::from_inherited(fd) }?,
        None => {
            // Asked first: an interface must not come and go because its name's socket is taken.
            ConfigSocket::check_free(&run_dir, &args.interface)?;
            Tun::create(&args.interface)?
        }
    };
    let socket = ConfigSocket::bind(&run_dir, tun.name())?;
    let device = Device::new(tun).context("cannot open UDP sockets for the device")?;
    if foreground {
        return Ok(process::run(device, socket, None)?);
    }
    let keep_stderr = args.log_file.is_none() && (args.log.is_some() || args.log_level.is_some());
    match process::daemonize(keep_stderr) {
        Ok(Side::Daemon(readiness)) => Ok(process::run(device, socket, Some(readiness))?),
        starter => {
            // The socket's file belongs to the daemon now, which removes it also when it fails.
            std::mem::forget(socket);
            Ok(starter.map(drop)?)
        }
    }
}

fn init_log(args: &Args) -> anyhow::Result<()> {
    let filter = match (&args.log, args.log_level.as_deref()) {
        (Some(filter), _) => filter.as_str(),
        (None, Some("verbose" | "debug")) => "warren_dataplane=debug,warren_wg=debug",
        (None, Some("error")) => "error,boringtun=off",
        (None, Some("silent")) => "off",
        // boringtun reports each peer that stays away as an error.
        (None, _) => "info,boringtun=off",
    };
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter:?} is no log filter"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    match &args.log_file {
        Some(path) => {
            let file = File::options().create(true).append(true).open(path);
            let file = file.with_context(|| format!("cannot write the log to {}", path.display()))?;
            log.with_writer(Mutex::new(file)).init();
        }
        None => log.with_writer(std::io::stderr).init(),
    }
    Ok(())
}
