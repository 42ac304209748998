//! Values below `/proc/sys/net`, and the record of what they were before Warren changed them.
//!
//! `/proc/sys/net` shows the network namespace of the thread that reads it, so everything here runs on the caller's
//! thread; nothing of it waits for a disk but the record, which is a few hundred bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use crate::links::is_ours;

const ROOT: &str = "/proc/sys/net";
const RECORD: &str = "sysctls.json";

/// A sysctl that cannot be read or written, or the record of them.
#[derive(Debug, Error)]
pub enum SysctlError {
    /// The kernel has no such value.
    #[error("this kernel has no sysctl net/{key}: the interface is gone, or its address family is disabled")]
    Missing {
        /// The path below `/proc/sys/net`.
        key: String,
    },
    /// It refuses.
    #[error("cannot {act} sysctl net/{key}: /proc/sys must be mounted writable in the agent's container")]
    Refused {
        /// Read or write.
        act: &'static str,
        /// The path below `/proc/sys/net`.
        key: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key that leads out of `/proc/sys/net`.
    #[error("{0:?} is not a path below /proc/sys/net")]
    Key(String),
    /// The record does not say what the values were.
    #[error(
        "{path} is damaged, so nobody knows what sysctls were before Warren: check net.ipv4.ip_forward and \
         net.ipv6.conf.all.forwarding by hand, then remove the file"
    )]
    Damaged {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The record cannot be read, written or removed.
    #[error(
        "cannot {act} {path}, which holds what sysctls were before Warren: free space on the disk, and check that it \
         is writable"
    )]
    Record {
        /// Read, write or remove.
        act: &'static str,
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl SysctlError {
    /// Whether the same may succeed later without a change elsewhere.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Record { .. } => true,
            Self::Missing { .. } | Self::Refused { .. } | Self::Key(_) | Self::Damaged { .. } => false,
        }
    }
}

/// The values now of the keys that exist.
pub(crate) fn read_all(keys: &[String]) -> Result<BTreeMap<String, String>, SysctlError> {
    let mut values = BTreeMap::new();
    for key in keys {
        match read(key) {
            Ok(value) => drop(values.insert(key.clone(), value)),
            Err(SysctlError::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(values)
}

/// The value now, without the newline.
pub fn read(key: &str) -> Result<String, SysctlError> {
    let text = fs::read_to_string(path(key)?).map_err(|source| refused("read", key, source))?;
    Ok(text.trim().to_owned())
}

/// Writes a value.
pub fn write(key: &str, value: &str) -> Result<(), SysctlError> {
    let path = path(key)?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(|e| refused("write", key, e))?;
    file.write_all(value.as_bytes())
        .map_err(|source| refused("write", key, source))
}

/// What the values were before us, kept in the state directory until they are restored.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    directory: PathBuf,
}

impl Record {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Writes a value, first recording the one it replaces unless one is recorded already or it vanishes with an
    /// interface of ours.
    pub(crate) fn set(&self, key: &str, value: &str) -> Result<(), SysctlError> {
        if !vanishes_with_us(key) {
            let mut recorded = self.load()?;
            if !recorded.contains_key(key) {
                recorded.insert(key.to_owned(), read(key)?);
                self.store(&recorded)?;
            }
        }
        write(key, value)
    }

    /// Restores every value recorded and forgets the record; returns which keys had another value, and what went wrong.
    /// One that cannot be restored does not keep the others, but the record. What no longer exists needs no restoring.
    pub(crate) fn restore(&self) -> (Vec<String>, Vec<SysctlError>) {
        let recorded = match self.load() {
            Ok(recorded) => recorded,
            Err(error) => return (Vec::new(), vec![error]),
        };
        let (mut restored, mut errors) = (Vec::new(), Vec::new());
        for (key, value) in recorded {
            let written = match read(&key) {
                Ok(now) if now == value => continue,
                Ok(_) => write(&key, &value),
                Err(SysctlError::Missing { .. }) => continue,
                Err(error) => Err(error),
            };
            match written {
                Ok(()) => restored.push(key),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty()
            && let Err(error) = fs::remove_file(self.path())
            && error.kind() != io::ErrorKind::NotFound
        {
            errors.push(self.failed("remove", error));
        }
        (restored, errors)
    }

    fn load(&self) -> Result<BTreeMap<String, String>, SysctlError> {
        match fs::read(self.path()) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| SysctlError::Damaged {
                path: self.path(),
                source,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(self.failed("read", error)),
        }
    }

    /// A crash leaves the old record or the new one.
    fn store(&self, recorded: &BTreeMap<String, String>) -> Result<(), SysctlError> {
        let replace = || {
            fs::create_dir_all(&self.directory)?;
            let new = self.directory.join(".sysctls.json.new");
            let mut file = fs::File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(recorded)?)?;
            file.sync_all()?;
            fs::rename(&new, self.path())?;
            fs::File::open(&self.directory)?.sync_all()
        };
        replace().map_err(|error| self.failed("write", error))
    }

    fn path(&self) -> PathBuf {
        self.directory.join(RECORD)
    }

    fn failed(&self, act: &'static str, source: io::Error) -> SysctlError {
        SysctlError::Record {
            act,
            path: self.path(),
            source,
        }
    }
}

/// Values below `ipv4/conf/INTERFACE` and the like, where the interface is ours.
fn vanishes_with_us(key: &str) -> bool {
    let mut parts = key.split('/').skip(1);
    matches!(parts.next(), Some("conf" | "neigh")) && parts.next().is_some_and(is_ours)
}

fn path(key: &str) -> Result<PathBuf, SysctlError> {
    let below = Path::new(key);
    let plain = below
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if key.is_empty() || !plain {
        return Err(SysctlError::Key(key.to_owned()));
    }
    Ok(Path::new(ROOT).join(below))
}

fn refused(act: &'static str, key: &str, source: io::Error) -> SysctlError {
    let key = key.to_owned();
    if source.kind() == io::ErrorKind::NotFound {
        SysctlError::Missing { key }
    } else {
        SysctlError::Refused { act, key, source }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn only_what_outlives_our_interfaces_is_recorded() {
        for ours in [
            "ipv4/conf/warren0/rp_filter",
            "ipv6/conf/wrn0a1b/accept_dad",
            "ipv4/neigh/warren-vx/x",
        ] {
            assert!(vanishes_with_us(ours), "{ours}");
        }
        for others in [
            "ipv4/ip_forward",
            "ipv4/conf/all/rp_filter",
            "ipv4/conf/eth0/rp_filter",
            "ipv4/conf",
        ] {
            assert!(!vanishes_with_us(others), "{others}");
        }
    }

    #[test]
    fn a_key_cannot_lead_out_of_proc_sys_net() {
        for bad in [
            "",
            "/etc/passwd",
            "../kernel/panic",
            "ipv4/../../kernel/panic",
            "./ipv4",
        ] {
            assert!(matches!(path(bad), Err(SysctlError::Key(_))), "{bad}");
        }
        assert_eq!(
            path("ipv4/ip_forward").unwrap(),
            Path::new("/proc/sys/net/ipv4/ip_forward")
        );
    }

    #[test]
    fn a_damaged_record_is_an_error_and_not_an_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(RECORD), "{").unwrap();
        let record = Record::new(directory.path().to_owned());
        assert!(matches!(record.load(), Err(SysctlError::Damaged { .. })));
    }
}
