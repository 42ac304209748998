//! What holds of [`Frame`], whatever stands before and in a frame of the interface: a [`VnetHeader`], then the frame.

use warren_dataplane::offload::{BadFrame, Frame, VnetHeader};

#[path = "sums.rs"]
pub(crate) mod sums;

use sums::{fault, fold, number, words};

/// A frame is refused, or all its bytes are in packets that are right, and of the headers that the frame had.
pub(crate) fn holds(data: &[u8]) {
    let Some((header, frame)) = data.split_first_chunk() else {
        return;
    };
    let vnet = VnetHeader::parse(header);
    assert_eq!(vnet.encode(), *header);
    let parsed = Frame::parse(&vnet, frame, frame.len());
    // What lies behind the headers is not looked at, and without all of them no other answer is given.
    for len in 0..frame.len().min(140) {
        match Frame::parse(&vnet, &frame[..len], frame.len()) {
            Err(BadFrame::HeadersIncomplete) => {
                assert!(parsed.is_err() || parsed.is_ok_and(|frame| len < frame.header_len().max(1)));
            }
            answer => assert_eq!(answer, parsed, "with {len} bytes"),
        }
    }
    let Ok(parsed) = parsed else {
        assert_ne!(parsed, Err(BadFrame::HeadersIncomplete));
        return;
    };
    let packets = split(&parsed, frame);
    let longest = packets.iter().map(Vec::len).max();
    assert_eq!(longest, Some(parsed.longest_packet()));
    let payload: Vec<u8> = packets
        .iter()
        .flat_map(|packet| &packet[parsed.header_len()..])
        .copied()
        .collect();
    assert_eq!(payload.len(), parsed.payload_len());
    if parsed.is_single() {
        completed(&vnet, frame, &payload);
    } else {
        assert_eq!(payload, frame[parsed.header_len()..]);
        let last = packets.len() - 1;
        for (i, packet) in packets.iter().enumerate() {
            continues(&vnet, frame, packet, i, i == last, parsed.header_len());
        }
    }
}

/// The packets of a frame.
pub(crate) fn split(parsed: &Frame, frame: &[u8]) -> Vec<Vec<u8>> {
    (0..parsed.segments())
        .map(|i| {
            // What was in the room for the headers before does not matter.
            let mut packet = vec![0xa5; parsed.header_len()];
            packet.extend(&frame[parsed.segment_payload(i)]);
            parsed.finish_segment(i, frame, &mut packet);
            packet
        })
        .collect()
}

/// A single packet is as it was but for its checksum, if that was missing.
fn completed(vnet: &VnetHeader, frame: &[u8], packet: &[u8]) {
    if vnet.flags & VnetHeader::NEEDS_CSUM == 0 {
        assert_eq!(packet, frame);
        return;
    }
    let start = usize::from(vnet.csum_start);
    let at = start + usize::from(vnet.csum_offset);
    let mut without = packet.to_vec();
    without[at..at + 2].copy_from_slice(&frame[at..at + 2]);
    assert_eq!(without, frame);
    let checksum = number(packet, at);
    assert_eq!(fold(words(&frame[start..]) + u64::from(checksum)), 0xffff);
    assert!(
        checksum != 0 || vnet.csum_offset != 6,
        "a datagram without checksum"
    );
}

/// A segment has the frame's headers, with what must differ.
fn continues(vnet: &VnetHeader, frame: &[u8], packet: &[u8], i: usize, last: bool, header_len: usize) {
    let mut expected = frame[..header_len].to_vec();
    let tcp = vnet.gso_type & 0x7f != VnetHeader::GSO_UDP_L4;
    let ipv4 = frame[0] >> 4 == 4;
    let transport = header_len - if tcp { tcp_len(frame, header_len) } else { 8 };
    if ipv4 {
        expected[2..4].copy_from_slice(&(packet.len() as u16).to_be_bytes());
        expected[4..6].copy_from_slice(&number(frame, 4).wrapping_add(i as u16).to_be_bytes());
        expected[10..12].copy_from_slice(&packet[10..12]);
    } else {
        expected[4..6].copy_from_slice(&((packet.len() - 40) as u16).to_be_bytes());
    }
    let checksum = if tcp {
        let sequence =
            u32::from(number(frame, transport + 4)) << 16 | u32::from(number(frame, transport + 6));
        let sequence = sequence.wrapping_add(i as u32 * u32::from(vnet.gso_size));
        expected[transport + 4..transport + 8].copy_from_slice(&sequence.to_be_bytes());
        let not_last = if last { 0 } else { 0x09 };
        let not_first = if i == 0 { 0 } else { 0x80 };
        expected[transport + 13] &= !(not_last | not_first);
        transport + 16
    } else {
        expected[transport + 4..transport + 6]
            .copy_from_slice(&((packet.len() - transport) as u16).to_be_bytes());
        transport + 6
    };
    expected[checksum..checksum + 2].copy_from_slice(&packet[checksum..checksum + 2]);
    assert_eq!(expected, packet[..header_len]);
    let found = fault(packet);
    // With source routes, the kernel's sum is believed: it knows the last destination.
    let believed = vnet.flags & VnetHeader::NEEDS_CSUM != 0 && transport > if ipv4 { 20 } else { 40 };
    assert!(
        found.is_none() || (believed && found == Some("transport checksum")),
        "{found:?}"
    );
}

/// The headers end with the TCP header: the length that it says must lead back to it.
fn tcp_len(frame: &[u8], header_len: usize) -> usize {
    let mut at = if frame[0] >> 4 == 4 {
        usize::from(frame[0] & 15) * 4
    } else {
        40
    };
    if frame[0] >> 4 == 6 {
        let mut next = frame[6];
        while next != 6 {
            next = frame[at];
            at += (usize::from(frame[at + 1]) + 1) * 8;
        }
    }
    header_len - at
}
