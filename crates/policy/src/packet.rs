//! The headers of a packet, read to the [`Flow`] that policy judges: for who has the packet and wants to say what it was.

use std::net::IpAddr;

use crate::flow::{Detail, Flow};
use crate::protocol::Protocol;

/// The longest headers that are of use here: of IPv6, one extension, and the ports.
pub const HEADER_BYTES: usize = 128;

/// Extension headers that a packet may have before no more are read (RFC 8200, section 4.1, knows six).
const EXTENSIONS: usize = 8;
/// Length of IPv4's header without options.
const V4_BYTES: usize = 20;
/// Length of IPv6's header.
const V6_BYTES: usize = 40;
/// The bits of IPv4's and IPv6's fragment offsets.
const V4_OFFSET: u16 = 0x1fff;
const V6_OFFSET: u16 = 0xfff8;

/// Hop-by-hop options, routing, destination options: their lengths count eights of bytes behind the first eight.
const OPTIONS: [u8; 3] = [0, 43, 60];
const FRAGMENT: u8 = 44;
/// Authentication header: its length counts fours of bytes, less two (RFC 4302, section 2.2).
const AUTHENTICATION: u8 = 51;

/// Reads a packet from its IP header on; it may be cut off anywhere behind the addresses. What is cut off, and what
/// a later fragment does not have, is [`Detail::Nothing`].
///
/// `None`: it is neither IPv4 nor IPv6.
pub fn flow(packet: &[u8]) -> Option<Flow> {
    match packet.first()? >> 4 {
        4 => v4(packet),
        6 => v6(packet),
        _ => None,
    }
}

/// RFC 791, section 3.1.
fn v4(packet: &[u8]) -> Option<Flow> {
    let length = usize::from(packet.first()? & 0x0f) * 4;
    if length < V4_BYTES {
        return None;
    }
    let protocol = Protocol(*packet.get(9)?);
    let rest = packet.get(length..).unwrap_or_default();
    let is_first = u16::from_be_bytes(part(packet, 6)?) & V4_OFFSET == 0;
    Some(Flow {
        source: IpAddr::from(part::<4>(packet, 12)?),
        destination: IpAddr::from(part::<4>(packet, 16)?),
        protocol,
        detail: detail(protocol, rest, is_first),
    })
}

/// RFC 8200, sections 3 and 4.
fn v6(packet: &[u8]) -> Option<Flow> {
    let (source, destination) = (part::<16>(packet, 8)?, part::<16>(packet, 24)?);
    let mut protocol = *packet.get(6)?;
    let mut rest = packet.get(V6_BYTES..).unwrap_or_default();
    let mut is_first = true;
    for _ in 0..EXTENSIONS {
        let Some([next, length]) = part(rest, 0) else {
            break;
        };
        let bytes = match protocol {
            FRAGMENT => {
                is_first &= part(rest, 2).is_some_and(|offset| u16::from_be_bytes(offset) & V6_OFFSET == 0);
                8
            }
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            option if OPTIONS.contains(&option) => (usize::from(length) + 1) * 8,
            _ => break,
        };
        protocol = next;
        rest = rest.get(bytes..).unwrap_or_default();
        if !is_first {
            // The headers that may follow are in the first.
            break;
        }
    }
    let protocol = Protocol(protocol);
    Some(Flow {
        source: IpAddr::from(source),
        destination: IpAddr::from(destination),
        protocol,
        detail: detail(protocol, rest, is_first),
    })
}

/// Ports come first in each protocol that has them, type and code in ICMP.
fn detail(protocol: Protocol, rest: &[u8], is_first: bool) -> Detail {
    let ports = || Some((part(rest, 0)?, part(rest, 2)?));
    if !is_first {
        return Detail::Nothing;
    }
    match (ports(), part(rest, 0)) {
        (Some((source, destination)), _) if protocol.has_ports() => Detail::Ports {
            source: u16::from_be_bytes(source),
            destination: u16::from_be_bytes(destination),
        },
        (_, Some([kind, code])) if protocol.is_icmp() => Detail::Icmp { kind, code },
        _ => Detail::Nothing,
    }
}

/// Bytes at a place, if they are there.
fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A packet of IPv4 with these bytes of options, to be followed by `rest`.
    fn over_v4(options: usize, protocol: u8, fragment: u16, rest: &[u8]) -> Vec<u8> {
        let words = u8::try_from(5 + options / 4).unwrap_or_default();
        let [high, low] = fragment.to_be_bytes();
        let header = [
            0x40 | words,
            0,
            0,
            0,
            0,
            0,
            high,
            low,
            64,
            protocol,
            0,
            0,
            10,
            244,
            1,
            5,
            10,
            244,
            2,
            6,
        ];
        [&header, &vec![1; options][..], rest].concat()
    }

    /// A packet of IPv6 whose first header is this one.
    fn over_v6(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = vec![0x60, 0, 0, 0, 0, 0, first, 64];
        header.extend([[0xfd; 16], [0xfe; 16]].concat());
        [&header, rest].concat()
    }

    fn read(packet: &[u8]) -> (u8, Detail) {
        let flow = flow(packet).unwrap_or_else(|| panic!("{packet:?} has addresses"));
        (flow.protocol.0, flow.detail)
    }

    const PORTS: [u8; 4] = [0xc0, 0x01, 0x18, 0xeb];
    const BOTH: Detail = Detail::Ports {
        source: 0xc001,
        destination: 6379,
    };

    #[test]
    fn ports_and_icmp_of_both_families_are_read() {
        for protocol in [Protocol::TCP.0, Protocol::UDP.0, Protocol::SCTP.0] {
            assert_eq!(read(&over_v4(0, protocol, 0, &PORTS)), (protocol, BOTH));
            assert_eq!(read(&over_v4(40, protocol, 0, &PORTS)), (protocol, BOTH));
            assert_eq!(read(&over_v6(protocol, &PORTS)), (protocol, BOTH));
        }
        let echo = Detail::Icmp { kind: 8, code: 0 };
        assert_eq!(read(&over_v4(0, 1, 0, &[8, 0])), (1, echo));
        let unreachable = Detail::Icmp { kind: 1, code: 4 };
        assert_eq!(read(&over_v6(58, &[1, 4, 0])), (58, unreachable));
        let flow = flow(&over_v4(0, 6, 0, &PORTS)).map(|flow| (flow.source, flow.destination));
        assert_eq!(flow, Some(([10, 244, 1, 5].into(), [10, 244, 2, 6].into())));
    }

    #[test]
    fn extension_headers_are_passed_over() {
        let options = [&[43, 1][..], &[0; 14]].concat();
        let routing = [&[51, 0][..], &[0; 6]].concat();
        let authentication = [&[44, 4][..], &[0; 22]].concat();
        let fragment = [17, 0, 0, 1, 0, 0, 0, 0];
        let packet = [&options, &routing, &authentication, &fragment[..], &PORTS].concat();
        assert_eq!(read(&over_v6(0, &packet)), (17, BOTH));
    }

    #[test]
    fn a_later_fragment_has_addresses_and_a_protocol_and_no_more() {
        assert_eq!(read(&over_v4(0, 17, 1, &PORTS)), (17, Detail::Nothing));
        // More to come, do not fragment: these say nothing of the place.
        assert_eq!(read(&over_v4(0, 17, 0x6000, &PORTS)), (17, BOTH));
        let later = [&[60, 0, 0, 8, 0, 0, 0, 0][..], &[17, 0], &PORTS].concat();
        assert_eq!(read(&over_v6(FRAGMENT, &later)), (60, Detail::Nothing));
    }

    #[test]
    fn what_is_no_packet_is_none() {
        for bytes in [
            &[][..],
            &[0x45; 19],
            &[0x60; 39],
            &[0x50; 64],
            &[0x44; 64],
            &[0; 64],
        ] {
            assert_eq!(flow(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_not_and_a_part_of_it_tells_no_other_ports(
            version in prop::sample::select(vec![0x45_u8, 0x46, 0x4f, 0x60, 0x65, 0x00]),
            mut bytes in prop::collection::vec(any::<u8>(), 1..160),
            cut in 0_usize..160,
        ) {
            bytes[0] = version;
            let (whole, cut) = (flow(&bytes), flow(&bytes[..cut.min(bytes.len())]));
            if let (Some(whole), Some(cut)) = (whole, cut) {
                prop_assert_eq!((whole.source, whole.destination), (cut.source, cut.destination));
                prop_assert!(cut.detail == whole.detail || cut.detail == Detail::Nothing);
            }
        }

        #[test]
        fn ports_are_found_behind_any_options_and_extensions(
            ports: [u8; 4],
            options in 0_usize..=10,
            extensions in prop::collection::vec((prop::sample::select(&OPTIONS[..]), 0_u8..4), 0..EXTENSIONS),
        ) {
            let expected = Detail::Ports {
                source: u16::from_be_bytes([ports[0], ports[1]]),
                destination: u16::from_be_bytes([ports[2], ports[3]]),
            };
            prop_assert_eq!(read(&over_v4(options * 4, 6, 0, &ports)), (6, expected));
            let mut rest = ports.to_vec();
            let mut first = 6;
            for (kind, eights) in extensions {
                let body = vec![0xff; 6 + 8 * usize::from(eights)];
                rest = [&[first, eights][..], &body, &rest].concat();
                first = kind;
            }
            prop_assert_eq!(read(&over_v6(first, &rest)), (6, expected));
        }
    }
}
