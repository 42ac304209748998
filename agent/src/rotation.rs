//! Taking the steps of a key rotation: what `keymgr::rotation` is told, and doing what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use warren_cluster::Snapshot;
use warren_keymgr::rotation::{Clocks, Peer, Step, View, Waiting, next};
use warren_keymgr::{KeyStore, KeyStoreError};
use warren_model::{Announcement, Encryption, Epoch, Lane, Node, NodeName, PathKind};
use warren_plan::{Observed, RouteTarget};

/// This node's part in rotations.
pub struct Rotation {
    clocks: Clocks,
    started: Instant,
    /// The epoch that this node has settled in, from when that is decided until the API shows it.
    settled: Option<Epoch>,
    waiting: Vec<Waiting>,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            clocks: Clocks::default(),
            started: Instant::now(),
            settled: None,
            waiting: Vec::new(),
        }
    }
}

impl Rotation {
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
        let view = view(keys, snapshot, observed, node, can_encrypt);
        let next = next(&view, &mut self.clocks, self.started.elapsed());
        if next.waiting != self.waiting {
            for waiting in &next.waiting {
                tracing::debug!(%waiting, "a rotation of keys waits");
            }
            self.waiting = next.waiting;
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

    /// What the rotation that is under way waits for, for people; empty without one.
    pub fn waits_for(&self) -> Vec<String> {
        self.waiting.iter().map(ToString::to_string).collect()
    }
}

fn announcement(node: &Node) -> Option<&Announcement> {
    node.announcement.as_ref()?.as_ref().ok()
}

fn view(
    keys: &KeyStore,
    snapshot: &Snapshot,
    observed: &Observed,
    node: &NodeName,
    can_encrypt: bool,
) -> View {
    let own: BTreeSet<Epoch> = keys.public_keys().into_iter().map(|(epoch, _)| epoch).collect();
    let others = snapshot.nodes.values().filter(|peer| peer.name != *node);
    let is_encrypted = snapshot.mesh.encryption == Encryption::Wireguard;
    let peer = |peer: &Node| {
        let says = announcement(peer)?;
        let epochs: BTreeSet<Epoch> = says.keys.iter().map(|key| key.epoch).collect();
        // Who cannot be sent to through a lane has no handshake that could be waited for.
        let reached = can_encrypt && !peer.pod_cidrs.is_empty() && says.paths.contains(&PathKind::Wireguard);
        if !reached && !own.is_empty() {
            return None;
        }
        let sends = match is_encrypted {
            true => sends(&own, observed, peer, says),
            // Nothing goes through the lanes, so nothing can be lost there.
            false => own.intersection(&epochs).max().copied(),
        };
        let seen = Peer {
            keys: epochs,
            settled: says.settled,
            sends,
            ready: peer.ready,
        };
        Some((peer.name.clone(), seen))
    };
    let named = &snapshot.mesh.keys.nodes;
    View {
        mesh: snapshot.mesh.keys.epoch,
        renews: named.is_empty() || named.iter().any(|name| name == node.as_str()),
        settled: snapshot
            .nodes
            .get(node)
            .and_then(announcement)
            .map(|own| own.settled),
        peers: others.filter_map(peer).collect::<BTreeMap<_, _>>(),
        own,
    }
}

/// The epoch by which a peer is sent to: all its prefixes are routed through that lane, and a handshake was completed there.
fn sends(
    own: &BTreeSet<Epoch>,
    observed: &Observed,
    peer: &Node,
    announcement: &Announcement,
) -> Option<Epoch> {
    let mut lanes = peer
        .pod_cidrs
        .iter()
        .filter_map(|cidr| observed.routes.get(&cidr.net()))
        .map(|route| match &route.target {
            RouteTarget::Device(device) => Lane::of_interface(device),
            RouteTarget::OnLink(..)
            | RouteTarget::Gateway(_)
            | RouteTarget::Unreachable
            | RouteTarget::Blackhole => None,
        });
    let lane = lanes.next()??;
    if lanes.any(|other| other != Some(lane)) {
        return None;
    }
    let key = announcement
        .keys
        .iter()
        .find(|key| key.epoch.lane() == lane && own.contains(&key.epoch))?;
    let device = observed.lanes.get(&lane)?.peers.get(&key.public_key)?;
    device.handshake_age.map(|_| key.epoch)
}
