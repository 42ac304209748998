//! MTUs: what each way to a peer takes, what is left for pods, and that the smallest wins.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use warren_model::status::MtuHole;
use warren_model::{
    AnnouncedKey, Announcement, Encryption, Epoch, Fallback, Family, MtuProbe, Node, NodeName, PathKind,
    PublicKey,
};
use warren_plan::{
    Cluster, Desired, Endpoints, InForce, Local, UnderlayAddress, UnderlayRoute, compute, mtu,
};

/// Pods of this node are dual-stack, and so is the node; its peers are as asked for.
const HERE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

fn node(number: u8, internal_ips: &[&str]) -> Node {
    let key = AnnouncedKey {
        epoch: Epoch::FIRST,
        public_key: PublicKey::from_bytes([number; 32]).unwrap(),
        port: 51821,
    };
    let paths = BTreeSet::from([PathKind::Wireguard, PathKind::Vxlan]);
    Node {
        name: name(number),
        uid: number.to_string(),
        created: 0,
        pod_cidrs: vec![
            format!("10.244.{number}.0/24").parse().unwrap(),
            format!("fd00:244:{number}::/64").parse().unwrap(),
        ],
        internal_ips: internal_ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        announcement: Some(Ok(Announcement::new(vec![key], Epoch::FIRST, paths).unwrap())),
        ready: true,
    }
}

fn name(number: u8) -> NodeName {
    format!("n{number}").parse().unwrap()
}

/// A node with an interface of 1500 bytes, these other routes, and peers n2, n3 and so on.
fn cluster(peers: &[&[&str]], routes: &[(&str, u32, u32)]) -> (Cluster, Local) {
    let mut cluster = Cluster::default();
    for (number, ips) in (1_u8..).zip([&HERE[..]].iter().chain(peers)) {
        cluster.nodes.insert(name(number), node(number, ips));
    }
    let address = |net: &str| UnderlayAddress {
        interface: "eth0".to_owned(),
        net: net.parse().unwrap(),
        mtu: 1500,
    };
    let route = |(net, metric, mtu): &(&str, u32, u32)| UnderlayRoute {
        net: net.parse().unwrap(),
        metric: *metric,
        mtu: *mtu,
    };
    let local = Local {
        node: name(1),
        keys: BTreeMap::from([(Epoch::FIRST, PublicKey::from_bytes([1; 32]).unwrap())]),
        can: BTreeSet::from([PathKind::Wireguard, PathKind::Vxlan]),
        attachments: Vec::new(),
        underlay: vec![address("192.0.2.1/24"), address("2001:db8::1/64")],
        underlay_routes: routes.iter().map(route).collect(),
        mtu_holes: BTreeMap::new(),
        networks_before: BTreeSet::new(),
        endpoints_before: Endpoints::new(),
        settled: None,
        in_force: InForce::default(),
    };
    (cluster, local)
}

/// What each peer's path leaves, and what pods get.
fn mtus(desired: &Desired) -> (Vec<u32>, u32) {
    let of_peers = desired.peers.values().filter_map(|peer| peer.mtu);
    (of_peers.collect(), desired.pod_mtu)
}

#[test]
fn each_path_has_its_headers_in_each_family() {
    for (kind, v4, v6) in [
        (PathKind::Wireguard, 60, 80),
        (PathKind::Vxlan, 50, 70),
        (PathKind::Ipip, 20, 20),
        (PathKind::Direct, 0, 0),
    ] {
        assert_eq!(mtu::overhead(kind, Family::V4), v4, "{kind}");
        assert_eq!(mtu::overhead(kind, Family::V6), v6, "{kind}");
    }
}

#[test]
fn the_route_to_a_peer_says_what_the_way_to_it_takes_and_pods_get_the_smallest() {
    let peers: &[&[&str]] = &[&["198.51.100.2"], &["203.0.113.3"], &["192.0.2.4"]];
    let routes = [
        ("0.0.0.0/0", 0, 1500),
        // A longer prefix comes first, and of two equals the lower metric, whatever they take.
        ("198.51.0.0/16", 0, 1300),
        ("198.51.100.0/24", 100, 9000),
        ("198.51.100.0/24", 200, 1400),
        ("203.0.113.0/24", 0, 1450),
    ];
    let (mut cluster, local) = cluster(peers, &routes);
    let desired = compute(&cluster, &local);
    assert_eq!(mtus(&desired), (vec![8940, 1390, 1440], 1390));
    assert_eq!(desired.links["warren1"].mtu, 1390);

    // By VXLAN ten bytes more are left, on each way.
    cluster.mesh.encryption = Encryption::None;
    let desired = compute(&cluster, &local);
    assert_eq!(mtus(&desired), (vec![8950, 1400, 1450], 1400));

    // A peer that is gone narrows nothing.
    cluster.nodes.remove(&name(3));
    assert_eq!(compute(&cluster, &local).pod_mtu, 1450);
}

#[test]
fn a_peer_of_the_other_family_costs_that_familys_headers() {
    let (mut cluster, local) = cluster(&[&["192.0.2.2"]], &[("192.0.2.0/24", 0, 1500), ("::/0", 0, 1500)]);
    assert_eq!(mtus(&compute(&cluster, &local)), (vec![1440], 1440));
    cluster.nodes.insert(name(3), node(3, &["2001:db8::3"]));
    assert_eq!(mtus(&compute(&cluster, &local)), (vec![1440, 1420], 1420));
}

#[test]
fn jumbo_frames_are_used_where_all_ways_have_them() {
    let jumbo = [("192.0.2.0/24", 0, 9000), ("2001:db8::/64", 0, 9000)];
    let (mut cluster, local) = cluster(&[&["192.0.2.2"], &["192.0.2.3"]], &jumbo);
    assert_eq!(mtus(&compute(&cluster, &local)), (vec![8940, 8940], 8940));
    // Both kinds of path are in use then, and pods must fit through either.
    cluster.mesh.fallback = Fallback::Vxlan;
    assert_eq!(compute(&cluster, &local).pod_mtu, 8940);
    cluster.nodes.insert(name(4), node(4, &["198.51.100.4"]));
    assert_eq!(mtus(&compute(&cluster, &local)).1, 1440, "one way is narrow");
}

#[test]
fn a_black_hole_lowers_the_pods_mtu_where_the_mesh_wants_that_and_no_other() {
    let (mut cluster, mut local) = cluster(&[&["192.0.2.2"], &["192.0.2.3"]], &[]);
    let hole = |passes| MtuHole { lost: 1440, passes };
    local.mtu_holes = BTreeMap::from([(name(2), hole(1376)), (name(3), hole(1424)), (name(9), hole(576))]);
    let found = |cluster: &Cluster, local: &Local| {
        let desired = compute(cluster, local);
        let told = desired.peers[&name(2)].mtu_hole;
        assert_eq!((desired.links["warren1"].mtu, desired.full_mtu), (1440, 1440));
        (desired.pod_mtu, told)
    };
    assert_eq!(cluster.mesh.mtu_probe, MtuProbe::Report);
    assert_eq!(found(&cluster, &local), (1440, Some(hole(1376))));
    cluster.mesh.mtu_probe = MtuProbe::Lower;
    assert_eq!(found(&cluster, &local), (1376, Some(hole(1376))));
    // Pods have IPv6, and that has a least of its own.
    local.mtu_holes = BTreeMap::from([(name(3), hole(1232))]);
    assert_eq!(found(&cluster, &local), (1280, None));
    local.mtu_holes.clear();
    assert_eq!(found(&cluster, &local), (1440, None));
}

#[test]
fn what_the_node_itself_sends_to_a_peer_with_a_black_hole_fits_as_well() {
    let (mut cluster, mut local) = cluster(&[&["192.0.2.2"], &["192.0.2.3"]], &[]);
    local.mtu_holes = BTreeMap::from([(
        name(2),
        MtuHole {
            lost: 1440,
            passes: 1376,
        },
    )]);
    let of_routes = |cluster: &Cluster| {
        let desired = compute(cluster, &local);
        [
            "10.244.1.0/24",
            "10.244.2.0/24",
            "fd00:244:2::/64",
            "10.244.3.0/24",
        ]
        .map(|net| desired.routes[&net.parse().unwrap()].mtu)
    };
    assert_eq!(of_routes(&cluster), [None; 4], "it is reported and no more");
    cluster.mesh.mtu_probe = MtuProbe::Lower;
    assert_eq!(of_routes(&cluster), [None, Some(1376), Some(1376), None]);
}

#[test]
fn where_pods_have_ipv4_alone_a_narrow_way_is_used_as_it_is_down_to_what_ipv4_asks_for() {
    for (underlay, v4_alone) in [(1000, 940), (1340, 1280), (600, 576)] {
        let (mut cluster, local) = cluster(&[&["192.0.2.2"]], &[("192.0.2.0/24", 0, underlay)]);
        let desired = compute(&cluster, &local);
        assert_eq!(mtus(&desired), (vec![1280], 1280), "pods have IPv6");
        for node in cluster.nodes.values_mut() {
            node.pod_cidrs.retain(|cidr| cidr.family() == Family::V4);
        }
        let desired = compute(&cluster, &local);
        assert_eq!(mtus(&desired), (vec![v4_alone], v4_alone), "{underlay}");
        assert_eq!(desired.links["warren1"].mtu, v4_alone);
    }
}

#[test]
fn a_set_mtu_holds_for_every_path_and_an_unknown_way_is_taken_for_the_interfaces() {
    let (mut cluster, local) = cluster(&[&["198.51.100.2"]], &[]);
    assert_eq!(mtus(&compute(&cluster, &local)), (vec![1440], 1440));
    cluster.mesh.mtu = Some(1400);
    assert_eq!(mtus(&compute(&cluster, &local)), (vec![1400], 1400));
}
