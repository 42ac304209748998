//! Which pods are attached to this node and which addresses they hold: the one thing the agent remembers on disk
//! besides its keys.
//!
//! A change is in the file, renamed into place, before anyone is told of it. So an address that was handed out is never
//! handed out again while its pod lives, whatever ends the agent; the end of the machine is the end of its pods. When
//! the file itself is lost or damaged, it is made anew from what the pods' veths tell.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;
use warren_ipam::{AllocateError, Allocations, Owner, Pool};
use warren_kernel::veth::HostSide;

use super::contents::{Contents, Record, VERSION};
use super::recovery::{RecoveryError, adopt};
use crate::half_written;

/// The attachments of this node, in memory and on disk.
#[derive(Debug)]
pub struct AttachmentStore {
    path: PathBuf,
    contents: Contents,
}

/// What any release's file says first.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl AttachmentStore {
    /// Reads the file, and takes up the veths that it does not know. One that is missing or damaged is made anew from the
    /// veths alone; what was damaged is kept beside it with the ending `.damaged`.
    ///
    /// # Errors
    /// Addresses in use are never given a second time: a file that cannot be read, of another release, or veths that
    /// cannot be told apart, are errors.
    pub fn open(path: PathBuf, veths: &[HostSide]) -> Result<Self, StoreError> {
        let found = read(&path)?;
        let (mut contents, whole) = match &found {
            Found::Whole(contents) => (contents.clone(), true),
            Found::Missing | Found::Damaged(_) => (Contents::default(), false),
        };
        let adopted = adopt(&mut contents, veths, whole).map_err(|source| StoreError::Lost {
            path: path.clone(),
            source: Box::new(source),
        })?;
        if let Found::Damaged(error) = found {
            let kept = set_aside(&path);
            tracing::warn!(
                path = %path.display(),
                %error,
                kept = kept.map(|kept| kept.display().to_string()),
                "the file of the pods' addresses is damaged; it is made anew from what the pods' interfaces tell"
            );
        }
        let mut store = Self { path, contents };
        if !adopted.is_empty() {
            let owners: Vec<String> = adopted.iter().map(ToString::to_string).collect();
            tracing::warn!(
                ?owners,
                "took up pods that the file of the pods' addresses did not have"
            );
            if let Err(error) = store.commit(store.contents.clone()) {
                // The next start finds the same again, and no pod is added before it can be written.
                tracing::warn!(
                    error = format!("{:#}", anyhow::Error::from(error)),
                    "cannot keep that yet"
                );
            }
        }
        Ok(store)
    }

    /// Gives an attachment its addresses and remembers it. The same attachment again gets the same addresses.
    pub fn add(&mut self, owner: &Owner, record: Record, pool: &Pool) -> Result<Vec<IpAddr>, AddError> {
        let mut next = self.contents.clone();
        let addresses = next.add(owner, record, pool)?;
        self.commit(next)?;
        Ok(addresses)
    }

    /// Forgets attachments and frees their addresses. What is unknown is no error.
    pub fn remove<'a>(&mut self, owners: impl IntoIterator<Item = &'a Owner>) -> Result<(), StoreError> {
        let mut next = self.contents.clone();
        let mut changed = false;
        for owner in owners {
            changed |= next.remove(owner);
        }
        if changed { self.commit(next) } else { Ok(()) }
    }

    /// What is known of one attachment, and its addresses.
    pub fn get(&self, owner: &Owner) -> Option<(&Record, Vec<IpAddr>)> {
        self.contents.get(owner)
    }

    /// All attachments with their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&Owner, &Record, Vec<IpAddr>)> {
        self.contents.iter()
    }

    /// Who holds which address.
    pub fn allocations(&self) -> &Allocations {
        self.contents.allocations()
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

/// The file as it was found.
enum Found {
    Whole(Contents),
    Missing,
    Damaged(serde_json::Error),
}

fn read(path: &Path) -> Result<Found, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        Err(source) => {
            return Err(StoreError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    // Looked at first: what another release writes here need not look like ours in anything else.
    if let Ok(Versioned { version }) = serde_json::from_slice(&bytes)
        && version != VERSION
    {
        return Err(StoreError::Version {
            path: path.to_owned(),
            found: version,
        });
    }
    Ok(serde_json::from_slice(&bytes).map_or_else(Found::Damaged, Found::Whole))
}

/// Keeps a damaged file for who wants to know what happened; the last one only. Returns where, if that went well.
fn set_aside(path: &Path) -> Option<PathBuf> {
    let aside = path.with_extension("json.damaged");
    match fs::rename(path, &aside) {
        Ok(()) => Some(aside),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot set the damaged file aside");
            None
        }
    }
}

/// Writes the whole file beside the old one and renames it into place. Whatever ends the agent leaves one or the other. It
/// is not waited for the disk, which can take longer than all else about a pod: what the system has taken is lost only when
/// the machine goes down, and the pods with it. What it then finds, older or damaged, has no veth and is freed.
fn write(path: &Path, contents: &Contents) -> io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(contents)?;
    bytes.push(b'\n');
    let beside = half_written::beside(path);
    let written = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // On a full disk it holds what little there was. The next start finds it if it cannot be removed now.
        let _ = fs::remove_file(&beside);
    }
    written
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
    /// It is missing, damaged or not of now, and the veths do not tell enough to make it anew.
    #[error("{path} does not tell who holds which pod address, and nothing else does")]
    Lost {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<RecoveryError>,
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
    use super::super::interface::host_interface;
    use super::super::label::Label;
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
            network: None,
        }
    }

    fn pool() -> Pool {
        Pool::new(["10.0.0.0/29".parse().unwrap(), "fd00::/64".parse().unwrap()]).unwrap()
    }

    #[test]
    fn what_was_added_is_there_after_a_restart_and_what_was_removed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("attachments.json");
        let mut store = AttachmentStore::open(path.clone(), &[]).unwrap();
        let first = store.add(&owner(1), record(), &pool()).unwrap();
        assert_eq!(first.len(), 2);
        store.add(&owner(2), record(), &pool()).unwrap();
        store.remove([&owner(2), &owner(3)]).unwrap();

        let mut store = AttachmentStore::open(path, &[]).unwrap();
        assert_eq!(store.get(&owner(1)).unwrap(), (&record(), first.clone()));
        assert!(store.get(&owner(2)).is_none());
        assert_eq!(store.add(&owner(1), record(), &pool()).unwrap(), first);
        assert_eq!(store.iter().count(), 1);
    }

    fn veth(n: u8, addresses: &[IpAddr]) -> HostSide {
        let label = Label {
            owner: owner(n),
            addresses: addresses.to_vec(),
            netns: "/run/netns/a".to_owned(),
        };
        HostSide {
            name: host_interface(&label.owner),
            label: label.to_alias(),
            up: true,
        }
    }

    #[test]
    fn a_lost_or_damaged_file_is_made_anew_from_the_veths_and_no_address_is_given_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("attachments.json");
        let mut store = AttachmentStore::open(path.clone(), &[]).unwrap();
        let first = store.add(&owner(1), record(), &pool()).unwrap();
        let second = store.add(&owner(2), record(), &pool()).unwrap();
        let veths = [veth(1, &first), veth(2, &second)];
        let whole = std::fs::read(&path).unwrap();
        let twice = String::from_utf8(whole.clone())
            .unwrap()
            .replace(&second[0].to_string(), &first[0].to_string());
        for damaged in [
            Some(&whole[..whole.len() / 2]),
            Some(b"".as_slice()),
            Some(b"[]"),
            Some(b"\xff\0\0"),
            Some(twice.as_bytes()),
            None,
        ] {
            match damaged {
                Some(damaged) => std::fs::write(&path, damaged).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let mut store = AttachmentStore::open(path.clone(), &veths).unwrap();
            assert_eq!(store.get(&owner(1)).unwrap().1, first, "{damaged:?}");
            assert_eq!(store.get(&owner(2)).unwrap().1, second, "{damaged:?}");
            if let Some(damaged) = damaged {
                let aside = std::fs::read(dir.path().join("attachments.json.damaged")).unwrap();
                assert_eq!(aside, damaged);
            }
            let third = store.add(&owner(3), record(), &pool()).unwrap();
            assert!(third.iter().all(|it| !first.contains(it) && !second.contains(it)));
            // And it is on disk: without the veths it says the same.
            let store = AttachmentStore::open(path.clone(), &[]).unwrap();
            assert_eq!(store.iter().count(), 3);
        }
    }

    #[test]
    fn a_file_is_refused_and_left_as_it_is_where_making_it_anew_would_be_a_guess() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("attachments.json");
        let mut store = AttachmentStore::open(path.clone(), &[]).unwrap();
        let first = store.add(&owner(1), record(), &pool()).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        let unlabelled = HostSide {
            label: None,
            ..veth(1, &first)
        };
        for (content, veths) in [
            ("{", vec![unlabelled]),
            ("{", vec![veth(1, &first), veth(2, &first)]),
            (
                &whole.replace("\"version\": 1", "\"version\": 2"),
                vec![veth(1, &first)],
            ),
        ] {
            std::fs::write(&path, content).unwrap();
            let error = AttachmentStore::open(path.clone(), &veths).unwrap_err();
            let error = format!("{:#}", anyhow::Error::from(error));
            let named = ["wrn", "c1/eth0", "version 2"]
                .iter()
                .any(|it| error.contains(it));
            assert!(named, "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn an_addition_that_cannot_be_written_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing").join("attachments.json");
        let mut store = AttachmentStore::open(path, &[]).unwrap();
        assert!(matches!(
            store.add(&owner(1), record(), &pool()),
            Err(AddError::Store(_))
        ));
        assert!(store.get(&owner(1)).is_none());
        assert!(store.allocations().is_empty());
    }
}
