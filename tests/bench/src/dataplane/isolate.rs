//! Namespaces of this program's own, so that nothing of a measurement is seen outside and nothing of it stays behind.

use std::os::unix::process::CommandExt;
use std::process::{Command, exit};
use std::{fs, thread};

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Uid, getpid};

/// Set for the program that runs inside.
const INSIDE: &str = "WARREN_BENCH_ISOLATED";

/// Returns inside of network, mount and PID namespaces; without root in a user namespace too. Outside, this process
/// becomes `unshare`, which starts it again inside and kills what is there when it ends itself.
pub(super) fn enter() -> anyhow::Result<()> {
    if std::env::var_os(INSIDE).is_none() {
        return Err(start_again()?);
    }
    // What programs put below /run (sockets of WireGuard devices) is not for the host.
    let strict = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), strict, Some("mode=0755"))
        .context("mount a /run of the benchmark's own")?;
    fs::create_dir_all("/run/wireguard").context("make /run/wireguard")?;
    if getpid().as_raw() == 1 {
        end_on_signals()?;
    }
    Ok(())
}

/// Only an error comes back.
fn start_again() -> anyhow::Result<anyhow::Error> {
    let this = std::env::current_exe().context("find this program")?;
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    if !Uid::effective().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let error = unshare
        .arg("--")
        .arg(this)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Ok(anyhow::Error::new(error).context("run unshare"))
}

/// The first process of a PID namespace ends on no signal that it does not handle. When it ends, all others do.
fn end_on_signals() -> anyhow::Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    // Before any other thread is started, so that all leave these to the one below.
    signals.thread_block().context("block signals")?;
    thread::spawn(move || {
        if let Ok(signal) = signals.wait() {
            exit(128 + signal as i32);
        }
    });
    Ok(())
}
