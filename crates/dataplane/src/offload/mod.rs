//! Segmentation and checksum offload: one large frame of the TUN interface for many packets on the wire.
//!
//! With `IFF_VNET_HDR` the kernel puts a [`VnetHeader`] before every frame. What it sends may be a TCP stream or a run of
//! UDP datagrams under one header, and its checksum may still be missing: [`split`] makes the packets of it, each with
//! headers and checksum of its own. On the way back [`merge`] does the reverse, as a network card with receive offload
//! would: consecutive packets of a flow become one frame, so that the kernel walks its stack once for all of them.
//!
//! Nothing here has a descriptor, a clock or a thread, and nothing allocates per packet. Where a rule is taken from
//! Linux, the module says so: what it merges and splits itself is what the kernels at both ends expect.
//!
//! | module | what it is about |
//! |---|---|
//! | [`checksum`] | the one's complement sums of IP, TCP and UDP |
//! | [`split`] | packets of a frame that the kernel sends |
//! | [`merge`] | frames of the packets that a peer sent |

mod candidate;
pub mod checksum;
mod flows;
mod headers;
pub mod merge;
pub mod split;

pub use merge::{Merge, unmerge};
pub use split::{BadFrame, Frame};

/// Longest frame that is read from or written to the interface, without its [`VnetHeader`]: what an IPv4 total length
/// can say. Linux makes none that is longer (`GSO_LEGACY_MAX_SIZE`) unless it is told to.
pub const MAX_FRAME: usize = 65_535;

/// `struct virtio_net_hdr` (virtio 1.2, section 5.1.6), without the number of buffers: what stands before each frame of a
/// TUN interface with `IFF_VNET_HDR`. Numbers are in the machine's byte order. The default says nothing of a frame: a
/// packet like any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHeader {
    /// [`Self::NEEDS_CSUM`] and others.
    pub flags: u8,
    /// What the frame is to be split to ([`Self::GSO_NONE`] and others), with or without [`Self::GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of headers. A hint only: Linux says how much of the frame lies in one piece, which may be payload too.
    pub hdr_len: u16,
    /// Payload bytes of each packet but the last.
    pub gso_size: u16,
    /// Where the bytes begin that the missing checksum covers.
    pub csum_start: u16,
    /// Where the checksum goes, counted from `csum_start`. Until then the sum of the pseudo-header stands there.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Bytes of the header, the size that a TUN interface has it in unless it is told otherwise.
    pub const LEN: usize = 10;

    /// Flag: the checksum is missing.
    pub const NEEDS_CSUM: u8 = 1;

    /// Type: one packet.
    pub const GSO_NONE: u8 = 0;
    /// Type: TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// Type: TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// Type: UDP datagrams of equal length, over IPv4 or IPv6.
    pub const GSO_UDP_L4: u8 = 5;
    /// Set in the type: congestion has been answered (CWR) in the first packet only.
    pub const GSO_ECN: u8 = 0x80;

    /// Reads a header.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = *bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        }
    }

    /// Writes the header.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}
