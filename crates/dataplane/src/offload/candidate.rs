//! What a single packet says about whether it can be merged.

use super::checksum::Sum;
use super::headers::{
    IPV4_LEN, IPV6_LEN, TCP_CHECKSUM, TCP_LEN, UDP_CHECKSUM, UDP_LEN, flag, is_ipv6, length, long_number,
    number, protocol, pseudo_header,
};

/// The "don't fragment" bit, with the fragment offset's number.
const DONT_FRAGMENT: u16 = 0x4000;

/// What a packet is to others of the same flow.
#[derive(Debug)]
pub(super) enum Class {
    /// It can be part of a frame.
    Mergeable(Flow, Candidate),
    /// It goes alone, and what its flow sends later must not overtake it.
    Alone(Flow),
    /// It goes alone, and belongs to one of the flows between two addresses. The flow has no ports.
    Unclear(Flow),
    /// No flow is touched by it.
    Other,
}

/// Addresses, ports and protocol of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flow {
    addresses: [u64; 4],
    /// Ports, protocol and IP version.
    rest: u64,
}

/// A TCP segment or datagram in the plainest of packets.
#[derive(Debug, Clone, Default)]
pub(super) struct Candidate {
    /// Bytes of IP header: where the transport header begins.
    pub(super) ip_len: usize,
    /// Bytes of both headers.
    pub(super) header_len: usize,
    /// Bytes after the headers.
    pub(super) payload_len: usize,
    protocol: u8,
    pushed: bool,
}

impl Class {
    /// Looks at a packet, which has at least one byte. `datagrams`: whether datagrams are merged too.
    #[inline]
    pub(super) fn of(packet: &[u8], datagrams: bool) -> Self {
        let (ip_len, protocol, plain) = match packet[0] >> 4 {
            4 if packet.len() >= IPV4_LEN => {
                let protocol = packet[9];
                let plain = packet[0] & 0x0f == 5
                    && usize::from(number(packet, 2)) == packet.len()
                    && number(packet, 6) & !DONT_FRAGMENT == 0;
                if !matches!(protocol, protocol::TCP | protocol::UDP) {
                    return Self::Other;
                }
                (IPV4_LEN, protocol, plain)
            }
            6 if packet.len() >= IPV6_LEN => {
                let protocol = packet[6];
                let plain = matches!(protocol, protocol::TCP | protocol::UDP)
                    && usize::from(number(packet, 4)) == packet.len() - IPV6_LEN;
                if protocol == protocol::ICMPV6 {
                    return Self::Other;
                }
                (IPV6_LEN, protocol, plain)
            }
            _ => return Self::Other,
        };
        let flow = Flow::between_addresses(packet);
        let transport = &packet[ip_len..];
        if !plain || transport.len() < UDP_LEN {
            return Self::Unclear(flow);
        }
        let flow = flow.with_ports(transport, protocol);
        let candidate = if protocol == protocol::TCP {
            Candidate::tcp(transport)
        } else {
            Candidate::udp(transport).filter(|_| datagrams)
        };
        match candidate {
            Some(mut candidate) => {
                candidate.ip_len = ip_len;
                candidate.header_len += ip_len;
                Self::Mergeable(flow, candidate)
            }
            None => Self::Alone(flow),
        }
    }
}

impl Flow {
    #[inline]
    fn between_addresses(ip: &[u8]) -> Self {
        let wide = |at| u64::from(long_number(ip, at)) << 32 | u64::from(long_number(ip, at + 4));
        if is_ipv6(ip) {
            Self {
                addresses: [wide(8), wide(16), wide(24), wide(32)],
                rest: 6,
            }
        } else {
            Self {
                addresses: [wide(12), 0, 0, 0],
                rest: 4,
            }
        }
    }

    #[inline]
    fn with_ports(self, transport: &[u8], protocol: u8) -> Self {
        let ports = u64::from(long_number(transport, 0));
        Self {
            rest: ports << 32 | u64::from(protocol) << 8 | self.rest,
            ..self
        }
    }

    /// A number that is another one for most other flows.
    #[inline]
    pub(super) fn tag(&self) -> u64 {
        let [a, b, c, d] = self.addresses;
        let addresses = a ^ b.rotate_left(13) ^ c.rotate_left(29) ^ d.rotate_left(47);
        addresses.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.rest
    }

    /// Whether both are between the same two addresses.
    #[inline]
    pub(super) fn has_addresses_of(&self, other: &Self) -> bool {
        self.addresses == other.addresses && (self.rest ^ other.rest) & 0xff == 0
    }
}

impl Candidate {
    /// A segment with payload and no flag but ACK, and PSH perhaps.
    #[inline]
    fn tcp(transport: &[u8]) -> Option<Self> {
        if transport.len() < TCP_LEN {
            return None;
        }
        // The low half of byte 12 is reserved, but for a bit of accurate ECN.
        let header_len = usize::from(transport[12] >> 4) * 4;
        let mergeable = transport[12] & 0x0f == 0
            && transport[13] & !flag::PSH == flag::ACK
            && header_len >= TCP_LEN
            && header_len < transport.len();
        mergeable.then(|| Self {
            header_len,
            payload_len: transport.len() - header_len,
            protocol: protocol::TCP,
            pushed: transport[13] & flag::PSH != 0,
            ip_len: 0,
        })
    }

    /// A datagram with payload and checksum.
    #[inline]
    fn udp(transport: &[u8]) -> Option<Self> {
        let mergeable = transport.len() > UDP_LEN
            && usize::from(number(transport, 4)) == transport.len()
            && number(transport, UDP_CHECKSUM) != 0;
        mergeable.then(|| Self {
            header_len: UDP_LEN,
            payload_len: transport.len() - UDP_LEN,
            protocol: protocol::UDP,
            pushed: false,
            ip_len: 0,
        })
    }

    /// Whether it is a segment of TCP, of two.
    #[inline]
    pub(super) fn is_tcp(&self) -> bool {
        self.protocol == protocol::TCP
    }

    /// Whether the sender wants it handed on at once: nothing may follow in the same frame.
    #[inline]
    pub(super) fn is_last(&self) -> bool {
        self.pushed
    }

    /// Whether `packet` has the headers that the next segment of a frame would get, whose first packet, this one, is `first`,
    /// and which has `count` packets with `payload_len` bytes. Both are of one flow.
    #[inline]
    pub(super) fn agrees(
        &self,
        first: &[u8],
        other: &Self,
        packet: &[u8],
        count: usize,
        payload_len: usize,
    ) -> bool {
        if self.header_len != other.header_len {
            return false;
        }
        let ip = if is_ipv6(first) {
            // Traffic class and flow label; hop limit.
            first[..4] == packet[..4] && first[7] == packet[7]
        } else {
            // Type of service; fragmentation; time to live.
            let unfragmented = number(first, 6) & DONT_FRAGMENT != 0;
            let in_order = number(packet, 4).wrapping_sub(number(first, 4)) == length(count);
            first[1] == packet[1] && first[6..9] == packet[6..9] && (unfragmented || in_order)
        };
        if !ip || !self.is_tcp() {
            return ip;
        }
        let (first, packet) = (
            &first[self.ip_len..self.header_len],
            &packet[self.ip_len..self.header_len],
        );
        let passed = long_number(packet, 4).wrapping_sub(long_number(first, 4));
        usize::try_from(passed) == Ok(payload_len)
            // Acknowledgement and header length; window; urgent pointer and options. The flags have been looked at.
            && first[8..13] == packet[8..13]
            && first[14..16] == packet[14..16]
            && first[18..] == packet[18..]
    }

    /// Whether all checksums are right, and what a sender would write: of the two forms of zero, the one that is computed.
    #[inline]
    pub(super) fn is_intact(&self, packet: &[u8]) -> bool {
        let (ip, transport) = packet.split_at(self.ip_len);
        if !is_ipv6(ip) && (number(ip, 10) == 0xffff || !Sum::of(ip).is_valid()) {
            return false;
        }
        if self.is_tcp() && number(transport, TCP_CHECKSUM) == 0xffff {
            return false;
        }
        Sum::of(transport)
            .plus(pseudo_header(ip, self.protocol))
            .plus_number(length(transport.len()))
            .is_valid()
    }
}
