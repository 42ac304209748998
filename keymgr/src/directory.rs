//! The directory of a key store: private, exclusive and durable files, and what a crash leaves of them.
//!
//! All names are resolved below one open directory, so that nobody can swap it for another between two steps.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, geteuid, linkat, unlinkat};
use warren_model::Epoch;
use zeroize::Zeroizing;

use crate::error::KeyStoreError;

/// The length of a key file: 44 characters of base64 and a newline, which is what `wg genkey` prints.
pub(crate) const FILE_LENGTH: usize = 45;

/// Ends the name of a key that is being written. It becomes a key by a link of its final name.
const UNFINISHED: &str = ".new";
/// Ends the name of a key that is being destroyed.
const RETIRED: &str = ".retired";

/// An open, locked and checked key directory.
pub(crate) struct KeyDirectory {
    /// Locked for as long as it is open.
    handle: File,
    path: PathBuf,
}

impl KeyDirectory {
    /// Creates it if it is absent, checks whose it is and who else may enter, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, KeyStoreError> {
        let io_error = |act, source: io::Error| KeyStoreError::Io {
            act,
            path: path.to_owned(),
            source,
        };
        create_durably(path).map_err(|error| io_error("create the key store", error))?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let handle = match open(path, flags, Mode::empty()) {
            Ok(handle) => File::from(handle),
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                return Err(KeyStoreError::NotADirectory {
                    path: path.to_owned(),
                });
            }
            Err(errno) => return Err(io_error("open the key store", errno.into())),
        };
        let directory = Self {
            handle,
            path: path.to_owned(),
        };
        let mode = check_owner(&directory.handle, path)?;
        if mode & 0o077 != 0 {
            return Err(KeyStoreError::DirectoryTooOpen {
                path: path.to_owned(),
                mode,
            });
        }
        match directory.handle.try_lock() {
            Ok(()) => Ok(directory),
            Err(TryLockError::WouldBlock) => Err(KeyStoreError::Locked {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(error)) => Err(io_error("lock the key store", error)),
        }
    }

    /// The path of an epoch's key file, for messages.
    pub(crate) fn path_of(&self, epoch: Epoch) -> PathBuf {
        self.path.join(file_name(epoch))
    }

    /// Removes unfinished keys, which nobody has seen, and completes retirements. Files of other names stay.
    pub(crate) fn clear_left_overs(&self) -> Result<(), KeyStoreError> {
        for name in self.names()? {
            let is_left_over = [UNFINISHED, RETIRED].into_iter().any(|suffix| {
                name.strip_prefix('.')
                    .and_then(|rest| rest.strip_suffix(suffix))
                    .is_some_and(|key| matches!(epoch_of(key), Some(Some(_))))
            });
            if is_left_over {
                tracing::info!(path = %self.path.join(&name).display(), "removing what a crash left half done");
                self.wipe(&name)?;
            }
        }
        Ok(())
    }

    /// The epochs there are key files of.
    pub(crate) fn epochs(&self) -> Result<Vec<Epoch>, KeyStoreError> {
        let mut epochs = Vec::new();
        for name in self.names()? {
            match epoch_of(&name) {
                Some(Some(epoch)) => epochs.push(epoch),
                Some(None) => {
                    return Err(KeyStoreError::BadName {
                        path: self.path.join(name),
                    });
                }
                None => {}
            }
        }
        epochs.sort_unstable();
        Ok(epochs)
    }

    /// The text of a key file: at most one byte more than a key has, so that one that is too long shows.
    pub(crate) fn read(&self, epoch: Epoch) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        let path = self.path_of(epoch);
        let mut file = self.open_file(&file_name(epoch), OFlag::O_RDONLY)?;
        let mode = check_owner(&file, &path)?;
        if mode & 0o7177 != 0 {
            return Err(KeyStoreError::FileTooOpen { path, mode });
        }
        // Room for all of it from the start: a vector that grows leaves copies behind.
        let mut text = Zeroizing::new(vec![0; FILE_LENGTH + 1]);
        let mut length = 0;
        while length < text.len() {
            match file.read(&mut text[length..]) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io_error("read", &file_name(epoch), error)),
            }
        }
        text.truncate(length);
        Ok(text)
    }

    /// Writes a key file that does not exist yet. When this returns it is on the disk, whole; until then, a crash
    /// leaves at most an unfinished file.
    pub(crate) fn create(&self, epoch: Epoch, text: &[u8]) -> Result<(), KeyStoreError> {
        let name = file_name(epoch);
        let unfinished = format!(".{name}{UNFINISHED}");
        let created = self
            .write_new(&unfinished, text)
            .and_then(|()| self.publish(&unfinished, &name, epoch));
        if created.is_err() {
            // The error that brought us here is the one to report; the next open tries again to clear this away.
            let _ = self.wipe(&unfinished);
        }
        created
    }

    /// Overwrites and removes a key file. It is renamed first, so that a crash in between leaves something that is
    /// known to be a retired key and not a corrupt one. Can be repeated after a failure at any point.
    pub(crate) fn destroy(&self, epoch: Epoch) -> Result<(), KeyStoreError> {
        let name = file_name(epoch);
        let retired = format!(".{name}{RETIRED}");
        match renameat(&self.handle, name.as_str(), &self.handle, retired.as_str()) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(self.io_error("rename", &name, errno.into())),
        }
        self.sync()?;
        self.wipe(&retired)
    }

    fn write_new(&self, name: &str, text: &[u8]) -> Result<(), KeyStoreError> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.handle, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|errno| self.io_error("create", name, errno.into()))?;
        let mut file = File::from(file);
        file.write_all(text)
            .and_then(|()| file.sync_all())
            .map_err(|error| self.io_error("write", name, error))
    }

    /// Gives a finished file its name, or leaves that name as it was. A link, unlike a rename, fails where the name is
    /// taken.
    fn publish(&self, unfinished: &str, name: &str, epoch: Epoch) -> Result<(), KeyStoreError> {
        match linkat(&self.handle, unfinished, &self.handle, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                return Err(KeyStoreError::Occupied {
                    path: self.path_of(epoch),
                });
            }
            Err(errno) => return Err(self.io_error("name", name, errno.into())),
        }
        let durable = self.sync().and_then(|()| self.unlink(unfinished));
        if durable.is_err() {
            // A key the caller was not given must not be found by the next start. The first error is the one to report.
            let _ = self.unlink(name);
        }
        durable
    }

    /// Overwrites a file and removes it. A file with a second name is a finished key that a crash has left its
    /// unfinished name: only the name goes. What is not there is done.
    fn wipe(&self, name: &str) -> Result<(), KeyStoreError> {
        let mut file = match self.open_file(name, OFlag::O_WRONLY) {
            Ok(file) => file,
            Err(KeyStoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let overwritten = file.metadata().and_then(|metadata| {
            if metadata.nlink() == 1 {
                io::copy(&mut io::repeat(0).take(metadata.len()), &mut file)?;
                file.sync_all()?;
            }
            Ok(())
        });
        overwritten.map_err(|error| self.io_error("overwrite", name, error))?;
        self.unlink(name)?;
        self.sync()
    }

    /// Opens a regular file and nothing else. O_NONBLOCK, because to open a FIFO would wait for its other end.
    fn open_file(&self, name: &str, access: OFlag) -> Result<File, KeyStoreError> {
        let not_a_file = || KeyStoreError::NotAFile {
            path: self.path.join(name),
        };
        let flags = access | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = match openat(&self.handle, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            // A symbolic link; a directory or a FIFO without a reader, opened to write; a socket or absent device.
            Err(Errno::ELOOP | Errno::EISDIR | Errno::ENXIO) => return Err(not_a_file()),
            Err(errno) => return Err(self.io_error("open", name, errno.into())),
        };
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(file),
            Ok(_) => Err(not_a_file()),
            Err(error) => Err(self.io_error("look at", name, error)),
        }
    }

    /// The names of all entries that are UTF-8; ours are.
    fn names(&self) -> Result<Vec<String>, KeyStoreError> {
        let list = || -> nix::Result<Vec<String>> {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let mut dir = Dir::openat(&self.handle, ".", flags, Mode::empty())?;
            let mut names = Vec::new();
            for entry in dir.iter() {
                names.extend(entry?.file_name().to_str().map(str::to_owned));
            }
            Ok(names)
        };
        list().map_err(|errno| self.io_error("list", "", errno.into()))
    }

    fn unlink(&self, name: &str) -> Result<(), KeyStoreError> {
        unlinkat(&self.handle, name, UnlinkatFlags::NoRemoveDir)
            .map_err(|errno| self.io_error("remove", name, errno.into()))
    }

    /// Makes names that were added and removed durable.
    fn sync(&self) -> Result<(), KeyStoreError> {
        self.handle
            .sync_all()
            .map_err(|error| self.io_error("sync the key store", "", error))
    }

    fn io_error(&self, act: &'static str, name: &str, source: io::Error) -> KeyStoreError {
        KeyStoreError::Io {
            act,
            path: self.path.join(name),
            source,
        }
    }
}

/// Creates a directory and those above it, each private and each durable: after a power failure, a node whose key
/// store has vanished would make a new key.
fn create_durably(path: &Path) -> io::Result<()> {
    let above = match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => return Ok(()),
    };
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(_) => return Ok(()),
    }
    create_durably(above)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    File::open(above)?.sync_all()
}

/// Fails unless the effective user owns it; returns the mode.
fn check_owner(file: &File, path: &Path) -> Result<u32, KeyStoreError> {
    let metadata = file.metadata().map_err(|source| KeyStoreError::Io {
        act: "look at",
        path: path.to_owned(),
        source,
    })?;
    let expected = geteuid().as_raw();
    if metadata.uid() == expected {
        Ok(metadata.mode() & 0o7777)
    } else {
        Err(KeyStoreError::ForeignOwner {
            path: path.to_owned(),
            owner: metadata.uid(),
            expected,
        })
    }
}

fn file_name(epoch: Epoch) -> String {
    format!("epoch-{epoch}.key")
}

/// The epoch a file name stands for: `None` if it is not the name of a key at all, `Some(None)` if it is meant to be
/// one and is not (`epoch-0.key`, `epoch-01.key`).
fn epoch_of(name: &str) -> Option<Option<Epoch>> {
    let number = name.strip_prefix("epoch-")?.strip_suffix(".key")?;
    let epoch = number.parse().ok().and_then(Epoch::new);
    Some(epoch.filter(|epoch| file_name(*epoch) == name))
}
