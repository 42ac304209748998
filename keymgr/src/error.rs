//! What can be wrong with a key store.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use warren_model::{Epoch, KeyError};

/// The key store cannot do what it was asked to.
#[derive(Debug, Error)]
pub enum KeyStoreError {
    /// The system refuses.
    #[error("cannot {act} {}: check that its disk is there, writable and not full", path.display())]
    Io {
        /// What we were about to do.
        act: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process has the store open.
    #[error("the key store {} is in use by another process: is a second warren-agent running?", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The path of the store leads to something else, or through a symbolic link at its end.
    #[error("{} is not a directory: move it away, or give the key store another path", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Someone else owns the directory or file, and can change it at will.
    #[error(
        "{} belongs to user {owner} and not to user {expected}, who runs this: find out who put it there, then \
         `chown {expected} {0}`", path.display()
    )]
    ForeignOwner {
        /// The directory or file.
        path: PathBuf,
        /// The user who owns it.
        owner: u32,
        /// The effective user of this process.
        expected: u32,
    },
    /// Others than the owner have access to the directory.
    #[error("{} has mode {mode:04o}, which lets others in: `chmod 0700 {0}`", path.display())]
    DirectoryTooOpen {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A key file's mode has more than read and write for its owner, so others have, or had, access to the key.
    #[error(
        "{} has mode {mode:04o}, and a key has 0600 at most: `chmod 0600 {0}`, and rotate the keys if anyone may have \
         read it", path.display()
    )]
    FileTooOpen {
        /// The key file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A key file is a symbolic link, a directory, a device or the like.
    #[error("{} is not a regular file: put the key file itself there, or remove what is there", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A file is named almost like a key file.
    #[error("{} is named like a key, but not `epoch-N.key` with N from 1 on: rename or remove it", path.display())]
    BadName {
        /// The path.
        path: PathBuf,
    },
    /// A key file does not hold a key.
    #[error(
        "{} does not hold a key: restore it from a backup; or remove it, and this node gets a new key, which all its \
         peers have to learn before traffic flows again", path.display()
    )]
    Corrupt {
        /// The key file.
        path: PathBuf,
        /// What is wrong with its text.
        source: KeyError,
    },
    /// There is a file of that epoch already, with another key or one that the store has not read.
    #[error("{} exists already: restart the agent to read it, or move it away", path.display())]
    Occupied {
        /// The key file.
        path: PathBuf,
    },
    /// There is no key to carry over.
    #[error("this node has no key of epoch {epoch}")]
    NoKey {
        /// The epoch asked for.
        epoch: Epoch,
    },
    /// The system has no random numbers.
    #[error("the system gave no random numbers to make a key from")]
    Randomness {
        /// The system's answer.
        source: rand_core::Error,
    },
}

impl KeyStoreError {
    /// Whether the same call may succeed later without anyone doing anything. The others wait for an operator.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Locked { .. } | Self::Randomness { .. } => true,
            Self::NotADirectory { .. }
            | Self::ForeignOwner { .. }
            | Self::DirectoryTooOpen { .. }
            | Self::FileTooOpen { .. }
            | Self::NotAFile { .. }
            | Self::BadName { .. }
            | Self::Corrupt { .. }
            | Self::Occupied { .. }
            | Self::NoKey { .. } => false,
        }
    }
}
