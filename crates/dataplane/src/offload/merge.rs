//! Frames of the packets that a peer sent.
//!
//! The rules are those of Linux (`tcp_gro_receive`, `udp_gro_receive`, `inet_gro_receive`), and stricter where a frame could
//! not be split to the same packets again: what `split` makes of a merged frame is byte by byte what was pushed, but for the
//! identifications of IPv4 packets that must not be fragmented, which mean nothing (RFC 6864, section 4.1).

use std::ops::Range;

use super::candidate::{Candidate, Class, Flow};
use super::flows::Flows;
use super::headers::{
    TCP_CHECKSUM, UDP_CHECKSUM, finish_ip, flag, is_ipv6, length, protocol, pseudo_header, put_number,
};
use super::{Frame, MAX_FRAME, VnetHeader};

/// Most places that a frame consists of. Far below what `writev` takes (`IOV_MAX`, 1,024); a frame of full packets has
/// no more than 46.
pub const MAX_PIECES: usize = 128;

/// Most datagrams of a frame: what Linux makes itself, and what older kernels take (`UDP_MAX_SEGMENTS`).
const MAX_DATAGRAMS: usize = 64;

/// Longest headers of a merged frame: IPv6 and TCP with options.
const MAX_HEADERS: usize = 100;

/// Collects the packets of a batch and merges those that follow each other in a flow.
///
/// Packets stay where they are in the caller's memory: a frame is a list of places. Frames leave in the order in which
/// their first packets came, and a packet is only put to a frame when no other one of its flow came between. So the
/// order within a flow is kept. Once as many packets have been pushed as ever come in a batch, nothing allocates.
#[derive(Debug)]
pub struct Merge {
    datagrams: bool,
    batch: Vec<Merged>,
    /// What follows the first packets, of all frames together.
    pieces: Vec<Piece>,
    flows: Flows,
    /// The places of the frame that is being handed out.
    places: Vec<Range<usize>>,
}

/// A frame: its first packet, and the payload of those that follow.
#[derive(Debug)]
struct Merged {
    packet: Range<usize>,
    candidate: Candidate,
    /// Packets, the first included.
    count: usize,
    /// Payload bytes.
    payload_len: usize,
    /// The last packet's data is to be handed on at once (PSH).
    pushed: bool,
    /// The first packet's checksums have been found right. That can wait for a second one to come.
    verified: bool,
    /// The first and the last of the pieces.
    next: usize,
    last: usize,
}

/// The payload of a packet.
#[derive(Debug)]
struct Piece {
    place: Range<usize>,
    next: usize,
}

/// The end of a list of pieces.
const END: usize = usize::MAX;

impl Merge {
    /// An empty batch. `datagrams` says whether the interface takes UDP frames too (`TUN_F_USO4` and `TUN_F_USO6`).
    pub fn new(datagrams: bool) -> Self {
        Self {
            datagrams,
            batch: Vec::new(),
            pieces: Vec::new(),
            flows: Flows::default(),
            places: Vec::with_capacity(MAX_PIECES),
        }
    }

    /// Says anew whether the interface takes UDP frames; for packets pushed from now on.
    pub fn set_datagrams(&mut self, datagrams: bool) {
        self.datagrams = datagrams;
    }

    /// Whether nothing has been pushed since the last [`Self::flush`].
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Adds the packet that lies at `packet` in `memory`, without padding. Its bytes must stay until [`Self::flush`], and
    /// all packets of a batch lie in the same memory. An empty packet is left out.
    ///
    /// # Panics
    /// When `packet` is not within `memory`.
    pub fn push(&mut self, memory: &[u8], packet: Range<usize>) {
        if packet.is_empty() {
            return;
        }
        match Class::of(&memory[packet.clone()], self.datagrams) {
            Class::Mergeable(flow, candidate) => return self.merge(memory, packet, flow, candidate),
            Class::Alone(flow) => self.flows.end(&flow),
            // It may be part of any of them.
            Class::Unclear(flow) => self.flows.end_between(&flow),
            Class::Other => {}
        }
        self.append(packet, Candidate::default());
    }

    fn merge(&mut self, memory: &[u8], packet: Range<usize>, flow: Flow, candidate: Candidate) {
        let slot = self.flows.slot(flow);
        if let Some(frame) = slot.frame {
            let merged = &mut self.batch[frame];
            if merged.goes_on_with(memory, &packet, &candidate) {
                let full = merged.take(&mut self.pieces, packet, &candidate);
                if full {
                    slot.frame = None;
                }
                return;
            }
        }
        slot.frame = (!candidate.is_last()).then_some(self.batch.len());
        self.append(packet, candidate);
    }

    fn append(&mut self, packet: Range<usize>, candidate: Candidate) {
        self.batch.push(Merged {
            packet,
            count: 1,
            payload_len: candidate.payload_len,
            candidate,
            pushed: false,
            verified: false,
            next: END,
            last: END,
        });
    }

    /// Hands out all frames, each with its header and the places of its bytes in order: the first is a whole packet, with
    /// headers that speak for the frame, the others are payload. There are at most [`MAX_PIECES`] of them. `emit` gets the
    /// memory too, to write from or to [`unmerge`]. The batch is empty afterwards.
    pub fn flush(
        &mut self,
        memory: &mut [u8],
        mut emit: impl FnMut(&VnetHeader, &[Range<usize>], &mut [u8]),
    ) {
        for merged in &self.batch {
            self.places.clear();
            self.places.push(merged.packet.clone());
            let mut at = merged.next;
            while let Some(piece) = self.pieces.get(at) {
                self.places.push(piece.place.clone());
                at = piece.next;
            }
            let header = if merged.count > 1 {
                merged.finish(&mut memory[merged.packet.clone()])
            } else {
                VnetHeader::default()
            };
            emit(&header, &self.places, memory);
        }
        self.batch.clear();
        self.pieces.clear();
        self.flows.clear();
    }
}

/// Takes a frame of [`Merge::flush`] apart again, for a kernel that refuses it: its packets still lie where they were
/// pushed, and become byte by byte what they were. `each` gets the place of one after the other, and the memory.
pub fn unmerge(
    header: &VnetHeader,
    places: &[Range<usize>],
    memory: &mut [u8],
    mut each: impl FnMut(Range<usize>, &mut [u8]),
) {
    let header_len = usize::from(header.hdr_len);
    if let [first, _, ..] = places {
        // Only the first packet's headers have been changed; it is the first segment again.
        let packet = &mut memory[first.clone()];
        let mut headers = [0; MAX_HEADERS];
        let headers = &mut headers[..header_len];
        headers.copy_from_slice(&packet[..header_len]);
        let total_len = places.iter().map(ExactSizeIterator::len).sum();
        if let Ok(frame) = Frame::parse(header, headers, total_len) {
            frame.finish_segment(0, headers, packet);
        }
    }
    for (i, place) in places.iter().enumerate() {
        let start = if i == 0 {
            place.start
        } else {
            place.start - header_len
        };
        each(start..place.end, memory);
    }
}

impl Merged {
    /// Whether a packet of the same flow is what the sender sent next, in packets that a frame can stand for.
    #[inline]
    fn goes_on_with(&mut self, memory: &[u8], packet: &Range<usize>, candidate: &Candidate) -> bool {
        let most = if candidate.is_tcp() {
            MAX_PIECES
        } else {
            MAX_DATAGRAMS
        };
        let (first, packet) = (&memory[self.packet.clone()], &memory[packet.clone()]);
        let follows = self.count < most
            && self.candidate.header_len + self.payload_len + candidate.payload_len <= MAX_FRAME
            && candidate.payload_len <= self.candidate.payload_len
            && self
                .candidate
                .agrees(first, candidate, packet, self.count, self.payload_len);
        if !follows || !candidate.is_intact(packet) {
            return false;
        }
        self.verified = self.verified || self.candidate.is_intact(first);
        self.verified
    }

    /// Adds a packet at the end, and says whether it was the last one.
    #[inline]
    fn take(&mut self, pieces: &mut Vec<Piece>, packet: Range<usize>, candidate: &Candidate) -> bool {
        let added = pieces.len();
        pieces.push(Piece {
            place: packet.start + candidate.header_len..packet.end,
            next: END,
        });
        match pieces.get_mut(self.last) {
            Some(last) => last.next = added,
            None => self.next = added,
        }
        self.last = added;
        self.count += 1;
        self.payload_len += candidate.payload_len;
        self.pushed = candidate.is_last();
        self.pushed || candidate.payload_len < self.candidate.payload_len
    }

    /// Makes the first packet's headers those of the frame. The checksum is left to the kernel, which rarely needs it.
    fn finish(&self, packet: &mut [u8]) -> VnetHeader {
        let Candidate {
            ip_len, header_len, ..
        } = self.candidate;
        let is_tcp = self.candidate.is_tcp();
        let total_len = header_len + self.payload_len;
        let transport_len = length(total_len - ip_len);
        finish_ip(packet, ip_len, total_len);
        let (gso_type, checksum, protocol) = match (is_tcp, is_ipv6(packet)) {
            (true, false) => (VnetHeader::GSO_TCPV4, TCP_CHECKSUM, protocol::TCP),
            (true, true) => (VnetHeader::GSO_TCPV6, TCP_CHECKSUM, protocol::TCP),
            (false, _) => (VnetHeader::GSO_UDP_L4, UDP_CHECKSUM, protocol::UDP),
        };
        let pseudo = pseudo_header(packet, protocol).plus_number(transport_len);
        let transport = &mut packet[ip_len..];
        if !is_tcp {
            put_number(transport, 4, transport_len);
        } else if self.pushed {
            transport[13] |= flag::PSH;
        }
        put_number(transport, checksum, pseudo.folded());
        VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            gso_type,
            hdr_len: length(header_len),
            gso_size: length(self.candidate.payload_len),
            csum_start: length(ip_len),
            csum_offset: length(checksum),
        }
    }
}
