//! Packets of TCP and UDP, made without any code of the data plane.

use super::tun_frame::sums::{fold, pseudo_header, words};

/// One packet of TCP or UDP, to be written down.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) ipv6: bool,
    pub(crate) tcp: bool,
    /// Last byte of the source address.
    pub(crate) host: u8,
    pub(crate) port: u16,
    /// Type of service, or traffic class.
    pub(crate) class: u8,
    pub(crate) hops: u8,
    pub(crate) id: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) flow_label: u16,
    /// Options of IPv4, or extension headers of IPv6; `next` is the type of the first of those.
    pub(crate) extra: Vec<u8>,
    pub(crate) next: Option<u8>,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) window: u16,
    pub(crate) flags: u8,
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Packet {
    /// A packet like most, with a payload of so many bytes.
    pub(crate) fn new(ipv6: bool, tcp: bool, payload: usize) -> Self {
        Self {
            ipv6,
            tcp,
            host: 1,
            port: 4000,
            class: 0,
            hops: 64,
            id: 7,
            dont_fragment: true,
            flow_label: 0x1234,
            extra: Vec::new(),
            next: None,
            sequence: 1000,
            acknowledgement: 77,
            window: 501,
            flags: 0x10,
            options: Vec::new(),
            payload: (0..payload).map(|i| (i * 31 + i / 251) as u8).collect(),
        }
    }

    /// Bytes of IP header.
    pub(crate) fn ip_len(&self) -> usize {
        self.extra.len() + if self.ipv6 { 40 } else { 20 }
    }

    /// Bytes of both headers.
    pub(crate) fn header_len(&self) -> usize {
        self.ip_len() + if self.tcp { 20 + self.options.len() } else { 8 }
    }

    /// Place of the transport checksum.
    pub(crate) fn checksum_at(&self) -> usize {
        self.ip_len() + if self.tcp { 16 } else { 6 }
    }

    /// The whole packet.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.to_frame();
        let at = self.checksum_at();
        bytes[at..at + 2].fill(0);
        let (ip_len, tcp) = (self.ip_len(), self.tcp);
        let mut sum = !fold(
            pseudo_header(&bytes, if tcp { 6 } else { 17 }, bytes.len() - ip_len) + words(&bytes[ip_len..]),
        );
        if sum == 0 && !tcp {
            sum = 0xffff;
        }
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// The packet as the kernel hands it over when the checksum is still to be made: the sum of the pseudo-header in its place.
    pub(crate) fn to_frame(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let protocol = if self.tcp { 6 } else { 17 };
        let total = self.header_len() + self.payload.len();
        if self.ipv6 {
            let first = 6 << 28 | u32::from(self.class) << 20 | u32::from(self.flow_label);
            bytes.extend(first.to_be_bytes());
            bytes.extend(((total - 40) as u16).to_be_bytes());
            bytes.extend([self.next.unwrap_or(protocol), self.hops]);
            for host in [self.host, 200] {
                bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
            }
        } else {
            bytes.extend([0x45 + (self.extra.len() / 4) as u8, self.class]);
            bytes.extend((total as u16).to_be_bytes());
            bytes.extend(self.id.to_be_bytes());
            bytes.extend([
                if self.dont_fragment { 0x40 } else { 0 },
                0,
                self.hops,
                protocol,
                0,
                0,
            ]);
            bytes.extend([10, 0, 0, self.host, 10, 0, 0, 200]);
        }
        bytes.extend(&self.extra);
        if !self.ipv6 {
            let sum = !fold(words(&bytes));
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let transport_len = total - self.ip_len();
        let pseudo = fold(pseudo_header(&bytes, protocol, transport_len)).to_be_bytes();
        bytes.extend(self.port.to_be_bytes());
        bytes.extend(5001_u16.to_be_bytes());
        if self.tcp {
            bytes.extend(self.sequence.to_be_bytes());
            bytes.extend(self.acknowledgement.to_be_bytes());
            bytes.extend([0x50 + (self.options.len() as u8 / 4 * 16), self.flags]);
            bytes.extend(self.window.to_be_bytes());
            bytes.extend(pseudo);
            bytes.extend([0, 0]);
            bytes.extend(&self.options);
        } else {
            bytes.extend((transport_len as u16).to_be_bytes());
            bytes.extend(pseudo);
        }
        bytes.extend(&self.payload);
        bytes
    }
}
