//! The packets of a frame that the kernel sends.
//!
//! What each packet gets is what Linux gives it (`inet_gso_segment`, `tcp_gso_segment`, `__udp_gso_segment`): IPv4
//! identifications count up, FIN and PSH stay with the last packet, CWR with the first.

use std::ops::Range;

use thiserror::Error;

use super::VnetHeader;
use super::checksum::Sum;
use super::headers::{
    IPV4_LEN, IPV6_LEN, TCP_CHECKSUM, TCP_LEN, UDP_CHECKSUM, UDP_LEN, finish_ip, flag, is_ipv6, length,
    long_number, number, protocol, pseudo_header, put_number,
};

/// What a frame of the interface is made of, and how its packets are made.
///
/// A frame that is one packet already has no headers of its own here: [`Self::header_len`] is 0 and the packet is the
/// payload of the only segment. So every frame goes the same way: put [`Self::segment_payload`] of each segment behind
/// `header_len` bytes of room, and call [`Self::finish_segment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    kind: Kind,
    header_len: usize,
    segment_len: usize,
    total_len: usize,
    segments: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One packet, complete.
    Complete,
    /// One packet without checksum.
    NeedsChecksum { start: usize, offset: usize },
    /// A TCP stream.
    Tcp(Layers),
    /// Datagrams.
    Udp(Layers),
}

/// Where the headers of a frame of several packets lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layers {
    /// Bytes of IP header, extension headers included: where the transport header begins.
    ip_len: usize,
    /// The sum of the pseudo-header without the length.
    pseudo: Sum,
}

/// Why a frame cannot be split. The kernel sends none of these; [`Self::HeadersIncomplete`] alone is the reader's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadFrame {
    /// The headers are longer than what was handed over of the frame: gather more of it and parse again.
    #[error("the headers reach beyond the bytes at hand")]
    HeadersIncomplete,
    /// The frame ends within its headers, or has no byte.
    #[error("the frame ends within its headers")]
    Truncated,
    /// Neither IPv4 nor IPv6.
    #[error("no IP packet: version {0}")]
    NotIp(u8),
    /// The headers are said to be longer than the frame.
    #[error("headers of {0} bytes do not fit the frame")]
    HeaderLength(u16),
    /// The checksum is said to be where it cannot be.
    #[error("no checksum is at {start} + {offset}")]
    ChecksumPlace {
        /// Where the bytes begin that it covers.
        start: u16,
        /// Its place in them.
        offset: u16,
    },
    /// A type that was not asked for (`TUNSETOFFLOAD`) or that the headers contradict.
    #[error("the frame is not of type {0:#x}")]
    Type(u8),
    /// Packets without payload.
    #[error("the frame is to be split to packets of no payload")]
    SegmentLength,
    /// The IP or UDP header tells another length, or a header is shorter than it can be.
    #[error("a length in the headers is wrong")]
    Length,
    /// A fragment.
    #[error("fragments cannot be split")]
    Fragment,
}

impl Frame {
    /// Looks at a frame of `total_len` bytes, of which `headers` are the first ones: as many as the headers have, or
    /// more. `vnet` is what the kernel says of it.
    pub fn parse(vnet: &VnetHeader, headers: &[u8], total_len: usize) -> Result<Self, BadFrame> {
        let front = Front { headers, total_len };
        let ip_len = match front.bytes(0, 1)?[0] >> 4 {
            4 => IPV4_LEN,
            6 => IPV6_LEN,
            version => return Err(BadFrame::NotIp(version)),
        };
        if usize::from(vnet.hdr_len) > total_len {
            return Err(BadFrame::HeaderLength(vnet.hdr_len));
        }
        match vnet.gso_type & !VnetHeader::GSO_ECN {
            VnetHeader::GSO_NONE => Self::single(vnet, ip_len, total_len),
            VnetHeader::GSO_TCPV4 | VnetHeader::GSO_TCPV6 | VnetHeader::GSO_UDP_L4 => {
                Self::several(vnet, front)
            }
            _ => Err(BadFrame::Type(vnet.gso_type)),
        }
    }

    fn single(vnet: &VnetHeader, ip_len: usize, total_len: usize) -> Result<Self, BadFrame> {
        let kind = if vnet.flags & VnetHeader::NEEDS_CSUM == 0 {
            Kind::Complete
        } else {
            let (start, offset) = (vnet.csum_start.into(), vnet.csum_offset.into());
            if start < ip_len || offset % 2 != 0 || start + offset + 2 > total_len {
                return Err(misplaced(vnet));
            }
            Kind::NeedsChecksum { start, offset }
        };
        Ok(Self {
            kind,
            header_len: 0,
            segment_len: total_len,
            total_len,
            segments: 1,
        })
    }

    fn several(vnet: &VnetHeader, front: Front<'_>) -> Result<Self, BadFrame> {
        let ip = Ip::parse(front)?;
        let gso_type = vnet.gso_type & !VnetHeader::GSO_ECN;
        let is_tcp = match (gso_type, ip.protocol, is_ipv6(front.headers)) {
            (VnetHeader::GSO_TCPV4, protocol::TCP, false) | (VnetHeader::GSO_TCPV6, protocol::TCP, true) => {
                true
            }
            (VnetHeader::GSO_UDP_L4, protocol::UDP, _) => false,
            _ => return Err(BadFrame::Type(vnet.gso_type)),
        };
        if vnet.gso_size == 0 {
            return Err(BadFrame::SegmentLength);
        }
        let (transport_len, checksum) = if is_tcp {
            (tcp_header_len(front, ip.len)?, TCP_CHECKSUM)
        } else {
            if usize::from(number(front.bytes(ip.len, UDP_LEN)?, 4)) != front.total_len - ip.len {
                return Err(BadFrame::Length);
            }
            (UDP_LEN, UDP_CHECKSUM)
        };
        let needs_checksum = vnet.flags & VnetHeader::NEEDS_CSUM != 0;
        if needs_checksum
            && (usize::from(vnet.csum_start) != ip.len || usize::from(vnet.csum_offset) != checksum)
        {
            return Err(misplaced(vnet));
        }
        // The destination in the pseudo-header is the last one, which source routes keep in an option. The kernel knows it:
        // its sum stands in the checksum's place.
        let pseudo = if ip.has_options && needs_checksum {
            Sum::default()
                .plus_number(number(front.headers, ip.len + checksum))
                .minus_number(length(front.total_len - ip.len))
        } else {
            pseudo_header(front.headers, ip.protocol)
        };
        let layers = Layers {
            ip_len: ip.len,
            pseudo,
        };
        let header_len = ip.len + transport_len;
        let segment_len = usize::from(vnet.gso_size);
        Ok(Self {
            kind: if is_tcp {
                Kind::Tcp(layers)
            } else {
                Kind::Udp(layers)
            },
            header_len,
            segment_len,
            total_len: front.total_len,
            segments: (front.total_len - header_len).div_ceil(segment_len).max(1),
        })
    }

    /// Whether the frame is one packet already, which [`Self::finish_single`] completes in place.
    pub fn is_single(&self) -> bool {
        matches!(self.kind, Kind::Complete | Kind::NeedsChecksum { .. })
    }

    /// Bytes of IP and transport header that each segment begins with; 0 when the frame is one packet.
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Payload bytes of each segment but the last, as the kernel asks; when the frame is one packet, its length. It can
    /// be more than there is payload.
    pub fn segment_len(&self) -> usize {
        self.segment_len
    }

    /// Payload bytes of the frame.
    pub fn payload_len(&self) -> usize {
        self.total_len - self.header_len
    }

    /// How many packets the frame is split to, at least one.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Length of the longest packet of the frame: what a send slot must have room for.
    pub fn longest_packet(&self) -> usize {
        self.header_len + self.segment_len.min(self.payload_len())
    }

    /// Where the payload of segment `i` lies in the contiguous frame. Empty beyond the last segment.
    pub fn segment_payload(&self, i: usize) -> Range<usize> {
        let start = (self.header_len + i * self.segment_len).min(self.total_len);
        start..(start + self.segment_len).min(self.total_len)
    }

    /// Makes segment `i` a packet. `segment` is as long as the packet and ends with the payload, before which there are
    /// `header_len` bytes of room. `headers` are the first bytes of the frame, at least `header_len`.
    ///
    /// # Panics
    /// When `segment` or `headers` are shorter than `header_len`.
    #[inline]
    pub fn finish_segment(&self, i: usize, headers: &[u8], segment: &mut [u8]) {
        let (layers, is_tcp) = match self.kind {
            Kind::Complete | Kind::NeedsChecksum { .. } => return self.finish_single(segment),
            Kind::Tcp(layers) => (layers, true),
            Kind::Udp(layers) => (layers, false),
        };
        let total_len = segment.len();
        let (header, _) = segment.split_at_mut(self.header_len);
        header.copy_from_slice(&headers[..self.header_len]);
        let (ip, transport) = header.split_at_mut(layers.ip_len);
        if !is_ipv6(ip) {
            put_number(ip, 4, number(ip, 4).wrapping_add(low_bits(i)));
        }
        finish_ip(ip, layers.ip_len, total_len);
        let transport_len = length(total_len - layers.ip_len);
        let checksum = if is_tcp {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "sequence numbers wrap around (RFC 9293, section 3.4)"
            )]
            let sequence = long_number(transport, 4).wrapping_add((i * self.segment_len) as u32);
            transport[4..8].copy_from_slice(&sequence.to_be_bytes());
            if i + 1 < self.segments {
                transport[13] &= !(flag::FIN | flag::PSH);
            }
            if i > 0 {
                transport[13] &= !flag::CWR;
            }
            TCP_CHECKSUM
        } else {
            put_number(transport, 4, transport_len);
            UDP_CHECKSUM
        };
        put_number(transport, checksum, 0);
        let sum = layers.pseudo.plus_number(transport_len);
        put_checksum(&mut segment[layers.ip_len..], checksum, sum);
    }

    /// Fills in the checksum of a frame that is one packet, if it is missing. `packet` is the whole frame. Other frames
    /// are left alone.
    ///
    /// # Panics
    /// When `packet` is shorter than the frame.
    pub fn finish_single(&self, packet: &mut [u8]) {
        if let Kind::NeedsChecksum { start, offset } = self.kind {
            // The sum of the pseudo-header stands in the field, so it is part of the sum already.
            put_checksum(&mut packet[start..self.total_len], offset, Sum::default());
        }
    }
}

/// The frame's first bytes, and how long it is.
#[derive(Clone, Copy)]
struct Front<'f> {
    headers: &'f [u8],
    total_len: usize,
}

impl<'f> Front<'f> {
    fn bytes(self, start: usize, len: usize) -> Result<&'f [u8], BadFrame> {
        if start + len > self.total_len {
            return Err(BadFrame::Truncated);
        }
        self.headers
            .get(start..start + len)
            .ok_or(BadFrame::HeadersIncomplete)
    }
}

struct Ip {
    /// Bytes up to the transport header.
    len: usize,
    protocol: u8,
    /// Whether there is more than the fixed header.
    has_options: bool,
}

impl Ip {
    /// The headers of a whole packet of IPv4 or IPv6.
    fn parse(front: Front<'_>) -> Result<Self, BadFrame> {
        if is_ipv6(front.headers) {
            return Self::parse_ipv6(front);
        }
        let header = front.bytes(0, IPV4_LEN)?;
        let len = usize::from(header[0] & 0x0f) * 4;
        if len < IPV4_LEN || usize::from(number(header, 2)) != front.total_len {
            return Err(BadFrame::Length);
        }
        // More fragments, or an offset.
        if number(header, 6) & 0x3fff != 0 {
            return Err(BadFrame::Fragment);
        }
        front.bytes(0, len)?;
        Ok(Self {
            len,
            protocol: header[9],
            has_options: len > IPV4_LEN,
        })
    }

    fn parse_ipv6(front: Front<'_>) -> Result<Self, BadFrame> {
        let header = front.bytes(0, IPV6_LEN)?;
        if usize::from(number(header, 4)) != front.total_len - IPV6_LEN {
            return Err(BadFrame::Length);
        }
        let mut protocol = header[6];
        let mut len = IPV6_LEN;
        while let protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION = protocol {
            let extension = front.bytes(len, 2)?;
            protocol = extension[0];
            len += 8 * (usize::from(extension[1]) + 1);
        }
        if protocol == protocol::FRAGMENT {
            return Err(BadFrame::Fragment);
        }
        front.bytes(0, len)?;
        Ok(Self {
            len,
            protocol,
            has_options: len > IPV6_LEN,
        })
    }
}

fn tcp_header_len(front: Front<'_>, start: usize) -> Result<usize, BadFrame> {
    let len = usize::from(front.bytes(start, TCP_LEN)?[12] >> 4) * 4;
    if len < TCP_LEN {
        return Err(BadFrame::Length);
    }
    front.bytes(start, len)?;
    Ok(len)
}

fn misplaced(vnet: &VnetHeader) -> BadFrame {
    BadFrame::ChecksumPlace {
        start: vnet.csum_start,
        offset: vnet.csum_offset,
    }
}

/// Writes the checksum of all `bytes` and of what `sum` has already.
#[inline]
fn put_checksum(bytes: &mut [u8], at: usize, sum: Sum) {
    let checksum = match Sum::of(bytes).plus(sum).checksum() {
        // Zero would say that there is no checksum (RFC 768; RFC 8200, section 8.1).
        0 if at == UDP_CHECKSUM => 0xffff,
        checksum => checksum,
    };
    put_number(bytes, at, checksum);
}

/// Identifications wrap around.
#[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
fn low_bits(i: usize) -> u16 {
    i as u16
}
