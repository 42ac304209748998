//! The headers outside: ECN, DSCP, and the address that datagrams come from.

use super::capture::tos_of;
use super::nodes::{Key, Network, Node, eventually, join};

/// Both families outside, as [`join`] takes them, and the name that `nft` has for each.
const OUTSIDE: [(&str, &str, &str); 2] = [("192.0.2.", "", "ip"), ("[fd99::", "]", "ip6")];

/// Where B is inside.
const INSIDE: [&str; 2] = ["10.5.2.1", "fd05::2"];

/// A and B, joined and talking, for each family outside.
fn over_both_families(mut test: impl FnMut(&Node, &Node, &str)) {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    for (prefix, closing, family) in OUTSIDE {
        join((&a, &key_a), (&b, &key_b), prefix, closing);
        INSIDE.iter().for_each(|address| a.expect_ping(address));
        test(&a, &b, family);
    }
}

#[test]
fn a_datagram_bears_its_packet_s_ecn_field_and_no_dscp() {
    over_both_families(|a, b, family| {
        // Data messages of A's with a packet inside.
        let filter = match family {
            "ip" => "src host 192.0.2.1 and udp[8] = 4 and udp[4:2] > 40",
            _ => "src host fd99::1 and ip6[48] = 4 and ip6[4:2] > 40",
        };
        let seen = b.capture("eth0", filter);
        for address in INSIDE {
            // Expedited forwarding (RFC 3246) and each of the four ECN fields.
            for ecn in 0..4 {
                a.sh(&format!("ping -n -c 1 -W 5 -Q {} {address}", 0xb8 | ecn));
            }
        }
        eventually("all are seen", || seen.count() == 8);
        let fields: Vec<u8> = seen.text().lines().filter_map(tos_of).collect();
        assert_eq!(fields, [0, 1, 2, 3, 0, 1, 2, 3], "{}", seen.text());
    });
}

#[test]
fn congestion_outside_is_told_inside_as_rfc_6040_says() {
    /// By the field inside, then by the one outside: figure 4. `None`: dropped.
    const TOLD: [[Option<u8>; 4]; 4] = [
        [Some(0), Some(0), Some(0), None],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(2), Some(1), Some(2), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ];
    over_both_families(|a, b, family| {
        a.sh("nft add table inet path; \
              nft add chain inet path out '{ type filter hook output priority 0; }'");
        let arrived = b.capture("wg0", "dst host 10.5.2.1 or dst host fd05::2");
        let (mut expected, mut dropped) = (Vec::new(), 0);
        let before = b.drops("congestion");
        for (outer, name) in ["not-ect", "ect1", "ect0", "ce"].into_iter().enumerate() {
            a.sh(&format!(
                "nft flush chain inet path out; \
                 nft add rule inet path out udp dport 51820 {family} ecn set {name}"
            ));
            for address in INSIDE {
                for (inner, told) in TOLD.iter().enumerate() {
                    let patience = if told[outer].is_some() { "5" } else { "0.1" };
                    let ping = a.try_sh(&format!("ping -n -c 1 -W {patience} -Q {inner} {address}"));
                    assert_eq!(ping.status.success(), told[outer].is_some(), "{inner} in {outer}");
                    expected.extend(told[outer]);
                    dropped += u64::from(told[outer].is_none());
                }
            }
        }
        a.sh("nft delete table inet path");
        eventually("all is seen", || arrived.count() == expected.len());
        let fields: Vec<u8> = arrived.text().lines().filter_map(tos_of).collect();
        assert_eq!(fields, expected, "{}", arrived.text());
        assert_eq!(b.drops("congestion") - before, dropped);
    });
}

#[test]
fn handshakes_have_the_kernel_s_dscp() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    let seen = b.capture("eth0", "udp port 51820");
    for (prefix, closing, _) in OUTSIDE {
        a.sh(&format!("wg set wg0 peer {} remove", key_b.public));
        join((&a, &key_a), (&b, &key_b), prefix, closing);
        a.expect_ping("10.5.2.1");
    }
    let of_len = |len: usize| {
        // tcpdump says how long the UDP payload is.
        let (text, ending) = (seen.text(), format!("UDP, length {len}"));
        let fields = text.lines().filter(|line| line.trim_end().ends_with(&ending));
        fields.filter_map(tos_of).collect::<Vec<u8>>()
    };
    // Two pings and their answers.
    eventually("all data is seen", || of_len(128).len() >= 4);
    assert!(of_len(128).iter().all(|tos| *tos == 0), "{}", seen.text());
    for len in [148, 92] {
        assert_eq!(of_len(len), [0x88, 0x88], "{}", seen.text());
    }
}

/// B has a second address, by which alone A knows it.
struct TwoAddresses {
    _network: Network,
    a: Node,
    b: Node,
    key_a: Key,
    key_b: Key,
}

impl TwoAddresses {
    fn new(prefix: &str, closing: &str) -> Option<Self> {
        let mut network = Network::new()?;
        let (a, b) = (network.node(), network.node());
        let (key_a, key_b) = (a.start_device(), b.start_device());
        b.sh("ip addr add 192.0.2.22/24 dev eth0; ip -6 addr add fd99::22/64 dev eth0 nodad preferred_lft 0");
        a.sh(&format!(
            "wg set wg0 peer {} endpoint '{prefix}22{closing}:51820' allowed-ips 10.5.2.0/24,fd05::2/128",
            key_b.public
        ));
        b.sh(&format!(
            "wg set wg0 peer {} allowed-ips 10.5.1.0/24,fd05::1/128",
            key_a.public
        ));
        a.expect_ping("10.5.2.1");
        Some(Self {
            _network: network,
            a,
            b,
            key_a,
            key_b,
        })
    }
}

#[test]
fn a_peer_is_answered_from_the_address_that_it_sent_to_as_long_as_there_is_one() {
    for (prefix, closing, _) in OUTSIDE {
        let Some(two) = TwoAddresses::new(prefix, closing) else {
            return;
        };
        let (a, b) = (&two.a, &two.b);
        let of_b = || a.shows("endpoints", &two.key_b);
        // A would follow B to wherever B sends from.
        for _ in 0..3 {
            assert!(a.pings("10.5.2.1") && b.pings("10.5.1.1"));
            assert_eq!(of_b(), format!("{prefix}22{closing}:51820"));
        }
        // A begins anew: B answers the handshake from there too.
        a.sh(&format!("wg set wg0 peer {} remove", two.key_b.public));
        a.sh(&format!(
            "wg set wg0 peer {} endpoint '{prefix}22{closing}:51820' allowed-ips 10.5.2.0/24",
            two.key_b.public
        ));
        a.expect_ping("10.5.2.1");
        assert_eq!(of_b(), format!("{prefix}22{closing}:51820"));

        let before = b.drops("send_failed");
        b.sh("ip addr del 192.0.2.22/24 dev eth0; ip addr del fd99::22/64 dev eth0");
        assert!(b.pings("10.5.1.1"), "the session lives on at the other address");
        assert_eq!(of_b(), format!("{prefix}2{closing}:51820"));
        assert!(a.pings("10.5.2.1"));
        assert_eq!(b.drops("send_failed"), before, "nothing was lost by it");
        assert_eq!(
            b.shows("endpoints", &two.key_a),
            format!("{prefix}1{closing}:51820")
        );
    }
}

#[test]
fn datagrams_too_long_for_the_way_come_from_the_same_address_in_fragments() {
    let Some(two) = TwoAddresses::new("192.0.2.", "") else {
        return;
    };
    let (a, b) = (&two.a, &two.b);
    for node in [a, b] {
        node.sh("ip link set wg0 mtu 9000");
    }
    // Both in one batch, which the kernel is asked to cut and cannot: the network takes 1500 bytes.
    for _ in 0..3 {
        b.sh("ping -n -c 4 -i 0.01 -l 4 -W 5 -s 8000 10.5.1.1");
        assert_eq!(a.shows("endpoints", &two.key_b), "192.0.2.22:51820");
    }
    assert_eq!(b.drops("send_failed"), 0);
}
