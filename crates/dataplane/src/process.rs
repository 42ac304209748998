//! The device's process: guarding its memory, becoming a daemon, and ending cleanly.

mod privileges;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{ForkResult, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};
use thiserror::Error;

use crate::device::{Device, threads};
use crate::uapi::{ConfigSocket, ReplyError, parse_device};

/// How often the configuration socket's file is looked for, in milliseconds.
const LOOK_FOR_SOCKET: u16 = 250;

/// How long the device may take to answer its own first question.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// Why the process could not do its work.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// The kernel refused.
    #[error("cannot {act}")]
    Refused {
        /// What was tried.
        act: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The device does not answer on its own socket.
    #[error("the device does not answer on its own socket")]
    FirstAnswer(#[source] ReplyError),
    /// The daemon ended before it was ready. It has said why itself.
    #[error("the daemon ended before it was ready")]
    NotReady,
}

fn refused(act: &'static str) -> impl Fn(io::Error) -> ProcessError {
    move |source| ProcessError::Refused { act, source }
}

/// Keeps the process's memory, which holds keys, out of core dumps and away from other processes of the user, and lets
/// a panic in any thread end the process.
pub fn guard() -> Result<(), ProcessError> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
        .map_err(io::Error::from)
        .map_err(refused("turn core dumps off"))?;
    nix::sys::prctl::set_dumpable(false)
        .map_err(io::Error::from)
        .map_err(refused("turn core dumps off"))?;
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    Ok(())
}

/// Which side of a fork this is.
pub enum Side {
    /// The process that was started. The daemon is ready, or has failed with an error: exit.
    Starter,
    /// The daemon, in a session of its own.
    Daemon(Readiness),
}

/// Tells the process that was started that the daemon is ready.
pub struct Readiness {
    ready: io::PipeWriter,
    keep_stderr: bool,
}

/// Splits off a daemon, and lets the starter wait until that is ready. No thread may run yet.
///
/// # Errors
/// In the starter, [`ProcessError::NotReady`] when the daemon has ended instead.
pub fn daemonize(keep_stderr: bool) -> Result<Side, ProcessError> {
    let (mut reader, ready) = io::pipe().map_err(refused("make a pipe"))?;
    #[expect(unsafe_code, reason = "a daemon has no safe form")]
    #[expect(
        clippy::disallowed_methods,
        reason = "no thread runs yet: what goes for threaded programs does not hold"
    )]
    // SAFETY: no other thread runs, so the child inherits no lock that nobody will release.
    match unsafe { fork() }
        .map_err(io::Error::from)
        .map_err(refused("fork"))?
    {
        ForkResult::Parent { .. } => {
            drop(ready);
            match reader.read(&mut [0]) {
                Ok(1) => Ok(Side::Starter),
                _ => Err(ProcessError::NotReady),
            }
        }
        ForkResult::Child => {
            setsid()
                .map_err(io::Error::from)
                .map_err(refused("begin a session"))?;
            Ok(Side::Daemon(Readiness { ready, keep_stderr }))
        }
    }
}

impl Readiness {
    /// Leaves the starter's terminal and directory, and lets the starter go.
    fn announce(mut self) -> io::Result<()> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        if !self.keep_stderr {
            dup2_stderr(&null)?;
        }
        chdir("/")?;
        self.ready.write_all(&[1])
    }
}

/// Runs the device until it is told to end (SIGTERM, SIGINT), its interface is deleted or its socket's file is removed.
/// Then the socket is gone, keys are overwritten, and the interface goes with the process. No thread may run yet: all
/// of them run without the capabilities that are given up here.
pub fn run(device: Device, socket: ConfigSocket, readiness: Option<Readiness>) -> Result<(), ProcessError> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    // Before any thread is started, so that all of them leave these signals to this one.
    signals
        .thread_block()
        .map_err(io::Error::from)
        .map_err(refused("block signals"))?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)
        .map_err(io::Error::from)
        .map_err(refused("wait for signals"))?;
    let (gone, gone_writer) = io::pipe().map_err(refused("make a pipe"))?;
    privileges::reduce().map_err(refused("give up privileges"))?;
    let device = Arc::new(device);
    threads::start(&device, gone_writer).map_err(refused("start threads"))?;
    socket.serve(&device).map_err(refused("start threads"))?;
    first_answer(&socket)?;
    if let Some(readiness) = readiness {
        readiness.announce().map_err(refused("leave the terminal"))?;
    }
    tracing::info!(interface = device.name(), socket = %socket.path().display(), "ready");
    wait_for_end(&signals, &gone, &socket)?;
    drop(socket);
    device.clear();
    Ok(())
}

/// Asks the device how it is, as any client would.
fn first_answer(socket: &ConfigSocket) -> Result<(), ProcessError> {
    let act = refused("ask the device on its own socket");
    let mut stream = UnixStream::connect(socket.path()).map_err(&act)?;
    stream.set_read_timeout(Some(FIRST_ANSWER)).map_err(&act)?;
    stream.write_all(b"get=1\n\n").map_err(&act)?;
    stream.shutdown(std::net::Shutdown::Write).map_err(&act)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(&act)?;
    parse_device(&answer).map(drop).map_err(ProcessError::FirstAnswer)
}

fn wait_for_end(
    signals: &SignalFd,
    gone: &io::PipeReader,
    socket: &ConfigSocket,
) -> Result<(), ProcessError> {
    loop {
        let mut waiting = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(gone.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut waiting, PollTimeout::from(LOOK_FOR_SOCKET)) {
            Ok(0) | Err(Errno::EINTR) if socket.is_in_place() => {}
            Ok(0) | Err(Errno::EINTR) => {
                tracing::info!(socket = %socket.path().display(), "the socket's file has been removed: ending");
                return Ok(());
            }
            Ok(_) => {
                tracing::info!("ending");
                return Ok(());
            }
            Err(errno) => return Err(refused("wait for signals")(errno.into())),
        }
    }
}
