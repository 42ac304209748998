//! MTUs: what a path takes of the underlay's, and what is left for pods. All in bytes.

use std::cmp::Reverse;
use std::net::IpAddr;

use warren_model::{Family, PathKind, PodCidr};

use crate::input::Local;

/// Assumed where the underlay's MTU cannot be found: that of Ethernet.
pub const DEFAULT_UNDERLAY: u32 = 1500;

/// The least an interface that carries IPv6 may have (RFC 8200, section 5).
pub const MIN_IPV6: u32 = 1280;

/// The least that any IPv4 host takes (RFC 791, section 3.1).
pub const MIN_IPV4: u32 = 576;

/// What a kind of path adds to a packet, with outer packets of that family. WireGuard: IP 20 or 40, UDP 8, header 16,
/// tag 16. VXLAN: IP 20 or 40, UDP 8, header 8, Ethernet 14.
pub fn overhead(path: PathKind, outer: Family) -> u32 {
    match (path, outer) {
        (PathKind::Wireguard, Family::V4) => 60,
        (PathKind::Wireguard, Family::V6) => 80,
        (PathKind::Vxlan, Family::V4) => 50,
        (PathKind::Vxlan, Family::V6) => 70,
        (PathKind::Ipip, _) => 20,
        (PathKind::Direct, _) => 0,
    }
}

/// What the way to a host takes: the MTU of the route to it, the longest prefix that has it and of those the lowest metric;
/// without a route that of the interface that carries this node's own addresses, the smallest if there are several.
pub fn underlay(local: &Local, own_ips: &[IpAddr], host: Option<IpAddr>) -> u32 {
    let routes = local.underlay_routes.iter();
    let to_host = routes.filter(|route| host.is_some_and(|host| route.net.contains(&host)));
    let by_route = to_host.min_by_key(|route| (Reverse(route.net.prefix_len()), route.metric, route.mtu));
    let carries_own = local
        .underlay
        .iter()
        .filter(|address| own_ips.contains(&address.net.addr()));
    by_route
        .map(|route| route.mtu)
        .or_else(|| carries_own.map(|address| address.mtu).min())
        .unwrap_or(DEFAULT_UNDERLAY)
}

/// The least that interfaces on this node may have: what IPv6 asks for where the node's pods have it, for the kernel takes
/// IPv6, and with it the pods' addresses, off an interface below that.
pub fn least(own_cidrs: &[PodCidr]) -> u32 {
    if own_cidrs.iter().any(|cidr| cidr.family() == Family::V6) {
        MIN_IPV6
    } else {
        MIN_IPV4
    }
}

/// What is left for packets of pods on the way to a host by a kind of path: no less than the [`least`].
pub fn path(local: &Local, own_ips: &[IpAddr], host: Option<IpAddr>, kind: PathKind, least: u32) -> u32 {
    let outer = host.or(own_ips.first().copied()).map_or(Family::V4, Family::of);
    underlay(local, own_ips, host)
        .saturating_sub(overhead(kind, outer))
        .max(least)
}
