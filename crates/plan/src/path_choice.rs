//! How packets reach one peer: a pure choice from the Mesh, what both ends can do, and where they are.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use warren_model::{
    AnnouncedKey, Announcement, AnnouncementError, Encryption, Epoch, Fallback, Family, Mesh, Node,
    OverlayMode, Path, PathKind,
};

use crate::input::Local;

/// The path chosen, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// How, and where to; `None`: the peer is not reached.
    pub route: Option<PeerRoute>,
    /// Why, in a few words.
    pub reason: String,
}

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRoute {
    /// Through the lane of this key's epoch.
    Wireguard(AnnouncedKey, SocketAddr),
    /// By VXLAN to this host address.
    Vxlan(IpAddr),
    /// By IPIP to this host address. IPv4 alone, inside and outside.
    Ipip(Ipv4Addr),
    /// By this gateway, without encapsulation; what is of another family goes by [`gateway`].
    Direct(IpAddr),
}

impl PeerRoute {
    /// As a path.
    pub fn path(self) -> Path {
        match self {
            Self::Wireguard(key, _) => Path::Wireguard(key.epoch.lane()),
            Self::Vxlan(_) => Path::Vxlan,
            Self::Ipip(_) => Path::Ipip,
            Self::Direct(_) => Path::Direct,
        }
    }
}

/// Chooses the path to `peer`. With encryption on it is WireGuard or, where the Mesh allows it and one end says that it
/// cannot do WireGuard, the fallback. Not knowing what the peer can do, or not understanding it, is never a reason for
/// a path in the clear.
///
/// `usable` are the peer's keys that were accepted, of epochs that this node has a key of too.
pub fn choose(
    mesh: &Mesh,
    local: &Local,
    own_ips: &[IpAddr],
    peer: &Node,
    usable: &[AnnouncedKey],
) -> Choice {
    match mesh.encryption {
        Encryption::Wireguard => choose_encrypted(mesh, local, own_ips, peer, usable),
        Encryption::None => choose_clear(mesh, local, own_ips, peer),
    }
}

/// The address a peer's packets go to: its first InternalIP of the family of this node's own first InternalIP, or else
/// of any family this node has.
pub fn peer_address(own_ips: &[IpAddr], peer: &Node) -> Option<IpAddr> {
    own_ips.iter().find_map(|own| {
        let family = Family::of(*own);
        peer.internal_ips
            .iter()
            .copied()
            .find(|ip| Family::of(*ip) == family)
    })
}

/// The address that IPIP packets for a peer go to: its first IPv4 InternalIP, where this node has one too.
fn ipip_address(own_ips: &[IpAddr], peer: &Node) -> Option<Ipv4Addr> {
    ipv4_of(own_ips).and_then(|_| ipv4_of(&peer.internal_ips))
}

/// The first IPv4 address.
pub(crate) fn ipv4_of(ips: &[IpAddr]) -> Option<Ipv4Addr> {
    ips.iter().find_map(|ip| match ip {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })
}

/// The peer's InternalIP of that family in a subnet of this node, by which it is reached without encapsulation.
pub fn gateway(local: &Local, peer: &Node, family: Family) -> Option<IpAddr> {
    let of_family = peer.internal_ips.iter().filter(|ip| Family::of(**ip) == family);
    of_family.copied().find(|ip| is_near(local, *ip))
}

/// The same of IPv4 or, without one, of IPv6.
fn nearest(local: &Local, peer: &Node) -> Option<IpAddr> {
    [Family::V4, Family::V6]
        .into_iter()
        .find_map(|family| gateway(local, peer, family))
}

fn is_near(local: &Local, address: IpAddr) -> bool {
    local.underlay.iter().any(|own| own.net.contains(&address))
}

/// How a path leads to `peer`, whether it would be chosen or not: what is in use while the one chosen does not work yet.
/// `None` where there is no such path.
pub(crate) fn by_path(
    path: Path,
    local: &Local,
    own_ips: &[IpAddr],
    peer: &Node,
    usable: &[AnnouncedKey],
) -> Option<PeerRoute> {
    let address = peer_address(own_ips, peer)?;
    match path {
        Path::Wireguard(lane) if local.in_force.has_lanes => {
            let key = usable.iter().find(|key| key.epoch.lane() == lane)?;
            Some(PeerRoute::Wireguard(*key, SocketAddr::new(address, key.port)))
        }
        Path::Vxlan => local
            .can
            .contains(&PathKind::Vxlan)
            .then_some(PeerRoute::Vxlan(address)),
        Path::Direct => nearest(local, peer).map(PeerRoute::Direct),
        Path::Ipip => ipip_address(own_ips, peer)
            .filter(|_| local.can.contains(&PathKind::Ipip))
            .map(PeerRoute::Ipip),
        Path::Wireguard(_) => None,
    }
}

/// The usable key of the newest epoch, not beyond the Mesh's epoch unless there is no other. What this node has said that it has
/// settled in is never too new: peers destroy the keys before that on its word, and an agent that starts after a schedule was called
/// off, or a Mesh deleted, in the midst of a rotation sees the Mesh ask for less than they act on.
fn newest(mesh: &Mesh, settled: Option<Epoch>, usable: &[AnnouncedKey]) -> Option<AnnouncedKey> {
    let last = settled.map_or(mesh.keys.epoch, |settled| settled.max(mesh.keys.epoch));
    let reached = usable.iter().filter(|key| key.epoch <= last);
    reached
        .max_by_key(|key| key.epoch)
        .or_else(|| usable.iter().min_by_key(|key| key.epoch))
        .copied()
}

fn choose_encrypted(
    mesh: &Mesh,
    local: &Local,
    own_ips: &[IpAddr],
    peer: &Node,
    usable: &[AnnouncedKey],
) -> Choice {
    let announcement = match announcement_of(peer) {
        Ok(announcement) => announcement,
        Err(choice) => return choice,
    };
    let Some(address) = peer_address(own_ips, peer) else {
        return no_address();
    };
    if !both_can(local, &announcement.paths, PathKind::Wireguard) {
        let who = if local.can.contains(&PathKind::Wireguard) {
            "the peer"
        } else {
            "this node"
        };
        return match mesh.fallback {
            Fallback::Vxlan if both_can(local, &announcement.paths, PathKind::Vxlan) => {
                let reason = format!("{who} cannot do WireGuard and spec.fallback allows vxlan");
                chosen(PeerRoute::Vxlan(address), reason)
            }
            Fallback::Vxlan => refused(format!(
                "{who} cannot do WireGuard, and not both ends can do vxlan"
            )),
            Fallback::Ipip => match ipip_address(own_ips, peer) {
                Some(address) if both_can(local, &announcement.paths, PathKind::Ipip) => {
                    let reason = format!("{who} cannot do WireGuard and spec.fallback allows ipip");
                    chosen(PeerRoute::Ipip(address), reason)
                }
                Some(_) => refused(format!(
                    "{who} cannot do WireGuard, and not both ends can do ipip"
                )),
                None => no_ipv4(),
            },
            Fallback::None => refused(format!(
                "{who} cannot do WireGuard and spec.fallback allows nothing else"
            )),
        };
    }
    if let Some(key) = newest(mesh, local.settled, usable) {
        let endpoint = SocketAddr::new(address, key.port);
        return chosen(
            PeerRoute::Wireguard(key, endpoint),
            format!("both have a key of epoch {}", key.epoch),
        );
    }
    if shared_keys(local, announcement).next().is_some() {
        return refused("the peer's key belongs to another node: see the refusals".to_owned());
    }
    refused(format!(
        "no epoch in common: this node has {}, the peer {}",
        epochs(local.keys.keys().copied()),
        epochs(announcement.keys.iter().map(|key| key.epoch))
    ))
}

fn choose_clear(mesh: &Mesh, local: &Local, own_ips: &[IpAddr], peer: &Node) -> Choice {
    let Some(address) = peer_address(own_ips, peer) else {
        return no_address();
    };
    // Not only in the family that this node prefers: the peer may prefer the other, and both are to come to the same.
    let near = [Family::V4, Family::V6]
        .into_iter()
        .find_map(|family| gateway(local, peer, family));
    // An overlay carries what a gateway of another family cannot.
    let mut families = peer.pod_cidrs.iter().map(|cidr| cidr.family());
    let mut carries_all = || families.all(|family| gateway(local, peer, family).is_some());
    let spared = match mesh.overlay.mode {
        OverlayMode::None => near,
        OverlayMode::Vxlan | OverlayMode::Ipip => near.filter(|_| mesh.overlay.cross_subnet && carries_all()),
    };
    if let Some(gateway) = spared {
        return chosen(
            PeerRoute::Direct(gateway),
            "encryption is off and the peer is in this subnet".to_owned(),
        );
    }
    match mesh.overlay.mode {
        OverlayMode::None => {
            refused("spec.overlay.mode is none and the peer is in another subnet".to_owned())
        }
        OverlayMode::Vxlan => match announcement_of(peer) {
            Err(choice) => choice,
            Ok(announcement) if both_can(local, &announcement.paths, PathKind::Vxlan) => chosen(
                PeerRoute::Vxlan(address),
                "encryption is off and spec.overlay.mode is vxlan".to_owned(),
            ),
            Ok(_) => refused("not both ends can do vxlan".to_owned()),
        },
        OverlayMode::Ipip => match (announcement_of(peer), ipip_address(own_ips, peer)) {
            (Err(choice), _) => choice,
            (Ok(_), None) => no_ipv4(),
            (Ok(announcement), Some(address)) if both_can(local, &announcement.paths, PathKind::Ipip) => {
                chosen(
                    PeerRoute::Ipip(address),
                    "encryption is off and spec.overlay.mode is ipip".to_owned(),
                )
            }
            (Ok(_), Some(_)) => refused("not both ends can do ipip".to_owned()),
        },
    }
}

fn announcement_of(peer: &Node) -> Result<&Announcement, Choice> {
    match &peer.announcement {
        None => Err(refused("the peer has not published a key yet".to_owned())),
        Some(Err(error)) => Err(unreadable(error)),
        Some(Ok(announcement)) => Ok(announcement),
    }
}

fn both_can(local: &Local, peer: &BTreeSet<PathKind>, kind: PathKind) -> bool {
    local.can.contains(&kind) && peer.contains(&kind)
}

fn chosen(route: PeerRoute, reason: String) -> Choice {
    Choice {
        route: Some(route),
        reason,
    }
}

fn refused(reason: String) -> Choice {
    Choice { route: None, reason }
}

fn no_address() -> Choice {
    refused("the peer has no InternalIP of a family that this node has".to_owned())
}

fn no_ipv4() -> Choice {
    refused("ipip takes an IPv4 InternalIP at both ends".to_owned())
}

fn unreadable(error: &AnnouncementError) -> Choice {
    refused(format!("the peer's annotation {error}"))
}

fn epochs(epochs: impl Iterator<Item = Epoch>) -> String {
    let list: Vec<String> = epochs.map(|epoch| epoch.to_string()).collect();
    if list.is_empty() {
        "none".to_owned()
    } else {
        list.join(" and ")
    }
}

/// The keys of a peer of epochs that this node has a key of too: one a lane at most.
pub fn shared_keys<'a>(
    local: &'a Local,
    announcement: &'a Announcement,
) -> impl Iterator<Item = AnnouncedKey> + 'a {
    let shared = announcement
        .keys
        .iter()
        .filter(|key| local.keys.contains_key(&key.epoch));
    shared.copied()
}
