//! Interfaces, their addresses and settings: lanes, overlay, veths.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use warren_model::fnv::fnv1a;
use warren_model::{Encryption, Fallback, Family, Lane, Mesh, NodeName, OverlayMode, PathKind, PodCidr};

use super::Chosen;
use crate::guard::{Carrier, Guard};
use crate::input::Local;
use crate::mtu;
use crate::path_choice::{PeerRoute, ipv4_of, peer_address};
use crate::state::{IPIP_INTERFACE, Ipip, Link, LinkKind, Mac, VXLAN_INTERFACE, Vxlan};

/// All interfaces that should be but those of pods, the MTU that pods get, and what they would get if nothing was lost.
pub(super) struct Links {
    pub(super) links: BTreeMap<String, Link>,
    pub(super) pod_mtu: u32,
    pub(super) full_mtu: u32,
}

pub(super) fn links(
    mesh: &Mesh,
    local: &Local,
    own_ips: &[IpAddr],
    own_cidrs: &[PodCidr],
    lanes: &[Lane],
    guard: &Guard,
    peers: &[Chosen<'_>],
) -> Links {
    let least = mtu::least(own_cidrs);
    let hosts: Vec<IpAddr> = peers
        .iter()
        .filter_map(|chosen| peer_address(own_ips, chosen.peer.node))
        .collect();
    let of = |kind| match mesh.mtu {
        Some(mtu) => u32::from(mtu).max(least),
        // An interface has one MTU for all peers.
        None => hosts
            .iter()
            .map(|host| mtu::path(local, own_ips, Some(*host), kind, least))
            .min()
            .unwrap_or_else(|| mtu::path(local, own_ips, None, kind, least)),
    };
    let mut links = BTreeMap::new();
    for lane in lanes {
        let link = Link {
            kind: LinkKind::Lane(*lane),
            mtu: of(PathKind::Wireguard),
            up: true,
        };
        links.insert(lane.interface().to_owned(), link);
    }
    let mut in_use: Vec<PathKind> = match mesh.encryption {
        Encryption::Wireguard => vec![PathKind::Wireguard],
        Encryption::None => vec![PathKind::Direct],
    };
    if peers
        .iter()
        .any(|chosen| matches!(chosen.route(), Some(PeerRoute::Wireguard(..))))
    {
        in_use.push(PathKind::Wireguard);
    }
    if let (true, Some(local_ip)) = (vxlan_needed(mesh, local, guard), own_ips.first()) {
        let vxlan = Vxlan {
            port: mesh.ports.vxlan,
            mac: mac_of(&local.node),
            local: *local_ip,
        };
        let link = Link {
            kind: LinkKind::Vxlan(vxlan),
            mtu: of(PathKind::Vxlan),
            up: true,
        };
        links.insert(VXLAN_INTERFACE.to_owned(), link);
        in_use.push(PathKind::Vxlan);
    }
    if let (true, Some(local)) = (ipip_needed(mesh, local, guard), ipv4_of(own_ips)) {
        let link = Link {
            kind: LinkKind::Ipip(Ipip { local }),
            mtu: of(PathKind::Ipip),
            up: true,
        };
        links.insert(IPIP_INTERFACE.to_owned(), link);
        in_use.push(PathKind::Ipip);
    }
    let full_mtu = in_use.into_iter().map(of).min().unwrap_or(mtu::DEFAULT_UNDERLAY);
    let lowered = peers
        .iter()
        .filter_map(|chosen| chosen.lowered_mtu(mesh, local, least))
        .min();
    Links {
        links,
        pod_mtu: lowered.map_or(full_mtu, |lowered| lowered.min(full_mtu)),
        full_mtu,
    }
}

/// Both lanes, or none on a node that cannot do WireGuard; one that could until now keeps them while they are needed.
pub(super) fn lanes(local: &Local, peers: &[Chosen<'_>]) -> Vec<Lane> {
    let still_needed = || local.in_force.has_lanes && peers.iter().any(Chosen::needs_lanes);
    if local.can.contains(&PathKind::Wireguard) || still_needed() {
        Lane::ALL.to_vec()
    } else {
        Vec::new()
    }
}

/// Whether the Mesh lets any peer be reached by VXLAN. The interface then exists on every node that can have it, since
/// a node must be able to receive before another sends. And it stays until the last peer sends otherwise.
fn vxlan_needed(mesh: &Mesh, local: &Local, guard: &Guard) -> bool {
    let allowed = match mesh.encryption {
        Encryption::Wireguard => mesh.fallback == Fallback::Vxlan,
        Encryption::None => mesh.overlay.mode == OverlayMode::Vxlan,
    };
    needed(PathKind::Vxlan, Carrier::Vxlan, allowed, local, guard)
}

/// The same of IPIP.
fn ipip_needed(mesh: &Mesh, local: &Local, guard: &Guard) -> bool {
    let allowed = match mesh.encryption {
        Encryption::Wireguard => mesh.fallback == Fallback::Ipip,
        Encryption::None => mesh.overlay.mode == OverlayMode::Ipip,
    };
    needed(PathKind::Ipip, Carrier::Ipip, allowed, local, guard)
}

fn needed(kind: PathKind, carrier: Carrier, allowed: bool, local: &Local, guard: &Guard) -> bool {
    let in_use = || guard.clear.values().any(|clear| clear.has(carrier));
    local.can.contains(&kind) && (allowed || in_use())
}

/// Addresses, neighbours and FDB entries that carry the VXLAN overlay.
#[derive(Default)]
pub(super) struct OverlayState {
    pub(super) addresses: BTreeSet<(String, IpAddr)>,
    pub(super) neighbours: BTreeMap<(String, IpAddr), Mac>,
    pub(super) fdb: BTreeMap<Mac, IpAddr>,
}

pub(super) fn overlay(
    links: &BTreeMap<String, Link>,
    own_cidrs: &[PodCidr],
    peers: &[Chosen<'_>],
) -> OverlayState {
    let mut overlay = OverlayState::default();
    if links.contains_key(IPIP_INTERFACE) {
        let own = own_cidrs.iter().filter(|cidr| cidr.family() == Family::V4);
        let own = own.map(|cidr| (IPIP_INTERFACE.to_owned(), cidr.node_address()));
        overlay.addresses.extend(own);
    }
    if !links.contains_key(VXLAN_INTERFACE) {
        return overlay;
    }
    let own = own_cidrs
        .iter()
        .map(|cidr| (VXLAN_INTERFACE.to_owned(), cidr.node_address()));
    overlay.addresses.extend(own);
    for chosen in peers {
        let Some(PeerRoute::Vxlan(host)) = chosen.route() else {
            continue;
        };
        let mac = mac_of(&chosen.peer.node.name);
        overlay.fdb.insert(mac, host);
        for cidr in &chosen.peer.cidrs {
            overlay
                .neighbours
                .insert((VXLAN_INTERFACE.to_owned(), cidr.node_address()), mac);
        }
    }
    overlay
}

/// The MAC of a node's VXLAN interface: locally administered, the rest an FNV-1a hash of the node's name, so that every
/// node can tell every other's without being told.
fn mac_of(node: &NodeName) -> Mac {
    let hash = fnv1a(node.as_str());
    let [_, _, a, b, c, d, e, f] = (hash ^ (hash >> 48)).to_be_bytes();
    Mac([a & 0xfc | 0x02, b, c, d, e, f])
}

/// Forwarding, and loose reverse-path filtering on our own interfaces: a reply may come back through the other lane.
pub(super) fn sysctls(links: &BTreeMap<String, Link>, own_cidrs: &[PodCidr]) -> BTreeMap<String, String> {
    let mut sysctls = BTreeMap::new();
    let has = |family| own_cidrs.iter().any(|cidr| cidr.family() == family);
    if has(Family::V4) {
        sysctls.insert("ipv4/ip_forward".to_owned(), "1".to_owned());
    }
    if has(Family::V6) {
        sysctls.insert("ipv6/conf/all/forwarding".to_owned(), "1".to_owned());
    }
    for (name, link) in links {
        let value = match link.kind {
            LinkKind::Lane(_) | LinkKind::Vxlan(_) | LinkKind::Ipip(_) => "2",
            // The guard checks a pod's source address against its veth, which is stricter than any rp_filter.
            LinkKind::Veth | LinkKind::Foreign => continue,
        };
        sysctls.insert(format!("ipv4/conf/{name}/rp_filter"), value.to_owned());
    }
    sysctls
}
