//! Which pods are attached to this node and which addresses they hold: the one thing the agent remembers on disk
//! besides its keys.
//!
//! A change is on disk, fsynced and renamed into place, before anyone is told of it. So an address that was handed out is
//! never handed out again, whatever ends the agent or the machine in between.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use atomic_write_file::AtomicWriteFile;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use warren_ipam::{AllocateError, Allocations, Owner, Pool};
use warren_plan::Mac;

/// The version of the file's format.
const VERSION: u32 = 1;

/// The attachments of this node, in memory and on disk.
#[derive(Debug)]
pub struct AttachmentStore {
    path: PathBuf,
    contents: Contents,
}

/// What is known of one attachment besides its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Host side of its veth.
    pub interface: String,
    /// MAC of the pod's side.
    pub mac: [u8; 6],
    /// Path of the pod's network namespace, as the runtime gave it.
    pub netns: String,
    /// `namespace/name` of the pod, where the runtime said.
    pub pod: Option<String>,
}

impl Record {
    /// MAC of the pod's side.
    pub fn mac(&self) -> Mac {
        Mac(self.mac)
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Contents {
    version: u32,
    attachments: Vec<Stored>,
    #[serde(flatten)]
    allocations: Allocations,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    owner: Owner,
    #[serde(flatten)]
    record: Record,
}

impl AttachmentStore {
    /// Reads the file, or starts empty if there is none.
    ///
    /// # Errors
    /// A file that cannot be read or understood is an error, never an empty store: addresses in use would be given
    /// a second time.
    pub fn open(path: PathBuf) -> Result<Self, StoreError> {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                let contents = Contents {
                    version: VERSION,
                    ..Contents::default()
                };
                return Ok(Self { path, contents });
            }
            Err(source) => return Err(StoreError::Read { path, source }),
        };
        let contents: Contents = serde_json::from_str(&text).map_err(|source| StoreError::Corrupt {
            path: path.clone(),
            source,
        })?;
        if contents.version != VERSION {
            return Err(StoreError::Version {
                path,
                found: contents.version,
            });
        }
        Ok(Self { path, contents })
    }

    /// Gives an attachment its addresses and remembers it. The same attachment again gets the same addresses.
    pub fn add(&mut self, owner: &Owner, record: Record, pool: &Pool) -> Result<Vec<IpAddr>, AddError> {
        let mut next = self.contents.clone();
        let addresses = next.allocations.allocate(pool, owner)?;
        next.attachments.retain(|stored| stored.owner != *owner);
        next.attachments.push(Stored {
            owner: owner.clone(),
            record,
        });
        self.commit(next)?;
        Ok(addresses)
    }

    /// Forgets attachments and frees their addresses. What is unknown is no error.
    pub fn remove<'a>(&mut self, owners: impl IntoIterator<Item = &'a Owner>) -> Result<(), StoreError> {
        let mut next = self.contents.clone();
        let mut changed = false;
        for owner in owners {
            changed |= !next.allocations.release(owner).is_empty();
            let before = next.attachments.len();
            next.attachments.retain(|stored| stored.owner != *owner);
            changed |= before != next.attachments.len();
        }
        if changed { self.commit(next) } else { Ok(()) }
    }

    /// What is known of one attachment, and its addresses.
    pub fn get(&self, owner: &Owner) -> Option<(&Record, Vec<IpAddr>)> {
        let stored = self
            .contents
            .attachments
            .iter()
            .find(|stored| stored.owner == *owner)?;
        Some((
            &stored.record,
            self.contents.allocations.addresses(owner).unwrap_or_default(),
        ))
    }

    /// All attachments with their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&Owner, &Record, Vec<IpAddr>)> {
        self.contents.attachments.iter().map(|stored| {
            let addresses = self
                .contents
                .allocations
                .addresses(&stored.owner)
                .unwrap_or_default();
            (&stored.owner, &stored.record, addresses)
        })
    }

    /// Who holds which address.
    pub fn allocations(&self) -> &Allocations {
        &self.contents.allocations
    }

    fn commit(&mut self, next: Contents) -> Result<(), StoreError> {
        write(&self.path, &next).map_err(|source| StoreError::Write {
            path: self.path.clone(),
            source,
        })?;
        self.contents = next;
        Ok(())
    }
}

fn write(path: &Path, contents: &Contents) -> io::Result<()> {
    let mut file = AtomicWriteFile::open(path)?;
    serde_json::to_writer_pretty(&mut file, contents)?;
    file.write_all(b"\n")?;
    file.commit()
}

/// An attachment could not be recorded.
#[derive(Debug, Error)]
pub enum AddError {
    /// No address is free. Worth a retry once pods are gone.
    #[error(transparent)]
    Allocate(#[from] AllocateError),
    /// The disk did not take it. Worth a retry.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The file of attachments cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It cannot be read.
    #[error("cannot read the pod addresses in {path}: check the file's permissions and the disk")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It cannot be written.
    #[error(
        "cannot write the pod addresses to {path}: free space on the disk, and check that it is writable"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It is not what this program writes.
    #[error(
        "{path} is damaged: drain the node, run `warren uninstall-node`, and start the agent again; it does not guess, \
         because a guess could give one address to two pods"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It was written by another release.
    #[error(
        "{path} has version {found}, this release reads version {VERSION}: run the release that wrote it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn owner(n: u8) -> Owner {
        Owner {
            container_id: format!("c{n}"),
            if_name: "eth0".to_owned(),
        }
    }

    fn record() -> Record {
        Record {
            interface: "wrn0".to_owned(),
            mac: [2; 6],
            netns: "/run/netns/a".to_owned(),
            pod: None,
        }
    }

    fn pool() -> Pool {
        Pool::new(["10.0.0.0/29".parse().unwrap(), "fd00::/64".parse().unwrap()]).unwrap()
    }

    #[test]
    fn what_was_added_is_there_after_a_restart_and_what_was_removed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("attachments.json");
        let mut store = AttachmentStore::open(path.clone()).unwrap();
        let first = store.add(&owner(1), record(), &pool()).unwrap();
        assert_eq!(first.len(), 2);
        store.add(&owner(2), record(), &pool()).unwrap();
        store.remove([&owner(2), &owner(3)]).unwrap();

        let mut store = AttachmentStore::open(path).unwrap();
        assert_eq!(store.get(&owner(1)).unwrap(), (&record(), first.clone()));
        assert!(store.get(&owner(2)).is_none());
        assert_eq!(store.add(&owner(1), record(), &pool()).unwrap(), first);
        assert_eq!(store.iter().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("attachments.json");
        let mut store = AttachmentStore::open(path.clone()).unwrap();
        store.add(&owner(1), record(), &pool()).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        for damaged in [
            &whole[..whole.len() / 2],
            "",
            "[]",
            &whole.replace("\"version\": 1", "\"version\": 2"),
        ] {
            std::fs::write(&path, damaged).unwrap();
            assert!(
                AttachmentStore::open(path.clone()).is_err(),
                "{damaged:?} was taken"
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), damaged);
        }
    }

    #[test]
    fn an_addition_that_cannot_be_written_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing").join("attachments.json");
        let mut store = AttachmentStore::open(path).unwrap();
        assert!(matches!(
            store.add(&owner(1), record(), &pool()),
            Err(AddError::Store(_))
        ));
        assert!(store.get(&owner(1)).is_none());
        assert!(store.allocations().is_empty());
    }
}
