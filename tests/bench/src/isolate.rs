//! Namespaces of this program's own, so that nothing of a measurement is seen outside and nothing of it stays behind.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, exit};
use std::{fs, thread};

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, Uid};

/// Set for the program that runs inside.
const INSIDE: &str = "WARREN_BENCH_ISOLATED";

/// Returns inside of network, mount and PID namespaces; without root in a user namespace too. Outside it does not return:
/// this process waits for the one inside and ends as that does.
pub(crate) fn enter() -> anyhow::Result<()> {
    if std::env::var_os(INSIDE).is_none() {
        let status = run_inside()?;
        exit(status);
    }
    // What programs put below /run (sockets of WireGuard devices) is not for the host.
    let strict = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), strict, Some("mode=0755"))
        .context("mount a /run of the benchmark's own")?;
    fs::create_dir_all("/run/wireguard").context("make /run/wireguard")
}

/// Starts this program again in namespaces and waits for it. However this process ends, all that is inside ends too:
/// `setpriv` has `unshare` killed with this process, and that the first process of the PID namespace.
fn run_inside() -> anyhow::Result<i32> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    // Before any other thread is started, so that all leave these to the one below.
    signals.thread_block().context("block signals")?;
    let this = std::env::current_exe().context("find this program")?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]);
    command.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    if !Uid::effective().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--").arg(this).args(std::env::args_os().skip(1));
    let mut child = command
        .env(INSIDE, "1")
        .spawn()
        .context("run setpriv and unshare, of util-linux")?;
    let unshare = Pid::from_raw(i32::try_from(child.id()).context("an odd process id")?);
    thread::spawn(move || {
        if let Ok(signal) = signals.wait() {
            // Gone already: then this process is about to end, too.
            let _ = kill(unshare, Signal::SIGKILL);
            exit(128 + signal as i32);
        }
    });
    let status = child.wait().context("wait for the benchmark")?;
    Ok(status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}
