//! Since when the rotation that is under way has gone on, kept beside the keys: its deadline counts from there, whether the agent
//! is restarted or not.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use atomic_write_file::AtomicWriteFile;
use serde::{Deserialize, Serialize};
use warren_model::Epoch;

/// The file's name in the state folder.
pub const FILE_NAME: &str = "rotation.json";

/// What the kernel calls this boot by.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// When a rotation was first seen, in time since boot.
#[derive(Debug)]
pub(super) struct Begun {
    path: PathBuf,
    boot: String,
    kept: Option<(Epoch, Duration)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The newest epoch of this node.
    epoch: Epoch,
    /// The boot that the time is of.
    boot: String,
    /// Seconds since it.
    since: f64,
}

impl Begun {
    /// Reads what was kept. What is of another boot says nothing: how long the node was off is not known, and after a reboot it has
    /// no traffic to lose. A file that cannot be read or understood counts as none.
    pub(super) fn open(path: PathBuf, now: Duration) -> Self {
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        let boot = boot.trim().to_owned();
        let read = std::fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<Record>(&bytes)?));
        let kept = match read {
            Ok(record) => {
                let since = Duration::try_from_secs_f64(record.since).ok();
                let since = since.filter(|since| record.boot == boot && *since <= now);
                since.map(|since| (record.epoch, since))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read when the rotation of keys began");
                None
            }
        };
        Self { path, boot, kept }
    }

    /// What was kept.
    pub(super) fn get(&self) -> Option<(Epoch, Duration)> {
        self.kept
    }

    /// Keeps this; `None`: no rotation is under way. Failing to write is logged, and tried again with the next pass.
    pub(super) fn keep(&mut self, under_way: Option<(Epoch, Duration)>) {
        if under_way == self.kept {
            return;
        }
        let written = match under_way {
            Some((epoch, since)) => self.write(epoch, since),
            None => std::fs::remove_file(&self.path),
        };
        match written {
            Err(error) if under_way.is_some() || error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "cannot keep when the rotation of keys began");
            }
            Ok(()) | Err(_) => self.kept = under_way,
        }
    }

    fn write(&self, epoch: Epoch, since: Duration) -> io::Result<()> {
        let record = Record {
            epoch,
            boot: self.boot.clone(),
            since: since.as_secs_f64(),
        };
        let mut file = AtomicWriteFile::open(&self.path)?;
        file.write_all(&serde_json::to_vec(&record)?)?;
        file.commit()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    const THEN: Duration = Duration::from_secs(100);
    const LATER: Duration = Duration::from_secs(200);

    fn epoch() -> Epoch {
        Epoch::new(2).unwrap()
    }

    #[test]
    fn another_process_goes_on_from_what_was_kept_until_the_rotation_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let mut begun = Begun::open(path.clone(), THEN);
        assert_eq!(begun.get(), None);
        begun.keep(Some((epoch(), THEN)));
        let mut next = Begun::open(path.clone(), LATER);
        assert_eq!(next.get(), Some((epoch(), THEN)));
        next.keep(None);
        assert!(!path.exists());
        next.keep(None);
        assert_eq!(Begun::open(path, LATER).get(), None);
    }

    #[test]
    fn what_is_of_another_boot_or_cannot_be_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let boot = std::fs::read_to_string(BOOT_ID).unwrap();
        let boot = boot.trim();
        for (record, believed) in [
            (format!(r#"{{"epoch":2,"boot":"{boot}","since":100.0}}"#), true),
            (format!(r#"{{"epoch":2,"boot":"{boot}","since":300.0}}"#), false),
            (format!(r#"{{"epoch":2,"boot":"{boot}","since":-1.0}}"#), false),
            (r#"{"epoch":2,"boot":"other","since":100.0}"#.to_owned(), false),
            ("{".to_owned(), false),
        ] {
            std::fs::write(&path, &record).unwrap();
            let kept = Begun::open(path.clone(), LATER).get();
            assert_eq!(kept.is_some(), believed, "{record}");
        }
    }
}
