//! What holds of [`Merge`] and [`Frame`] together, whatever packets come: nothing is lost, invented or overtaken within a flow,
//! and what is merged can be split to the same packets again.

use std::ops::Range;

use warren_dataplane::offload::merge::MAX_PIECES;
use warren_dataplane::offload::{Frame, MAX_FRAME, Merge, VnetHeader, unmerge};

#[path = "packets.rs"]
pub(crate) mod packets;
#[path = "tun_frame.rs"]
pub(crate) mod tun_frame;

use packets::Packet;
use tun_frame::split;
use tun_frame::sums::{fault, number};

/// Bytes that a packet is described with, see [`Script`].
const RECORD: usize = 8;

/// The first byte chooses between a frame that is split and merged, and packets of several flows that are merged.
pub(crate) fn holds(data: &[u8]) {
    match data.split_first() {
        Some((choice, rest)) if choice & 1 == 0 => frame_comes_back(*choice, rest),
        Some((choice, rest)) => {
            let mut script = Script::default();
            let packets: Vec<_> = rest
                .chunks_exact(RECORD)
                .map(|record| script.packet(record))
                .collect();
            packets_come_back(&packets, choice & 2 == 0);
        }
        None => {}
    }
}

/// Splits a frame and merges its packets: it is the same frame.
fn frame_comes_back(choice: u8, description: &[u8]) {
    let Some(([a, b, c, d, e, f], _)) = description.split_first_chunk() else {
        return;
    };
    let (ipv6, tcp) = (choice & 2 != 0, choice & 4 != 0);
    let payload = 2 + usize::from(u16::from_be_bytes([*a, *b])) % (MAX_FRAME - 130);
    let most = if tcp { MAX_PIECES } else { 64 };
    let least = payload.div_ceil(most);
    let gso_size = least + usize::from(u16::from_be_bytes([*c, *d])) % (payload - least);
    let packet = Packet {
        id: u16::from_be_bytes([*e, *f]),
        dont_fragment: choice & 8 != 0,
        flags: if choice & 16 == 0 { 0x10 } else { 0x18 },
        options: vec![1; usize::from(*f % 11) * 4],
        sequence: u32::from_be_bytes([0xff, 0xff, *e, *f]),
        ..Packet::new(ipv6, tcp, payload)
    };
    let vnet = VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        gso_type: match (tcp, ipv6) {
            (true, false) => VnetHeader::GSO_TCPV4,
            (true, true) => VnetHeader::GSO_TCPV6,
            (false, _) => VnetHeader::GSO_UDP_L4,
        },
        hdr_len: packet.header_len() as u16,
        gso_size: gso_size as u16,
        csum_start: packet.ip_len() as u16,
        csum_offset: if tcp { 16 } else { 6 },
    };
    let frame = packet.to_frame();
    tun_frame::holds(&[&vnet.encode()[..], &frame].concat());
    let parsed = Frame::parse(&vnet, &frame, frame.len()).expect("the frame is a good one");
    let packets = split(&parsed, &frame);
    assert!(packets.len() > 1);
    let merged = merge(&packets, true);
    assert_eq!(merged.len(), 1, "{} packets", packets.len());
    assert_eq!(merged[0].header, vnet);
    assert!(merged[0].bytes == frame, "the frame is another one");
    packets_come_back(&packets, true);
}

/// Merges packets and looks for them in the frames.
pub(crate) fn packets_come_back(packets: &[Vec<u8>], datagrams: bool) {
    let mut seen = vec![false; packets.len()];
    let mut order: Vec<usize> = Vec::new();
    for merged in merge(packets, datagrams) {
        let parsed = Frame::parse(&merged.header, &merged.bytes, merged.bytes.len());
        if merged.packets.len() == 1 {
            assert_eq!(merged.header, VnetHeader::default());
            assert!(
                merged.bytes == packets[merged.packets[0]],
                "a single packet has changed"
            );
        } else {
            assert!(merged.bytes.len() <= MAX_FRAME && merged.packets.len() <= MAX_PIECES);
            assert!(datagrams || merged.header.gso_type != VnetHeader::GSO_UDP_L4);
            let split = split(&parsed.expect("a merged frame is a good one"), &merged.bytes);
            assert_eq!(split.len(), merged.packets.len());
            for (got, number) in split.iter().zip(&merged.packets) {
                assert_eq!(fault(got), None);
                assert!(same(got, &packets[*number]), "packet {number} is another one");
            }
        }
        for number in merged.packets {
            assert!(
                !std::mem::replace(&mut seen[number], true),
                "packet {number} came twice"
            );
            for earlier in &order {
                assert!(
                    *earlier < number || !related(&packets[*earlier], &packets[number]),
                    "packet {number} was overtaken by {earlier}"
                );
            }
            order.push(number);
        }
    }
    let lost = packets
        .iter()
        .zip(&seen)
        .filter(|(packet, seen)| !packet.is_empty() && !**seen);
    assert_eq!(lost.count(), 0, "packets were lost");
}

/// A frame that came out.
pub(crate) struct Merged {
    pub(crate) header: VnetHeader,
    pub(crate) bytes: Vec<u8>,
    /// The numbers of its packets among those that were pushed.
    pub(crate) packets: Vec<usize>,
}

/// Merges packets that lie in one memory with gaps between, and takes the frames apart again.
pub(crate) fn merge(packets: &[Vec<u8>], datagrams: bool) -> Vec<Merged> {
    let mut memory = Vec::new();
    let mut places: Vec<Range<usize>> = Vec::new();
    for packet in packets {
        memory.extend([0x5a; 16]);
        places.push(memory.len()..memory.len() + packet.len());
        memory.extend(packet);
    }
    let before = memory.clone();
    let mut merge = Merge::new(datagrams);
    for place in &places {
        merge.push(&memory, place.clone());
    }
    assert!(memory == before, "pushing changed a packet");
    let numbered = |end: usize| {
        places
            .iter()
            .position(|place| place.end == end && !place.is_empty())
    };
    let mut frames = Vec::new();
    merge.flush(&mut memory, |header, pieces, memory| {
        frames.push(Merged {
            header: *header,
            bytes: pieces
                .iter()
                .flat_map(|piece| &memory[piece.clone()])
                .copied()
                .collect(),
            packets: pieces.iter().filter_map(|piece| numbered(piece.end)).collect(),
        });
        let mut back = Vec::new();
        unmerge(header, pieces, memory, |place, _| back.push(place));
        let expected: Vec<_> = pieces
            .iter()
            .filter_map(|piece| numbered(piece.end))
            .map(|i| places[i].clone())
            .collect();
        assert_eq!(back, expected, "a frame is taken apart to other packets");
    });
    assert!(merge.is_empty());
    assert!(
        memory == before,
        "a frame that was taken apart is not what it was"
    );
    frames
}

/// Equal, but for the identification of a packet that must not be fragmented, and the checksum over it.
fn same(a: &[u8], b: &[u8]) -> bool {
    let plain = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
        packet
    };
    plain(a) == plain(b)
}

/// Whether two packets must stay in order: those of one flow, and those between two addresses when the ports of one of them
/// cannot be told.
fn related(a: &[u8], b: &[u8]) -> bool {
    match (flow(a), flow(b)) {
        (Some((a, a_ports)), Some((b, b_ports))) => {
            a == b && (a_ports == b_ports || a_ports.is_none() || b_ports.is_none())
        }
        _ => false,
    }
}

type Ports<'p> = (u8, &'p [u8]);

/// Addresses of a packet of TCP or UDP, and what else tells its flow if that is in its place.
fn flow(packet: &[u8]) -> Option<(&[u8], Option<Ports<'_>>)> {
    match packet.first()? >> 4 {
        4 if packet.len() >= 20 && matches!(packet[9], 6 | 17) => {
            let whole = packet[0] & 15 == 5
                && number(packet, 6) & 0x3fff == 0
                && usize::from(number(packet, 2)) == packet.len();
            let ports = packet.get(20..24).filter(|_| whole);
            Some((&packet[12..20], ports.map(|ports| (packet[9], ports))))
        }
        6 if packet.len() >= 40 && packet[6] != 58 => {
            let whole = matches!(packet[6], 6 | 17) && usize::from(number(packet, 4)) == packet.len() - 40;
            let ports = packet.get(40..44).filter(|_| whole);
            Some((&packet[8..40], ports.map(|ports| (packet[6], ports))))
        }
        _ => None,
    }
}

/// Makes packets of short descriptions. Each flow goes on where it was, most of the time.
#[derive(Debug, Default)]
struct Script {
    sequence: [u32; 8],
    id: [u16; 8],
}

impl Script {
    /// `[flow, length (2), oddity, detail, place, change, when]`
    fn packet(&mut self, record: &[u8]) -> Vec<u8> {
        let [flow, high, low, oddity, detail, place, change, when] = record else {
            return Vec::new();
        };
        let flow = usize::from(flow % 8);
        let payload = match oddity % 4 {
            0 => usize::from(u16::from_be_bytes([*high, *low])) % 3000,
            _ => 100,
        };
        let mut packet = Packet {
            host: flow as u8 / 4,
            id: self.id[flow],
            sequence: self.sequence[flow],
            ..Packet::new(flow & 1 != 0, flow & 2 != 0, payload)
        };
        match oddity / 8 {
            0 => packet.flags = *detail,
            1 => packet.class = *detail,
            2 => packet.hops = *detail,
            3 => packet.window = u16::from(*detail),
            4 => packet.acknowledgement = u32::from(*detail),
            5 => packet.options = vec![*detail; usize::from(detail % 11) * 4],
            6 => packet.dont_fragment = false,
            7 => packet.id = u16::from(*detail),
            8 => packet.sequence = u32::from(*detail),
            9 => packet.flow_label = u16::from(*detail),
            10 | 11 => packet.flags |= 8,
            12 if packet.ipv6 => {
                packet.next = Some([0, 43, 44, 60][usize::from(detail % 4)]);
                packet.extra = vec![if packet.tcp { 6 } else { 17 }, 0, 0, 0, 0, 0, 0, *detail];
            }
            12 => packet.extra = vec![1; usize::from(detail % 11) * 4],
            _ => {}
        }
        self.sequence[flow] = packet.sequence.wrapping_add(payload as u32);
        self.id[flow] = packet.id.wrapping_add(1);
        let mut bytes = packet.to_bytes();
        // A change that its checksums do not know of; or a packet that is cut, or too long.
        match when {
            0..16 => {
                let at = usize::from(*place) % bytes.len();
                bytes[at] ^= change;
            }
            16 => bytes.truncate(usize::from(*place)),
            17 => bytes.extend(vec![*change; usize::from(*place)]),
            _ => {}
        }
        bytes
    }
}
