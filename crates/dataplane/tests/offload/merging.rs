//! One test for each rule of merging.

use warren_dataplane::offload::VnetHeader;
use warren_dataplane::offload::merge::MAX_PIECES;

use crate::law::packets::Packet;
use crate::law::tun_frame::sums::{fault, number};
use crate::law::{merge, packets_come_back};

/// Which packets came out as one frame, after the law has been held to them.
fn frames(packets: &[Packet]) -> Vec<Vec<usize>> {
    frames_of_bytes(&packets.iter().map(Packet::to_bytes).collect::<Vec<_>>())
}

fn frames_of_bytes(packets: &[Vec<u8>]) -> Vec<Vec<usize>> {
    packets_come_back(packets, true);
    packets_come_back(packets, false);
    merge(packets, true)
        .into_iter()
        .map(|merged| merged.packets)
        .collect()
}

/// So many packets that follow each other.
fn run(ipv6: bool, tcp: bool, lengths: &[usize]) -> Vec<Packet> {
    let mut sequence = 0xffff_fff0_u32;
    let mut packets = Vec::new();
    for (i, length) in lengths.iter().enumerate() {
        packets.push(Packet {
            id: 0xffff_u16.wrapping_add(i as u16),
            sequence,
            ..Packet::new(ipv6, tcp, *length)
        });
        sequence = sequence.wrapping_add(*length as u32);
    }
    packets
}

const EACH: [(bool, bool); 4] = [(false, true), (true, true), (false, false), (true, false)];

/// Three equal packets of each kind, of which the second is changed: each time it must be left alone.
fn breaks(kinds: &[(bool, bool)], change: impl Fn(&mut Packet)) {
    for (ipv6, tcp) in kinds {
        let mut packets = run(*ipv6, *tcp, &[500; 4]);
        assert_eq!(frames(&packets).len(), 1, "IPv6 {ipv6}, TCP {tcp}");
        change(&mut packets[1]);
        let got = frames(&packets);
        assert_eq!(got[..2], [vec![0], vec![1]], "IPv6 {ipv6}, TCP {tcp}");
    }
}

#[test]
fn what_follows_in_a_flow_becomes_one_frame() {
    for (ipv6, tcp) in EACH {
        let packets = run(ipv6, tcp, &[1200, 1200, 1200, 300]);
        assert_eq!(frames(&packets), [[0, 1, 2, 3]]);
        let bytes: Vec<_> = packets.iter().map(Packet::to_bytes).collect();
        let merged = &merge(&bytes, true)[0];
        let whole = Packet {
            payload: packets.iter().flat_map(|packet| packet.payload.clone()).collect(),
            ..packets[0].clone()
        };
        assert_eq!(merged.bytes, whole.to_frame());
        assert_eq!(merged.header, crate::splitting::header(&whole, 1200));
    }
}

#[test]
fn a_packet_alone_goes_without_a_word_about_it() {
    for (ipv6, tcp) in EACH {
        let packet = Packet::new(ipv6, tcp, 100).to_bytes();
        let merged = &merge(std::slice::from_ref(&packet), true)[0];
        assert_eq!(merged.header, VnetHeader::default());
        assert_eq!(merged.bytes, packet);
    }
    assert!(merge(&[vec![]], true).is_empty());
}

#[test]
fn datagrams_are_merged_only_for_a_kernel_that_takes_them() {
    for (ipv6, tcp) in EACH {
        let packets: Vec<_> = run(ipv6, tcp, &[500; 3]).iter().map(Packet::to_bytes).collect();
        assert_eq!(merge(&packets, false).len(), if tcp { 1 } else { 3 });
    }
}

#[test]
fn a_shorter_packet_is_the_last_and_a_longer_one_the_next_first() {
    for (ipv6, tcp) in EACH {
        let packets = run(ipv6, tcp, &[500, 500, 499, 500, 500, 501, 501]);
        assert_eq!(frames(&packets), [vec![0, 1, 2], vec![3, 4], vec![5, 6]]);
    }
}

#[test]
fn a_push_ends_a_frame_and_is_kept() {
    let mut packets = run(false, true, &[500; 5]);
    packets[1].flags |= 8;
    packets[2].flags |= 8;
    assert_eq!(frames(&packets), [vec![0, 1], vec![2], vec![3, 4]]);
    let bytes: Vec<_> = packets.iter().map(Packet::to_bytes).collect();
    let flags: Vec<_> = merge(&bytes, true)
        .iter()
        .map(|merged| merged.bytes[33])
        .collect();
    assert_eq!(flags, [0x18, 0x18, 0x10]);
}

#[test]
fn no_other_flag_is_merged() {
    for flag in [0x01, 0x02, 0x04, 0x20, 0x40, 0x80] {
        breaks(&EACH[..2], |packet| packet.flags |= flag);
    }
    breaks(&EACH[..2], |packet| packet.flags = 0);
    // Accurate ECN's third bit, and the reserved ones.
    for bit in [1, 2, 4, 8] {
        let mut bytes: Vec<_> = run(false, true, &[500; 3]).iter().map(Packet::to_bytes).collect();
        bytes[1][32] |= bit;
        let sum = number(&bytes[1], 36);
        let changed = u32::from(sum) + 0xffff - (u32::from(bit) << 8);
        let changed = (changed & 0xffff) + (changed >> 16);
        bytes[1][36..38].copy_from_slice(&(changed as u16).to_be_bytes());
        assert_eq!(frames_of_bytes(&bytes), [[0], [1], [2]]);
    }
}

#[test]
fn headers_that_differ_are_not_merged() {
    breaks(&EACH, |packet| packet.class ^= 1);
    breaks(&EACH, |packet| packet.hops -= 1);
    breaks(&EACH[..2], |packet| packet.acknowledgement += 1);
    breaks(&EACH[..2], |packet| packet.window -= 1);
    breaks(&EACH[..2], |packet| packet.sequence += 1);
    breaks(&EACH[..2], |packet| packet.options = vec![1; 4]);
    breaks(&[EACH[1], EACH[3]], |packet| packet.flow_label ^= 1);
    breaks(&[EACH[0], EACH[2]], |packet| packet.dont_fragment = false);
}

#[test]
fn options_are_merged_when_they_are_equal() {
    // A timestamp, padded as usual.
    let stamp = |value: u8| vec![1, 1, 8, 10, 0, 0, 0, value, 0, 0, 0, 9];
    let mut packets = run(true, true, &[500; 4]);
    for (packet, value) in packets.iter_mut().zip([5, 5, 6, 6]) {
        packet.options = stamp(value);
    }
    assert_eq!(frames(&packets), [[0, 1], [2, 3]]);
}

#[test]
fn identifications_count_where_packets_may_be_fragmented() {
    for tcp in [true, false] {
        let mut packets = run(false, tcp, &[500; 4]);
        for packet in &mut packets {
            packet.id = 0;
        }
        assert_eq!(frames(&packets).len(), 1);
        for packet in &mut packets {
            packet.dont_fragment = false;
        }
        assert_eq!(frames(&packets).len(), 4);
        for (packet, id) in packets.iter_mut().zip([0xffff, 0, 1, 3]) {
            packet.id = id;
        }
        assert_eq!(frames(&packets), [vec![0, 1, 2], vec![3]]);
    }
}

#[test]
fn options_of_ipv4_extension_headers_and_fragments_are_not_merged() {
    breaks(&[EACH[0], EACH[2]], |packet| packet.extra = vec![1; 4]);
    for next in [0, 43, 44, 60] {
        breaks(&[EACH[1], EACH[3]], |packet| {
            packet.next = Some(next);
            packet.extra = vec![if packet.tcp { 6 } else { 17 }, 0, 1, 4, 0, 0, 0, 0];
        });
    }
    for (at, bit) in [(6, 0x20), (6, 0x80), (7, 1)] {
        for tcp in [true, false] {
            let mut bytes: Vec<_> = run(false, tcp, &[500; 3]).iter().map(Packet::to_bytes).collect();
            bytes[1][at] |= bit;
            assert_eq!(frames_of_bytes(&bytes), [[0], [1], [2]]);
        }
    }
}

#[test]
fn what_belongs_to_an_unknown_flow_is_not_overtaken() {
    let mut bytes: Vec<_> = run(false, false, &[500; 4])
        .iter()
        .map(Packet::to_bytes)
        .collect();
    // A later fragment has no ports. It lies between the addresses of the flow.
    let mut fragment = bytes[0].clone();
    fragment[7] = 9;
    fragment[20..24].fill(0xee);
    bytes.insert(2, fragment.clone());
    assert_eq!(frames_of_bytes(&bytes), [vec![0, 1], vec![2], vec![3, 4]]);
    // Between others it is in nobody's way.
    bytes[2][12] ^= 1;
    assert_eq!(frames_of_bytes(&bytes), [vec![0, 1, 3, 4], vec![2]]);
    // Nor is a ping.
    fragment[7] = 0;
    fragment[9] = 1;
    bytes[2] = fragment;
    assert_eq!(frames_of_bytes(&bytes), [vec![0, 1, 3, 4], vec![2]]);
}

#[test]
fn flows_side_by_side_are_told_apart() {
    for (ipv6, tcp) in EACH {
        let first = run(ipv6, tcp, &[500; 3]);
        let other_host = first.iter().cloned().map(|packet| Packet { host: 9, ..packet });
        let other_port = first.iter().cloned().map(|packet| Packet { port: 9, ..packet });
        let packets: Vec<_> = first
            .iter()
            .cloned()
            .zip(other_host.zip(other_port))
            .flat_map(|(a, (b, c))| [a, b, c])
            .collect();
        assert_eq!(frames(&packets), [[0, 3, 6], [1, 4, 7], [2, 5, 8]]);
    }
}

#[test]
fn with_too_many_flows_the_longest_known_one_is_forgotten() {
    let mut packets: Vec<_> = (0..65)
        .map(|port| Packet {
            port,
            ..Packet::new(false, true, 500)
        })
        .collect();
    let next = |packet: &Packet| Packet {
        sequence: 1500,
        ..packet.clone()
    };
    packets.push(next(&packets[1]));
    packets.push(next(&packets[0]));
    let got = frames(&packets);
    assert_eq!(got[1], [1, 65]);
    assert_eq!(got[0], [0]);
    assert_eq!(got[65], [66]);
}

#[test]
fn a_wrong_checksum_is_handed_on_for_the_receiver_to_count() {
    for (ipv6, tcp) in EACH {
        for wrong in [0, 1, 2] {
            let mut bytes: Vec<_> = run(ipv6, tcp, &[500; 3]).iter().map(Packet::to_bytes).collect();
            bytes[wrong][200] ^= 4;
            let expected: &[Vec<usize>] = match wrong {
                0 => &[vec![0], vec![1, 2]],
                1 => &[vec![0], vec![1], vec![2]],
                _ => &[vec![0, 1], vec![2]],
            };
            assert_eq!(
                frames_of_bytes(&bytes),
                expected,
                "IPv6 {ipv6}, TCP {tcp}, packet {wrong}"
            );
        }
    }
    // The header's own.
    let mut bytes: Vec<_> = run(false, true, &[500; 3]).iter().map(Packet::to_bytes).collect();
    bytes[1][11] ^= 1;
    assert_eq!(frames_of_bytes(&bytes), [[0], [1], [2]]);
}

/// A checksum of zero can be written as 0xffff too. Splitting would write zero.
#[test]
fn the_other_form_of_zero_is_left_to_its_sender() {
    let mut packets = run(false, true, &[500; 3]);
    // A word that was zero and becomes the checksum makes the checksum zero.
    packets[1].payload[..2].fill(0);
    packets[1].id = 0;
    let bytes = packets[1].to_bytes();
    packets[1].payload[..2].copy_from_slice(&bytes[36..38]);
    packets[1].id = number(&bytes, 10);
    let bytes: Vec<_> = packets.iter().map(Packet::to_bytes).collect();
    for place in [10, 36] {
        assert_eq!(number(&bytes[1], place), 0);
        assert_eq!(frames_of_bytes(&bytes), [[0, 1, 2]]);
        let mut bytes = bytes.clone();
        bytes[1][place..place + 2].fill(0xff);
        assert_eq!(fault(&bytes[1]), None);
        assert_eq!(frames_of_bytes(&bytes), [[0], [1], [2]]);
    }
}

#[test]
fn datagrams_without_checksum_or_payload_go_alone() {
    for ipv6 in [false, true] {
        let packets = run(ipv6, false, &[500; 3]);
        let mut bytes: Vec<_> = packets.iter().map(Packet::to_bytes).collect();
        let at = packets[1].checksum_at();
        bytes[1][at..at + 2].fill(0);
        assert_eq!(frames_of_bytes(&bytes), [[0], [1], [2]]);
    }
    for (ipv6, tcp) in EACH {
        assert_eq!(frames(&run(ipv6, tcp, &[500, 0, 500])), [[0], [1], [2]]);
    }
}

#[test]
fn a_packet_of_another_length_than_it_says_goes_alone() {
    for (ipv6, tcp) in EACH {
        for longer in [true, false] {
            let mut bytes: Vec<_> = run(ipv6, tcp, &[500; 3]).iter().map(Packet::to_bytes).collect();
            let len = bytes[1].len();
            bytes[1].resize(if longer { len + 4 } else { len - 4 }, 0);
            assert_eq!(frames_of_bytes(&bytes), [[0], [1], [2]]);
        }
    }
    // UDP's own length.
    let mut bytes: Vec<_> = run(false, false, &[500; 3])
        .iter()
        .map(Packet::to_bytes)
        .collect();
    bytes[1][25] ^= 1;
    assert_eq!(frames_of_bytes(&bytes), [[0], [1], [2]]);
}

#[test]
fn a_frame_is_no_longer_than_its_length_can_say_nor_has_more_pieces_than_a_write_takes() {
    for (ipv6, tcp) in EACH {
        let most = if tcp { MAX_PIECES } else { 64 };
        let got = frames(&run(ipv6, tcp, &vec![10; 200]));
        assert_eq!(got[0].len(), most);
        let got = frames(&run(ipv6, tcp, &[8000; 10]));
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [8, 2]);
    }
}
