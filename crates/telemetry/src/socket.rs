//! A Unix socket only its owner can connect to.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::{Mode, fchmod};
use thiserror::Error;
use tokio::net::{UnixListener, UnixSocket, UnixStream};

/// How many connections the kernel keeps for us until we accept them.
const BACKLOG: u32 = 128;

/// A listening Unix socket of mode 0600, whose file is removed when this is dropped.
#[derive(Debug)]
pub struct PrivateSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file we made, to tell it from a successor's of the same name.
    file: (u64, u64),
}

impl PrivateSocket {
    /// Listens at that path. A socket file whose program is gone is replaced; one that is answered, and anything that
    /// is not a socket, is left alone. The mode is set before the file exists, so that there is no moment at which
    /// others could connect. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// When somebody listens there already (worth a retry: a predecessor may be on its way out), when a file of
    /// another kind is in the way, and when the system refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let io_error = |act: &'static str| {
            move |source: io::Error| SocketError::Io {
                act,
                path: path.to_owned(),
                source,
            }
        };
        remove_stale(path)?;
        let socket = UnixSocket::new_stream().map_err(io_error("make a socket for"))?;
        // Linux gives the socket file the mode of the socket, less the umask (unix(7), net/unix/af_unix.c).
        fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(io::Error::from)
            .map_err(io_error("set the mode of"))?;
        socket.bind(path).map_err(|source| {
            if source.kind() == io::ErrorKind::AddrInUse {
                SocketError::InUse {
                    path: path.to_owned(),
                }
            } else {
                io_error("bind")(source)
            }
        })?;
        let metadata = fs::symlink_metadata(path).map_err(io_error("look at"))?;
        let listener = socket.listen(BACKLOG).map_err(io_error("listen at"))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: (metadata.dev(), metadata.ino()),
        })
    }

    /// The next connection. Cancel-safe.
    ///
    /// # Errors
    /// When the system has no descriptor to spare, or the peer has gone already. Both pass.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.file);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket file");
        }
    }
}

/// A socket cannot be had.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another program answers there.
    #[error("{} is in use by another program: stop that one first, or choose another path", path.display())]
    InUse {
        /// The path of the socket.
        path: PathBuf,
    },
    /// Something that is not a socket is in the way.
    #[error("{} exists and is not a socket: move it away, or choose another path", path.display())]
    NotASocket {
        /// The path of the file.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot {act} {}", path.display())]
    Io {
        /// What we were about to do.
        act: &'static str,
        /// The path of the socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Removes a socket file that nobody answers. A connection tells: the kernel refuses it when the listener is gone.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let path_owned = || path.to_owned();
    let failed = |act: &'static str, source: io::Error| SocketError::Io {
        act,
        path: path_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path_owned() });
        }
        Ok(_) => {}
    }
    match probe(path) {
        // EAGAIN: there is a listener, and its backlog is full.
        Ok(()) | Err(Errno::EAGAIN) => Err(SocketError::InUse { path: path_owned() }),
        Err(Errno::ECONNREFUSED) => {
            fs::remove_file(path).map_err(|error| failed("remove the stale socket", error))
        }
        Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(failed("find out who listens at", errno.into())),
    }
}

/// Connects without waiting: a program that hangs must not keep its successor from starting with an error.
fn probe(path: &Path) -> nix::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let client = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(client.as_raw_fd(), &UnixAddr::new(path)?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};

    use super::*;

    #[tokio::test]
    async fn the_file_is_private_and_goes_with_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let socket = PrivateSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        StdUnixStream::connect(&path).unwrap();
        socket.accept().await.unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        // std's listener leaves its file behind, as a killed program does.
        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _socket = PrivateSocket::bind(&path).unwrap();
        StdUnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_is_answered_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let first = PrivateSocket::bind(&path).unwrap();
        assert!(matches!(
            PrivateSocket::bind(&path),
            Err(SocketError::InUse { .. })
        ));
        StdUnixStream::connect(&path).unwrap();
        drop(first);
    }

    #[tokio::test]
    async fn a_file_of_another_kind_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        fs::write(&path, "precious").unwrap();
        let error = PrivateSocket::bind(&path).unwrap_err();
        assert!(matches!(error, SocketError::NotASocket { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn the_file_of_a_successor_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let first = PrivateSocket::bind(&path).unwrap();
        fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        let _second = PrivateSocket::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_missing_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = PrivateSocket::bind(&dir.path().join("absent/admin.sock")).unwrap_err();
        assert!(error.to_string().contains("absent/admin.sock"), "{error}");
    }
}
