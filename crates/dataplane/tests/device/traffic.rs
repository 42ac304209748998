//! What is carried and what is not.

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::time::Duration;

use super::nodes::{Network, eventually, join, role};

#[test]
fn both_families_are_carried_inside_over_both_families_outside() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    for (prefix, closing) in [("192.0.2.", ""), ("[fd99::", "]")] {
        join((&a, &key_a), (&b, &key_b), prefix, closing);
        a.expect_ping("10.5.2.1");
        b.expect_ping("fd05::1");
        assert_eq!(a.shows("endpoints", &key_b), format!("{prefix}2{closing}:51820"));
        assert_eq!(b.shows("endpoints", &key_a), format!("{prefix}1{closing}:51820"));
    }
    for (node, peer) in [(&a, &key_b), (&b, &key_a)] {
        let handshake: u64 = node.shows("latest-handshakes", peer).parse().unwrap();
        assert!(handshake > 1_600_000_000, "no time of this century: {handshake}");
        let transfer = node.shows("transfer", peer);
        let bytes: Vec<u64> = transfer
            .split_whitespace()
            .map(|count| count.parse().unwrap())
            .collect();
        assert!(
            bytes.len() == 2 && bytes.iter().all(|count| *count > 400),
            "{transfer}"
        );
    }
}

#[test]
fn packets_of_every_size_arrive_whole() {
    const PORT: u16 = 7000;
    const MTU: usize = 1420;
    match role().as_deref() {
        Some("echo") => {
            let socket = UdpSocket::bind(("10.5.2.1", PORT)).unwrap();
            println!("bound");
            let mut datagram = [0; 2048];
            loop {
                let (len, from) = socket.recv_from(&mut datagram).unwrap();
                socket.send_to(&datagram[..len], from).unwrap();
            }
        }
        Some(_) => {
            let socket = UdpSocket::bind(("10.5.1.1", 0)).unwrap();
            socket.connect(("10.5.2.1", PORT)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            for len in 0..=MTU - 28 {
                // Not all the same, and different for each length.
                let sent: Vec<u8> = (0..len).map(|at| (at * 31 + len).to_le_bytes()[0]).collect();
                let mut received = [0; 2048];
                socket.send(&sent).unwrap();
                let back = socket.recv(&mut received).unwrap();
                assert_eq!(&received[..back], sent, "{len} bytes");
            }
            return;
        }
        None => {}
    }
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    assert!(a.sh("ip link show wg0").contains(&format!("mtu {MTU}")));
    let name = "traffic::packets_of_every_size_arrive_whole";
    let mut echo = b.play(name, "echo");
    let mut lines = BufReader::new(echo.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("bound")));
    let probe = a.play(name, "probe").wait_with_output().unwrap();
    assert!(
        probe.status.success(),
        "{}",
        String::from_utf8_lossy(&probe.stdout)
    );
    echo.kill().unwrap();
    echo.wait().unwrap();
}

#[test]
fn padding_follows_the_mtu_of_the_interface() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    a.expect_ping("10.5.2.1");
    let sent = || {
        a.shows("transfer", &key_b)
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let datagram = || {
        let before = sent();
        assert!(a.try_sh("ping -n -c 1 -W 1 -s 1253 10.5.2.1").status.success());
        sent() - before
    };
    // A packet of 1281 bytes takes 1296 with its padding, and 32 of WireGuard's.
    eventually("it is padded to a multiple of 16", || datagram() == 1296 + 32);
    a.sh("ip link set wg0 mtu 1283");
    eventually("it is padded to the MTU", || datagram() == 1283 + 32);
}

#[test]
fn the_longest_prefix_over_all_peers_decides_in_both_directions() {
    let Some(mut network) = Network::new() else { return };
    let (a, b, c) = (network.node(), network.node(), network.node());
    let (key_a, key_b, key_c) = (a.start_device(), b.start_device(), c.start_device());
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    join((&a, &key_a), (&c, &key_c), "192.0.2.", "");
    // B has all of 10.5.0.0/16 but what is C's, and fd05::/64 but fd05::3.
    a.sh(&format!(
        "wg set wg0 peer {} allowed-ips 10.5.0.0/16,fd05::/64",
        key_b.public
    ));
    b.sh("ip addr add 10.5.77.1/32 dev lo");
    a.expect_ping("10.5.77.1");
    a.expect_ping("10.5.3.1");
    a.expect_ping("fd05::2");
    a.expect_ping("fd05::3");

    // C sends from an address of its own, then from one that is B's.
    assert_eq!(a.drops("bad_source"), 0);
    assert!(c.pings("10.5.1.1"));
    c.sh("ip addr add 10.5.77.1/32 dev lo");
    assert!(!c.pings("-I 10.5.77.1 10.5.1.1"));
    assert_eq!(a.drops("bad_source"), 1);
    // B may, although the prefix that lets it is the shorter one.
    assert!(b.pings("-I 10.5.77.1 10.5.1.1"));
    // And B may not send from what is C's, although B's prefix covers it.
    b.sh("ip addr add 10.5.3.9/32 dev lo");
    assert!(!b.pings("-I 10.5.3.9 10.5.1.1"));
    assert_eq!(a.drops("bad_source"), 2);
}

#[test]
fn a_packet_that_nobody_may_have_is_dropped_and_counted() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (_, key_b) = (a.start_device(), b.start_device());
    // The kernel's own IPv6 packets may be counted besides.
    let before = a.drops("no_peer_for_destination");
    a.pings_in_vain("10.5.2.1");
    assert!(a.drops("no_peer_for_destination") >= before + 10);
    a.sh(&format!(
        "wg set wg0 peer {} allowed-ips 10.5.2.0/24",
        key_b.public
    ));
    assert_eq!(a.drops("no_endpoint"), 0);
    a.pings_in_vain("10.5.2.1");
    assert_eq!(a.drops("no_endpoint"), 10);
}

#[test]
fn what_comes_from_strangers_or_for_an_interface_that_is_down_is_dropped_and_counted() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    b.sh(&format!(
        "wg set wg0 peer {} endpoint 192.0.2.1:51820 allowed-ips 10.5.1.0/24",
        key_a.public
    ));
    assert!(!b.pings("10.5.1.1"));
    eventually("a handshake by a stranger is counted", || {
        a.drops("unknown_peer") > 0
    });
    assert_eq!(a.sh("wg show wg0 peers"), "");

    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    a.expect_ping("10.5.2.1");
    a.sh("ip link set wg0 down");
    b.pings_in_vain("10.5.1.1");
    assert!(a.drops("interface_refused") >= 10);
}

#[test]
fn what_is_sent_before_the_first_handshake_is_not_lost() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    assert!(
        a.pings("10.5.2.1"),
        "the first packet, which waits for the session"
    );
}

#[test]
fn a_preshared_key_must_be_the_same_on_both_sides() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    let preshared = a.sh("umask 077; wg genpsk | tee /run/psk").trim().to_owned();
    a.sh(&format!(
        "wg set wg0 peer {} preshared-key /run/psk",
        key_b.public
    ));
    assert!(!a.pings("10.5.2.1"), "only one side has the preshared key");
    assert_eq!(a.shows("preshared-keys", &key_b), preshared);
    b.sh(&format!(
        "echo {preshared} > /run/psk; wg set wg0 peer {} preshared-key /run/psk",
        key_a.public
    ));
    a.expect_ping("10.5.2.1");
    // Giving the same one again disturbs nothing.
    let before = a.shows("latest-handshakes", &key_b);
    a.sh(&format!(
        "wg set wg0 peer {} preshared-key /run/psk",
        key_b.public
    ));
    assert!(a.pings("10.5.2.1"));
    assert_eq!(a.shows("latest-handshakes", &key_b), before);
}

#[test]
fn keepalives_are_sent_without_any_traffic() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    b.sh(&format!(
        "wg set wg0 peer {} allowed-ips 10.5.1.0/24",
        key_a.public
    ));
    // Only A knows where to send: B learns A's address from A's keepalive.
    a.sh(&format!(
        "wg set wg0 peer {} endpoint 192.0.2.2:51820 allowed-ips 10.5.2.0/24 persistent-keepalive 1",
        key_b.public
    ));
    eventually("B has learned where A is", || {
        b.shows("endpoints", &key_a) == "192.0.2.1:51820"
    });
    let received = || {
        b.shows("transfer", &key_a)
            .split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let before = received();
    eventually("two more keepalives of 32 bytes", || received() >= before + 64);
    a.sh(&format!(
        "wg set wg0 peer {} persistent-keepalive off",
        key_b.public
    ));
    assert_eq!(a.shows("persistent-keepalive", &key_b), "off");
}
