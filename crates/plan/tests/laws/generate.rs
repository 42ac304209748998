//! Random clusters, nodes and kernels, from pools small enough that they collide.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use warren_model::status::MtuHole;
use warren_model::{
    Accord, AnnouncedKey, Announcement, AnnouncementError, Encryption, Epoch, Fallback, Lane, Mesh, MtuProbe,
    Node, NodeName, OverlayMode, Path, PathKind, PodCidr, Progress, PublicKey,
};
use warren_plan::lane::{LaneObserved, PeerObserved};
use warren_plan::state::VXLAN_INTERFACE;
use warren_plan::{
    Attachment, Cluster, Endpoints, InForce, Ipip, Link, LinkKind, Local, Mac, Observed, OpenPod, Route,
    RouteTarget, UnderlayAddress, UnderlayRoute, Vxlan, compute,
};

/// A cluster, a node in it, and a kernel that may hold anything.
#[derive(Debug)]
pub(crate) struct Situation {
    pub(crate) cluster: Cluster,
    pub(crate) local: Local,
    pub(crate) observed: Observed,
}

pub(crate) fn a_situation() -> impl Strategy<Value = Situation> {
    let kernel = prop_oneof![
        2 => an_observed().prop_map(|observed| (None, observed)),
        // What an earlier situation left behind: nearly right, as it is most of the time.
        1 => (a_cluster(), a_local(), an_observed()).prop_map(|(c, l, o)| (Some((c, l)), o)),
    ];
    (a_cluster(), a_local(), kernel).prop_map(|(cluster, local, (earlier, mut observed))| {
        if let Some((cluster, local)) = earlier {
            for step in warren_plan::diff(&compute(&cluster, &local), &observed.clone()) {
                observed.apply(&step.action);
            }
        }
        // Attachments are only those whose veth exists.
        for attachment in &local.attachments {
            let veth = Link {
                kind: LinkKind::Veth,
                mtu: 1500,
                up: false,
            };
            observed.links.entry(attachment.interface.clone()).or_insert(veth);
        }
        Situation {
            cluster,
            local,
            observed,
        }
    })
}

pub(crate) fn a_cluster() -> impl Strategy<Value = Cluster> {
    (vec(a_node(), 0..6), a_mesh()).prop_map(|(nodes, mesh)| Cluster {
        nodes: nodes.into_iter().map(|node| (node.name.clone(), node)).collect(),
        mesh,
        refusals: Vec::new(),
    })
}

pub(crate) fn a_local() -> impl Strategy<Value = Local> {
    let attachments = btree_map(0_u8..5, an_address_pair(), 0..4).prop_map(|pods| {
        let mut taken = BTreeSet::new();
        let pods = pods.into_iter().map(|(n, addresses)| Attachment {
            pod: format!("default/p{n}"),
            interface: format!("wrn{n}"),
            mac: Mac([2, 0, 0, 0, 0, n]),
            addresses: addresses
                .into_iter()
                .filter(|address| taken.insert(*address))
                .collect(),
        });
        pods.collect()
    });
    let keys = prop_oneof![Just(vec![]), Just(vec![1]), Just(vec![2]), Just(vec![1, 2]),];
    (
        attachments,
        keys,
        a_set_of_paths(),
        vec(an_underlay_address(), 0..3),
        (vec(an_underlay_route(), 0..4), some_holes()),
        btree_set(a_pod_cidr().prop_map(PodCidr::net), 0..3),
        some_endpoints(),
        what_is_in_force(),
    )
        .prop_map(
            |(
                attachments,
                epochs,
                can,
                underlay,
                (underlay_routes, mtu_holes),
                networks_before,
                endpoints_before,
                in_force,
            )| {
                Local {
                    node: name(0),
                    settled: None,
                    keys: epochs
                        .into_iter()
                        .map(|epoch| (Epoch::new(epoch).unwrap(), key(100 + epoch as u8)))
                        .collect(),
                    can,
                    attachments,
                    underlay,
                    underlay_routes,
                    mtu_holes,
                    networks_before,
                    endpoints_before,
                    in_force,
                }
            },
        )
}

fn some_holes() -> impl Strategy<Value = BTreeMap<NodeName, MtuHole>> {
    let hole = (1280_u32..9000, 576_u32..1400).prop_map(|(lost, passes)| MtuHole { lost, passes });
    btree_map((0_u8..6).prop_map(name), hole, 0..3)
}

fn what_is_in_force() -> impl Strategy<Value = InForce> {
    let path = select(vec![
        Path::Wireguard(Lane::Zero),
        Path::Wireguard(Lane::One),
        Path::Vxlan,
        Path::Ipip,
        Path::Direct,
    ]);
    (
        btree_map(a_pod_cidr().prop_map(PodCidr::net), path.clone(), 0..4),
        btree_map(a_pod_cidr().prop_map(PodCidr::net), btree_set(path, 0..3), 0..4),
        btree_set(
            (select(Lane::ALL.to_vec()), (0_u8..12).prop_map(|n| key(n + 1))),
            0..6,
        ),
        any::<bool>(),
        0_u64..90,
    )
        .prop_map(|(routed, left, proven, has_lanes, age)| InForce {
            held: proven.clone(),
            routed,
            left,
            proven,
            has_lanes,
            accord_age: Duration::from_secs(age),
        })
}

/// Of the peers that [`a_device`] and [`an_announcement`] know.
fn some_endpoints() -> impl Strategy<Value = Endpoints> {
    let of_lane = || btree_map((0_u8..12).prop_map(|n| key(n + 1)), an_endpoint(), 0..6);
    [of_lane(), of_lane()].prop_map(|[zero, one]| [(Lane::Zero, zero), (Lane::One, one)].into())
}

pub(crate) fn an_observed() -> impl Strategy<Value = Observed> {
    let links = btree_map(
        an_interface(),
        (a_link_kind(), 1280_u32..1501, any::<bool>()),
        0..6,
    )
    .prop_map(|links| {
        let link = |(name, (kind, mtu, up)): (String, _)| {
            let kind = if name.starts_with("wrn") {
                LinkKind::Veth
            } else {
                kind
            };
            (name, Link { kind, mtu, up })
        };
        links.into_iter().map(link).collect::<BTreeMap<_, _>>()
    });
    let hung_on_links = (
        btree_set((an_interface(), an_address()), 0..6),
        btree_map((an_interface(), an_address()), (0_u8..3).prop_map(mac), 0..6),
        btree_map((0_u8..3).prop_map(mac), an_address(), 0..3),
        btree_map(a_net(), a_route(), 0..8),
    );
    let devices = [a_device(), a_device()];
    let open_pod =
        (an_interface(), an_address()).prop_map(|(interface, address)| OpenPod { interface, address });
    let guard = (option::of(any::<u64>()), btree_set(open_pod, 0..4));
    (guard, links, devices, hung_on_links).prop_map(
        |((guard, open_pods), links, [zero, one], (addresses, neighbours, fdb, routes))| {
            let exists = |name: &str| links.contains_key(name);
            let lanes = [(Lane::Zero, zero), (Lane::One, one)];
            let is_lane = |lane: &Lane| matches!(links.get(lane.interface()), Some(Link { kind: LinkKind::Lane(found), .. }) if found == lane);
            Observed {
                guard,
                open_pods,
                lanes: lanes.into_iter().filter(|(lane, _)| is_lane(lane)).collect(),
                addresses: addresses.into_iter().filter(|(link, _)| exists(link)).collect(),
                neighbours: neighbours.into_iter().filter(|((link, _), _)| exists(link)).collect(),
                fdb: if exists(VXLAN_INTERFACE) { fdb } else { BTreeMap::new() },
                routes: routes.into_iter().filter(|(_, r): &(IpNet, Route)| r.device().is_none_or(exists)).collect(),
                sysctls: BTreeMap::new(),
                links,
            }
        },
    )
}

fn a_node() -> impl Strategy<Value = Node> {
    let announcement = prop_oneof![
        1 => Just(None),
        1 => Just(Some(Err(AnnouncementError::NoKeys))),
        6 => an_announcement().prop_map(|announcement| Some(Ok(announcement))),
    ];
    let addresses = btree_set(an_underlay_ip(), 0..3);
    (
        0_u8..6,
        0_i64..3,
        btree_set(a_pod_cidr(), 0..3),
        addresses,
        announcement,
        any::<bool>(),
    )
        .prop_map(|(n, created, cidrs, ips, announcement, ready)| Node {
            name: name(n),
            uid: format!("uid-{n}"),
            created,
            pod_cidrs: cidrs.into_iter().collect(),
            internal_ips: ips.into_iter().collect(),
            announcement,
            ready,
        })
}

fn an_announcement() -> impl Strategy<Value = Announcement> {
    let epochs = prop_oneof![
        Just(vec![1_u32]),
        Just(vec![2]),
        Just(vec![1, 2]),
        Just(vec![2, 3])
    ];
    let progress = (
        0_u64..3,
        option::of((0_u64..3).prop_map(Accord)),
        a_set_of_paths(),
    );
    let progress = progress.prop_map(|(accepts, sends, by)| Progress {
        accepts: Accord(accepts),
        sends,
        by,
    });
    let parts = (
        epochs,
        vec(0_u8..12, 2),
        a_set_of_paths(),
        0_u32..3,
        option::of(progress),
    );
    parts.prop_map(|(epochs, keys, paths, turns, progress)| {
        let first = Epoch::new(epochs[0]).unwrap();
        let keys = epochs.into_iter().zip(keys).map(|(epoch, n)| AnnouncedKey {
            epoch: Epoch::new(epoch).unwrap(),
            public_key: key(n + 1),
            port: 51820,
        });
        let announcement = Announcement::new(keys.collect(), first, paths)
            .unwrap()
            .with_turns(turns);
        match progress {
            Some(progress) => announcement.with_progress(progress),
            None => announcement,
        }
    })
}

fn a_mesh() -> impl Strategy<Value = Mesh> {
    let settings = (
        select(vec![Encryption::Wireguard, Encryption::None]),
        select(vec![Fallback::None, Fallback::Vxlan, Fallback::Ipip]),
        select(vec![OverlayMode::Vxlan, OverlayMode::Ipip, OverlayMode::None]),
        any::<bool>(),
        option::of(1280_u16..1500),
        1_u32..4,
        (any::<bool>(), select(vec![MtuProbe::Report, MtuProbe::Lower])),
        option::of(Just("10.244.0.0/16".parse::<IpNet>().unwrap())),
    );
    settings.prop_map(
        |(encryption, fallback, mode, cross_subnet, mtu, epoch, (nat_outgoing, mtu_probe), network)| {
            let mut mesh = Mesh {
                encryption,
                fallback,
                mtu,
                mtu_probe,
                nat_outgoing,
                ..Mesh::default()
            };
            mesh.overlay.mode = mode;
            mesh.overlay.cross_subnet = cross_subnet;
            mesh.keys.epoch = Epoch::new(epoch).unwrap();
            mesh.pod_networks.extend(network);
            mesh
        },
    )
}

fn a_device() -> impl Strategy<Value = LaneObserved> {
    let peer = (
        option::of(an_endpoint()),
        btree_set(a_pod_cidr(), 0..3),
        option::of(0_u64..400),
    );
    (
        option::of((0_u8..110).prop_map(|n| key(n + 1))),
        btree_map(0_u8..12, peer, 0..5),
    )
        .prop_map(|(public_key, peers)| {
            let mut taken = BTreeSet::new();
            let peers = peers.into_iter().map(|(n, (endpoint, cidrs, age))| {
                let nets = cidrs
                    .into_iter()
                    .map(PodCidr::net)
                    .filter(|net| taken.insert(*net))
                    .collect();
                let peer = PeerObserved {
                    endpoint,
                    allowed_ips: nets,
                    handshake_age: age.map(Duration::from_secs),
                    ..PeerObserved::default()
                };
                (key(n + 1), peer)
            });
            LaneObserved {
                public_key,
                port: 51820,
                peers: peers.collect(),
            }
        })
}

fn a_route() -> impl Strategy<Value = Route> {
    let target = prop_oneof![
        an_interface().prop_map(RouteTarget::Device),
        Just(RouteTarget::Unreachable),
        Just(RouteTarget::Blackhole),
        an_underlay_ip().prop_map(RouteTarget::Gateway),
    ];
    let mtu = option::of(1280_u32..1500);
    (target, mtu).prop_map(|(target, mtu)| Route {
        target,
        source: None,
        mtu,
    })
}

fn a_link_kind() -> impl Strategy<Value = LinkKind> {
    prop_oneof![
        Just(LinkKind::Lane(Lane::Zero)),
        Just(LinkKind::Lane(Lane::One)),
        Just(LinkKind::Foreign),
        Just(LinkKind::Ipip(Ipip {
            local: [10, 0, 0, 1].into()
        })),
        (4789_u16..4791, 0_u8..2).prop_map(|(port, n)| {
            LinkKind::Vxlan(Vxlan {
                port,
                mac: mac(n),
                local: IpAddr::from([10, 0, 0, 1]),
            })
        }),
    ]
}

fn an_interface() -> impl Strategy<Value = String> {
    select(vec![
        "warren0",
        "warren1",
        "warren-vx",
        "warren-ipip",
        "wrn0",
        "wrn1",
        "wrn7",
    ])
    .prop_map(str::to_owned)
}

fn an_underlay_address() -> impl Strategy<Value = UnderlayAddress> {
    (an_underlay_ip(), 1400_u32..9001).prop_map(|(ip, mtu)| UnderlayAddress {
        interface: "eth0".to_owned(),
        net: IpNet::new(ip, if ip.is_ipv4() { 24 } else { 64 }).unwrap(),
        mtu,
    })
}

fn an_underlay_route() -> impl Strategy<Value = UnderlayRoute> {
    let net = prop_oneof![
        an_underlay_address().prop_map(|address| address.net.trunc()),
        Just("0.0.0.0/0".parse().unwrap()),
        Just("::/0".parse().unwrap()),
    ];
    (net, 0_u32..3, 1400_u32..9001).prop_map(|(net, metric, mtu)| UnderlayRoute { net, metric, mtu })
}

fn a_set_of_paths() -> impl Strategy<Value = BTreeSet<PathKind>> {
    subsequence(
        vec![
            PathKind::Wireguard,
            PathKind::Wireguard,
            PathKind::Vxlan,
            PathKind::Ipip,
        ],
        0..=4,
    )
    .prop_map(|paths| paths.into_iter().collect())
}

fn an_underlay_ip() -> impl Strategy<Value = IpAddr> {
    select(vec![
        "192.0.2.1",
        "192.0.2.2",
        "198.51.100.1",
        "2001:db8::1",
        "2001:db8:1::1",
    ])
    .prop_map(|ip| ip.parse().unwrap())
}

fn an_endpoint() -> impl Strategy<Value = SocketAddr> {
    an_underlay_ip().prop_map(|ip| SocketAddr::new(ip, 51820))
}

fn a_pod_cidr() -> impl Strategy<Value = PodCidr> {
    let cidrs = [
        "10.244.0.0/24",
        "10.244.1.0/24",
        "10.244.2.0/24",
        "10.244.0.0/22",
        "fd00:1::/64",
        "fd00:2::/64",
    ];
    select(cidrs.to_vec()).prop_map(|cidr| cidr.parse().unwrap())
}

fn a_net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        a_pod_cidr().prop_map(PodCidr::net),
        an_address().prop_map(IpNet::from)
    ]
}

fn an_address() -> impl Strategy<Value = IpAddr> {
    select(vec![
        "10.244.0.1",
        "10.244.0.5",
        "10.244.0.6",
        "10.244.1.5",
        "fd00:1::1",
        "fd00:1::5",
    ])
    .prop_map(|ip| ip.parse().unwrap())
}

fn an_address_pair() -> impl Strategy<Value = Vec<IpAddr>> {
    (5_u8..9, any::<bool>()).prop_map(|(n, dual)| {
        let mut addresses = vec![IpAddr::from([10, 244, 0, n])];
        if dual {
            addresses.push(IpAddr::from([0xfd00, 1, 0, 0, 0, 0, 0, u16::from(n)]));
        }
        addresses
    })
}

fn name(n: u8) -> NodeName {
    format!("node{n}").parse().unwrap()
}

fn key(n: u8) -> PublicKey {
    PublicKey::from_bytes([n.max(2); 32]).unwrap()
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 1, n])
}
