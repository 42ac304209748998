//! What can go wrong with a device in another process.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use warren_model::PublicKey;

use crate::uapi::ReplyError;

/// Why something could not be done with a device. [`ClientError::is_retryable`] says whether to try again.
#[derive(Debug, Error)]
pub enum ClientError {
    /// There is no device, or its process has died.
    #[error("nothing answers on {}: the device has to be started", socket.display())]
    NotRunning {
        /// Where it would answer.
        socket: PathBuf,
    },
    /// The kernel refused something about the socket.
    #[error("cannot {act} {}: it is for root only; check who runs the agent and who owns the socket", socket.display())]
    Socket {
        /// What was tried.
        act: &'static str,
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The device took too long.
    #[error("no answer on {} within 5 s: look at the warren-wg process, and end it if it hangs", socket.display())]
    TimedOut {
        /// The socket.
        socket: PathBuf,
    },
    /// The device refused, or what answers is no device.
    #[error("the device at {} did not do it", socket.display())]
    Reply {
        /// The socket.
        socket: PathBuf,
        /// What it said.
        source: ReplyError,
    },
    /// A key is to be set, and the private key at hand is not its other half.
    #[error("the private key at hand does not belong to public key {public_key}")]
    WrongKey {
        /// The key to be set.
        public_key: PublicKey,
    },
    /// The program could not be run.
    #[error("cannot run {}: check that warren-wg is installed there", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program ran and did not come up.
    #[error("{} did not bring up {interface}: {message}", program.display())]
    Failed {
        /// The program.
        program: PathBuf,
        /// The interface.
        interface: String,
        /// What it wrote to standard error.
        message: String,
    },
    /// The device was told to end and has not.
    #[error("the device {interface} does not end: end its warren-wg process by hand")]
    StillThere {
        /// The interface.
        interface: String,
    },
}

impl ClientError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotRunning { .. }
            | Self::TimedOut { .. }
            | Self::Failed { .. }
            | Self::StillThere { .. } => true,
            Self::Socket { source, .. } | Self::Spawn { source, .. } => !matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ),
            // A port in use may become free, an answer cut short comes from a device that was ending.
            Self::Reply { source, .. } => match source {
                ReplyError::Refused(errno) => *errno != libc::EINVAL,
                ReplyError::CutShort => true,
                ReplyError::Malformed { .. } => false,
            },
            Self::WrongKey { .. } => false,
        }
    }
}
