//! The conversation with `warren-agent`: connect, one line there, one line back, each within a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use warren_cni_wire::message::{decode_reply, encode_request};
use warren_cni_wire::{Command, ErrorCode, MAX_MESSAGE_BYTES, Outcome, Request, WireError};

use crate::failure::Failure;

/// An agent that lives takes a connection at once; only one that is stuck lets its queue run full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CHUNK_BYTES: usize = 8192;

/// Asks the agent, all in all for no longer than `timeout`.
pub(crate) fn ask(socket: &Path, timeout: Duration, request: &Request) -> Result<Outcome, AskError> {
    let deadline = Deadline {
        at: Instant::now() + timeout,
        timeout,
        socket,
    };
    let line = encode_request(request)?;
    let mut stream = connect(socket, timeout.min(CONNECT_TIMEOUT))?;
    match send(&mut stream, &line, &deadline) {
        // It may have refused without reading on, and said why.
        Err(AskError::Gone { .. }) | Ok(()) => {}
        Err(error) => return Err(error),
    }
    let reply = receive(&mut stream, &deadline)?;
    Ok(decode_reply(&reply)?.outcome)
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("warren-agent does not listen on {}", .socket.display())]
    Absent { socket: PathBuf, source: io::Error },
    #[error("warren-agent did not take a connection to {} within {} s", .socket.display(), .within.as_secs())]
    Deaf { socket: PathBuf, within: Duration },
    #[error("warren-agent did not answer on {} within {} s", .socket.display(), .within.as_secs())]
    Mute { socket: PathBuf, within: Duration },
    #[error("warren-agent closed {} before it had answered", .socket.display())]
    Gone { socket: PathBuf },
    #[error("cannot talk to warren-agent on {}", .socket.display())]
    Io { socket: PathBuf, source: io::Error },
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl AskError {
    /// The CNI error for `command`. STATUS has a code of its own for an agent that cannot be asked; otherwise the
    /// runtime is to try again where waiting can help. That goes for DEL too: only the agent knows what there is to
    /// take down, so success must not be claimed without it.
    pub(crate) fn failure(&self, command: &Command) -> Failure {
        let (code, remedy) = match self {
            Self::Absent { .. } | Self::Gone { .. } => (
                ErrorCode::TRY_AGAIN_LATER,
                "; see that the Warren pod of this node runs (kubectl -n warren-system get pods -o wide)",
            ),
            Self::Deaf { .. } | Self::Mute { .. } => (
                ErrorCode::TRY_AGAIN_LATER,
                "; look at the log of the Warren pod of this node, and restart that pod if it is stuck",
            ),
            Self::Io { .. } => (
                ErrorCode::IO_FAILURE,
                "; see that the container runtime may open that socket",
            ),
            Self::Wire(_) => (ErrorCode::AGENT_PROTOCOL, ""),
        };
        let code = if matches!(command, Command::Status) {
            ErrorCode::PLUGIN_NOT_AVAILABLE
        } else {
            code
        };
        let asked = match command.attachment() {
            Some(attachment) => format!("{} {attachment}", command.verb()),
            None => command.verb().to_owned(),
        };
        let details = std::error::Error::source(self)
            .map(ToString::to_string)
            .unwrap_or_default();
        Failure {
            code,
            msg: format!("{asked}: {self}{remedy}"),
            details,
        }
    }
}

struct Deadline<'a> {
    at: Instant,
    timeout: Duration,
    socket: &'a Path,
}

impl Deadline<'_> {
    /// What is left, never zero: a socket takes that for no timeout at all.
    fn left(&self) -> Result<Duration, AskError> {
        let left = self.at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(self.missed())
        } else {
            Ok(left)
        }
    }

    fn missed(&self) -> AskError {
        AskError::Mute {
            socket: self.socket.to_owned(),
            within: self.timeout,
        }
    }

    fn io(&self, error: io::Error) -> AskError {
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            self.missed()
        } else if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) {
            AskError::Gone {
                socket: self.socket.to_owned(),
            }
        } else {
            AskError::Io {
                socket: self.socket.to_owned(),
                source: error,
            }
        }
    }
}

/// Connecting to a Unix socket waits without bound while the other side's queue is full, and the standard library has
/// no timeout for it, so a thread waits in our stead. If it is still at it when we give up, it ends with the process.
fn connect(socket: &Path, within: Duration) -> Result<UnixStream, AskError> {
    let (sender, receiver) = mpsc::channel();
    let path = socket.to_owned();
    let io = |source| AskError::Io {
        socket: socket.to_owned(),
        source,
    };
    thread::Builder::new()
        .spawn(move || {
            // Nobody listens any more if we have given up.
            drop(sender.send(UnixStream::connect(path)));
        })
        .map_err(io)?;
    match receiver.recv_timeout(within) {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            Err(AskError::Absent {
                socket: socket.to_owned(),
                source: error,
            })
        }
        Ok(Err(error)) => Err(io(error)),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(AskError::Deaf {
            socket: socket.to_owned(),
            within,
        }),
    }
}

fn send(stream: &mut UnixStream, mut line: &[u8], deadline: &Deadline<'_>) -> Result<(), AskError> {
    while !line.is_empty() {
        stream
            .set_write_timeout(Some(deadline.left()?))
            .map_err(|error| deadline.io(error))?;
        match stream.write(line) {
            Ok(sent) => line = &line[sent..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(deadline.io(error)),
        }
    }
    Ok(())
}

/// The line up to its newline. A line that ends without one was cut off by the agent's end.
fn receive(stream: &mut UnixStream, deadline: &Deadline<'_>) -> Result<Vec<u8>, AskError> {
    let mut line = Vec::new();
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        stream
            .set_read_timeout(Some(deadline.left()?))
            .map_err(|error| deadline.io(error))?;
        match stream.read(&mut chunk) {
            Ok(0) => {
                return Err(AskError::Gone {
                    socket: deadline.socket.to_owned(),
                });
            }
            Ok(got) => line.extend_from_slice(&chunk[..got]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(deadline.io(error)),
        }
        // One that is too long is given to the decoder as it is, which refuses it by its length.
        if line.contains(&b'\n') || line.len() > MAX_MESSAGE_BYTES {
            return Ok(line);
        }
    }
}
