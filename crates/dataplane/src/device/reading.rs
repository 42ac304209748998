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

    /// Reads a frame into the slots from `first` on, of which there must be one at least.
    pub(super) fn read(
        &mut self,
        tun: &Tun,
        slots: &mut Slots,
        first: usize,
        wait: bool,
    ) -> Result<Arrival, ReadError> {
        let room = slots.room();
        let cut = self
            .expected
            .filter(|cut| cut.header_len + cut.segment_len <= room && cut.segment_len > 0);
        let mut vnet = [0; VnetHeader::LEN];
        let mut parts: [IoSliceMut<'_>; PARTS + 2] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut count = 0;
        if tun.has_headers() {
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
        let parts = &mut parts[..count];
        let read = match wait {
            true => tun.read(parts),
            false => tun.read_at_once(parts),
        };
        let read = read.map_err(ReadError::Io)?;
        let len = match tun.has_headers() {
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

/// Bytes at the beginning of a frame that are looked at first: the longest IPv4 and TCP headers, and more than the
/// usual ones of IPv6.
const HEADERS: usize = 128;
