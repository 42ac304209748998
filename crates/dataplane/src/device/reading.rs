//! Reading frames of the interface straight into the slots that they are sent from.
//!
//! A long frame becomes one packet for each slot, with headers before its part of the payload. If the reader knew how
//! long headers and parts are, the kernel could put each part where it belongs. It does not know, but streams go on as
//! they began: the last long frame tells. When that was wrong the frame is copied together and cut again.

use std::io::{self, IoSliceMut};

use super::slots::Slots;
use crate::offload::{BadFrame, Frame, MAX_FRAME, VnetHeader};
use crate::tun::Tun;

/// Frames without parts in a row after which the next one is not expected to have any.
const SHORT_FRAMES: u8 = 16;

/// Parts of a frame that are expected at most.
const PARTS: usize = 64;

/// Bytes at the beginning of a frame that are looked at first: the longest IPv4 and TCP headers, and more than the
/// usual ones of IPv6.
const HEADERS: usize = 128;

/// How a long frame is cut: length of its headers, and of each packet's payload but the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    header_len: usize,
    segment_len: usize,
}

/// The reading end of the interface.
pub(super) struct Reader {
    expected: Option<Cut>,
    /// Short frames since the last long one.
    short: u8,
    /// What came beyond the slots.
    spill: Vec<u8>,
    /// A frame that was copied together.
    whole: Vec<u8>,
    /// The first bytes of the frame.
    headers: Vec<u8>,
}

/// A frame that was read.
pub(super) struct Arrival {
    /// How it is cut.
    pub(super) frame: Frame,
    /// Whether its payload is in the slots already, from the one that was named to [`Reader::read`] on.
    pub(super) in_place: bool,
}

/// Why there is no frame.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The kernel says so.
    Io(io::Error),
    /// It is none.
    Bad(BadFrame),
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            expected: None,
            short: 0,
            spill: vec![0; MAX_FRAME],
            whole: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// The first bytes of the frame read last: all its headers, and maybe more.
    pub(super) fn headers(&self) -> &[u8] {
        &self.headers
    }

    /// The frame read last, if it is not in place.
    pub(super) fn whole(&self) -> &[u8] {
        &self.whole
    }

    /// Slots that the next frame may take. A batch that has fewer left is better sent first.
    pub(super) fn slots_wanted(&self) -> usize {
        self.expected.map_or(1, |cut| {
            let payload_len = MAX_FRAME.saturating_sub(cut.header_len);
            payload_len.div_ceil(cut.segment_len.max(1)).min(PARTS)
        })
    }

    /// Reads a frame of the interface, if one waits, into the slots from `first` on, of which there must be one at least.
    pub(super) fn read(&mut self, tun: &Tun, slots: &mut Slots, first: usize) -> Result<Arrival, ReadError> {
        self.read_with(slots, first, tun.has_headers(), |parts| tun.read_at_once(parts))
    }

    /// Lays out the parts of the frame that is expected and lets `read` fill them.
    fn read_with(
        &mut self,
        slots: &mut Slots,
        first: usize,
        has_header: bool,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Result<Arrival, ReadError> {
        let room = slots.room();
        let cut = self
            .expected
            .filter(|cut| cut.header_len + cut.segment_len <= room && cut.segment_len > 0);
        let mut vnet = [0; VnetHeader::LEN];
        let mut parts: [IoSliceMut<'_>; PARTS + 2] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut count = 0;
        if has_header {
            parts[0] = IoSliceMut::new(&mut vnet);
            count = 1;
        }
        // What the first part can hold: also any packet that is not cut.
        let first_len = cut.map_or(room, |cut| cut.header_len + cut.segment_len);
        for (number, packet) in slots.packets_from(first).take(PARTS).enumerate() {
            let part = match cut {
                _ if number == 0 => &mut packet[..first_len],
                Some(cut) => &mut packet[cut.header_len..cut.header_len + cut.segment_len],
                None => break,
            };
            parts[count] = IoSliceMut::new(part);
            count += 1;
        }
        parts[count] = IoSliceMut::new(&mut self.spill);
        count += 1;
        let read = read(&mut parts[..count]).map_err(ReadError::Io)?;
        let len = match has_header {
            true => read.saturating_sub(VnetHeader::LEN),
            false => read,
        };
        let vnet = VnetHeader::parse(&vnet);
        self.take_apart(&vnet, len, slots, first, first_len, cut)
    }

    /// Finds out what was read.
    fn take_apart(
        &mut self,
        vnet: &VnetHeader,
        len: usize,
        slots: &mut Slots,
        first: usize,
        first_len: usize,
        cut: Option<Cut>,
    ) -> Result<Arrival, ReadError> {
        self.headers.clear();
        self.headers
            .extend_from_slice(&slots.packet(first)[..len.min(first_len).min(HEADERS)]);
        let frame = match Frame::parse(vnet, &self.headers, len) {
            Err(BadFrame::HeadersIncomplete) => {
                self.gather(slots, first, len, first_len, cut);
                self.headers.clone_from(&self.whole);
                Frame::parse(vnet, &self.whole, len)
            }
            frame => frame,
        }
        .map_err(ReadError::Bad)?;
        let in_place = if frame.is_single() {
            self.short = self.short.saturating_add(1);
            if self.short >= SHORT_FRAMES {
                self.expected = None;
            }
            len <= first_len
        } else {
            let found = Cut {
                header_len: frame.header_len(),
                segment_len: frame.segment_len(),
            };
            self.short = 0;
            self.expected = Some(found);
            // The parts that were laid out reach as far as there are slots and as PARTS.
            let parts = PARTS.min(slots.count() - first);
            (Some(found) == cut && frame.segments() <= parts) || len <= first_len && frame.segments() == 1
        };
        if !in_place {
            self.gather(slots, first, len, first_len, cut);
        }
        Ok(Arrival { frame, in_place })
    }

    /// Copies together what was read.
    fn gather(&mut self, slots: &mut Slots, first: usize, len: usize, first_len: usize, cut: Option<Cut>) {
        self.whole.clear();
        for (number, packet) in slots.packets_from(first).take(PARTS).enumerate() {
            let part = match cut {
                _ if number == 0 => &packet[..first_len],
                Some(cut) => &packet[cut.header_len..cut.header_len + cut.segment_len],
                None => break,
            };
            let left = len - self.whole.len();
            self.whole.extend_from_slice(&part[..part.len().min(left)]);
        }
        let left = (len - self.whole.len()).min(self.spill.len());
        self.whole.extend_from_slice(&self.spill[..left]);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    const ROOM: usize = 1420;

    /// A frame of TCP over IPv4 with so much payload, to be cut to `segment_len`, or not to be cut.
    fn frame(payload_len: usize, segment_len: Option<u16>) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&u16::try_from(40 + payload_len).unwrap().to_be_bytes());
        packet[8] = 64;
        packet[9] = 6;
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[32] = 5 << 4;
        packet[33] = 0x10;
        packet.extend((0..payload_len).map(|at| u8::try_from(at % 251).unwrap()));
        let vnet = segment_len.map_or(VnetHeader::default(), |gso_size| VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            gso_type: VnetHeader::GSO_TCPV4,
            hdr_len: 40,
            gso_size,
            csum_start: 20,
            csum_offset: 16,
        });
        [vnet.encode().as_slice(), &packet].concat()
    }

    /// What the kernel does with a frame.
    fn scatter(frame: &[u8], parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut rest = frame;
        for part in parts {
            let (now, later) = rest.split_at(rest.len().min(part.len()));
            part[..now.len()].copy_from_slice(now);
            rest = later;
        }
        Ok(frame.len() - rest.len())
    }

    /// Reads a frame, and checks that its payload is found where the arrival says. Says whether that was in place.
    fn read(reader: &mut Reader, slots: &mut Slots, first: usize, bytes: &[u8]) -> bool {
        let arrival = reader
            .read_with(slots, first, true, |parts| scatter(bytes, parts))
            .unwrap();
        let packet = &bytes[VnetHeader::LEN..];
        let frame = &arrival.frame;
        assert_eq!(&reader.headers()[..40], &packet[..40]);
        if !arrival.in_place {
            assert_eq!(reader.whole(), packet);
            return false;
        }
        for segment in 0..frame.segments() {
            let payload = &packet[frame.segment_payload(segment)];
            let at = frame.header_len();
            assert_eq!(
                &slots.packet(first + segment)[at..at + payload.len()],
                payload,
                "{segment}"
            );
        }
        true
    }

    #[test]
    fn a_stream_that_goes_on_as_it_began_lies_in_place() {
        let (mut reader, mut slots) = (Reader::new(), Slots::new(ROOM));
        assert!(
            !read(&mut reader, &mut slots, 0, &frame(60_000, Some(1380))),
            "nothing is known of it yet"
        );
        for (first, payload_len) in [
            (0, 60_000),
            (0, 65_000),
            (44, 60_000),
            (3, 2000),
            (0, 1381),
            (0, 1380),
            (0, 1),
        ] {
            assert!(
                read(&mut reader, &mut slots, first, &frame(payload_len, Some(1380))),
                "{payload_len}"
            );
        }
    }

    #[test]
    fn a_frame_that_is_not_what_was_expected_is_found_whole() {
        let (mut reader, mut slots) = (Reader::new(), Slots::new(ROOM));
        for segment_len in [1380, 1000, 1379, 1380, 536] {
            assert!(
                !read(&mut reader, &mut slots, 0, &frame(60_000, Some(segment_len))),
                "{segment_len}"
            );
        }
        // Too short for what comes: not enough slots are left.
        let first = slots.count() - 2;
        read(&mut reader, &mut slots, 0, &frame(60_000, Some(1380)));
        assert!(!read(&mut reader, &mut slots, first, &frame(60_000, Some(1380))));
    }

    #[test]
    fn packets_that_are_not_cut_lie_in_one_piece_whatever_was_expected() {
        let (mut reader, mut slots) = (Reader::new(), Slots::new(ROOM));
        assert!(read(&mut reader, &mut slots, 0, &frame(1380, None)));
        read(&mut reader, &mut slots, 0, &frame(9000, Some(500)));
        assert!(
            !read(&mut reader, &mut slots, 0, &frame(1380, None)),
            "longer than the first part"
        );
        assert!(read(&mut reader, &mut slots, 0, &frame(100, None)));
        for _ in 0..SHORT_FRAMES {
            read(&mut reader, &mut slots, 0, &frame(0, None));
        }
        assert!(
            read(&mut reader, &mut slots, 0, &frame(1380, None)),
            "long frames are no longer expected"
        );
    }

    #[test]
    fn a_packet_that_no_slot_has_room_for_is_found_whole() {
        let (mut reader, mut slots) = (Reader::new(), Slots::new(ROOM));
        assert!(!read(&mut reader, &mut slots, 5, &frame(8880, None)));
    }

    #[test]
    fn without_headers_every_frame_is_a_packet() {
        let (mut reader, mut slots) = (Reader::new(), Slots::new(ROOM));
        let bytes = &frame(1000, None)[VnetHeader::LEN..];
        let arrival = reader
            .read_with(&mut slots, 0, false, |parts| scatter(bytes, parts))
            .unwrap();
        assert!(arrival.in_place && arrival.frame.is_single());
        assert_eq!(&slots.packet(0)[..bytes.len()], bytes);
    }
}
