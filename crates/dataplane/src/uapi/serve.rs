//! The configuration socket of a device.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use super::{Errno, Request, print};
use crate::device::Device;

/// Clients served at once. One more, and the one that has been silent longest is shown the door.
const CLIENTS: usize = 32;

/// How long a client may be silent, and how long it may take to read an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Length of the longest request: some 30000 peers.
const REQUEST_LEN: usize = 16 << 20;

/// A configuration socket that is bound but not served yet. Its file is removed when this is dropped, unless another
/// one has taken its place.
#[derive(Debug)]
pub struct ConfigSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

/// Why there is no configuration socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another process serves it.
    #[error("another process answers on {}: stop it, or choose another interface name", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// There is a file that is no socket.
    #[error("{} is in the way and is no socket: remove it", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The descriptor handed over is none that listens there.
    #[error("descriptor {fd} (WG_UAPI_FD) is no Unix socket that listens on {}", path.display())]
    NotListening {
        /// The descriptor.
        fd: RawFd,
        /// Where the socket should be.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ConfigSocket {
    /// Binds `directory/INTERFACE.sock` for its owner only, making the directory if need be and replacing a socket
    /// that a dead process has left.
    pub fn bind(directory: &Path, interface: &str) -> Result<Self, SocketError> {
        let path = directory.join(format!("{interface}.sock"));
        let refused = |source| SocketError::Listen {
            path: path.clone(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(refused)?;
        Self::check_free(directory, interface)?;
        // Made where nobody else can reach it, and moved into place once nobody else may use it.
        let nursery = directory.join(format!(".{interface}.{}", std::process::id()));
        let made = make(&nursery, &path);
        let _ = fs::remove_dir_all(&nursery);
        let (listener, file) = made.map_err(refused)?;
        Ok(Self { listener, path, file })
    }

    /// Takes over a socket that the program that started us listens on at `directory/INTERFACE.sock`.
    pub fn from_inherited(fd: OwnedFd, directory: &Path, interface: &str) -> Result<Self, SocketError> {
        let path = directory.join(format!("{interface}.sock"));
        let number = fd.as_raw_fd();
        let unfit = |source| SocketError::NotListening {
            fd: number,
            path: path.clone(),
            source,
        };
        let listener = UnixListener::from(fd);
        let listens = SockRef::from(&listener).is_listener().map_err(unfit)?;
        let metadata = fs::symlink_metadata(&path).map_err(unfit)?;
        if !listens || !metadata.file_type().is_socket() {
            return Err(unfit(io::ErrorKind::InvalidInput.into()));
        }
        listener.set_nonblocking(false).map_err(unfit)?;
        let file = (metadata.dev(), metadata.ino());
        Ok(Self { listener, path, file })
    }

    /// Says whether [`ConfigSocket::bind`] would find the place taken.
    pub fn check_free(directory: &Path, interface: &str) -> Result<(), SocketError> {
        let path = directory.join(format!("{interface}.sock"));
        match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.file_type().is_socket() => Err(SocketError::NotASocket { path }),
            Ok(_) if UnixStream::connect(&path).is_ok() => Err(SocketError::InUse { path }),
            _ => Ok(()),
        }
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is still there and still this socket.
    pub(crate) fn is_in_place(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file)
    }

    /// Serves clients, each on a thread of its own, until the process ends.
    pub(crate) fn serve(&self, device: &Arc<Device>) -> io::Result<()> {
        let listener = self.listener.try_clone()?;
        let device = Arc::clone(device);
        std::thread::Builder::new()
            .name("wg-config".to_owned())
            .spawn(move || accept(&listener, &device))
            .map(drop)
    }
}

impl Drop for ConfigSocket {
    fn drop(&mut self) {
        if self.is_in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A listening socket of mode 0600 that is made in `nursery` and moved to `path`, with its device and inode.
fn make(nursery: &Path, path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    fs::DirBuilder::new().mode(0o700).create(nursery)?;
    let made = nursery.join("sock");
    let listener = UnixListener::bind(&made)?;
    fs::set_permissions(&made, fs::Permissions::from_mode(0o600))?;
    let metadata = fs::symlink_metadata(&made)?;
    fs::rename(&made, path)?;
    Ok((listener, (metadata.dev(), metadata.ino())))
}

fn accept(listener: &UnixListener, device: &Arc<Device>) {
    let clients = Arc::new(Mutex::new(Vec::<Arc<Client>>::new()));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: others must end first.
                tracing::warn!(%error, "configuration socket: accept");
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let client = Arc::new(Client {
            stream,
            heard: Mutex::new(Instant::now()),
        });
        admit(&clients, Arc::clone(&client));
        let (clients, device) = (Arc::clone(&clients), Arc::clone(device));
        let served = std::thread::Builder::new()
            .name("wg-client".to_owned())
            .spawn(move || {
                if let Err(error) = client.serve(&device) {
                    tracing::debug!(%error, "configuration socket: client");
                }
                lock(&clients).retain(|other| !Arc::ptr_eq(other, &client));
                wipe_free_stack();
            });
        if let Err(error) = served {
            tracing::warn!(%error, "configuration socket: no thread for a client");
        }
    }
}

/// Bytes of stack that answering a request may have used.
const STACK: usize = 128 << 10;

/// Overwrites the stack that is free again. Requests have private keys, and reading one leaves copies in places that no
/// variable owns; the stack of a thread that has ended stays as it is until another thread gets it.
#[inline(never)]
fn wipe_free_stack() {
    let mut free = [0_u8; STACK];
    free.zeroize();
    std::hint::black_box(&free);
}

/// Adds a client, at the expense of the one that has been silent longest if there are too many.
fn admit(clients: &Mutex<Vec<Arc<Client>>>, client: Arc<Client>) {
    let mut clients = lock(clients);
    if clients.len() >= CLIENTS {
        let silent = clients
            .iter()
            .enumerate()
            .min_by_key(|(_, client)| *lock(&client.heard));
        if let Some((at, _)) = silent {
            let _ = clients.swap_remove(at).stream.shutdown(std::net::Shutdown::Both);
        }
    }
    clients.push(client);
}

struct Client {
    stream: UnixStream,
    /// When it last sent something.
    heard: Mutex<Instant>,
}

impl Client {
    /// Answers requests until the client goes away. What it has begun and not finished is not applied.
    fn serve(&self, device: &Device) -> io::Result<()> {
        self.stream.set_read_timeout(Some(PATIENCE))?;
        self.stream.set_write_timeout(Some(PATIENCE))?;
        let mut received = Received::default();
        loop {
            while let Some(request) = received.next_request() {
                let answer = answer(device, &request);
                drop(request);
                wipe_free_stack();
                (&self.stream).write_all(answer.as_bytes())?;
            }
            if received.len() > REQUEST_LEN {
                return (&self.stream).write_all(print::status(Err(Errno::TOO_LONG)).as_bytes());
            }
            let mut chunk = Zeroizing::new([0; 4096]);
            match (&self.stream).read(&mut *chunk)? {
                0 => return Ok(()),
                len => received.push(&chunk[..len]),
            }
            *lock(&self.heard) = Instant::now();
        }
    }
}

fn answer(device: &Device, request: &[u8]) -> Zeroizing<String> {
    match Request::parse(request) {
        Ok(Request::Get) => device.state().to_text(),
        Ok(Request::GetDrops) => print::drops(device.drops()),
        Ok(Request::Set(set)) => print::status(device.set(set)),
        Err(errno) => {
            tracing::warn!("configuration socket: malformed request, nothing changed");
            print::status(Err(errno))
        }
    }
}

/// Bytes of a client that are not answered yet. They may hold keys: every copy is overwritten.
#[derive(Default)]
struct Received {
    bytes: Zeroizing<Vec<u8>>,
    /// How many of them are known to hold no end of a request.
    searched: usize,
}

impl Received {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn push(&mut self, chunk: &[u8]) {
        if self.bytes.capacity() - self.bytes.len() < chunk.len() {
            // Not left to Vec, which would free the old bytes as they are.
            let mut larger = Zeroizing::new(Vec::with_capacity((self.bytes.len() + chunk.len()) * 2));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(chunk);
    }

    /// Takes the first whole request, without the empty line that ends it.
    fn next_request(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        let end = self.bytes[self.searched..]
            .windows(2)
            .position(|pair| pair == b"\n\n");
        let Some(end) = end.map(|at| self.searched + at) else {
            self.searched = self.bytes.len().saturating_sub(1);
            return None;
        };
        let request = Zeroizing::new(self.bytes[..end].to_vec());
        let rest = Zeroizing::new(self.bytes[end + 2..].to_vec());
        self.bytes.zeroize();
        self.bytes = rest;
        self.searched = 0;
        Some(request)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_socket_is_for_its_owner_only_and_leaves_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().join("wireguard");
        let socket = ConfigSocket::bind(&run, "wg0").unwrap();
        assert_eq!(fs::metadata(&run).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(socket.path()).unwrap().mode() & 0o777, 0o600);
        let path = socket.path().to_owned();
        assert!(socket.is_in_place());
        assert_eq!(
            fs::read_dir(&run).unwrap().count(),
            1,
            "nothing else is left there"
        );
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_answers_is_left_alone_and_one_that_does_not_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let first = ConfigSocket::bind(directory.path(), "wg0").unwrap();
        assert!(matches!(
            ConfigSocket::bind(directory.path(), "wg0"),
            Err(SocketError::InUse { .. })
        ));
        // A process that is killed leaves the file behind.
        let stale = directory.path().join("wg1.sock");
        drop(UnixListener::bind(&stale).unwrap());
        assert!(stale.exists());
        assert!(ConfigSocket::bind(directory.path(), "wg1").is_ok());
        assert!(first.is_in_place());
    }

    #[test]
    fn a_file_that_is_no_socket_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("wg0.sock"), "precious").unwrap();
        assert!(matches!(
            ConfigSocket::bind(directory.path(), "wg0"),
            Err(SocketError::NotASocket { .. })
        ));
        assert_eq!(
            fs::read_to_string(directory.path().join("wg0.sock")).unwrap(),
            "precious"
        );
    }

    #[test]
    fn a_socket_that_another_has_replaced_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let first = ConfigSocket::bind(directory.path(), "wg0").unwrap();
        fs::remove_file(first.path()).unwrap();
        let second = ConfigSocket::bind(directory.path(), "wg0").unwrap();
        drop(first);
        assert!(second.is_in_place());
    }

    proptest! {
        #[test]
        fn requests_are_told_apart_however_they_arrive(
            requests in prop::collection::vec("[a-z]{1,9}=[0-9]\n([a-z]=[0-9]\n){0,3}", 1..5),
            cuts in prop::collection::vec(1..12_usize, 1..80),
        ) {
            let text: String = requests.iter().map(|request| format!("{request}\n")).collect();
            let mut received = Received::default();
            let mut found = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                received.push(chunk);
                rest = after;
                while let Some(request) = received.next_request() {
                    found.push(String::from_utf8(request.to_vec()).unwrap() + "\n");
                }
            }
            prop_assert_eq!(found, requests);
            prop_assert_eq!(received.len(), 0);
        }
    }
}
