//! What a frame on the underlay is. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::layout::is_pod;

/// UDP ports of the two WireGuard lanes.
const WIREGUARD_PORTS: [u16; 2] = [51820, 51821];
/// UDP port of VXLAN.
const VXLAN_PORT: u16 = 4789;
/// TCP ports of the API inside a lab and of the agents' admin servers.
const CONTROL_PORTS: [u16; 2] = [6443, 9586];
/// UDP header, bytes.
const UDP_HEADER: usize = 8;

/// How many frames of which kind a lab's nodes have sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// WireGuard datagrams that carry pod packets or keep a session alive.
    pub wireguard_data: u64,
    /// WireGuard handshakes and cookies.
    pub wireguard_handshake: u64,
    /// Packets to or from a pod that anyone on the wire can read, bare or inside VXLAN, IPIP or GRE.
    pub plaintext: u64,
    /// Of those, the ones inside another packet.
    pub plaintext_tunnelled: u64,
    /// Between agents and the API, and who asks agents how they are.
    pub api: u64,
    /// Address resolution: ARP, neighbour and router discovery, multicast membership.
    pub neighbour: u64,
    /// Anything else.
    pub other: u64,
    /// Frames that the kernel could not hand to the capture in time; while this is not 0, no other count is complete.
    pub missed: u64,
}

impl Counts {
    /// All WireGuard datagrams.
    pub fn wireguard(&self) -> u64 {
        self.wireguard_data + self.wireguard_handshake
    }

    /// What was counted since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            wireguard_data: self.wireguard_data - earlier.wireguard_data,
            wireguard_handshake: self.wireguard_handshake - earlier.wireguard_handshake,
            plaintext: self.plaintext - earlier.plaintext,
            plaintext_tunnelled: self.plaintext_tunnelled - earlier.plaintext_tunnelled,
            api: self.api - earlier.api,
            neighbour: self.neighbour - earlier.neighbour,
            other: self.other - earlier.other,
            missed: self.missed - earlier.missed,
        }
    }

    pub(super) fn add(&mut self, class: Class) {
        let counter = match class {
            Class::WireguardData => &mut self.wireguard_data,
            Class::WireguardHandshake => &mut self.wireguard_handshake,
            Class::Plaintext { tunnelled } => {
                self.plaintext_tunnelled += u64::from(tunnelled);
                &mut self.plaintext
            }
            Class::Api => &mut self.api,
            Class::Neighbour => &mut self.neighbour,
            Class::Other => &mut self.other,
        };
        *counter += 1;
    }
}

/// The kind of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    WireguardData,
    WireguardHandshake,
    Plaintext { tunnelled: bool },
    Api,
    Neighbour,
    Other,
}

/// Classifies an Ethernet frame, which may be cut off at its end.
pub(super) fn classify(frame: &[u8]) -> Class {
    ethernet(frame, 0).unwrap_or(Class::Other)
}

/// `depth`: in how many packets this one is wrapped. Each call has a shorter input, so this ends.
fn ethernet(frame: &[u8], depth: u8) -> Option<Class> {
    let mut at = 12;
    let mut ethertype = be16(frame, at)?;
    while matches!(ethertype, 0x8100 | 0x88a8) {
        at += 4;
        ethertype = be16(frame, at)?;
    }
    network(ethertype, frame.get(at + 2..)?, depth)
}

fn network(ethertype: u16, packet: &[u8], depth: u8) -> Option<Class> {
    match ethertype {
        0x0806 => Some(Class::Neighbour),
        0x0800 => ipv4(packet, depth),
        0x86dd => ipv6(packet, depth),
        _ => None,
    }
}

fn ipv4(packet: &[u8], depth: u8) -> Option<Class> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let (source, destination) = (address(12)?.into(), address(16)?.into());
    if let Some(plaintext) = pod_packet(source, destination, depth) {
        return Some(plaintext);
    }
    // Only the first fragment has a transport header.
    let first = be16(packet, 6)? & 0x1fff == 0;
    transport(*packet.get(9)?, packet.get(header..)?, first, depth)
}

fn ipv6(packet: &[u8], depth: u8) -> Option<Class> {
    let address = |at: usize| {
        Some(Ipv6Addr::from(
            <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?,
        ))
    };
    let (source, destination) = (address(8)?.into(), address(24)?.into());
    if let Some(plaintext) = pod_packet(source, destination, depth) {
        return Some(plaintext);
    }
    let (mut next, mut at, mut first) = (*packet.get(6)?, 40, true);
    // Extension headers, RFC 8200 section 4.
    loop {
        match next {
            0 | 43 | 60 => {
                next = *packet.get(at)?;
                at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
            }
            44 => {
                next = *packet.get(at)?;
                first = be16(packet, at + 2)? & 0xfff8 == 0;
                at += 8;
                if !first {
                    break;
                }
            }
            _ => break,
        }
        // `next` named the header just skipped; read on with the following one.
    }
    transport(next, packet.get(at..)?, first, depth)
}

fn pod_packet(source: IpAddr, destination: IpAddr, depth: u8) -> Option<Class> {
    (is_pod(source) || is_pod(destination)).then_some(Class::Plaintext { tunnelled: depth > 0 })
}

fn transport(protocol: u8, payload: &[u8], first_fragment: bool, depth: u8) -> Option<Class> {
    if !first_fragment {
        return Some(Class::Other);
    }
    match protocol {
        4 => ipv4(payload, depth + 1),
        41 => ipv6(payload, depth + 1),
        47 => gre(payload, depth + 1),
        6 => tcp(payload),
        17 => udp(payload, depth),
        // IGMP.
        2 => Some(Class::Neighbour),
        58 => {
            // Multicast listener and neighbour discovery messages, RFC 2710, 3810 and 4861.
            let kind = *payload.first()?;
            Some(if matches!(kind, 130..=137 | 143) {
                Class::Neighbour
            } else {
                Class::Other
            })
        }
        _ => None,
    }
}

fn tcp(segment: &[u8]) -> Option<Class> {
    let ports = [be16(segment, 0)?, be16(segment, 2)?];
    let control = ports.iter().any(|it| CONTROL_PORTS.contains(it));
    Some(if control { Class::Api } else { Class::Other })
}

fn udp(datagram: &[u8], depth: u8) -> Option<Class> {
    let (source, destination) = (be16(datagram, 0)?, be16(datagram, 2)?);
    // The header's length and not what was captured of it.
    let length = usize::from(be16(datagram, 4)?).checked_sub(UDP_HEADER)?;
    let payload = datagram.get(UDP_HEADER..)?;
    if destination == VXLAN_PORT {
        return ethernet(payload.get(8..)?, depth + 1);
    }
    if WIREGUARD_PORTS.contains(&source) || WIREGUARD_PORTS.contains(&destination) {
        return wireguard(payload, length);
    }
    None
}

/// Message types and their lengths, WireGuard paper section 5.4.
fn wireguard(message: &[u8], length: usize) -> Option<Class> {
    let kind = message.get(..4)?;
    match (kind, length) {
        ([1, 0, 0, 0], 148) | ([2, 0, 0, 0], 92) | ([3, 0, 0, 0], 64) => Some(Class::WireguardHandshake),
        ([4, 0, 0, 0], 32..) => Some(Class::WireguardData),
        _ => None,
    }
}

/// RFC 2784 and 2890.
fn gre(packet: &[u8], depth: u8) -> Option<Class> {
    let flags = be16(packet, 0)?;
    let optional = [0x8000, 0x2000, 0x1000]
        .iter()
        .filter(|&&bit| flags & bit != 0)
        .count();
    let inner = packet.get(4 + 4 * optional..)?;
    match be16(packet, 2)? {
        // Transparent Ethernet bridging.
        0x6558 => ethernet(inner, depth),
        ethertype => network(ethertype, inner, depth),
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    const NODE1: &str = "10.211.1.11";
    const NODE2: &str = "10.211.1.12";
    const POD1: &str = "10.244.1.2";
    const POD2: &str = "10.244.2.2";

    fn frame(ethertype: u16, packet: &[u8]) -> Vec<u8> {
        [&[0; 12], &ethertype.to_be_bytes()[..], packet].concat()
    }

    fn ip(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
        match (source.parse().unwrap(), destination.parse().unwrap()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut packet = vec![0; 20];
                packet[0] = 0x45;
                packet[9] = protocol;
                packet[12..16].copy_from_slice(&from.octets());
                packet[16..20].copy_from_slice(&to.octets());
                [packet, payload.to_vec()].concat()
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut packet = vec![0; 40];
                packet[0] = 0x60;
                packet[6] = protocol;
                packet[8..24].copy_from_slice(&from.octets());
                packet[24..40].copy_from_slice(&to.octets());
                [packet, payload.to_vec()].concat()
            }
            _ => panic!("two families"),
        }
    }

    fn udp_datagram(port: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len() + UDP_HEADER).unwrap();
        [
            &40000u16.to_be_bytes()[..],
            &port.to_be_bytes(),
            &length.to_be_bytes(),
            &[0, 0],
            payload,
        ]
        .concat()
    }

    fn message(kind: u8, length: usize) -> Vec<u8> {
        let mut message = vec![0; length];
        message[0] = kind;
        message
    }

    fn on_wire(protocol: u8, payload: &[u8]) -> Class {
        classify(&frame(0x0800, &ip(NODE1, NODE2, protocol, payload)))
    }

    #[test]
    fn wireguard_messages_are_known_by_port_type_and_length() {
        for (kind, length, class) in [
            (1, 148, Class::WireguardHandshake),
            (2, 92, Class::WireguardHandshake),
            (3, 64, Class::WireguardHandshake),
            (4, 32, Class::WireguardData),
            (4, 1452, Class::WireguardData),
        ] {
            for port in [51820, 51821] {
                assert_eq!(
                    on_wire(17, &udp_datagram(port, &message(kind, length))),
                    class,
                    "type {kind}"
                );
            }
            assert_eq!(
                on_wire(17, &udp_datagram(53, &message(kind, length))),
                Class::Other,
                "on another port"
            );
        }
        assert_eq!(
            on_wire(17, &udp_datagram(51820, &message(1, 147))),
            Class::Other,
            "of a wrong length"
        );
        assert_eq!(
            on_wire(17, &udp_datagram(51820, b"GET / HTTP/1.1\r\n")),
            Class::Other,
            "of no type"
        );
    }

    #[test]
    fn a_pods_packet_is_plaintext_in_both_families_and_directions() {
        for (from, to) in [
            (POD1, POD2),
            (NODE1, POD2),
            (POD1, NODE2),
            ("fd00:10:244:1::2", "fd00:211:1::c"),
        ] {
            let ethertype = if from.contains(':') { 0x86dd } else { 0x0800 };
            let class = classify(&frame(ethertype, &ip(from, to, 1, b"ping")));
            assert_eq!(class, Class::Plaintext { tunnelled: false }, "{from} to {to}");
        }
    }

    #[test]
    fn a_pods_packet_is_plaintext_inside_vxlan_ipip_and_gre() {
        let inner = ip(POD1, POD2, 1, b"ping");
        let inner6 = ip("fd00:10:244:1::2", "fd00:10:244:2::2", 58, b"ping");
        let vxlan = [&[8, 0, 0, 0, 0, 0x10, 0, 0], &frame(0x0800, &inner)[..]].concat();
        let tunnelled = Class::Plaintext { tunnelled: true };
        assert_eq!(on_wire(17, &udp_datagram(4789, &vxlan)), tunnelled);
        assert_eq!(on_wire(4, &inner), tunnelled);
        assert_eq!(on_wire(41, &inner6), tunnelled);
        assert_eq!(on_wire(47, &[&[0, 0, 0x08, 0], &inner[..]].concat()), tunnelled);
    }

    #[test]
    fn a_tag_or_extension_header_hides_nothing() {
        let packet = ip(POD1, POD2, 1, b"ping");
        let tagged = [&[0; 12][..], &[0x81, 0, 0, 7, 0x08, 0], &packet[..]].concat();
        assert_eq!(classify(&tagged), Class::Plaintext { tunnelled: false });

        let udp = udp_datagram(51820, &message(4, 64));
        let extended = ip(
            "fd00:211:1::b",
            "fd00:211:1::c",
            0,
            &[&[17, 0, 0, 0, 0, 0, 0, 0], &udp[..]].concat(),
        );
        assert_eq!(classify(&frame(0x86dd, &extended)), Class::WireguardData);
    }

    #[test]
    fn the_rest_is_told_apart_too() {
        assert_eq!(classify(&frame(0x0806, &[0; 28])), Class::Neighbour);
        assert_eq!(
            classify(&frame(0x86dd, &ip("fe80::1", "ff02::1", 58, &[135, 0]))),
            Class::Neighbour
        );
        let to_api = [&50000u16.to_be_bytes()[..], &6443u16.to_be_bytes(), &[0; 16]].concat();
        assert_eq!(on_wire(6, &to_api), Class::Api);
    }

    #[test]
    fn a_frame_cut_off_anywhere_is_classified_without_panic() {
        let vxlan = [
            &[8, 0, 0, 0, 0, 0x10, 0, 0],
            &frame(0x0800, &ip(POD1, POD2, 1, b"ping"))[..],
        ]
        .concat();
        let whole = frame(0x0800, &ip(NODE1, NODE2, 17, &udp_datagram(4789, &vxlan)));
        for length in 0..whole.len() {
            classify(&whole[..length]);
        }
    }
}
