//! What is known of other nodes' keys, kept on disk: which of those that they publish are believed.
//!
//! The rules are [`warren_keymgr::trust`]'s. Without the file, what nodes publish at the moment is learnt anew.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use atomic_write_file::AtomicWriteFile;
use warren_cluster::Snapshot;
use warren_keymgr::trust::{Judged, Trust};
use warren_model::NodeName;
use warren_model::status::KeyChange;

use crate::metrics::KeyMetrics;
use crate::view::View;

/// What is known of other nodes' keys.
#[derive(Debug)]
pub struct KnownKeys {
    path: PathBuf,
    trust: Trust,
    /// What the file holds.
    kept: Trust,
    /// The changes that were told last.
    told: Vec<KeyChange>,
    metrics: KeyMetrics,
}

impl KnownKeys {
    /// Reads what was kept. A file that cannot be read or understood counts as none.
    pub fn open(path: PathBuf, metrics: KeyMetrics) -> Self {
        let read = std::fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
        let kept: Trust = match read {
            Ok(kept) => kept,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "other nodes' keys are learnt anew");
                }
                Trust::default()
            }
        };
        Self {
            path,
            trust: kept.clone(),
            kept,
            told: Vec::new(),
            metrics,
        }
    }

    /// Puts what is believed of other nodes' keys into what was seen of the cluster.
    pub fn judge(&mut self, view: &mut View, own: &NodeName) {
        let Judged {
            instead,
            refusals,
            changes,
        } = self
            .trust
            .judge(&view.snapshot.nodes, own, &view.snapshot.mesh.keys);
        if !instead.is_empty() || !refusals.is_empty() {
            let mut believed = Snapshot::clone(&view.snapshot);
            for (name, announcement) in instead {
                if let Some(node) = believed.nodes.get_mut(&name) {
                    node.announcement = announcement.map(Ok);
                }
            }
            believed.refusals.extend(refusals);
            view.snapshot = Arc::new(believed);
        }
        for change in changes.iter().filter(|change| !self.told.contains(change)) {
            self.metrics.changed(change);
            tracing::warn!(
                peer = %change.node,
                epoch = %change.epoch,
                before = change.before.short(),
                now = change.now.short(),
                in_force = change.in_force,
                "a key changed outside a rotation"
            );
        }
        self.told.clone_from(&changes);
        view.key_changes = changes;
        self.keep();
    }

    /// Writes what is new. A failure is logged, and tried again with the next pass.
    fn keep(&mut self) {
        if self.trust == self.kept {
            return;
        }
        match tokio::task::block_in_place(|| self.write()) {
            Ok(()) => self.kept = self.trust.clone(),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot keep what is known of other nodes' keys");
            }
        }
    }

    fn write(&self) -> io::Result<()> {
        let mut file = AtomicWriteFile::open(&self.path)?;
        file.write_all(&serde_json::to_vec(&self.trust)?)?;
        file.commit()
    }
}
