//! How a peer is reached: each row of the choice, by name.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use warren_model::{
    AnnouncedKey, Announcement, AnnouncementError, Encryption, Epoch, Fallback, Mesh, Node, OverlayMode,
    PathKind, PublicKey,
};
use warren_plan::path_choice::{Choice, PeerRoute, choose, peer_address, shared_keys};
use warren_plan::{InForce, Local, UnderlayAddress};

const V4: &str = "192.0.2.1";
const V6: &str = "2001:db8::1";
const WIREGUARD_AND_VXLAN: &[PathKind] = &[PathKind::Wireguard, PathKind::Vxlan];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn key(n: u8) -> PublicKey {
    PublicKey::from_bytes([n; 32]).unwrap()
}

fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

fn announced(epochs: &[u32], paths: &[PathKind]) -> Announcement {
    let keys = epochs.iter().map(|number| AnnouncedKey {
        epoch: epoch(*number),
        public_key: key(100 + *number as u8),
        port: 51820 + *number as u16,
    });
    Announcement::new(keys.collect(), epoch(epochs[0]), paths.iter().copied().collect()).unwrap()
}

fn peer(announcement: Option<Result<Announcement, AnnouncementError>>) -> Node {
    Node {
        name: "peer".parse().unwrap(),
        uid: "1".to_owned(),
        created: 0,
        pod_cidrs: vec!["10.244.2.0/24".parse().unwrap()],
        internal_ips: vec![ip("192.0.2.2")],
        announcement,
        ready: true,
    }
}

fn local(epochs: &[u32], can: &[PathKind]) -> Local {
    Local {
        node: "here".parse().unwrap(),
        keys: epochs
            .iter()
            .map(|number| (epoch(*number), key(*number as u8 + 1)))
            .collect::<BTreeMap<_, _>>(),
        can: can.iter().copied().collect::<BTreeSet<_>>(),
        attachments: Vec::new(),
        underlay: vec![UnderlayAddress {
            interface: "eth0".to_owned(),
            net: "192.0.2.1/24".parse().unwrap(),
            mtu: 1500,
        }],
        underlay_routes: Vec::new(),
        mtu_holes: BTreeMap::new(),
        networks_before: BTreeSet::new(),
        endpoints_before: BTreeMap::new(),
        in_force: InForce::default(),
        settled: None,
    }
}

fn choice(mesh: &Mesh, local: &Local, peer: &Node) -> Choice {
    let usable = match &peer.announcement {
        Some(Ok(announcement)) => shared_keys(local, announcement).collect(),
        Some(Err(_)) | None => Vec::new(),
    };
    choose(mesh, local, &[ip(V4)], peer, &usable)
}

fn route(mesh: &Mesh, local: &Local, peer: &Node) -> Option<PeerRoute> {
    choice(mesh, local, peer).route
}

#[test]
fn encrypted_peers_meet_in_the_newest_epoch_both_have_up_to_that_of_the_mesh() {
    let mut mesh = Mesh::default();
    let at = |mesh: &Mesh, here: &[u32], there: &[u32]| {
        let peer = peer(Some(Ok(announced(there, WIREGUARD_AND_VXLAN))));
        match route(mesh, &local(here, WIREGUARD_AND_VXLAN), &peer) {
            Some(PeerRoute::Wireguard(key, endpoint)) => {
                assert_eq!((endpoint.ip(), endpoint.port()), (ip("192.0.2.2"), key.port));
                Some(key.epoch.number())
            }
            other => {
                assert_eq!(other, None, "never another path");
                None
            }
        }
    };
    assert_eq!(at(&mesh, &[1], &[1]), Some(1));
    assert_eq!(at(&mesh, &[1], &[1, 2]), Some(1));
    assert_eq!(at(&mesh, &[1, 2], &[1, 2]), Some(1), "the Mesh has not moved yet");
    mesh.keys.epoch = epoch(2);
    assert_eq!(at(&mesh, &[1, 2], &[1, 2]), Some(2));
    assert_eq!(at(&mesh, &[1, 2], &[1]), Some(1), "the peer has not moved yet");
    assert_eq!(at(&mesh, &[1], &[2]), None);
    mesh.keys.epoch = epoch(1);
    assert_eq!(
        at(&mesh, &[2], &[2]),
        Some(2),
        "a Mesh that was set back does not cut anyone off"
    );
}

/// A peer may have destroyed the key before, because this node has said that it has settled.
#[test]
fn a_node_never_goes_back_behind_the_epoch_that_it_has_settled_in_whatever_the_mesh_asks_for() {
    let mut mesh = Mesh::default();
    mesh.keys.epoch = epoch(2);
    let peer = peer(Some(Ok(announced(&[2, 3], WIREGUARD_AND_VXLAN))));
    let by = |settled: Option<u32>| {
        let local = Local {
            settled: settled.map(epoch),
            ..local(&[2, 3], WIREGUARD_AND_VXLAN)
        };
        match route(&mesh, &local, &peer) {
            Some(PeerRoute::Wireguard(key, _)) => key.epoch.number(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!([by(None), by(Some(2)), by(Some(3))], [2, 2, 3]);
}

#[test]
fn what_is_not_known_of_a_peer_is_never_a_reason_for_a_path_in_the_clear() {
    for fallback in [Fallback::None, Fallback::Vxlan, Fallback::Ipip] {
        let mesh = Mesh {
            fallback,
            ..Mesh::default()
        };
        for announcement in [None, Some(Err(AnnouncementError::NoKeys))] {
            assert_eq!(
                route(&mesh, &local(&[1], WIREGUARD_AND_VXLAN), &peer(announcement)),
                None
            );
        }
        let strange = peer(Some(Ok(announced(&[2], WIREGUARD_AND_VXLAN))));
        assert_eq!(
            route(&mesh, &local(&[1], WIREGUARD_AND_VXLAN), &strange),
            None,
            "no epoch in common"
        );
    }
}

#[test]
fn the_fallback_is_taken_only_where_the_mesh_allows_it_and_one_end_says_it_cannot_do_wireguard() {
    let without = [PathKind::Vxlan];
    let vxlan = Some(PeerRoute::Vxlan(ip("192.0.2.2")));
    for (fallback, here, there, expected) in [
        (Fallback::Vxlan, WIREGUARD_AND_VXLAN, &without[..], vxlan),
        (Fallback::Vxlan, &without[..], WIREGUARD_AND_VXLAN, vxlan),
        (Fallback::Vxlan, WIREGUARD_AND_VXLAN, &[], None),
        (Fallback::None, WIREGUARD_AND_VXLAN, &without[..], None),
        (Fallback::None, &without[..], WIREGUARD_AND_VXLAN, None),
        (Fallback::Ipip, WIREGUARD_AND_VXLAN, &without[..], None),
    ] {
        let mesh = Mesh {
            fallback,
            ..Mesh::default()
        };
        let found = route(&mesh, &local(&[1], here), &peer(Some(Ok(announced(&[1], there)))));
        assert_eq!(found, expected, "{fallback:?}, {here:?}, {there:?}");
    }
}

#[test]
fn without_encryption_the_overlay_decides_and_the_subnet_may_spare_it() {
    let clear = |mode, cross_subnet, peer_ip: &str| {
        let mut mesh = Mesh {
            encryption: Encryption::None,
            ..Mesh::default()
        };
        mesh.overlay.mode = mode;
        mesh.overlay.cross_subnet = cross_subnet;
        let mut peer = peer(Some(Ok(announced(&[1], WIREGUARD_AND_VXLAN))));
        peer.internal_ips = vec![ip(peer_ip)];
        route(&mesh, &local(&[1], WIREGUARD_AND_VXLAN), &peer)
    };
    let (near, far) = ("192.0.2.2", "198.51.100.2");
    assert_eq!(
        clear(OverlayMode::Vxlan, false, near),
        Some(PeerRoute::Vxlan(ip(near)))
    );
    assert_eq!(
        clear(OverlayMode::Vxlan, true, near),
        Some(PeerRoute::Direct(ip(near)))
    );
    assert_eq!(
        clear(OverlayMode::Vxlan, true, far),
        Some(PeerRoute::Vxlan(ip(far)))
    );
    assert_eq!(
        clear(OverlayMode::None, false, near),
        Some(PeerRoute::Direct(ip(near)))
    );
    assert_eq!(clear(OverlayMode::None, true, far), None);
    assert_eq!(clear(OverlayMode::Ipip, false, near), None);
}

#[test]
fn the_endpoint_is_of_the_family_this_node_prefers_and_the_peer_has() {
    let with = |ips: &[&str]| Node {
        internal_ips: ips.iter().map(|text| ip(text)).collect(),
        ..peer(None)
    };
    let dual = with(&["2001:db8::2", "192.0.2.2"]);
    assert_eq!(peer_address(&[ip(V4), ip(V6)], &dual), Some(ip("192.0.2.2")));
    assert_eq!(peer_address(&[ip(V6), ip(V4)], &dual), Some(ip("2001:db8::2")));
    assert_eq!(
        peer_address(&[ip(V4), ip(V6)], &with(&["2001:db8::2"])),
        Some(ip("2001:db8::2"))
    );
    assert_eq!(peer_address(&[ip(V4)], &with(&["2001:db8::2"])), None);
    assert_eq!(peer_address(&[], &dual), None);
}

#[test]
fn a_key_that_was_refused_is_no_path() {
    let peer = peer(Some(Ok(announced(&[1], WIREGUARD_AND_VXLAN))));
    let choice = choose(
        &Mesh::default(),
        &local(&[1], WIREGUARD_AND_VXLAN),
        &[ip(V4)],
        &peer,
        &[],
    );
    assert_eq!(choice.route, None);
    assert!(
        choice.reason.contains("belongs to another node"),
        "{}",
        choice.reason
    );
}

#[test]
fn every_choice_says_why() {
    let mesh = Mesh::default();
    let reason = |node: &Node| choice(&mesh, &local(&[1], WIREGUARD_AND_VXLAN), node).reason;
    assert_eq!(reason(&peer(None)), "the peer has not published a key yet");
    assert_eq!(
        reason(&peer(Some(Ok(announced(&[1], WIREGUARD_AND_VXLAN))))),
        "both have a key of epoch 1"
    );
    assert_eq!(
        reason(&peer(Some(Ok(announced(&[2], WIREGUARD_AND_VXLAN))))),
        "no epoch in common: this node has 1, the peer 2"
    );
    assert!(reason(&peer(Some(Err(AnnouncementError::NoKeys)))).contains("lists no key"));
}
