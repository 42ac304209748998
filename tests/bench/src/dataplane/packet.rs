//! An IP packet as a peer would have one from its kernel.

use std::net::{Ipv4Addr, SocketAddrV4};

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;

/// A UDP datagram in an IPv4 packet with both checksums, RFC 768 and 791.
pub(super) fn udp_packet(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let udp_length = length(UDP_HEADER + payload.len());
    let mut packet = vec![0x45, 0];
    packet.extend(length(IP_HEADER + UDP_HEADER + payload.len()));
    // No id and "don't fragment", as the kernel has it for datagrams that need no fragments.
    packet.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    let sum = checksum(0, &packet);
    packet[10..12].copy_from_slice(&sum);

    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend(udp_length);
    packet.extend([0, 0]);
    packet.extend(payload);
    let pseudo = pseudo_sum(*from.ip(), *to.ip(), udp_length);
    let sum = checksum(pseudo, &packet[IP_HEADER..]);
    packet[IP_HEADER + 6..IP_HEADER + 8].copy_from_slice(&sum);
    packet
}

/// Longer ones than fit are not asked for.
fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

fn pseudo_sum(from: Ipv4Addr, to: Ipv4Addr, length: [u8; 2]) -> u32 {
    let mut header = Vec::with_capacity(12);
    header.extend(from.octets());
    header.extend(to.octets());
    header.extend([0, UDP]);
    header.extend(length);
    sum(&header)
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|it| u32::from(it[0]) << 8 | it.get(1).map_or(0, |low| u32::from(*low)))
        .sum()
}

/// One's complement of the one's complement sum, RFC 1071.
fn checksum(start: u32, bytes: &[u8]) -> [u8; 2] {
    let mut sum = start + sum(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = (!sum).to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_known_from_elsewhere_gets_its_checksum() {
        // The example of RFC 1071, section 3.
        assert_eq!(
            checksum(0, &[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]),
            [0x22, 0x0d]
        );
    }

    #[test]
    fn a_receiver_that_sums_header_and_datagram_gets_nothing() {
        let (from, to) = (
            SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 7),
            SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 8),
        );
        let packet = udp_packet(from, to, &[1, 2, 3]);
        assert_eq!(packet.len(), 31);
        assert_eq!(checksum(0, &packet[..IP_HEADER]), [0, 0]);
        let pseudo = pseudo_sum(*from.ip(), *to.ip(), length(11));
        assert_eq!(checksum(pseudo, &packet[IP_HEADER..]), [0, 0]);
    }
}
