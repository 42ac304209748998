//! With the implementations of others on the other end.
//!
//! A is ours, B another one. Where a program is missing its tests say so and do nothing.

use std::net::UdpSocket;
use std::time::Duration;

use blake2::digest::consts::U16;
use blake2::digest::{Digest, FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac};

use super::nodes::{Key, Network, Node, end_with_owner, eventually, join, play_until_ready, role, say};
use super::others::Implementation;
use super::streams::{self, expect_stream};

/// Makes one module of tests for each of the others.
macro_rules! with {
    ($($module:ident: $other:ident),+) => {$(
        mod $module {
            const OTHER: super::Implementation = super::Implementation::$other;

            #[test]
            fn either_side_begins_and_both_families_pass() {
                super::either_side_begins_and_both_families_pass(OTHER);
            }

            #[test]
            fn streams_arrive_as_they_were_sent() {
                let test = concat!("interop::", stringify!($module), "::streams_arrive_as_they_were_sent");
                super::streams_arrive_as_they_were_sent(OTHER, test);
            }

            #[test]
            fn a_side_that_has_lost_its_sessions_makes_new_ones() {
                super::a_side_that_has_lost_its_sessions_makes_new_ones(OTHER);
            }

            #[test]
            fn either_side_may_roam() {
                super::either_side_may_roam(OTHER);
            }

            #[test]
            fn keepalives_of_either_side_are_heard() {
                super::keepalives_of_either_side_are_heard(OTHER);
            }

            #[test]
            fn a_preshared_key_is_used_by_both_or_nothing_passes() {
                super::a_preshared_key_is_used_by_both_or_nothing_passes(OTHER);
            }

            #[test]
            fn a_cookie_of_ours_is_shown_by_it() {
                let test = concat!("interop::", stringify!($module), "::a_cookie_of_ours_is_shown_by_it");
                super::a_cookie_is_shown(OTHER, test, super::Flooded::Ours);
            }

            #[test]
            fn a_cookie_of_its_is_shown_by_ours() {
                let test = concat!("interop::", stringify!($module), "::a_cookie_of_its_is_shown_by_ours");
                super::a_cookie_is_shown(OTHER, test, super::Flooded::Theirs);
            }
        }
    )+};
}

with!(wireguard_go: WireguardGo, gotatun: Gotatun, boringtun: Boringtun);

/// Our device and one of another implementation, not peers yet.
struct Pair {
    /// Lives as long as its nodes.
    _network: Network,
    a: Node,
    b: Node,
    key_a: Key,
    key_b: Key,
}

impl Pair {
    fn new(other: Implementation) -> Option<Self> {
        other.command()?;
        let mut network = Network::new()?;
        let (a, b) = (network.node(), network.node());
        let (key_a, key_b) = (a.start_device(), b.start(other)?);
        Some(Self {
            _network: network,
            a,
            b,
            key_a,
            key_b,
        })
    }

    fn join(&self) {
        join((&self.a, &self.key_a), (&self.b, &self.key_b), "192.0.2.", "");
    }

    /// Makes them peers anew, so that only one of them knows where the other is: it has to begin. `more`: what else it
    /// is told of the other.
    fn join_from(&self, ours_begins: bool, more: &str) {
        for (node, begins) in [(&self.a, ours_begins), (&self.b, !ours_begins)] {
            let endpoint = format!("endpoint 192.0.2.{}:51820 {more}", 3 - node.n);
            self.make_peer(node, if begins { &endpoint } else { "" });
        }
    }

    /// Makes the other one a peer of a node anew. What a peer is told at once is understood by all implementations; some
    /// cannot change it later.
    fn make_peer(&self, node: &Node, settings: &str) {
        let n = 3 - node.n;
        let key = &if n == 1 { &self.key_a } else { &self.key_b }.public;
        node.sh(&format!(
            "wg set wg0 peer {key} remove; \
             wg set wg0 peer {key} {settings} allowed-ips 10.5.{n}.0/24,fd05::{n}/128"
        ));
    }

    fn expect_pings(&self) {
        for address in ["10.5.2.1", "fd05::2"] {
            self.a.expect_ping(address);
        }
        for address in ["10.5.1.1", "fd05::1"] {
            self.b.expect_ping(address);
        }
    }
}

fn either_side_begins_and_both_families_pass(other: Implementation) {
    let Some(pair) = Pair::new(other) else { return };
    pair.join_from(true, "");
    pair.expect_pings();
    assert_eq!(pair.b.shows("endpoints", &pair.key_a), "192.0.2.1:51820");
    pair.join_from(false, "");
    pair.b.expect_ping("10.5.1.1");
    pair.expect_pings();
    assert_eq!(pair.a.shows("endpoints", &pair.key_b), "192.0.2.2:51820");
    // Over the other family outside.
    for node in [&pair.a, &pair.b] {
        pair.make_peer(node, &format!("endpoint '[fd99::{}]:51820'", 3 - node.n));
    }
    pair.expect_pings();
    assert_eq!(pair.b.shows("endpoints", &pair.key_a), "[fd99::1]:51820");
    // Every packet was whole and from whom it said.
    for reason in ["bad_packet", "bad_source", "decrypt_failed", "malformed"] {
        assert_eq!(pair.a.drops(reason), 0, "{reason}");
    }
}

fn streams_arrive_as_they_were_sent(other: Implementation, test: &str) {
    const LEN: usize = 3_000_000;
    if streams::plays() {
        return;
    }
    let Some(pair) = Pair::new(other) else { return };
    pair.join();
    pair.expect_pings();
    for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        let n = to.n;
        expect_stream(test, from, to, &format!("10.5.{n}.1:7000"), LEN);
        expect_stream(test, from, to, &format!("[fd05::{n}]:7000"), LEN);
    }
}

fn a_side_that_has_lost_its_sessions_makes_new_ones(other: Implementation) {
    let Some(pair) = Pair::new(other) else { return };
    pair.join();
    pair.expect_pings();
    for (loser, peer, answers) in [
        (&pair.a, &pair.key_b, "10.5.2.1"),
        (&pair.b, &pair.key_a, "10.5.1.1"),
    ] {
        pair.make_peer(loser, &format!("endpoint 192.0.2.{}:51820", 3 - loser.n));
        assert_eq!(loser.shows("latest-handshakes", peer), "0");
        loser.expect_ping(answers);
        pair.expect_pings();
    }
}

fn either_side_may_roam(other: Implementation) {
    let Some(pair) = Pair::new(other) else { return };
    pair.join();
    pair.expect_pings();
    for (roamer, key, observer, answers) in [
        (&pair.a, &pair.key_a, &pair.b, "10.5.2.1"),
        (&pair.b, &pair.key_b, &pair.a, "10.5.1.1"),
    ] {
        let n = roamer.n;
        roamer.sh(&format!(
            "ip addr add 192.0.2.{n}7/24 dev eth0 && ip addr del 192.0.2.{n}/24 dev eth0; \
             ip addr add 192.0.2.{n}7/24 dev eth0 2>/dev/null; true"
        ));
        roamer.expect_ping(answers);
        assert_eq!(
            observer.shows("endpoints", key),
            format!("192.0.2.{n}7:51820"),
            "node {n}"
        );
        pair.expect_pings();
    }
}

fn keepalives_of_either_side_are_heard(other: Implementation) {
    let Some(pair) = Pair::new(other) else { return };
    for ours in [true, false] {
        let (sender, receiver, from) = match ours {
            true => (&pair.a, &pair.b, &pair.key_a),
            false => (&pair.b, &pair.a, &pair.key_b),
        };
        // No packet is sent: only the keepalive tells the receiver where the sender is.
        pair.join_from(ours, "persistent-keepalive 1");
        eventually("the sender is known", || {
            receiver.shows("endpoints", from) == format!("192.0.2.{}:51820", sender.n)
        });
        // No other message is as short.
        let keepalives = receiver.capture(
            "eth0",
            &format!("src host 192.0.2.{} and udp[4:2] = 40", sender.n),
        );
        eventually("more keepalives", || keepalives.count() >= 2);
    }
    assert_eq!(pair.a.drops("decrypt_failed"), 0);
}

fn a_preshared_key_is_used_by_both_or_nothing_passes(other: Implementation) {
    let Some(pair) = Pair::new(other) else { return };
    let preshared = pair.a.sh("wg genpsk").trim().to_owned();
    let give = |node: &Node| {
        node.sh(&format!("umask 077; echo {preshared} > /run/psk"));
        let endpoint = format!("192.0.2.{}:51820", 3 - node.n);
        pair.make_peer(node, &format!("preshared-key /run/psk endpoint {endpoint}"));
    };
    pair.join();
    give(&pair.a);
    assert!(!pair.a.pings("10.5.2.1"), "only ours has it");
    assert!(pair.a.drops("bad_handshake") > 0);
    give(&pair.b);
    // Neither has to wait until it may begin again.
    give(&pair.a);
    pair.expect_pings();
}

/// Whose handshakes are flooded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flooded {
    Ours,
    Theirs,
}

/// While one side is flooded with handshakes of strangers it answers the other with a cookie, and takes the handshake that
/// shows the cookie.
fn a_cookie_is_shown(other: Implementation, test: &str, flooded: Flooded) {
    if let Some(role) = role() {
        let (to, key) = role.split_once(' ').unwrap();
        end_with_owner();
        flood(to, key);
        return;
    }
    let Some(pair) = Pair::new(other) else { return };
    let (sender, target, key, answers) = match flooded {
        Flooded::Ours => (&pair.b, &pair.a, &pair.key_a, "10.5.1.1"),
        Flooded::Theirs => (&pair.a, &pair.b, &pair.key_b, "10.5.2.1"),
    };
    let role = format!("192.0.2.{}:51820 {}", target.n, key.public);
    let _flooding = play_until_ready(sender, test, &role);
    // Not only from strangers: some count handshakes by address. By their lengths: a cookie reply, and an initiation whose second mac is not zero.
    let cookies = sender.capture("eth0", "src port 51820 and dst port 51820 and udp[4:2] = 72");
    let shown = sender.capture("eth0", "src port 51820 and udp[4:2] = 156 and udp[140:4] != 0");
    eventually("a handshake is answered with a cookie", || {
        pair.join_from(flooded == Flooded::Theirs, "");
        sender.pings(answers);
        cookies.has_any()
    });
    sender.expect_ping(answers);
    assert!(shown.has_any(), "{}", cookies.text());
    if flooded == Flooded::Ours {
        assert!(pair.a.drops("rate_limited") > 0);
    }
}

/// Sends handshake initiations that are made for a public key, but by nobody: their first mac is right and nothing else.
/// They come in bursts that fill any queue, with time between for somebody else's handshake.
fn flood(to: &str, key: &str) {
    const BURST: u16 = 1500;
    let key: warren_model::PublicKey = key.parse().unwrap();
    let mac_key = Blake2s256::new()
        .chain_update(b"mac1----")
        .chain_update(key.as_bytes());
    let mac_key = mac_key.finalize();
    let initiations = (0..BURST).map(|number| {
        let mut initiation = [9; 148];
        initiation[..4].copy_from_slice(&[1, 0, 0, 0]);
        initiation[8..10].copy_from_slice(&number.to_le_bytes());
        let mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(&mac_key).unwrap();
        let mac = mac.chain(&initiation[..116]).finalize_fixed();
        initiation[116..132].copy_from_slice(&mac);
        initiation[132..].fill(0);
        initiation
    });
    let initiations: Vec<_> = initiations.collect();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    say("ready", "");
    loop {
        for initiation in &initiations {
            // The target may not listen any more, which is no concern of a flood.
            let _ = socket.send_to(initiation, to);
        }
        std::thread::sleep(Duration::from_millis(400)); // between two bursts
    }
}
