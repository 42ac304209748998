//! A peer, the path chosen for it, and the one in use until that works.

use std::collections::BTreeSet;
use std::net::IpAddr;

use warren_model::{Accord, Announcement, Encryption, Mesh, MtuProbe, NodeName, PathKind, PublicKey};

use super::peers::AcceptedPeer;
use crate::guard::{Carrier, Clear};
use crate::handover::{Handover, Wait};
use crate::input::{Cluster, Local};
use crate::mtu;
use crate::path_choice::{Choice, PeerRoute, by_path, choose, peer_address};
use crate::state::PeerPlan;

/// An accepted peer and how it is reached.
pub(crate) struct Chosen<'a> {
    pub(crate) peer: &'a AcceptedPeer<'a>,
    choice: Choice,
    handover: Handover<'a>,
    /// The path that stays in use, and what the one chosen waits for.
    stays: Option<(PeerRoute, Wait)>,
}

impl<'a> Chosen<'a> {
    pub(super) fn new(
        peer: &'a AcceptedPeer<'a>,
        cluster: &'a Cluster,
        local: &'a Local,
        own_ips: &[IpAddr],
        accord: Accord,
        offered: &'a BTreeSet<PathKind>,
    ) -> Self {
        let mesh = &cluster.mesh;
        let choice = choose(mesh, local, own_ips, peer.node, &peer.keys);
        let nets = peer.cidrs.iter().map(|cidr| cidr.net());
        let handover = Handover::with(mesh, accord, &local.in_force, offered, peer.node, nets);
        let stays = handover.stays(&choice).and_then(|(path, wait)| {
            let route = by_path(path, local, own_ips, peer.node, &peer.keys)?;
            Some((route, wait))
        });
        Self {
            peer,
            choice,
            handover,
            stays,
        }
    }

    /// The path in use; `None`: the peer is not reached.
    pub(super) fn route(&self) -> Option<PeerRoute> {
        self.stays.map(|(route, _)| route).or(self.choice.route)
    }

    /// Whether the path that it is to be reached by in the end is in the clear.
    pub(super) fn is_chosen_in_the_clear(&self) -> bool {
        self.choice
            .route
            .is_some_and(|route| !route.path().kind().is_encrypted())
    }

    /// The kinds of path that packets may be sent by although another is chosen: those in use now and until lately, as far as the
    /// guard lets them out.
    pub(super) fn staying(&self) -> BTreeSet<PathKind> {
        let Some(chosen) = self.choice.route.map(|route| route.path().kind()) else {
            return BTreeSet::new();
        };
        let leaves = self.handover.leaves(&self.choice);
        let is_sent_by = |kind: &PathKind| *kind != chosen && (kind.is_encrypted() || leaves.contains(kind));
        self.handover.in_use().filter(is_sent_by).collect()
    }

    /// Whether the lanes are needed to send to this peer or to hear it.
    pub(super) fn needs_lanes(&self) -> bool {
        let sends = matches!(self.route(), Some(PeerRoute::Wireguard(..)));
        sends
            || self.staying().contains(&PathKind::Wireguard)
            || self.handover.arrives(&self.choice).contains(&PathKind::Wireguard)
    }

    /// Whether the peer belongs into the lanes. One whose devices are gone does not: the session with them would be taken for
    /// a proof of those that it has one day.
    pub(super) fn has_or_needs_lanes(&self) -> bool {
        let announcement = self.peer.node.announcement.as_ref();
        let can = |it: &Announcement| it.paths.contains(&PathKind::Wireguard);
        self.needs_lanes() || announcement.is_some_and(|it| it.as_ref().is_ok_and(can))
    }

    /// Whether a first handshake is awaited.
    pub(super) fn awaits_handshake(&self) -> bool {
        self.stays.is_some() && self.handover.is_unproven(&self.choice)
    }

    /// Whether this node is to begin a first handshake with this key, which is awaited.
    pub(super) fn begins_handshake_with(&self, key: &PublicKey, own: &NodeName) -> bool {
        match self.choice.route {
            Some(PeerRoute::Wireguard(chosen, _)) => {
                let is_awaited = self.awaits_handshake() && chosen.public_key == *key;
                is_awaited && self.handover.begins(&chosen, own, &self.peer.node.name)
            }
            Some(PeerRoute::Vxlan(_) | PeerRoute::Ipip(_) | PeerRoute::Direct(_)) | None => false,
        }
    }

    /// How its networks may cross in the clear, where the Mesh allows these kinds of path to any peer.
    pub(super) fn clear(&self, allowed: &BTreeSet<PathKind>) -> Clear {
        let Some(chosen) = self.choice.route.map(|route| route.path().kind()) else {
            return Clear::default();
        };
        let mut incoming = self.handover.arrives(&self.choice);
        match self.handover.mesh.encryption {
            // Only what both ends choose.
            Encryption::Wireguard => drop(incoming.insert(chosen)),
            // Any that the Mesh allows: the peer's idea of a subnet may be another.
            Encryption::None => incoming.extend(allowed),
        }
        let outgoing = self.route().map(|route| route.path().kind());
        let outgoing = outgoing.into_iter().chain(self.handover.leaves(&self.choice));
        Clear {
            incoming: incoming.into_iter().filter_map(Carrier::of).collect(),
            outgoing: outgoing.filter_map(Carrier::of).collect(),
        }
    }

    /// The longest packet that comes through to this peer, where less than full size does and the Mesh wants what is sent to
    /// fit. Lanes and overlay keep their MTU: only so can it be found out that full size comes through again.
    pub(super) fn lowered_mtu(&self, mesh: &Mesh, local: &Local, least: u32) -> Option<u32> {
        let hole = local.mtu_holes.get(&self.peer.node.name)?;
        let is_wanted = mesh.mtu_probe == MtuProbe::Lower && self.route().is_some();
        is_wanted.then_some(hole.passes.max(least))
    }

    pub(super) fn plan(&self, mesh: &Mesh, local: &Local, own_ips: &[IpAddr], least: u32) -> PeerPlan {
        let (endpoint, key) = match self.route() {
            Some(PeerRoute::Wireguard(key, endpoint)) => (Some(endpoint), Some((key.epoch, key.public_key))),
            Some(PeerRoute::Vxlan(_) | PeerRoute::Ipip(_) | PeerRoute::Direct(_)) | None => (None, None),
        };
        let found = |route: PeerRoute| {
            let host = peer_address(own_ips, self.peer.node);
            mtu::path(local, own_ips, host, route.path().kind(), least)
        };
        let reason = match self.stays {
            Some((_, Wait::Handshake)) => {
                format!("{}, from the first handshake on", self.choice.reason)
            }
            Some((_, Wait::Peer)) => {
                format!("{}, once the peer takes that", self.choice.reason)
            }
            None => self.choice.reason.clone(),
        };
        PeerPlan {
            mtu_hole: local.mtu_holes.get(&self.peer.node.name).copied(),
            mtu: self
                .route()
                .map(|route| mesh.mtu.map_or_else(|| found(route), u32::from)),
            path: self.route().map(PeerRoute::path),
            reason,
            endpoint,
            key,
        }
    }
}
