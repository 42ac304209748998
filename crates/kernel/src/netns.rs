//! Network namespaces: entering one on a thread of its own, and opening a netlink socket inside.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{FsType, fstatfs};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::netlink::{self, Netlink};

/// The file system that namespaces live in (`NSFS_MAGIC` of linux/magic.h).
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// A namespace that cannot be used.
#[derive(Debug, Error)]
pub enum NamespaceError {
    /// The path leads nowhere: the pod's sandbox is gone.
    #[error("there is no network namespace {0}: its sandbox is gone")]
    Missing(PathBuf),
    /// The path leads to something else.
    #[error("{0} is not a network namespace: pass a path such as /run/netns/NAME or /proc/PID/ns/net")]
    NotANamespace(PathBuf),
    /// It is there and cannot be used.
    #[error("cannot {act} network namespace {path}: this takes CAP_SYS_ADMIN")]
    Unusable {
        /// What was tried.
        act: &'static str,
        /// The namespace.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The thread inside it panicked or could not be started.
    #[error("the thread inside network namespace {0} did not finish; try again")]
    Thread(PathBuf),
}

impl NamespaceError {
    /// Whether the same may succeed later without a change elsewhere.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Thread(_) => true,
            Self::Missing(_) | Self::NotANamespace(_) | Self::Unusable { .. } => false,
        }
    }
}

/// Which namespace it is, whatever path leads to it: device and inode of its file (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId {
    /// The device of nsfs.
    pub device: u64,
    /// The namespace's inode.
    pub inode: u64,
}

/// An open network namespace. While it is held the namespace lives, even when the last process has left.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    path: PathBuf,
    id: NamespaceId,
}

impl Namespace {
    /// Opens the namespace that a path leads to.
    pub fn open(path: &Path) -> Result<Self, NamespaceError> {
        let unusable = |source| NamespaceError::Unusable {
            act: "open",
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                NamespaceError::Missing(path.to_owned())
            } else {
                unusable(error)
            }
        })?;
        let file_system = fstatfs(&file).map_err(|errno| unusable(errno.into()))?;
        if file_system.filesystem_type() != NSFS_MAGIC {
            return Err(NamespaceError::NotANamespace(path.to_owned()));
        }
        let metadata = file.metadata().map_err(unusable)?;
        let id = NamespaceId {
            device: metadata.dev(),
            inode: metadata.ino(),
        };
        Ok(Self {
            file,
            path: path.to_owned(),
            id,
        })
    }

    /// Which namespace it is.
    pub fn id(&self) -> NamespaceId {
        self.id
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its descriptor's number, for netlink attributes.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Runs a closure inside. It gets a thread of its own, which ends with it: no other work ever runs there.
    pub async fn run<T, F>(&self, closure: F) -> Result<T, NamespaceError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let enter_and_run = |namespace: &Self| namespace.enter().map(|()| closure());
        self.run_from_outside(enter_and_run).await?
    }

    /// Runs a closure on a thread of its own that begins where the calling thread is, and [enters](Self::enter) when the
    /// closure says so.
    pub(crate) async fn run_from_outside<T, F>(&self, closure: F) -> Result<T, NamespaceError>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> T + Send + 'static,
    {
        let file = self.file.try_clone();
        let held = Self {
            file: file.map_err(|source| self.unusable("hold", source))?,
            path: self.path.clone(),
            id: self.id,
        };
        let (sender, receiver) = oneshot::channel();
        // Nobody waits any more when the caller was cancelled: the result is not missed then.
        let thread = move || drop(sender.send(closure(&held)));
        std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn(thread)
            .map_err(|source| self.unusable("start a thread for", source))?;
        receiver
            .await
            .map_err(|_| NamespaceError::Thread(self.path.clone()))
    }

    /// Takes the calling thread inside, for good.
    pub(crate) fn enter(&self) -> Result<(), NamespaceError> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| {
            if errno == Errno::EINVAL {
                NamespaceError::NotANamespace(self.path.clone())
            } else {
                self.unusable("enter", errno.into())
            }
        })
    }

    /// A netlink socket inside, driven by the runtime outside.
    pub async fn netlink(&self) -> Result<Netlink, NamespaceError> {
        let socket = self.run(netlink::open_socket).await?;
        socket
            .map(Netlink::from_socket)
            .map_err(|source| self.unusable("open a netlink socket in", source))
    }

    fn unusable(&self, act: &'static str, source: io::Error) -> NamespaceError {
        NamespaceError::Unusable {
            act,
            path: self.path.clone(),
            source,
        }
    }
}

/// Opens a namespace and runs a closure inside: [`Namespace::run`] in one call.
pub async fn in_namespace<T, F>(path: &Path, closure: F) -> Result<T, NamespaceError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    Namespace::open(path)?.run(closure).await
}
