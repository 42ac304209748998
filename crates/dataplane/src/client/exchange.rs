//! One connection to a device: a request, an answer, in bounded time.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::ClientError;
use crate::uapi::ReplyError;

/// How long one exchange may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// Length of the longest answer that is taken: some 30000 peers.
const ANSWER_LEN: usize = 32 << 20;

/// A connection to a device.
pub(super) struct Exchange {
    stream: UnixStream,
    socket: PathBuf,
}

impl Exchange {
    /// Connects.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] when there is no socket or nobody behind it.
    pub(super) async fn connect(socket: PathBuf) -> Result<Self, ClientError> {
        match timeout(DEADLINE, UnixStream::connect(&socket)).await {
            Ok(Ok(stream)) => Ok(Self { stream, socket }),
            Ok(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Err(ClientError::NotRunning { socket })
            }
            Ok(Err(source)) => Err(ClientError::Socket {
                act: "connect to",
                socket,
                source,
            }),
            Err(_) => Err(ClientError::TimedOut { socket }),
        }
    }

    /// Sends a request and understands the answer.
    pub(super) async fn ask<T>(
        &mut self,
        request: &str,
        parse: impl FnOnce(&str) -> Result<T, ReplyError>,
    ) -> Result<T, ClientError> {
        let answer = match timeout(DEADLINE, self.exchange(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(source)) => {
                return Err(ClientError::Socket {
                    act: "talk to the device at",
                    socket: self.socket.clone(),
                    source,
                });
            }
            Err(_) => {
                return Err(ClientError::TimedOut {
                    socket: self.socket.clone(),
                });
            }
        };
        parse(&answer).map_err(|source| ClientError::Reply {
            socket: self.socket.clone(),
            source,
        })
    }

    /// The connection itself, to wait for its end.
    pub(super) fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    async fn exchange(&mut self, request: &str) -> io::Result<Zeroizing<String>> {
        self.stream.write_all(request.as_bytes()).await?;
        let mut answer = Zeroizing::new(Vec::with_capacity(4096));
        let mut chunk = Zeroizing::new(vec![0; 65_536]);
        // An answer ends with an empty line, its first one; a device that ends in the middle ends it too.
        while !answer.ends_with(b"\n\n") && answer.len() < ANSWER_LEN {
            let len = self.stream.read(&mut chunk).await?;
            if len == 0 {
                break;
            }
            if answer.capacity() - answer.len() < len {
                // Not left to Vec, which would free the old bytes, keys among them, as they are.
                let mut larger = Zeroizing::new(Vec::with_capacity((answer.len() + len) * 2));
                larger.extend_from_slice(&answer);
                answer = larger;
            }
            answer.extend_from_slice(&chunk[..len]);
        }
        let text = std::str::from_utf8(&answer).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Zeroizing::new(text.to_owned()))
    }
}
