//! The guard a node boots with.
//!
//! After a reboot the nft table is gone, and until the API answers nobody can say which pod networks are remote. So the
//! last guard is kept on disk, and put back, closed to all pods, before anything else is done. While the table is
//! there (the agent alone was restarted) it is left as it is.
//!
//! With it are kept the pod networks of other nodes. One whose Node was deleted stays sealed: its pods may live on for a
//! while, and packets for them must not leave by the default route.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::PathBuf;

use atomic_write_file::AtomicWriteFile;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use warren_kernel::{Kernel, KernelError};
use warren_plan::{Action, Guard};

/// The guard kept for the next boot.
#[derive(Debug)]
pub struct BootGuard {
    path: PathBuf,
    kept: Option<Kept>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    guard: Guard,
    networks: BTreeSet<IpNet>,
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
        let guard = self
            .kept
            .as_ref()
            .map(|kept| kept.guard.clone())
            .unwrap_or_default();
        kernel.apply(&Action::InstallGuard(guard)).await?;
        Ok(true)
    }

    /// The pod networks of other nodes that were kept.
    pub fn networks(&self) -> BTreeSet<IpNet> {
        self.kept
            .as_ref()
            .map(|kept| kept.networks.clone())
            .unwrap_or_default()
    }

    /// Keeps a guard and the pod networks of other nodes for the next boot, if they are others than those kept. Failing to
    /// is logged, and tried again with the next pass: the guard in force is not touched by it.
    pub fn remember(&mut self, guard: &Guard, networks: &BTreeSet<IpNet>) {
        let kept = Kept {
            guard: sealed_only(guard),
            networks: networks.clone(),
        };
        if self.kept.as_ref() == Some(&kept) {
            return;
        }
        match tokio::task::block_in_place(|| self.write(&kept)) {
            Ok(()) => self.kept = Some(kept),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot keep the guard for the next boot")
            }
        }
    }

    fn write(&self, kept: &Kept) -> io::Result<()> {
        let mut file = AtomicWriteFile::open(&self.path)?;
        file.write_all(&serde_json::to_vec(kept)?)?;
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
            clear: [(
                "10.2.0.0/24".parse().unwrap(),
                warren_plan::Clear::by(warren_plan::Carrier::Vxlan),
            )]
            .into(),
            pods: [pod].into(),
            ..Guard::default()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_remembered_is_there_after_a_reboot_without_its_pods() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guard.json");
        let networks = BTreeSet::from(["10.3.0.0/24".parse().unwrap()]);
        BootGuard::open(path.clone()).remember(&guard(), &networks);
        let again = BootGuard::open(path);
        assert_eq!(again.networks(), networks);
        assert_eq!(
            again.kept.unwrap().guard,
            Guard {
                pods: BTreeSet::new(),
                ..guard()
            }
        );
    }

    #[test]
    fn a_damaged_file_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guard.json");
        std::fs::write(&path, "{").unwrap();
        assert_eq!(BootGuard::open(path).kept, None);
    }
}
