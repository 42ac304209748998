//! The guard a node boots with.
//!
//! After a reboot the nft table is gone, and until the API answers nobody can say which pod networks are remote. So the
//! last guard is kept on disk, and put back, closed to all pods, before anything else is done. While the table is
//! there (the agent alone was restarted) it is left as it is.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::PathBuf;

use atomic_write_file::AtomicWriteFile;
use warren_kernel::{Kernel, KernelError};
use warren_plan::{Action, Guard};

/// The guard kept for the next boot.
#[derive(Debug)]
pub struct BootGuard {
    path: PathBuf,
    kept: Option<Guard>,
}

impl BootGuard {
    /// Reads what was kept. A file that cannot be understood counts as none: the first pass keeps a new one.
    pub fn open(path: PathBuf) -> Self {
        let kept = match std::fs::read(&path).map(|bytes| serde_json::from_slice(&bytes)) {
            Ok(Ok(guard)) => Some(guard),
            Ok(Err(error)) => {
                tracing::warn!(path = %path.display(), %error, "cannot use the guard kept from before");
                None
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read the guard kept from before");
                None
            }
        };
        Self { path, kept }
    }

    /// Puts a guard in force if there is none: the one kept, without its pods, or an empty one, which still drops all
    /// traffic of veths. Returns whether it did.
    pub async fn install_if_absent(&self, kernel: &Kernel) -> Result<bool, KernelError> {
        if kernel.observe(&[]).await?.guard.is_some() {
            return Ok(false);
        }
        let guard = self.kept.as_ref().map(sealed_only).unwrap_or_default();
        kernel.apply(&Action::InstallGuard(guard)).await?;
        Ok(true)
    }

    /// Keeps a guard for the next boot, if it is another than the one kept. Failing to is logged, and tried again with
    /// the next pass: the guard in force is not touched by it.
    pub fn remember(&mut self, guard: &Guard) {
        let guard = sealed_only(guard);
        if self.kept.as_ref() == Some(&guard) {
            return;
        }
        match tokio::task::block_in_place(|| self.write(&guard)) {
            Ok(()) => self.kept = Some(guard),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot keep the guard for the next boot")
            }
        }
    }

    fn write(&self, guard: &Guard) -> io::Result<()> {
        let mut file = AtomicWriteFile::open(&self.path)?;
        file.write_all(&serde_json::to_vec(guard)?)?;
        file.commit()
    }
}

/// The guard without its pods: those are opened one by one as they are found.
fn sealed_only(guard: &Guard) -> Guard {
    Guard {
        pods: BTreeSet::new(),
        ..guard.clone()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use warren_plan::OpenPod;

    use super::*;

    fn guard() -> Guard {
        let pod = OpenPod {
            interface: "wrn0".to_owned(),
            address: [10, 0, 0, 2].into(),
        };
        Guard {
            sealed: ["10.1.0.0/24".parse().unwrap()].into(),
            clear: [("10.2.0.0/24".parse().unwrap(), warren_plan::Carrier::Vxlan)].into(),
            pods: [pod].into(),
            ..Guard::default()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_remembered_is_there_after_a_reboot_without_its_pods() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guard.json");
        BootGuard::open(path.clone()).remember(&guard());
        assert_eq!(BootGuard::open(path).kept, Some(sealed_only(&guard())));
    }

    #[test]
    fn a_damaged_file_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guard.json");
        std::fs::write(&path, "{").unwrap();
        assert_eq!(BootGuard::open(path).kept, None);
    }
}
