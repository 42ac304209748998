//! What is read from the headers of IP packets, and the one thing that is changed there.

use std::net::IpAddr;

use crate::offload::checksum;

/// Lower two bits of TOS and traffic class (RFC 3168): no ECN, both forms of being capable of it, congestion experienced.
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CONGESTION: u8 = 3;

/// An IPv4 or IPv6 packet, by its first header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Where it comes from.
    pub(crate) source: IpAddr,
    /// Where it goes.
    pub(crate) destination: IpAddr,
    /// Its length, headers included, as it says itself.
    pub(crate) len: usize,
    /// Its ECN field.
    pub(crate) ecn: u8,
}

impl Header {
    /// Reads a packet's header. `None`: it is no IP packet, or not even a header.
    pub(crate) fn of(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let header = packet.first_chunk::<20>()?;
                let [_, tos, l0, l1, .., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
                Some(Self {
                    source: [s0, s1, s2, s3].into(),
                    destination: [d0, d1, d2, d3].into(),
                    len: u16::from_be_bytes([l0, l1]).into(),
                    ecn: tos & 3,
                })
            }
            6 => {
                let header = packet.first_chunk::<40>()?;
                let (source, rest) = header[8..].split_first_chunk::<16>()?;
                Some(Self {
                    source: (*source).into(),
                    destination: (*rest.first_chunk::<16>()?).into(),
                    len: usize::from(u16::from_be_bytes([header[4], header[5]])) + header.len(),
                    ecn: header[1] >> 4 & 3,
                })
            }
            _ => None,
        }
    }
}

/// What becomes of a packet's ECN field at the end of a tunnel (RFC 6040, section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decapsulated {
    /// It stays.
    AsItIs,
    /// It becomes what it was outside: congestion on the way, or less of it (RFC 6660), has to be told.
    Becomes(u8),
    /// Congestion on the way cannot be told: the packet is to be dropped, as a router would.
    Drop,
}

/// Decides it, from the fields outside and inside.
pub(crate) fn decapsulated_ecn(outer: u8, inner: u8) -> Decapsulated {
    match (outer, inner) {
        (CONGESTION, NOT_ECT) => Decapsulated::Drop,
        (CONGESTION, ECT_0 | ECT_1) | (ECT_1, ECT_0) => Decapsulated::Becomes(outer),
        _ => Decapsulated::AsItIs,
    }
}

/// Changes the ECN field of a packet that [`Header::of`] could read.
pub(crate) fn set_ecn(packet: &mut [u8], ecn: u8) {
    match packet {
        [first, tos, _, _, _, _, _, _, _, _, c0, c1, ..] if *first >> 4 == 4 => {
            let old = u16::from_be_bytes([*first, *tos]);
            *tos = *tos & !3 | ecn;
            let new = u16::from_be_bytes([*first, *tos]);
            [*c0, *c1] = checksum::updated(u16::from_be_bytes([*c0, *c1]), old, new).to_be_bytes();
        }
        [first, class, ..] if *first >> 4 == 6 => *class = *class & !(3 << 4) | ecn << 4,
        _ => {}
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_whole_or_not_at_all() {
        let mut v4 = [0; 20];
        v4[0] = 0x45;
        v4[1] = 0xb9;
        v4[2..4].copy_from_slice(&1420_u16.to_be_bytes());
        v4[12..16].copy_from_slice(&[10, 1, 2, 3]);
        v4[16..].copy_from_slice(&[10, 1, 2, 4]);
        let header = Header::of(&v4).unwrap();
        assert_eq!(header.source, "10.1.2.3".parse::<IpAddr>().unwrap());
        assert_eq!(header.destination, "10.1.2.4".parse::<IpAddr>().unwrap());
        assert_eq!((header.len, header.ecn), (1420, 1));
        assert_eq!(Header::of(&v4[..19]), None);

        let mut v6 = [0; 40];
        v6[0] = 0x6b;
        v6[1] = 0x20;
        v6[4..6].copy_from_slice(&1380_u16.to_be_bytes());
        v6[23] = 1;
        v6[39] = 2;
        let header = Header::of(&v6).unwrap();
        assert_eq!(header.source, "::1".parse::<IpAddr>().unwrap());
        assert_eq!(header.destination, "::2".parse::<IpAddr>().unwrap());
        assert_eq!((header.len, header.ecn), (1420, 2));
        assert_eq!(Header::of(&v6[..39]), None);

        assert_eq!(Header::of(&[]), None);
        assert_eq!(Header::of(&[0x50; 64]), None);
    }

    #[test]
    fn congestion_on_the_way_is_told_or_the_packet_dropped() {
        use Decapsulated::{AsItIs, Becomes, Drop};
        // By the field inside, then by the one outside: figure 4.
        let table = [
            [AsItIs, AsItIs, AsItIs, Drop],
            [AsItIs, AsItIs, AsItIs, Becomes(3)],
            [AsItIs, Becomes(1), AsItIs, Becomes(3)],
            [AsItIs, AsItIs, AsItIs, AsItIs],
        ];
        for (inner, row) in (0..).zip(table) {
            for (outer, expected) in (0..).zip(row) {
                assert_eq!(decapsulated_ecn(outer, inner), expected, "{inner} in {outer}");
            }
        }
    }

    #[test]
    fn another_ecn_field_keeps_the_checksum_right() {
        let sum = |header: &[u8]| {
            let words = header.chunks_exact(2);
            let sum: u32 = words
                .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
                .sum();
            (sum & 0xffff) + (sum >> 16)
        };
        for (tos, ecn) in [(1_u8, 3), (2, 3), (0xb9, 3), (0xfe, 3), (0xfe, 1), (2, 1)] {
            let mut header = [
                0x45, tos, 5, 140, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 1, 2, 3, 10, 1, 2, 4,
            ];
            let right = !u16::try_from(sum(&header)).unwrap();
            header[10..12].copy_from_slice(&right.to_be_bytes());
            set_ecn(&mut header, ecn);
            assert_eq!(header[1], tos & !3 | ecn);
            assert_eq!(sum(&header), 0xffff, "{tos:#x}");
        }
        let mut v6 = [0; 40];
        v6[0] = 0x60;
        v6[1] = 0x21;
        set_ecn(&mut v6, 3);
        assert_eq!(v6[1], 0x31);
        set_ecn(&mut v6, 1);
        assert_eq!(v6[1], 0x11);
    }
}
