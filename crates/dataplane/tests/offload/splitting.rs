//! One test for each rule of splitting.

use warren_dataplane::offload::{BadFrame, Frame, VnetHeader};

use crate::law::packets::Packet;
use crate::law::tun_frame::sums::{fault, number};
use crate::law::tun_frame::{self, split};

/// What the kernel says of a frame of several packets.
pub(crate) fn header(packet: &Packet, gso_size: u16) -> VnetHeader {
    VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        gso_type: match (packet.tcp, packet.ipv6) {
            (true, false) => VnetHeader::GSO_TCPV4,
            (true, true) => VnetHeader::GSO_TCPV6,
            (false, _) => VnetHeader::GSO_UDP_L4,
        },
        hdr_len: packet.header_len() as u16,
        gso_size,
        csum_start: packet.ip_len() as u16,
        csum_offset: if packet.tcp { 16 } else { 6 },
    }
}

/// What the kernel says of a packet whose checksum is missing.
fn header_of_one(packet: &Packet) -> VnetHeader {
    VnetHeader {
        gso_type: VnetHeader::GSO_NONE,
        ..header(packet, 0)
    }
}

pub(crate) fn parse(vnet: &VnetHeader, frame: &[u8]) -> Result<Frame, BadFrame> {
    Frame::parse(vnet, frame, frame.len())
}

/// The packets of a good frame, after the law has been held to it.
fn packets_of(packet: &Packet, vnet: &VnetHeader) -> Vec<Vec<u8>> {
    let frame = packet.to_frame();
    tun_frame::holds(&[&vnet.encode()[..], &frame].concat());
    split(&parse(vnet, &frame).unwrap(), &frame)
}

const EACH: [(bool, bool); 4] = [(false, true), (true, true), (false, false), (true, false)];

#[test]
fn the_header_before_a_frame_is_read_and_written_as_the_kernel_lays_it_out() {
    let header = VnetHeader {
        flags: 1,
        gso_type: 4,
        hdr_len: 60,
        gso_size: 1360,
        csum_start: 40,
        csum_offset: 16,
    };
    let bytes = header.encode();
    assert_eq!(bytes[..2], [1, 4]);
    assert_eq!(bytes[2..4], 60_u16.to_ne_bytes());
    assert_eq!(bytes[4..6], 1360_u16.to_ne_bytes());
    assert_eq!(bytes[6..8], 40_u16.to_ne_bytes());
    assert_eq!(bytes[8..], 16_u16.to_ne_bytes());
    assert_eq!(VnetHeader::parse(&bytes), header);
}

#[test]
fn each_kind_of_frame_is_split_to_packets_like_those_sent_one_by_one() {
    for (ipv6, tcp) in EACH {
        let packet = Packet {
            id: 0xfffe,
            sequence: 0xffff_ff00,
            options: vec![1; 12],
            class: 0x29,
            ..Packet::new(ipv6, tcp, 4500)
        };
        let got = packets_of(&packet, &header(&packet, 1400));
        assert_eq!(got.len(), 4);
        for (i, got) in got.iter().enumerate() {
            let start = i * 1400;
            let alone = Packet {
                id: packet.id.wrapping_add(i as u16),
                sequence: packet.sequence.wrapping_add(start as u32),
                payload: packet.payload[start..(start + 1400).min(4500)].to_vec(),
                ..packet.clone()
            };
            assert_eq!(*got, alone.to_bytes(), "IPv6 {ipv6}, TCP {tcp}, packet {i}");
        }
    }
}

#[test]
fn places_and_lengths_add_up() {
    let packet = Packet::new(false, true, 3000);
    let frame = parse(&header(&packet, 1400), &packet.to_frame()).unwrap();
    assert!(!frame.is_single());
    assert_eq!(
        (frame.header_len(), frame.segment_len(), frame.payload_len()),
        (40, 1400, 3000)
    );
    assert_eq!((frame.segments(), frame.longest_packet()), (3, 1440));
    let places: Vec<_> = (0..4).map(|i| frame.segment_payload(i)).collect();
    assert_eq!(places, [40..1440, 1440..2840, 2840..3040, 3040..3040]);
}

#[test]
fn push_and_fin_stay_with_the_last_packet_and_cwr_with_the_first() {
    let packet = Packet {
        flags: 0x10 | 0x08 | 0x01 | 0x80 | 0x40,
        ..Packet::new(false, true, 3000)
    };
    let vnet = VnetHeader {
        gso_type: VnetHeader::GSO_TCPV4 | VnetHeader::GSO_ECN,
        ..header(&packet, 1000)
    };
    let flags: Vec<_> = packets_of(&packet, &vnet)
        .iter()
        .map(|packet| packet[33])
        .collect();
    assert_eq!(
        flags,
        [0x10 | 0x80 | 0x40, 0x10 | 0x40, 0x10 | 0x40 | 0x08 | 0x01]
    );
}

#[test]
fn a_segment_length_beyond_the_payload_makes_one_packet() {
    for (ipv6, tcp) in EACH {
        for payload in [0, 1, 700] {
            let packet = Packet {
                flags: 0x99,
                ..Packet::new(ipv6, tcp, payload)
            };
            let got = packets_of(&packet, &header(&packet, 65_535));
            assert_eq!(got, [packet.to_bytes()]);
        }
    }
}

#[test]
fn options_of_ipv4_and_extension_headers_are_in_every_packet() {
    for (ipv6, extra, next) in [
        (false, vec![0x94, 4, 0, 0], None),
        (true, vec![6, 0, 1, 4, 0, 0, 0, 0], Some(0)),
        (true, vec![6, 0, 1, 4, 0, 0, 0, 0], Some(60)),
        (
            true,
            [[60, 0, 1, 4, 0, 0, 0, 0], [6, 0, 1, 4, 0, 0, 0, 0]].concat(),
            Some(43),
        ),
    ] {
        let packet = Packet {
            extra,
            next,
            ..Packet::new(ipv6, true, 2500)
        };
        let got = packets_of(&packet, &header(&packet, 1200));
        assert_eq!(got.len(), 3);
        for got in got {
            assert_eq!(fault(&got), None, "{packet:?}");
            let place = if ipv6 { 40 } else { 20 };
            assert_eq!(got[place..packet.ip_len()], packet.extra);
        }
    }
}

#[test]
fn with_a_source_route_the_checksum_is_over_the_last_destination() {
    // A segment is left to go: the kernel's sum has an address in it that is not in the header.
    let packet = Packet {
        extra: vec![6, 0, 4, 1, 0, 0, 0, 0],
        next: Some(43),
        ..Packet::new(true, true, 2000)
    };
    let other = 0x1111_u16;
    let mut frame = packet.to_frame();
    let at = packet.checksum_at();
    let sum = u32::from(number(&frame, at)) + u32::from(other);
    let sum = (sum & 0xffff) as u16 + (sum >> 16) as u16;
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    for got in split(&parse(&header(&packet, 1000), &frame).unwrap(), &frame) {
        assert_eq!(fault(&got), Some("transport checksum"));
        // With the address it is right: take the difference out again.
        let mut got = got;
        let sum = u32::from(number(&got, at)) + u32::from(other);
        let sum = (sum & 0xffff) as u16 + (sum >> 16) as u16;
        got[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(fault(&got), None);
    }
}

#[test]
fn a_missing_checksum_is_filled_in_wherever_it_belongs() {
    let plain = EACH.map(|(ipv6, tcp)| Packet::new(ipv6, tcp, 333));
    let extended = Packet {
        extra: vec![17, 0, 1, 4, 0, 0, 0, 0],
        next: Some(60),
        ..Packet::new(true, false, 21)
    };
    let optional = Packet {
        extra: vec![1; 8],
        ..Packet::new(false, true, 0)
    };
    for packet in plain.into_iter().chain([extended, optional]) {
        let frame = packet.to_frame();
        let parsed = parse(&header_of_one(&packet), &frame).unwrap();
        assert!(parsed.is_single());
        assert_eq!(
            (parsed.header_len(), parsed.segments(), parsed.segment_payload(0)),
            (0, 1, 0..frame.len())
        );
        let mut got = frame;
        parsed.finish_single(&mut got);
        assert_eq!(got, packet.to_bytes());
    }
}

#[test]
fn a_fragment_with_a_missing_checksum_gets_one_of_its_own_bytes() {
    // IPv6 fragments are made after checksums, but what the kernel asks for is done.
    let packet = Packet {
        extra: vec![17, 0, 0, 1, 0, 0, 0, 9],
        next: Some(44),
        ..Packet::new(true, false, 64)
    };
    let parsed = parse(&header_of_one(&packet), &packet.to_frame()).unwrap();
    let mut got = packet.to_frame();
    parsed.finish_single(&mut got);
    assert_eq!(got, packet.to_bytes());
}

#[test]
fn a_datagram_whose_sum_is_zero_says_so_in_ones() {
    for (ipv6, tcp) in EACH {
        let mut packet = Packet::new(ipv6, tcp, 100);
        packet.payload[..2].fill(0);
        // Adding what is missing to the last bit makes the sum 0xffff, its complement 0.
        let bytes = packet.to_bytes();
        let rest = number(&bytes, packet.checksum_at());
        packet.payload[..2].copy_from_slice(&rest.to_be_bytes());
        let zero = if tcp { 0 } else { 0xffff };
        let single = split(
            &parse(&header_of_one(&packet), &packet.to_frame()).unwrap(),
            &packet.to_frame(),
        );
        assert_eq!(number(&single[0], packet.checksum_at()), zero);
        let segment = packets_of(&packet, &header(&packet, 100));
        assert_eq!(number(&segment[0], packet.checksum_at()), zero);
    }
}

#[test]
fn a_complete_packet_stays_as_it_is_whatever_it_is() {
    for bytes in [
        vec![0x45],
        vec![0x60; 39],
        Packet::new(false, false, 10).to_bytes(),
    ] {
        let parsed = parse(&VnetHeader::default(), &bytes).unwrap();
        let mut got = bytes.clone();
        parsed.finish_segment(0, &bytes, &mut got);
        assert_eq!(got, bytes);
    }
}
