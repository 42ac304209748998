//! Where the peers were to be sent to, by the last plan that was carried out.
//!
//! A device tells where it sends a peer's packets, not whether the peer went there by itself or was sent there. It is
//! told by what was wanted before: see [`Local::endpoints_before`](warren_plan::Local). Kept on disk, for a Node may get
//! another address while its peers' agents restart. Without the file such a peer is found again once its last handshake
//! is three minutes old.

use std::io::{self, Write as _};
use std::path::PathBuf;

use atomic_write_file::AtomicWriteFile;
use warren_plan::{Action, Desired, Endpoints};

use crate::view::Failure;

/// The endpoints that the last plan wanted.
#[derive(Debug)]
pub struct KeptEndpoints {
    path: PathBuf,
    kept: Endpoints,
}

impl KeptEndpoints {
    /// Reads what was kept. A file that cannot be read or understood counts as none.
    pub fn open(path: PathBuf) -> Self {
        let read = std::fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
        let kept = match read {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Endpoints::new(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot use the endpoints kept from before");
                Endpoints::new()
            }
        };
        Self { path, kept }
    }

    /// What was kept.
    pub fn get(&self) -> &Endpoints {
        &self.kept
    }

    /// Keeps the endpoints of a plan that was carried out but for these failures. What a lane could not be told stays to be
    /// told. Failing to write is logged, and tried again with the next pass.
    pub fn remember(&mut self, desired: &Desired, failures: &[Failure]) {
        let failed = |lane| {
            let of_lane =
                |failure: &Failure| matches!(failure.step.action, Action::ConfigureLane(of, _) if of == lane);
            failures.iter().any(of_lane)
        };
        let mut next = desired.endpoints();
        for (lane, peers) in &mut next {
            if failed(*lane) {
                *peers = self.kept.get(lane).cloned().unwrap_or_default();
            }
        }
        if next == self.kept {
            return;
        }
        match tokio::task::block_in_place(|| self.write(&next)) {
            Ok(()) => self.kept = next,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot keep the peers' endpoints")
            }
        }
    }

    fn write(&self, next: &Endpoints) -> io::Result<()> {
        let mut file = AtomicWriteFile::open(&self.path)?;
        file.write_all(&serde_json::to_vec(next)?)?;
        file.commit()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use warren_model::{Lane, Mesh, PublicKey};
    use warren_plan::{Cluster, InForce, LaneChange, LaneConfig, Local, PeerConfig, Step, compute};

    use super::*;

    fn key() -> PublicKey {
        PublicKey::from_bytes([9; 32]).unwrap()
    }

    fn desired(endpoint: &str) -> Desired {
        let local = Local {
            node: "a".parse().unwrap(),
            keys: BTreeMap::new(),
            can: BTreeSet::new(),
            attachments: Vec::new(),
            underlay: Vec::new(),
            underlay_routes: Vec::new(),
            mtu_holes: BTreeMap::new(),
            networks_before: BTreeSet::new(),
            endpoints_before: Endpoints::new(),
            settled: None,
            in_force: InForce::default(),
        };
        let cluster = Cluster {
            mesh: Mesh::default(),
            ..Cluster::default()
        };
        let peer = PeerConfig {
            endpoint: endpoint.parse().unwrap(),
            allowed_ips: BTreeSet::new(),
            keepalive: 0,
        };
        let lane = LaneConfig {
            peers: [(key(), peer)].into(),
            ..LaneConfig::default()
        };
        Desired {
            lanes: [(Lane::One, lane)].into(),
            ..compute(&cluster, &local)
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_carried_out_is_there_after_a_restart_and_what_failed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("endpoints.json");
        let (first, second) = (desired("192.0.2.1:51821"), desired("192.0.2.2:51821"));
        KeptEndpoints::open(path.clone()).remember(&first, &[]);
        let mut again = KeptEndpoints::open(path.clone());
        assert_eq!(again.get(), &first.endpoints());

        let change = LaneChange::SetEndpoint(key(), "192.0.2.2:51821".parse().unwrap());
        let failure = Failure {
            step: Step {
                action: Action::ConfigureLane(Lane::One, change),
                reason: String::new(),
            },
            error: String::new(),
        };
        again.remember(&second, &[failure]);
        assert_eq!(KeptEndpoints::open(path).get(), &first.endpoints());
    }

    #[test]
    fn a_damaged_file_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("endpoints.json");
        std::fs::write(&path, "{\"one\":").unwrap();
        assert!(KeptEndpoints::open(path).get().is_empty());
    }
}
