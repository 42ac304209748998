//! Changing how two nodes reach each other without losing a packet, and without taking or sending more in the clear than
//! that needs.
//!
//! Nodes learn of a change at different moments. Each publishes its [`Progress`]: by which [`Accord`] it takes packets,
//! by which it sends, and what kinds of path it may be sending by. From that, and from the routes the kernel has now:
//!
//! - A node **takes** what the accord asks for as soon as it knows it; and until a peer says that it has settled, what that
//!   peer says that it still sends by, and what this node itself has said that it takes.
//! - A node **sends** by the path that it is sending by until the new one works: a path in the clear once the peer
//!   takes packets by the same accord, WireGuard once a handshake was completed; from the fallback to WireGuard once both.
//!
//! Towards more encryption both are bounded in time: see [`HANDSHAKE_PATIENCE`] and [`PEER_PATIENCE`].

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;
use warren_model::fnv::Fnv;
use warren_model::{
    Accord, AnnouncedKey, Encryption, Fallback, Mesh, Node, NodeName, OverlayMode, Path, PathKind, Progress,
};

use crate::in_force::InForce;
use crate::input::{Cluster, Local};
use crate::path_choice::{Choice, PeerRoute};

/// For how long a node that is to send by WireGuard goes on sending in the clear to a peer that it sends to in the clear,
/// while no handshake is completed: after that the peer is sent to through the lane or not at all. A lost first message of
/// a handshake is repeated within that time (REKEY_TIMEOUT of the WireGuard paper, section 6.1: 5 s). A peer that it sends to
/// by the Mesh's fallback, and that does not take packets by the same accord yet, is given [`PEER_PATIENCE`] instead.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(6);

/// For how long the end of two whose node has the later name leaves it to the other to begin a handshake. Where both begin at
/// once, each answers the other's and forgets its own, and both wait for REKEY_TIMEOUT.
pub const HANDSHAKE_COURTESY: Duration = Duration::from_secs(1);

/// For how long a node with encryption on takes in the clear what a peer says that it still sends: after that a peer
/// whose agent does not follow is not heard. And for how long one that has gained WireGuard sends by the fallback to a peer
/// that does not know of it yet.
pub const PEER_PATIENCE: Duration = Duration::from_secs(60);

/// For how long a path counts as one that packets are sent by after the routes have left it: routing and the guard look at a
/// packet one after the other, and a processor may rest in between (a virtual one for tens of milliseconds).
pub const LINGERING: Duration = Duration::from_millis(100);

/// The accord that this node comes to, from what the Mesh says and what nodes publish.
pub fn accord(cluster: &Cluster, local: &Local) -> Accord {
    let mut hash = Fnv::new();
    let mut take = |word: &str| {
        hash.update(word);
        hash.update(" ");
    };
    // Two changes that undo each other end in another accord than they began in: what a node has published of the first
    // must not be taken for the last. The Mesh's generation tells changes of the Mesh apart, `turns` those of nodes.
    take(&cluster.mesh.generation.to_string());
    match mesh_of(&cluster.mesh) {
        Rules::Encrypted(fallback) => {
            take("wireguard");
            if let Some(fallback) = fallback {
                take(&fallback.to_string());
                for name in without_wireguard(cluster, local) {
                    take(name.as_str());
                }
                for (name, turns) in turned(cluster, local) {
                    take(&format!("{name} {turns}"));
                }
            }
        }
        Rules::Clear(kinds) => kinds.into_iter().for_each(|kind| take(&kind.to_string())),
    }
    Accord(hash.finish())
}

/// The kinds of path that this node may send by, as the cluster is now.
pub fn allowed(cluster: &Cluster, local: &Local) -> BTreeSet<PathKind> {
    let mut kinds = match mesh_of(&cluster.mesh) {
        Rules::Encrypted(Some(fallback)) if without_wireguard(cluster, local).next().is_some() => {
            BTreeSet::from([PathKind::Wireguard, fallback])
        }
        Rules::Encrypted(_) => BTreeSet::from([PathKind::Wireguard]),
        Rules::Clear(kinds) => kinds,
    };
    kinds.retain(|kind| *kind == PathKind::Direct || local.can.contains(kind));
    kinds
}

/// The kinds of path that this node has said it takes, as long as there is a peer that may act on that: one that has not
/// settled in this accord.
pub(crate) fn offered(cluster: &Cluster, local: &Local, accord: Accord) -> BTreeSet<PathKind> {
    let peers = cluster.nodes.values().filter(|node| node.name != local.node);
    let all_have_settled = peers
        .filter_map(progress_of)
        .all(|progress| progress.has_settled(accord));
    let own = cluster.nodes.get(&local.node).and_then(progress_of);
    own.filter(|_| !all_have_settled)
        .map(|progress| progress.by.clone())
        .unwrap_or_default()
}

fn progress_of(node: &Node) -> Option<&Progress> {
    node.announcement.as_ref()?.as_ref().ok()?.progress.as_ref()
}

/// What the Mesh says about kinds of path, without what does not count as it stands.
enum Rules {
    /// WireGuard, and this where a node cannot do it.
    Encrypted(Option<PathKind>),
    /// Any of these.
    Clear(BTreeSet<PathKind>),
}

fn mesh_of(mesh: &Mesh) -> Rules {
    match (mesh.encryption, mesh.fallback) {
        (Encryption::Wireguard, Fallback::None) => Rules::Encrypted(None),
        (Encryption::Wireguard, Fallback::Vxlan) => Rules::Encrypted(Some(PathKind::Vxlan)),
        (Encryption::Wireguard, Fallback::Ipip) => Rules::Encrypted(Some(PathKind::Ipip)),
        (Encryption::None, _) => {
            let mut kinds = BTreeSet::new();
            match mesh.overlay.mode {
                OverlayMode::Vxlan => drop(kinds.insert(PathKind::Vxlan)),
                OverlayMode::Ipip => drop(kinds.insert(PathKind::Ipip)),
                OverlayMode::None => drop(kinds.insert(PathKind::Direct)),
            }
            if mesh.overlay.cross_subnet {
                kinds.insert(PathKind::Direct);
            }
            Rules::Clear(kinds)
        }
    }
}

/// The nodes that say they cannot do WireGuard, by name; this one by what it will say.
fn without_wireguard<'a>(cluster: &'a Cluster, local: &'a Local) -> impl Iterator<Item = &'a NodeName> {
    let cannot = |node: &Node| match &node.announcement {
        _ if node.name == local.node => !local.can.contains(&PathKind::Wireguard),
        Some(Ok(announcement)) => !announcement.paths.contains(&PathKind::Wireguard),
        Some(Err(_)) | None => false,
    };
    cluster
        .nodes
        .values()
        .filter(move |node| cannot(node))
        .map(|node| &node.name)
}

/// How often this node has lost WireGuard or gained it: what it has published is what it remembers that by.
pub(crate) fn turns(cluster: &Cluster, local: &Local) -> u32 {
    let own = cluster
        .nodes
        .get(&local.node)
        .and_then(|node| node.announcement.as_ref());
    let Some(Ok(said)) = own else { return 0 };
    let could = said.paths.contains(&PathKind::Wireguard);
    let can = local.can.contains(&PathKind::Wireguard);
    said.turns.wrapping_add(u32::from(could != can))
}

/// The nodes that have ever lost WireGuard or gained it, with how often, by name.
fn turned<'a>(cluster: &'a Cluster, local: &'a Local) -> impl Iterator<Item = (&'a NodeName, u32)> {
    let of = |node: &Node| match &node.announcement {
        _ if node.name == local.node => turns(cluster, local),
        Some(Ok(announcement)) => announcement.turns,
        Some(Err(_)) | None => 0,
    };
    let all = cluster.nodes.values().map(move |node| (&node.name, of(node)));
    all.filter(|(_, turns)| *turns > 0)
}

/// What the path chosen for a peer waits for, while the earlier one stays in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// A first handshake.
    Handshake,
    /// That the peer takes packets by the same accord.
    Peer,
}

/// The hand-over with one peer.
#[derive(Debug, Clone)]
pub(crate) struct Handover<'a> {
    pub(crate) mesh: &'a Mesh,
    pub(crate) accord: Accord,
    pub(crate) in_force: &'a InForce,
    /// What the peer says; `None`: it does not.
    pub(crate) progress: Option<&'a Progress>,
    /// What this node has said before that it takes.
    pub(crate) offered: &'a BTreeSet<PathKind>,
    /// The path that the peer's prefixes are routed by now, if it is one.
    pub(crate) routed: Option<Path>,
    /// The kinds of path that they were routed by until lately.
    pub(crate) left: BTreeSet<PathKind>,
}

impl<'a> Handover<'a> {
    /// The hand-over with the peer that has these prefixes.
    pub(crate) fn with(
        mesh: &'a Mesh,
        accord: Accord,
        in_force: &'a InForce,
        offered: &'a BTreeSet<PathKind>,
        peer: &'a Node,
        nets: impl Iterator<Item = IpNet>,
    ) -> Self {
        let (mut paths, mut left) = (BTreeSet::new(), BTreeSet::new());
        for net in nets {
            paths.extend(in_force.routed.get(&net).copied());
            let left_lately = in_force.left.get(&net).into_iter().flatten();
            left.extend(left_lately.copied().map(Path::kind));
        }
        Self {
            mesh,
            accord,
            in_force,
            progress: progress_of(peer),
            offered,
            routed: paths.first().copied().filter(|_| paths.len() == 1),
            left,
        }
    }

    /// The path that stays in use instead of the one chosen, and what for. What is not to be reached at all is never waited for.
    pub(crate) fn stays(&self, choice: &Choice) -> Option<(Path, Wait)> {
        let (routed, chosen) = (self.routed?, choice.route?);
        if routed == chosen.path() {
            return None;
        }
        match chosen {
            PeerRoute::Wireguard(key, _) => {
                // A peer that is at the fallback's other end may be about to need it itself: a handshake with a device that it is
                // about to remove proves nothing.
                if Some(routed.kind()) == self.fallback() && self.is_behind() {
                    return (self.in_force.accord_age < PEER_PATIENCE).then_some((routed, Wait::Peer));
                }
                // From one lane to the other nothing is in the clear, so there is no hurry.
                let may_wait = routed.kind().is_encrypted() || self.in_force.accord_age < HANDSHAKE_PATIENCE;
                (!self.is_proven(&key) && may_wait).then_some((routed, Wait::Handshake))
            }
            PeerRoute::Vxlan(_) | PeerRoute::Ipip(_) | PeerRoute::Direct(_) => {
                self.is_behind().then_some((routed, Wait::Peer))
            }
        }
    }

    /// Whether the path chosen has yet to be proven by a first handshake.
    pub(crate) fn is_unproven(&self, choice: &Choice) -> bool {
        match choice.route {
            Some(PeerRoute::Wireguard(key, _)) => !self.is_proven(&key),
            Some(PeerRoute::Vxlan(_) | PeerRoute::Ipip(_) | PeerRoute::Direct(_)) | None => false,
        }
    }

    /// The kinds in the clear that the guard lets out although another is chosen: they are in use until the routes have moved,
    /// and a moment longer.
    pub(crate) fn leaves(&self, choice: &Choice) -> BTreeSet<PathKind> {
        let Some(chosen) = choice.route.map(|route| route.path().kind()) else {
            return BTreeSet::new();
        };
        let leaves = |kind: &PathKind| {
            let patience = if Some(*kind) == self.fallback() {
                PEER_PATIENCE
            } else {
                HANDSHAKE_PATIENCE
            };
            let moving = !chosen.is_encrypted() || self.in_force.accord_age < patience;
            !kind.is_encrypted() && moving
        };
        self.in_use().filter(leaves).collect()
    }

    /// The kinds of path that packets to the peer may be on: by which it is routed, and was until lately.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = PathKind> {
        let routed = self.routed.map(Path::kind);
        self.left.iter().copied().chain(routed)
    }

    /// The kinds by which the peer may still send, other than those that the accord asks for.
    pub(crate) fn arrives(&self, choice: &Choice) -> BTreeSet<PathKind> {
        let in_time = self.mesh.encryption == Encryption::None || self.in_force.accord_age < PEER_PATIENCE;
        match self.progress {
            Some(progress) if choice.route.is_some() && in_time && !progress.has_settled(self.accord) => {
                &progress.by | self.offered
            }
            Some(_) | None => BTreeSet::new(),
        }
    }

    /// Whether it is this node's turn to begin the handshake with this key, which is awaited. Where the key is new to its
    /// device it is, before it publishes what it makes of the peer: one that has not noticed that this node did not hold it for
    /// a while has a session from before, and would take that for proven.
    pub(crate) fn begins(&self, key: &AnnouncedKey, own: &NodeName, peer: &NodeName) -> bool {
        let is_new = !self.in_force.held.contains(&(key.epoch.lane(), key.public_key));
        is_new || own < peer || self.in_force.accord_age >= HANDSHAKE_COURTESY
    }

    /// Whether the peer does not take packets by the same accord yet. One that does not say is not waited for.
    fn is_behind(&self) -> bool {
        self.progress
            .is_some_and(|progress| progress.accepts != self.accord)
    }

    /// What the Mesh allows where a node cannot do WireGuard.
    fn fallback(&self) -> Option<PathKind> {
        match mesh_of(self.mesh) {
            Rules::Encrypted(fallback) => fallback,
            Rules::Clear(_) => None,
        }
    }

    fn is_proven(&self, key: &AnnouncedKey) -> bool {
        self.in_force.proven.contains(&(key.epoch.lane(), key.public_key))
    }
}
