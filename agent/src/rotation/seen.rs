//! What a node sees of a rotation: its keys, what the others publish, and where its routes lead.

use std::collections::{BTreeMap, BTreeSet};

use warren_cluster::Snapshot;
use warren_keymgr::KeyStore;
use warren_keymgr::rotation::{Peer, View};
use warren_model::{Announcement, Encryption, Epoch, Lane, Node, NodeName, PathKind};
use warren_plan::{Observed, RouteTarget};

use super::announcement;

/// What `keymgr::rotation` decides by.
pub(super) fn view(
    keys: &KeyStore,
    snapshot: &Snapshot,
    observed: &Observed,
    node: &NodeName,
    can_encrypt: bool,
) -> View {
    let own: BTreeSet<Epoch> = keys.public_keys().into_iter().map(|(epoch, _)| epoch).collect();
    let encrypts = can_encrypt && snapshot.mesh.encryption == Encryption::Wireguard;
    let others = snapshot.nodes.values().filter(|peer| peer.name != *node);
    let named = &snapshot.mesh.keys.nodes;
    View {
        mesh: snapshot.mesh.keys.epoch,
        renews: named.is_empty() || named.iter().any(|name| name == node.as_str()),
        settled: snapshot
            .nodes
            .get(node)
            .and_then(announcement)
            .map(|own| own.settled),
        peers: others
            .filter_map(|node| {
                Some((
                    node.name.clone(),
                    peer(node, &own, observed, can_encrypt, encrypts)?,
                ))
            })
            .collect::<BTreeMap<_, _>>(),
        own,
    }
}

/// What is seen of another node; `None`: keys do not matter between it and this one.
fn peer(
    peer: &Node,
    own: &BTreeSet<Epoch>,
    observed: &Observed,
    can_encrypt: bool,
    encrypts: bool,
) -> Option<Peer> {
    let says = announcement(peer)?;
    let epochs: BTreeSet<Epoch> = says.keys.iter().map(|key| key.epoch).collect();
    let has_lanes = says.paths.contains(&PathKind::Wireguard);
    let routed = Routed::to(peer, observed);
    // A node that has just lost WireGuard, or of which that is just learnt, is sent to and sends through a lane until the path is changed.
    let may_send = says
        .progress
        .as_ref()
        .is_some_and(|progress| progress.by.contains(&PathKind::Wireguard));
    let is_reached =
        !peer.pod_cidrs.is_empty() && (can_encrypt && (has_lanes || may_send) || routed.uses_lanes());
    if !is_reached && !own.is_empty() {
        return None;
    }
    let sends = match routed {
        Routed::By(lane) => proven(lane, own, observed, says),
        Routed::ByBoth => None,
        // It will be: what is sent meanwhile is not by any key, but what is sent next must be by one that both have.
        Routed::Elsewhere if encrypts && has_lanes => None,
        // Nothing goes through the lanes, so nothing can be lost there.
        Routed::Elsewhere => own.intersection(&epochs).max().copied(),
    };
    Some(Peer {
        keys: epochs,
        settled: says.settled,
        sends,
        ready: peer.ready,
    })
}

/// Where the routes to a node's pods lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Routed {
    /// All of them through this lane.
    By(Lane),
    /// Some through a lane, some not, or through the other.
    ByBoth,
    /// None through a lane.
    Elsewhere,
}

impl Routed {
    fn to(peer: &Node, observed: &Observed) -> Self {
        let lane_of = |route: &warren_plan::Route| match &route.target {
            RouteTarget::Device(device) => Lane::of_interface(device),
            RouteTarget::OnLink(..)
            | RouteTarget::Gateway(_)
            | RouteTarget::Unreachable
            | RouteTarget::Blackhole => None,
        };
        let routes = peer.pod_cidrs.iter();
        let routes = routes.filter_map(|cidr| observed.routes.get(&cidr.net()));
        let lanes: BTreeSet<Option<Lane>> = routes.map(lane_of).collect();
        match (lanes.first(), lanes.len()) {
            (None | Some(None), 0 | 1) => Self::Elsewhere,
            (Some(Some(lane)), 1) => Self::By(*lane),
            _ => Self::ByBoth,
        }
    }

    fn uses_lanes(self) -> bool {
        self != Self::Elsewhere
    }
}

/// The epoch whose lane that is, if a handshake was completed there.
fn proven(
    lane: Lane,
    own: &BTreeSet<Epoch>,
    observed: &Observed,
    announcement: &Announcement,
) -> Option<Epoch> {
    let key = announcement
        .keys
        .iter()
        .find(|key| key.epoch.lane() == lane && own.contains(&key.epoch))?;
    let device = observed.lanes.get(&lane)?.peers.get(&key.public_key)?;
    device.handshake_age.map(|_| key.epoch)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use warren_model::{Accord, AnnouncedKey, Progress, PublicKey};
    use warren_plan::Route;

    use super::*;

    fn epoch(number: u32) -> Epoch {
        Epoch::new(number).unwrap()
    }

    fn own() -> BTreeSet<Epoch> {
        BTreeSet::from([epoch(1), epoch(2)])
    }

    /// A node with keys of both epochs that can do these paths and may be sending by those.
    fn other(paths: &[PathKind], by: &[PathKind]) -> Node {
        let key = |number: u8| AnnouncedKey {
            epoch: epoch(number.into()),
            public_key: PublicKey::from_bytes([number; 32]).unwrap(),
            port: 51820,
        };
        let says = Announcement::new(
            vec![key(1), key(2)],
            epoch(1),
            paths.iter().copied().collect::<BTreeSet<_>>(),
        );
        let progress = Progress {
            accepts: Accord(0),
            sends: None,
            by: by.iter().copied().collect(),
        };
        Node {
            name: "other".parse().unwrap(),
            uid: "u".to_owned(),
            created: 0,
            pod_cidrs: vec!["10.244.9.0/24".parse().unwrap()],
            internal_ips: Vec::new(),
            announcement: Some(says.map(|says| says.with_progress(progress))),
            ready: true,
        }
    }

    fn routed_by(device: &str) -> Observed {
        let route = Route {
            target: RouteTarget::Device(device.to_owned()),
            source: None,
            mtu: None,
        };
        Observed {
            routes: BTreeMap::from([("10.244.9.0/24".parse().unwrap(), route)]),
            ..Observed::default()
        }
    }

    const BOTH: [PathKind; 2] = [PathKind::Wireguard, PathKind::Vxlan];
    const VXLAN: [PathKind; 1] = [PathKind::Vxlan];

    #[test]
    fn while_encryption_is_turned_off_a_peer_that_is_still_routed_to_by_a_lane_is_not_reached_by_the_new_key()
    {
        let peer_now = |observed: &Observed| peer(&other(&BOTH, &BOTH), &own(), observed, true, false);
        assert_eq!(peer_now(&routed_by("warren1")).unwrap().sends, None);
        assert_eq!(
            peer_now(&routed_by("warren-vx")).unwrap().sends,
            Some(epoch(2)),
            "nothing goes through a lane"
        );
    }

    #[test]
    fn a_peer_that_has_lost_wireguard_counts_until_neither_sends_to_the_other_by_a_lane() {
        let counts = |by: &[PathKind], device: &str| {
            peer(&other(&VXLAN, by), &own(), &routed_by(device), true, true).is_some()
        };
        assert!(counts(&BOTH, "warren-vx"));
        assert!(counts(&VXLAN, "warren0"));
        assert!(!counts(&VXLAN, "warren-vx"));
    }
}
