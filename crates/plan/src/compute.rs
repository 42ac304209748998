//! The desired state: a pure function of the cluster and the node.
//!
//! It never fails. What cannot be used is refused by name and left out, and the rest goes on. It does not depend on
//! the order in which anything became known.

mod chosen;
mod links;
mod peers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use warren_model::mesh::MESH_NAME;
use warren_model::{
    Accord, AnnouncedKey, Announcement, Encryption, Epoch, Family, Lane, Mesh, NodeName, PathKind, PodCidr,
    Progress, Refusal,
};

use crate::guard::Guard;
use crate::handover;
use crate::input::{Cluster, Local};
use crate::lane::LaneConfig;
use crate::mtu;
use crate::path_choice::{PeerRoute, gateway, peer_address};
use crate::state::{Desired, Route, RouteTarget};
use chosen::Chosen;

/// The keepalive interval of a peer whose first handshake is awaited, in seconds: a device that is given one sends the first
/// at once, and has to shake hands for it.
const HANDSHAKE_CAUSE: u16 = 25;

/// How this node should be, given the cluster and the node as they are now.
pub fn compute(cluster: &Cluster, local: &Local) -> Desired {
    let mut refusals = cluster.refusals.clone();
    let accepted = peers::accept(cluster, local, &mut refusals);
    let own = cluster.nodes.get(&local.node);
    let own_ips: &[IpAddr] = own.map_or(&[], |node| &node.internal_ips);
    let own_cidrs = accepted.own_cidrs.as_slice();

    refuse_foreign_addresses(local, own_cidrs, &mut refusals);
    refuse_mtu_without_ipv6(&cluster.mesh, own_cidrs, &mut refusals);
    refuse_unshared_families(own_ips, &accepted, &mut refusals);
    let mut remote_networks = accepted.claimed.clone();
    if cluster.mesh.encryption == Encryption::Wireguard {
        remote_networks.extend(&local.networks_before);
    }

    let accord = handover::accord(cluster, local);
    let offered = handover::offered(cluster, local, accord);
    let peers: Vec<Chosen<'_>> = accepted
        .peers
        .iter()
        .map(|peer| Chosen::new(peer, cluster, local, own_ips, accord, &offered))
        .collect();
    let guard = guard(cluster, local, own_cidrs, &remote_networks, &peers);
    let lanes = links::lanes(local, &peers);

    let links = links::links(&cluster.mesh, local, own_ips, own_cidrs, &lanes, &guard, &peers);
    let overlay = links::overlay(&links.links, own_cidrs, &peers);
    let lane_addresses = lanes.iter().flat_map(|lane| {
        own_cidrs
            .iter()
            .map(move |cidr| (lane.interface().to_owned(), cidr.node_address()))
    });
    let addresses: BTreeSet<(String, IpAddr)> = lane_addresses.chain(overlay.addresses).collect();
    // A route may name only a source that an interface has.
    let carried = |cidr: &&PodCidr| {
        addresses
            .iter()
            .any(|(_, address)| *address == cidr.node_address())
    };
    let sources: Vec<PodCidr> = own_cidrs.iter().filter(carried).copied().collect();
    refuse_ipv6_by_ipip(&peers, &mut refusals);
    let (least, full_mtu) = (mtu::least(own_cidrs), links.full_mtu);
    let lowered = |chosen: &Chosen<'_>| {
        let mtu = chosen.lowered_mtu(&cluster.mesh, local, least);
        mtu.filter(|mtu| *mtu < full_mtu)
    };
    let mut desired = Desired {
        routes: routes(local, own_cidrs, &sources, &peers, &guard.sealed, lowered),
        guard,
        lanes: configured(&lanes, &cluster.mesh, local, own_ips, &peers),
        addresses,
        neighbours: overlay.neighbours,
        fdb: overlay.fdb,
        sysctls: links::sysctls(&links.links, own_cidrs),
        announcement: announcement(cluster, local, accord, offered.clone(), &peers),
        accord: Some(accord),
        awaits_handshake: peers.iter().any(|chosen| chosen.awaits_handshake()),
        peers: peers
            .iter()
            .map(|chosen| {
                (
                    chosen.peer.node.name.clone(),
                    chosen.plan(&cluster.mesh, local, own_ips, least),
                )
            })
            .collect(),
        remote_networks,
        pod_mtu: links.pod_mtu,
        full_mtu,
        links: links.links,
        refusals: sorted(refusals),
    };
    for attachment in &local.attachments {
        desired.attach(attachment);
    }
    desired
}

fn guard(
    cluster: &Cluster,
    local: &Local,
    own_cidrs: &[PodCidr],
    remote: &BTreeSet<IpNet>,
    peers: &[Chosen<'_>],
) -> Guard {
    let mesh = &cluster.mesh;
    let own: BTreeSet<IpNet> = own_cidrs.iter().map(|cidr| cidr.net()).collect();
    let mut pod_networks: BTreeSet<IpNet> = remote.union(&own).copied().collect();
    pod_networks.extend(&mesh.pod_networks);
    let allowed = handover::allowed(cluster, local);
    let (mut clear, mut chosen_clear) = (BTreeMap::new(), BTreeSet::new());
    for chosen in peers {
        let nets = chosen.peer.cidrs.iter().map(|cidr| cidr.net());
        if chosen.is_chosen_in_the_clear() {
            chosen_clear.extend(nets.clone());
        }
        let crossing = chosen.clear(&allowed);
        if !crossing.is_empty() {
            clear.extend(nets.map(|net| (net, crossing.clone())));
        }
    }
    let sealed = match mesh.encryption {
        Encryption::Wireguard => {
            let networks = remote.iter().chain(&mesh.pod_networks);
            networks
                .filter(|net| !chosen_clear.contains(*net))
                .copied()
                .collect()
        }
        Encryption::None => BTreeSet::new(),
    };
    Guard {
        sealed,
        clear,
        pods: BTreeSet::new(),
        masquerade: if mesh.nat_outgoing {
            own.clone()
        } else {
            BTreeSet::new()
        },
        local: own,
        pod_networks,
    }
}

fn configured(
    lanes: &[Lane],
    mesh: &Mesh,
    local: &Local,
    own_ips: &[IpAddr],
    peers: &[Chosen<'_>],
) -> BTreeMap<Lane, LaneConfig> {
    let mut configured = BTreeMap::new();
    for lane in lanes.iter().copied() {
        let epoch = newest_in(lane, local);
        let mut config = LaneConfig {
            public_key: epoch.map(|epoch| local.keys[&epoch]),
            port: mesh.ports.of(lane),
            peers: BTreeMap::new(),
            endpoints_before: BTreeMap::new(),
        };
        let before = local.endpoints_before.get(&lane);
        for chosen in peers.iter().filter(|chosen| chosen.has_or_needs_lanes()) {
            let Some((key, mut peer)) = chosen.peer.in_lane(epoch, own_ips) else {
                continue;
            };
            if chosen.begins_handshake_with(&key, &local.node) {
                peer.keepalive = HANDSHAKE_CAUSE;
            }
            let was_elsewhere = before
                .and_then(|before| before.get(&key))
                .filter(|endpoint| **endpoint != peer.endpoint);
            config
                .endpoints_before
                .extend(was_elsewhere.map(|endpoint| (key, *endpoint)));
            config.peers.insert(key, peer);
        }
        configured.insert(lane, config);
    }
    configured
}

fn newest_in(lane: Lane, local: &Local) -> Option<Epoch> {
    local
        .keys
        .keys()
        .copied()
        .filter(|epoch| epoch.lane() == lane)
        .max()
}

/// A route for each pod network that is known. Those that only a lane may carry and that no peer has lead nowhere: the
/// guard would drop what is sent there, but it can be flushed, and then only a route keeps it from the default route.
/// `lowered`: the MTU of the way to a peer where that is less than its interface's.
fn routes(
    local: &Local,
    own_cidrs: &[PodCidr],
    sources: &[PodCidr],
    peers: &[Chosen<'_>],
    sealed: &BTreeSet<IpNet>,
    lowered: impl Fn(&Chosen<'_>) -> Option<u32>,
) -> BTreeMap<IpNet, Route> {
    let plain = |target| Route {
        target,
        source: None,
        mtu: None,
    };
    let mut routes = BTreeMap::new();
    for cidr in own_cidrs {
        routes.insert(cidr.net(), plain(RouteTarget::Blackhole));
    }
    for chosen in peers {
        for cidr in &chosen.peer.cidrs {
            let route = remote_route(local, *cidr, sources, chosen, lowered(chosen));
            routes.insert(cidr.net(), route);
        }
    }
    // A claim that was refused may lie inside a pod CIDR that was accepted, and must not take a part out of it.
    let nobodys =
        |net: &&IpNet| !routes.contains_key(*net) && !routes.keys().any(|accepted| accepted.contains(*net));
    let nobodys: Vec<IpNet> = sealed.iter().filter(nobodys).copied().collect();
    routes.extend(
        nobodys
            .into_iter()
            .map(|net| (net, plain(RouteTarget::Unreachable))),
    );
    routes
}

fn remote_route(
    local: &Local,
    cidr: PodCidr,
    sources: &[PodCidr],
    chosen: &Chosen<'_>,
    mtu: Option<u32>,
) -> Route {
    let own = sources.iter().find(|own| own.family() == cidr.family());
    let source = own.map(|own| own.node_address());
    let unreachable = Route {
        target: RouteTarget::Unreachable,
        source: None,
        mtu: None,
    };
    let target = match chosen.route() {
        Some(PeerRoute::Wireguard(key, _)) => RouteTarget::Device(key.epoch.lane().interface().to_owned()),
        Some(PeerRoute::Vxlan(_)) => {
            RouteTarget::OnLink(crate::state::VXLAN_INTERFACE.to_owned(), cidr.node_address())
        }
        Some(PeerRoute::Ipip(host)) if cidr.family() == Family::V4 => {
            RouteTarget::OnLink(crate::state::IPIP_INTERFACE.to_owned(), host.into())
        }
        Some(PeerRoute::Direct(gateway)) if Family::of(gateway) == cidr.family() => {
            RouteTarget::Gateway(gateway)
        }
        // A gateway of the other family cannot carry it.
        Some(PeerRoute::Direct(_)) => match gateway(local, chosen.peer.node, cidr.family()) {
            Some(gateway) => RouteTarget::Gateway(gateway),
            None => return unreachable,
        },
        Some(PeerRoute::Ipip(_)) | None => return unreachable,
    };
    Route { target, source, mtu }
}

fn announcement(
    cluster: &Cluster,
    local: &Local,
    accord: Accord,
    offered: BTreeSet<PathKind>,
    peers: &[Chosen<'_>],
) -> Option<Announcement> {
    let keys = local.keys.iter().map(|(epoch, public_key)| AnnouncedKey {
        epoch: *epoch,
        public_key: *public_key,
        port: cluster.mesh.ports.of(epoch.lane()),
    });
    let (oldest, newest) = (*local.keys.keys().min()?, *local.keys.keys().max()?);
    let settled = local.settled.unwrap_or(oldest).clamp(oldest, newest);
    let mut by = offered;
    by.extend(handover::allowed(cluster, local));
    let staying: BTreeSet<PathKind> = peers.iter().flat_map(Chosen::staying).collect();
    by.extend(&staying);
    let progress = Progress {
        accepts: accord,
        sends: staying.is_empty().then_some(accord),
        by,
    };
    let announcement = Announcement::new(keys.collect(), settled, local.can.clone()).ok()?;
    let turns = handover::turns(cluster, local);
    Some(announcement.with_turns(turns).with_progress(progress))
}

/// A pod that kept its address while the node got other pod CIDRs is reached by nobody beyond this node.
fn refuse_foreign_addresses(local: &Local, own_cidrs: &[PodCidr], refusals: &mut Vec<Refusal>) {
    if own_cidrs.is_empty() {
        return;
    }
    for attachment in &local.attachments {
        for address in &attachment.addresses {
            if !own_cidrs.iter().any(|cidr| cidr.contains(*address)) {
                refusals.push(Refusal::new(
                    format!("Pod/{}", attachment.pod),
                    "foreign-pod-address",
                    format!(
                        "its address {address} is in none of this node's pod CIDRs, so other nodes do not reach it: \
                         delete the pod, its successor gets an address of this node"
                    ),
                ));
            }
        }
    }
}

/// The kernel takes IPv6 off an interface below 1280 bytes (RFC 8200, section 5), so that is what holds.
fn refuse_mtu_without_ipv6(mesh: &Mesh, own_cidrs: &[PodCidr], refusals: &mut Vec<Refusal>) {
    let least = mtu::least(own_cidrs);
    if let Some(mtu) = mesh.mtu.filter(|mtu| u32::from(*mtu) < least) {
        refusals.push(Refusal::new(
            format!("Mesh/{MESH_NAME}"),
            "mtu-below-ipv6",
            format!("spec.mtu is {mtu}, and {least} holds because pods have IPv6: set it to {least} or more"),
        ));
    }
}

/// IPIP carries IPv4 alone (RFC 2003). What cannot be carried is not sent otherwise.
fn refuse_ipv6_by_ipip(peers: &[Chosen<'_>], refusals: &mut Vec<Refusal>) {
    for chosen in peers {
        let has_ipv6 = chosen.peer.cidrs.iter().any(|cidr| cidr.family() == Family::V6);
        if has_ipv6 && matches!(chosen.route(), Some(PeerRoute::Ipip(_))) {
            refusals.push(Refusal::new(
                node_object(&chosen.peer.node.name),
                "ipv6-by-ipip",
                "its pods' IPv6 addresses are not reached, because IPIP carries IPv4 alone: use vxlan",
            ));
        }
    }
}

/// A node whose addresses are all of a family that this node has not is reached by nobody like this one.
fn refuse_unshared_families(own_ips: &[IpAddr], accepted: &peers::Accepted<'_>, refusals: &mut Vec<Refusal>) {
    for peer in &accepted.peers {
        let node = peer.node;
        if own_ips.is_empty() || node.internal_ips.is_empty() || peer_address(own_ips, node).is_some() {
            continue;
        }
        refusals.push(Refusal::new(
            node_object(&node.name),
            "no-common-family",
            "its InternalIPs are all of an address family that this node has not, so it is not reached: give the kubelet \
             of either an address of the other's family with --node-ip",
        ));
    }
}

fn sorted(mut refusals: Vec<Refusal>) -> Vec<Refusal> {
    refusals.sort();
    refusals.dedup();
    refusals
}

/// The object name of a node in a refusal.
pub(crate) fn node_object(name: &NodeName) -> String {
    format!("Node/{name}")
}
