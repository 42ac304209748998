//! `warren-wg`: a WireGuard interface in userspace.

use std::fs::File;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Context;
use clap::Parser;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use tracing_subscriber::EnvFilter;
use warren_dataplane::arguments::Args;
use warren_dataplane::device::Device;
use warren_dataplane::process::{self, Side};
use warren_dataplane::tun::Tun;
use warren_dataplane::uapi::ConfigSocket;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no mistakes. Whether anybody reads them is not our affair.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match run(&args) {
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
    if args.tun_fd.is_some() && args.tun_fd == args.uapi_fd {
        anyhow::bail!("WG_TUN_FD and WG_UAPI_FD are the same descriptor");
    }
    let tun = match args.tun_fd {
        Some(fd) => Tun::from_inherited(inherited(fd)?)?,
        None => {
            // Asked first: an interface must not come and go because its name's socket is taken.
            ConfigSocket::check_free(&run_dir, &args.interface)?;
            Tun::create(&args.interface)?
        }
    };
    let socket = match args.uapi_fd {
        Some(fd) => ConfigSocket::from_inherited(inherited(fd)?, &run_dir, tun.name())?,
        None => ConfigSocket::bind(&run_dir, tun.name())?,
    };
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

/// Takes over a descriptor that this process was started with.
fn inherited(fd: RawFd) -> anyhow::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "a number becomes a descriptor")]
    // SAFETY: used for this one call only, which fails cleanly for a number that is no descriptor.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    // Looked at before it is owned: a number that is no descriptor must not be closed.
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .with_context(|| format!("descriptor {fd} is not open"))?;
    #[expect(unsafe_code, reason = "a number becomes a descriptor")]
    // SAFETY: it is open, was handed to this process for this purpose, and nothing else here uses it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn init_log(args: &Args) -> anyhow::Result<()> {
    let filter = match (&args.log, args.log_level.as_deref()) {
        (Some(filter), _) => filter.as_str(),
        (None, Some("verbose" | "debug")) => "warren_dataplane=debug,warren_wg=debug",
        (None, Some("error")) => "error",
        (None, Some("silent")) => "off",
        (None, _) => "info",
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
