//! The keeper: the process that a lab lives and dies with.
//!
//! `warren-lab keep` enters fresh namespaces and splits in three: the one on the host, whose process id is the lab's;
//! process 1 of the lab's PID namespace, which collects orphans; and the one that does the work. When one of the three
//! ends, however it ends, the kernel ends everything in the PID namespace, and with its last process every namespace,
//! interface, route and mount of the lab is gone. It was never possible for them to show up on the host.

mod node;
mod pods;
mod programs;
mod requests;
mod state;

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, getpid, setsid};
use serde::{Deserialize, Serialize};

use crate::dir::{LabDir, Owner};
use crate::namespaces;
use crate::options::LabOptions;
use state::Keeper;

/// What `warren-lab keep` gets as its argument, in JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeepArguments {
    pub(crate) dir: PathBuf,
    pub(crate) options: LabOptions,
}

/// What it writes on its stdout, one a line.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Progress {
    /// What it does now.
    Step(String),
    /// The lab is up.
    Ready,
    /// It will not be.
    Failed(String),
}

/// Runs a lab until it is told to end or its stdin is closed; returns the exit code. The process must have one thread.
pub fn keep(arguments: &str) -> anyhow::Result<i32> {
    let KeepArguments { dir, options } =
        serde_json::from_str(arguments).context("arguments of `warren-lab keep`")?;
    let dir = LabDir::at(&dir)?;
    // Of its own session, so that Ctrl-C ends only the client, whose end then ends this in order.
    setsid().context("leave the terminal")?;
    let owner = Owner::of(getpid().as_raw()).context("look up this process in /proc")?;
    dir.set_owner(&owner)?;
    // On the host's loopback: a socket stays in the network namespace it was made in.
    let api = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on the host's loopback")?;

    let user = match need_tun().and_then(|()| namespaces::isolate()) {
        Ok(user) => user,
        Err(error) => return fail(&error),
    };
    match namespaces::split().context("start the lab's first process")? {
        ForkResult::Parent { child } => {
            drop(api);
            leave_stdio()?;
            let code = namespaces::wait(child);
            // After a failure its logs are what explains it.
            if code == 0 {
                dir.remove()?;
            }
            return Ok(code);
        }
        ForkResult::Child => namespaces::die_with_parent().context("tie the lab to its keeper")?,
    }
    if let Err(error) = namespaces::cover_host(true) {
        return fail(&error);
    }
    match namespaces::split().context("start the lab's second process")? {
        ForkResult::Parent { child } => {
            drop(api);
            leave_stdio()?;
            Ok(namespaces::reap_until_end_of(child))
        }
        ForkResult::Child => work(dir, options, api, user),
    }
}

/// Whether a lab can be on this machine; the error says why not. The process must have one thread.
pub fn probe() -> anyhow::Result<()> {
    need_tun()?;
    namespaces::isolate().map(drop)
}

fn need_tun() -> anyhow::Result<()> {
    File::options().read(true).write(true).open("/dev/net/tun").context(
        "/dev/net/tun cannot be opened: the userspace WireGuard device needs it (modprobe tun; in a container, --device \
         /dev/net/tun)",
    )?;
    Ok(())
}

/// Holds a node's namespaces until stdin is closed. The process must have one thread.
pub fn hold(name: &str) -> anyhow::Result<()> {
    namespaces::become_node(name)?;
    let mut stdout = std::io::stdout();
    stdout
        .write_all(b"ready\n")
        .and_then(|()| stdout.flush())
        .context("report")?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).context("wait for the end")?;
    Ok(())
}

fn work(dir: LabDir, options: LabOptions, api: TcpListener, user: bool) -> anyhow::Result<i32> {
    // From here on there may be threads.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the keeper's threads")?;
    let result = runtime.block_on(async {
        let (keeper, control) = Keeper::start(dir, options, api, user).await?;
        report(&Progress::Ready)?;
        requests::serve(keeper, control).await
    });
    // The agents first, so that nobody writes to the lab's directory while it is removed.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    match result {
        Ok(()) => Ok(0),
        Err(error) => fail(&error),
    }
}

/// Tells the client and the log.
fn fail(error: &anyhow::Error) -> anyhow::Result<i32> {
    tracing::error!("{error:#}");
    report(&Progress::Failed(format!("{error:#}")))?;
    Ok(1)
}

/// Tells the client; one that is gone need not know.
fn report(progress: &Progress) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(progress)?;
    line.push(b'\n');
    let _ = std::io::stdout()
        .write_all(&line)
        .and_then(|()| std::io::stdout().flush());
    Ok(())
}

/// Lets go of the pipes to the client: they are the worker's, and their end must be seen when it ends.
fn leave_stdio() -> anyhow::Result<()> {
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("open /dev/null")?;
    nix::unistd::dup2_stdin(&null).context("let go of stdin")?;
    nix::unistd::dup2_stdout(&null).context("let go of stdout")?;
    Ok(())
}
