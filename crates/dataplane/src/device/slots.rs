//! Room for a batch of datagrams, in which packets become data messages in place.

use std::ops::Range;

use crate::noise::{DATA_HEADER_LEN, TAG_LEN, padded_len};

/// Bytes of a batch: small enough to stay in a core's cache from the first to the last time that they are touched.
const BATCH_LEN: usize = 144 << 10;

/// Slots of a batch, at most and at least. The least is for interfaces whose packets are as long as packets can be.
const SLOTS: (usize, usize) = (4, 128);

/// Slots in a row, each with room for header, packet and authenticator of one data message.
pub(super) struct Slots {
    memory: Vec<u8>,
    /// Bytes from one slot to the next.
    stride: usize,
    /// Bytes that a packet may have, padding included.
    room: usize,
    count: usize,
}

impl Slots {
    /// Slots for packets of up to `room` bytes, and for their padding.
    pub(super) fn new(room: usize) -> Self {
        // The interface's MTU, which bounds padding, may have grown since: any packet has room to be padded to the full.
        let room = padded_len(room, usize::MAX);
        // Slots that begin where cache lines do are encrypted a little faster.
        let stride = (DATA_HEADER_LEN + room + TAG_LEN).next_multiple_of(64);
        let (least, most) = SLOTS;
        let count = (BATCH_LEN / stride).clamp(least, most);
        Self {
            memory: vec![0; stride * count],
            stride,
            room,
            count,
        }
    }

    /// Bytes that a packet may have, padding included.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// All memory, for [`Self::datagram`]'s places.
    pub(super) fn memory(&self) -> &[u8] {
        &self.memory
    }

    /// The room for packets of the slots from `first` on.
    pub(super) fn packets_from(&mut self, first: usize) -> impl Iterator<Item = &mut [u8]> {
        let room = self.room;
        self.memory[first * self.stride..]
            .chunks_exact_mut(self.stride)
            .map(move |slot| &mut slot[DATA_HEADER_LEN..DATA_HEADER_LEN + room])
    }

    /// The room for a packet.
    pub(super) fn packet(&mut self, slot: usize) -> &mut [u8] {
        let start = slot * self.stride + DATA_HEADER_LEN;
        &mut self.memory[start..start + self.room]
    }

    /// The message with a (padded) packet of `len` bytes.
    pub(super) fn message(&mut self, slot: usize, len: usize) -> &mut [u8] {
        let place = self.place(slot, len);
        &mut self.memory[place]
    }

    /// The messages in a slot and the one after it.
    pub(super) fn two_messages(&mut self, slot: usize, lens: [usize; 2]) -> [&mut [u8]; 2] {
        let (one, other) = (self.place(slot, lens[0]), self.place(slot + 1, lens[1]));
        let (before, after) = self.memory.split_at_mut(other.start);
        [&mut before[one], &mut after[..other.len()]]
    }

    /// Where that message is.
    pub(super) fn place(&self, slot: usize, len: usize) -> Range<usize> {
        let start = slot * self.stride;
        start..start + DATA_HEADER_LEN + len + TAG_LEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_has_room_has_room_for_its_padding_whatever_the_mtu_is_by_now() {
        for room in [0, 1, 1280, 1420, 9000, 65_000, 65_535] {
            let slots = Slots::new(room);
            for mtu in [0, 1280, 1420, 1500, 9000, 65_535] {
                for len in room.saturating_sub(20)..=slots.room() {
                    assert!(padded_len(len, mtu) <= slots.room(), "{len} of {room}, MTU {mtu}");
                }
            }
        }
    }
}
