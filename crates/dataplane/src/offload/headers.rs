//! Places and numbers in IP, TCP and UDP headers.

use super::checksum::Sum;

/// Protocol numbers.
pub(super) mod protocol {
    pub(in super::super) const HOP_BY_HOP: u8 = 0;
    pub(in super::super) const TCP: u8 = 6;
    pub(in super::super) const UDP: u8 = 17;
    pub(in super::super) const ROUTING: u8 = 43;
    pub(in super::super) const FRAGMENT: u8 = 44;
    pub(in super::super) const ICMPV6: u8 = 58;
    pub(in super::super) const DESTINATION: u8 = 60;
}

/// Bytes of an IPv4 header without options.
pub(super) const IPV4_LEN: usize = 20;
/// Bytes of an IPv6 header without extensions.
pub(super) const IPV6_LEN: usize = 40;
/// Bytes of a TCP header without options.
pub(super) const TCP_LEN: usize = 20;
/// Bytes of a UDP header.
pub(super) const UDP_LEN: usize = 8;
/// Place of the checksum in a TCP header.
pub(super) const TCP_CHECKSUM: usize = 16;
/// Place of the checksum in a UDP header.
pub(super) const UDP_CHECKSUM: usize = 6;

/// Flags of TCP, in byte 13 of its header.
pub(super) mod flag {
    pub(in super::super) const FIN: u8 = 0x01;
    pub(in super::super) const PSH: u8 = 0x08;
    pub(in super::super) const ACK: u8 = 0x10;
    pub(in super::super) const CWR: u8 = 0x80;
}

/// The number at a place.
#[inline]
pub(super) fn number(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The number of 32 bits at a place.
#[inline]
pub(super) fn long_number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Puts a number to a place.
#[inline]
pub(super) fn put_number(bytes: &mut [u8], at: usize, number: u16) {
    bytes[at..at + 2].copy_from_slice(&number.to_be_bytes());
}

/// A length as a header has it. No packet here is longer than an IP length can say.
#[inline]
pub(super) fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

/// The sum of the pseudo-header of a transport protocol, its length left out (RFC 9293, section 3.1; RFC 8200, section 8.1).
/// `ip` begins with a whole IP header.
#[inline]
pub(super) fn pseudo_header(ip: &[u8], protocol: u8) -> Sum {
    let addresses = if is_ipv6(ip) { &ip[8..40] } else { &ip[12..20] };
    Sum::of(addresses).plus_number(protocol.into())
}

/// Whether it is IPv6, of two.
#[inline]
pub(super) fn is_ipv6(ip: &[u8]) -> bool {
    ip[0] >> 4 == 6
}

/// Writes the length of an IP packet to its header, and for IPv4 the checksum: the last change to the header.
#[inline]
pub(super) fn finish_ip(ip: &mut [u8], header_len: usize, total_len: usize) {
    if is_ipv6(ip) {
        put_number(ip, 4, length(total_len - IPV6_LEN));
    } else {
        put_number(ip, 2, length(total_len));
        put_number(ip, 10, 0);
        put_number(ip, 10, Sum::of(&ip[..header_len]).checksum());
    }
}
