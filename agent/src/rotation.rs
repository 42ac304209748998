//! Taking the steps of a key rotation: what `keymgr::rotation` is told, and doing what it says.

mod begun;
mod seen;

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use warren_cluster::Snapshot;
use warren_keymgr::rotation::{Clocks, Limits, Step, Waiting, next};
use warren_keymgr::{KeyStore, KeyStoreError};
use warren_model::{Announcement, Epoch, Node, NodeName};
use warren_plan::Observed;

use self::begun::Begun;
pub use self::begun::FILE_NAME;
use self::seen::view;
use crate::config::Config;

/// This node's part in rotations.
#[derive(Debug)]
pub struct Rotation {
    clocks: Clocks,
    begun: Begun,
    /// The epoch that this node has settled in, from when that is decided until the API shows it.
    settled: Option<Epoch>,
    waiting: Vec<Waiting>,
    given_up: Vec<Waiting>,
    again: Option<Duration>,
}

impl Rotation {
    /// Goes on where the agent before this one was.
    pub fn open(config: &Config) -> Self {
        let limits = Limits {
            grace: Duration::from_secs(config.rotation_grace),
            deadline: Duration::from_secs(config.rotation_deadline),
        };
        let mut clocks = Clocks::new(limits);
        let begun = Begun::open(config.state_dir.join(FILE_NAME), since_boot());
        if let Some((epoch, since)) = begun.get() {
            clocks.resume(epoch, since);
        }
        Self {
            clocks,
            begun,
            settled: None,
            waiting: Vec::new(),
            given_up: Vec::new(),
            again: None,
        }
    }

    /// Takes the steps that are due, and gives the epoch to say that this node has settled in.
    ///
    /// # Errors
    /// When the key store fails. What was done is done; the rest is due again.
    pub fn go_on(
        &mut self,
        keys: &mut KeyStore,
        snapshot: &Snapshot,
        observed: &Observed,
        node: &NodeName,
        can_encrypt: bool,
    ) -> Result<Option<Epoch>, KeyStoreError> {
        let published = snapshot.nodes.get(node).and_then(announcement);
        for (epoch, key) in keys.public_keys() {
            if snapshot.mesh.keys.revoked.contains(&key) {
                tracing::warn!(%epoch, key = key.short(), "the mesh has revoked this node's key: making another");
                keys.replace(epoch)?;
            }
        }
        let view = view(keys, snapshot, observed, node, can_encrypt);
        let next = next(&view, &mut self.clocks, since_boot());
        self.begun.keep(self.clocks.under_way());
        self.again = next.again;
        if next.waiting != self.waiting {
            for waiting in &next.waiting {
                tracing::debug!(%waiting, "a rotation of keys waits");
            }
            self.waiting = next.waiting;
        }
        if next.given_up != self.given_up {
            for waiting in &next.given_up {
                tracing::warn!(reason = %waiting, "a rotation of keys is past its deadline and waits no more");
            }
            self.given_up = next.given_up;
        }
        for step in next.steps {
            match step {
                Step::Make(epoch) => drop(keys.ensure(epoch)?),
                Step::Carry { from, to } => drop(keys.carry_over(from, to)?),
                Step::Retire(epoch) => keys.retire(epoch)?,
                Step::Settle(epoch) => {
                    tracing::info!(%epoch, "settled: every peer is sent to by the keys of this epoch");
                    self.settled = Some(epoch);
                }
            }
        }
        Ok(self.settled.max(published.map(|published| published.settled)))
    }

    /// After how long it is to be asked again although nothing has changed.
    pub fn again(&self) -> Option<Duration> {
        self.again
    }

    /// What the rotation that is under way waits for, for people; empty without one.
    pub fn waits_for(&self) -> Vec<String> {
        self.waiting.iter().map(ToString::to_string).collect()
    }
}

fn announcement(node: &Node) -> Option<&Announcement> {
    node.announcement.as_ref()?.as_ref().ok()
}

/// Time since the node booted, also while it slept: it goes on where an agent ends and another begins.
fn since_boot() -> Duration {
    // The kernel has this clock since 2.6.39, and refuses only clocks that it does not have.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}
