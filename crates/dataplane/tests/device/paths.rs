//! Packets of all kinds over ways of all kinds: other MTUs, fragments, ICMP errors, checksums left to be computed.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::nodes::{Key, Network, Node, eventually, join, play_until_ready, role, say};
use super::streams::{self, Numbered, expect_stream};

const LEN: usize = 2_000_000;

/// Two nodes that are peers and talk.
fn pair(network: &mut Network) -> [(Node, Key); 2] {
    let nodes = [network.node(), network.node()];
    let [a, b] = nodes.map(|node| {
        let key = node.start_device();
        (node, key)
    });
    join((&a.0, &a.1), (&b.0, &b.1), "192.0.2.", "");
    a.0.expect_ping("10.5.2.1");
    [a, b]
}

#[test]
fn the_mtu_may_change_under_traffic() {
    const TEST: &str = "paths::the_mtu_may_change_under_traffic";
    if streams::plays() {
        return;
    }
    let Some(mut network) = Network::new() else { return };
    let [(a, _), (b, _)] = pair(&mut network);
    let numbered = Numbered::begin(TEST, &a, &b, "10.5.2.1:7001", 300);
    // Beyond what the network takes in one piece, and back; IPv6 takes no less than 1280.
    for mtu in [9000, 1280, 65000, 1420] {
        for node in [&a, &b] {
            node.sh(&format!("ip link set wg0 mtu {mtu}"));
        }
        for (from, to) in [(&a, &b), (&b, &a)] {
            expect_stream(TEST, from, to, &format!("10.5.{}.1:7000", to.n), LEN);
            expect_stream(TEST, from, to, &format!("[fd05::{}]:7000", to.n), LEN);
        }
        // The longest packet there can be, and it must not be cut inside.
        let payload = mtu - 28;
        a.sh(&format!("ping -n -M do -c 1 -W 5 -s {payload} 10.5.2.1"));
    }
    let counted = numbered.end();
    assert!(counted.sent > 100);
    assert_eq!((counted.lost, counted.misplaced), (0, 0), "{counted:?}");
}

#[test]
fn packets_of_the_old_mtu_pass_when_it_has_grown() {
    let Some(mut network) = Network::new() else { return };
    let [(a, _), (_b, _)] = pair(&mut network);
    // 1420 bytes are no multiple of 16. The device learns of the MTU by a longer packet or, as here, as time goes by:
    // what was made for the old MTU is in use still when padding may reach beyond it.
    a.sh("ip link set wg0 mtu 1500");
    let said = a.sh("ping -n -M do -c 20 -i 0.1 -W 5 -s 1392 10.5.2.1");
    assert!(said.contains("20 received"), "{said}");
}

#[test]
fn fragments_pass_and_are_put_together() {
    let Some(mut network) = Network::new() else { return };
    let [(a, _), (b, _)] = pair(&mut network);
    for (node, addresses) in [(&a, ["10.5.2.1", "fd05::2"]), (&b, ["10.5.1.1", "fd05::1"])] {
        for address in addresses {
            // ping compares what comes back.
            let said = node.sh(&format!("ping -n -M dont -c 3 -i 0.01 -W 5 -s 20000 {address}"));
            assert!(
                said.contains("3 received") && !said.contains("wrong data"),
                "{said}"
            );
        }
    }
    let reassembled = "awk '/^Ip:/ && n++ {print $16}' /proc/net/snmp; \
                       awk '/^Ip6ReasmOKs/ {print $2}' /proc/net/snmp6";
    for count in b.sh(reassembled).lines() {
        assert!(
            count.parse::<u32>().unwrap() >= 6,
            "not sent in fragments: {count}"
        );
    }
}

#[test]
fn errors_of_routers_and_hosts_reach_the_sender() {
    const TEST: &str = "paths::errors_of_routers_and_hosts_reach_the_sender";
    if let Some(closed) = role() {
        let closed: SocketAddr = closed.parse().unwrap();
        let any = if closed.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(closed).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        say("ready", "");
        socket.send(b"anybody there?").unwrap();
        say(
            "told",
            &format!("{:?}", socket.recv(&mut [0; 16]).unwrap_err().kind()),
        );
        return;
    }
    let Some(mut network) = Network::new() else { return };
    let [(a, _), (b, key_b)] = pair(&mut network);
    for closed in ["10.5.2.1:9", "[fd05::2]:9"] {
        let (_asking, mut told) = play_until_ready(&a, TEST, closed);
        assert_eq!(told.next_of("told"), "ConnectionRefused", "{closed}");
    }
    // Behind B is a narrower network.
    b.sh("ip link add narrow type veth peer name behind; ip link set behind up; ip link set narrow mtu 1300 up; \
          ip addr add 10.77.0.1/24 dev narrow; ip -6 addr add fd77::1/64 dev narrow nodad; \
          echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
    a.sh(&format!(
        "wg set wg0 peer {} allowed-ips 10.5.2.0/24,fd05::2/128,10.77.0.0/24,fd77::/64; \
         ip route add 10.77.0.0/24 dev wg0; ip -6 route add fd77::/64 dev wg0",
        key_b.public
    ));
    for (address, complaint) in [("10.77.0.9", "mtu = 1300"), ("fd77::9", "mtu=1300")] {
        let said = a.try_sh(&format!("ping -n -M do -c 1 -W 5 -s 1350 {address}"));
        let said = String::from_utf8(said.stdout).unwrap();
        assert!(said.contains(complaint), "{said}");
        let route = a.sh(&format!("ip route get {address}"));
        assert!(route.contains("mtu 1300"), "{route}");
    }
}

/// C sends through A, which forwards long frames without checksums as they come from C's interface.
#[test]
fn what_is_forwarded_gets_its_checksums() {
    const TEST: &str = "paths::what_is_forwarded_gets_its_checksums";
    if streams::plays() || plays_segments() {
        return;
    }
    let Some(mut network) = Network::new() else { return };
    let [(a, key_a), (b, _)] = pair(&mut network);
    let c = network.node();
    c.sh(
        "ip addr add 10.5.1.77/32 dev lo; ip -6 addr add fd05:1::77/128 dev lo nodad; \
          ip route add 10.5.2.0/24 via 192.0.2.1 src 10.5.1.77; \
          ip -6 route add fd05::2/128 via fd99::1 src fd05:1::77",
    );
    a.sh(
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; \
          ip route add 10.5.1.77/32 via 192.0.2.3; ip -6 route add fd05:1::77/128 via fd99::3",
    );
    b.sh(&format!(
        "wg set wg0 peer {} allowed-ips 10.5.1.0/24,fd05::1/128,fd05:1::77/128; \
         ip -6 route add fd05:1::77/128 dev wg0",
        key_a.public
    ));
    c.expect_ping("10.5.2.1");
    c.expect_ping("fd05::2");
    for address in ["10.5.2.1:7000", "[fd05::2]:7000"] {
        expect_stream(TEST, &c, &b, address, LEN);
        expect_segments(TEST, &c, &b, address);
    }
    for address in ["10.5.1.77:7000", "[fd05:1::77]:7000"] {
        expect_stream(TEST, &b, &c, address, LEN);
        expect_segments(TEST, &b, &c, address);
    }
    for node in [&a, &b] {
        for reason in ["not_ip", "bad_packet", "interface_refused"] {
            assert_eq!(node.drops(reason), 0, "{reason} at node {}", node.n);
        }
    }
}

#[test]
fn long_frames_of_datagrams_are_cut_where_their_sender_said() {
    const TEST: &str = "paths::long_frames_of_datagrams_are_cut_where_their_sender_said";
    if plays_segments() {
        return;
    }
    let Some(mut network) = Network::new() else { return };
    let [(a, _), (b, _)] = pair(&mut network);
    for (from, to) in [(&a, &b), (&b, &a)] {
        expect_segments(TEST, from, to, &format!("10.5.{}.1:7000", to.n));
        expect_segments(TEST, from, to, &format!("[fd05::{}]:7000", to.n));
    }
}

/// Datagrams that are given to the kernel as one long message, to be cut (`UDP_SEGMENT`), arrive as they should be cut.
fn expect_segments(test: &str, from: &Node, to: &Node, address: &str) {
    let (_taking, mut taken) = play_until_ready(to, test, &format!("take-segments {address}"));
    let (_giving, mut given) = play_until_ready(from, test, &format!("give-segments {address}"));
    given.next_of("gave");
    assert_eq!(taken.next_of("took"), "all", "{address}");
}

/// Length of each segment, and of the message: the last segment is shorter.
const SEGMENT: usize = 1200;
const MESSAGE: usize = 40 * SEGMENT + 77;
const MESSAGES: u8 = 20;

fn message(number: u8) -> Vec<u8> {
    (0..MESSAGE)
        .map(|at| number ^ (at * 7 / 3).to_le_bytes()[0])
        .collect()
}

fn plays_segments() -> bool {
    let Some(role) = role() else { return false };
    let (what, address) = role.split_once(' ').unwrap();
    let address: SocketAddr = address.parse().unwrap();
    match what {
        "take-segments" => {
            let socket = UdpSocket::bind(address).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
            say("ready", "");
            let mut datagram = vec![0; 2048];
            for number in 0..MESSAGES {
                for segment in message(number).chunks(SEGMENT) {
                    let (len, from) = socket.recv_from(&mut datagram).unwrap();
                    assert_eq!(&datagram[..len], segment, "of message {number}");
                    if segment.len() < SEGMENT {
                        socket.send_to(&[number], from).unwrap();
                    }
                }
            }
            say("took", "all");
        }
        "give-segments" => {
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).unwrap();
            setsockopt(&socket, sockopt::UdpGsoSegment, &i32::try_from(SEGMENT).unwrap()).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
            say("ready", "");
            for number in 0..MESSAGES {
                // One after the other: no queue overflows.
                socket.send_to(&message(number), address).unwrap();
                socket.recv(&mut [0]).unwrap();
            }
            say("gave", "all");
        }
        _ => return false,
    }
    true
}

/// What is in the place of a right checksum.
const WRONG: u16 = 0xdead;

/// Nobody but the receiver judges what is inside: a packet with a wrong checksum arrives as it is, and is no part of a
/// long frame, which would give it a right one.
#[test]
fn a_wrong_checksum_inside_is_neither_hidden_nor_repaired() {
    const TEST: &str = "paths::a_wrong_checksum_inside_is_neither_hidden_nor_repaired";
    const COUNT: u8 = 20;
    if role().is_some() {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).unwrap();
        let to = SocketAddr::from(([10, 5, 2, 1], 0)).into();
        say("ready", "");
        for protocol in [6, 17] {
            for number in 0..COUNT {
                socket.send_to(&wrong_packet(protocol, number), &to).unwrap();
            }
        }
        say("sent", "");
        return;
    }
    let Some(mut network) = Network::new() else { return };
    let [(a, _), (b, _)] = pair(&mut network);
    let arrived = b.capture("wg0", "src host 10.5.1.1 and port 4009");
    let (_sending, mut said) = play_until_ready(&a, TEST, "send");
    said.next_of("sent");
    eventually("all packets arrive", || arrived.count() >= 2 * usize::from(COUNT));
    let text = arrived.text();
    let with = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    assert_eq!(
        with("length 1040)"),
        usize::from(COUNT),
        "TCP is as long as it was: {text}"
    );
    assert_eq!(with("cksum 0xdead (incorrect"), usize::from(COUNT), "{text}");
    assert_eq!(
        with("length 1028)"),
        usize::from(COUNT),
        "UDP is as long as it was: {text}"
    );
    assert_eq!(with("[bad udp cksum 0xdead"), usize::from(COUNT), "{text}");
}

/// A packet of a flow that would be merged if its checksum were right.
fn wrong_packet(protocol: u8, number: u8) -> Vec<u8> {
    let mut packet = vec![0; if protocol == 6 { 1040 } else { 1028 }];
    let len = u16::try_from(packet.len()).unwrap();
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet[4..6].copy_from_slice(&u16::from(number).to_be_bytes());
    packet[6] = 0x40; // don't fragment
    packet[8] = 64;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&Ipv4Addr::new(10, 5, 1, 1).octets());
    packet[16..20].copy_from_slice(&Ipv4Addr::new(10, 5, 2, 1).octets());
    packet[20..22].copy_from_slice(&4009_u16.to_be_bytes());
    packet[22..24].copy_from_slice(&4009_u16.to_be_bytes());
    if protocol == 6 {
        packet[24..28].copy_from_slice(&(u32::from(number) * 1000).to_be_bytes());
        packet[32..34].copy_from_slice(&[0x50, 0x10]);
        packet[34..36].copy_from_slice(&1000_u16.to_be_bytes());
        packet[36..38].copy_from_slice(&WRONG.to_be_bytes());
    } else {
        packet[24..26].copy_from_slice(&(len - 20).to_be_bytes());
        packet[26..28].copy_from_slice(&WRONG.to_be_bytes());
    }
    packet
}
