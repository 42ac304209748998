//! Frames that are not split, each with the reason.

use warren_dataplane::offload::{BadFrame, Frame, VnetHeader};

use crate::law::packets::Packet;
use crate::splitting::{header, parse};

#[test]
fn headers_that_are_not_all_there_are_asked_for() {
    let packet = Packet {
        extra: vec![6, 0, 1, 4, 0, 0, 0, 0],
        next: Some(0),
        ..Packet::new(true, true, 2000)
    };
    let (vnet, frame) = (header(&packet, 1000), packet.to_frame());
    for len in 0..packet.header_len() {
        assert_eq!(
            Frame::parse(&vnet, &frame[..len], frame.len()),
            Err(BadFrame::HeadersIncomplete)
        );
    }
    let parsed = Frame::parse(&vnet, &frame[..packet.header_len()], frame.len());
    assert_eq!(parsed, parse(&vnet, &frame));
    assert!(parsed.is_ok());
}

#[test]
fn the_length_of_the_headers_is_a_hint_unless_it_is_impossible() {
    let packet = Packet::new(false, true, 2000);
    let frame = packet.to_frame();
    // Linux says how much of the frame is in one piece.
    for hdr_len in [0, 40, 54, 2040] {
        let vnet = VnetHeader {
            hdr_len,
            ..header(&packet, 1000)
        };
        assert_eq!(parse(&vnet, &frame).unwrap().header_len(), 40);
    }
    let vnet = VnetHeader {
        hdr_len: 2041,
        ..header(&packet, 1000)
    };
    assert_eq!(parse(&vnet, &frame), Err(BadFrame::HeaderLength(2041)));
}

#[test]
fn a_frame_that_contradicts_itself_is_refused_with_the_reason() {
    let packet = Packet::new(false, true, 2000);
    let good = header(&packet, 1000);
    let frame = packet.to_frame();
    let misplaced = |start, offset| BadFrame::ChecksumPlace { start, offset };
    let with = |at: usize, byte: u8| {
        let mut frame = frame.clone();
        frame[at] = byte;
        frame
    };
    let udp = Packet::new(false, false, 2000);
    let mut short_udp = udp.to_frame();
    short_udp[25] ^= 1;
    let none = VnetHeader { gso_type: 0, ..good };
    for (vnet, frame, reason) in [
        (good, vec![], BadFrame::Truncated),
        (none, vec![], BadFrame::Truncated),
        (good, with(0, 0x55), BadFrame::NotIp(5)),
        (none, with(0, 0x05), BadFrame::NotIp(0)),
        (
            VnetHeader { gso_size: 0, ..good },
            frame.clone(),
            BadFrame::SegmentLength,
        ),
        (
            VnetHeader { gso_type: 3, ..good },
            frame.clone(),
            BadFrame::Type(3),
        ),
        (
            VnetHeader {
                gso_type: 0x21,
                ..good
            },
            frame.clone(),
            BadFrame::Type(0x21),
        ),
        (
            VnetHeader { gso_type: 4, ..good },
            frame.clone(),
            BadFrame::Type(4),
        ),
        (
            VnetHeader { gso_type: 5, ..good },
            frame.clone(),
            BadFrame::Type(5),
        ),
        (good, with(9, 17), BadFrame::Type(1)),
        (
            VnetHeader {
                csum_start: 24,
                ..good
            },
            frame.clone(),
            misplaced(24, 16),
        ),
        (
            VnetHeader {
                csum_offset: 6,
                ..good
            },
            frame.clone(),
            misplaced(20, 6),
        ),
        (
            VnetHeader {
                csum_start: 2023,
                ..none
            },
            frame.clone(),
            misplaced(2023, 16),
        ),
        (
            VnetHeader {
                csum_start: 65_535,
                csum_offset: 65_534,
                ..none
            },
            frame.clone(),
            misplaced(65_535, 65_534),
        ),
        (
            VnetHeader {
                csum_start: 18,
                ..none
            },
            frame.clone(),
            misplaced(18, 16),
        ),
        (
            VnetHeader {
                csum_offset: 15,
                ..none
            },
            frame.clone(),
            misplaced(20, 15),
        ),
        (good, with(3, 0), BadFrame::Length),
        (good, with(0, 0x44), BadFrame::Length),
        (good, with(32, 0x40), BadFrame::Length),
        (header(&udp, 1000), short_udp, BadFrame::Length),
        (good, with(6, 0x20), BadFrame::Fragment),
        (good, with(7, 1), BadFrame::Fragment),
    ] {
        assert_eq!(parse(&vnet, &frame), Err(reason), "{vnet:?}");
    }
    // Where the headers end beyond the frame.
    let tiny = Packet::new(false, true, 0);
    let mut frame = tiny.to_frame();
    frame[32] = 0xf0;
    assert_eq!(parse(&header(&tiny, 1000), &frame), Err(BadFrame::Truncated));
    let fragment = Packet {
        extra: vec![6, 0, 0, 1, 0, 0, 0, 9],
        next: Some(44),
        ..Packet::new(true, true, 64)
    };
    assert_eq!(
        parse(&header(&fragment, 10), &fragment.to_frame()),
        Err(BadFrame::Fragment)
    );
    let endless = Packet {
        extra: vec![6, 255, 0, 1, 0, 0, 0, 9],
        next: Some(60),
        ..Packet::new(true, true, 64)
    };
    assert_eq!(
        parse(&header(&endless, 10), &endless.to_frame()),
        Err(BadFrame::Truncated)
    );
}
