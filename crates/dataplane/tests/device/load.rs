//! Changes under full load: a stream fills the way, and numbered datagrams show what is lost.

use std::fmt::Write;

use super::nodes::{Key, Network, Node, eventually, hex, join};
use super::streams::{self, Counted, Numbered, load};

/// Datagrams a second beside the load. Few, so that it is not the queue of the interface that drops them.
const RATE: u32 = 300;

/// Two nodes that are peers and talk.
fn pair(network: &mut Network) -> [(Node, Key); 2] {
    let nodes = [network.node(), network.node()];
    let [a, b] = nodes.map(|node| {
        let key = node.start_device();
        // A busy machine may let a device wait for longer than it takes to fill the interface's own queue of 500.
        node.sh("ip link set wg0 txqueuelen 10000");
        (node, key)
    });
    join((&a.0, &a.1), (&b.0, &b.1), "192.0.2.", "");
    a.0.expect_ping("10.5.2.1");
    [a, b]
}

/// Fails with all counters there are if any was lost between the nodes.
fn expect_none_lost(counted: &Counted, nodes: [&Node; 2]) {
    assert!(counted.sent > 100, "{counted:?}");
    if (counted.lost, counted.misplaced) != (0, 0) {
        let counters = nodes.map(|node| {
            let drops = node.ask("get=drops\n\n");
            format!(
                "{drops}{}",
                node.sh("ip -s -s link; cat /proc/net/snmp /proc/net/softnet_stat")
            )
        });
        panic!("{counted:?}\n{}\n{}", counters[0], counters[1]);
    }
}

/// A request that adds so many peers whom nobody reaches, each with addresses of its own, or removes them.
fn strangers(count: u8, remove: bool) -> String {
    let mut request = "set=1\n".to_owned();
    for number in 1..=count {
        let key = format!("{number:02x}").repeat(32);
        let what = match remove {
            true => "remove=true".to_owned(),
            false => format!(
                "replace_allowed_ips=true\nallowed_ip=10.9.{number}.0/24\nallowed_ip=fd09::{number}/128"
            ),
        };
        write!(request, "public_key={key}\n{what}\n").unwrap();
    }
    request + "\n"
}

fn expect_done(node: &Node, request: &str) {
    assert_eq!(node.ask(request), "errno=0\n\n", "{request}");
}

#[test]
fn peers_and_allowed_ips_change_under_load_without_loss_for_the_others() {
    const TEST: &str = "load::peers_and_allowed_ips_change_under_load_without_loss_for_the_others";
    if streams::plays() {
        return;
    }
    let Some(mut network) = Network::new() else { return };
    let [(a, key_a), (b, key_b)] = pair(&mut network);
    let _load = [
        load(TEST, &a, &b, "10.5.2.1:7000"),
        load(TEST, &b, &a, "[fd05::1]:7000"),
    ];
    let there = Numbered::begin(TEST, &a, &b, "10.5.2.1:7001", RATE);
    let back = Numbered::begin(TEST, &b, &a, "[fd05::1]:7001", RATE);
    for round in 0..100 {
        for (node, peer, n) in [(&a, &key_b, 2), (&b, &key_a, 1)] {
            let peer = hex(&peer.public);
            expect_done(node, &strangers(50, false));
            // The peer that carries all of it gets other addresses besides, one of them a stranger's, and loses them.
            expect_done(
                node,
                &format!(
                    "set=1\npublic_key={peer}\nallowed_ip=10.9.7.0/24\nallowed_ip=10.{round}.0.0/16\n\n"
                ),
            );
            expect_done(
                node,
                &format!(
                    "set=1\npublic_key={peer}\nupdate_only=true\nreplace_allowed_ips=true\n\
                     allowed_ip=10.5.{n}.0/24\nallowed_ip=fd05::{n}/128\n\n"
                ),
            );
            expect_done(node, &strangers(50, true));
        }
    }
    expect_none_lost(&there.end(), [&a, &b]);
    expect_none_lost(&back.end(), [&a, &b]);
}

/// The side that began the session begins another one when it has heard nothing for 15 seconds, although the old one
/// still works in the direction that is looked at.
#[test]
fn a_handshake_under_load_loses_nothing() {
    const TEST: &str = "load::a_handshake_under_load_loses_nothing";
    if streams::plays() {
        return;
    }
    let Some(mut network) = Network::new() else { return };
    let [(a, _), (b, key_b)] = pair(&mut network);
    let first = a.shows("latest-handshakes", &key_b);
    // Data of B's do not reach A any more, handshakes do.
    b.sh("nft add table inet path; \
          nft add chain inet path out '{ type filter hook output priority 0; }'; \
          nft add rule inet path out udp sport 51820 @th,64,8 4 drop");
    let numbered = Numbered::begin(TEST, &a, &b, "10.5.2.1:7001", 1000);
    eventually("A has begun another session", || {
        a.shows("latest-handshakes", &key_b) != first
    });
    expect_none_lost(&numbered.end(), [&a, &b]);
    assert_eq!(b.drops("no_session"), 0);
}
