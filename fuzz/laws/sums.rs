//! Lengths and checksums of packets, judged without any code of the data plane: word by word, as the RFCs describe them.

/// What is wrong with a packet of TCP or UDP, if anything: lengths, checksums.
pub(crate) fn fault(packet: &[u8]) -> Option<&'static str> {
    let version = packet.first()? >> 4;
    let (ip_len, protocol) = if version == 4 {
        let ip_len = usize::from(packet[0] & 15) * 4;
        if usize::from(number(packet, 2)) != packet.len() {
            return Some("total length");
        }
        if fold(words(&packet[..ip_len])) != 0xffff {
            return Some("header checksum");
        }
        (ip_len, packet[9])
    } else {
        if usize::from(number(packet, 4)) != packet.len() - 40 {
            return Some("payload length");
        }
        let (mut at, mut next) = (40, packet[6]);
        while matches!(next, 0 | 43 | 60) {
            next = packet[at];
            at += (usize::from(packet[at + 1]) + 1) * 8;
        }
        (at, next)
    };
    let transport = &packet[ip_len..];
    if protocol == 17 && usize::from(number(transport, 4)) != transport.len() {
        return Some("UDP length");
    }
    if protocol == 17 && number(transport, 6) == 0 {
        return Some("no UDP checksum");
    }
    let sum = fold(pseudo_header(packet, protocol, transport.len()) + words(transport));
    (sum != 0xffff).then_some("transport checksum")
}

/// The number at a place.
pub(crate) fn number(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The sum of 16-bit words.
pub(crate) fn words(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(pair[0]) * 256 + u64::from(*pair.get(1).unwrap_or(&0));
    bytes.chunks(2).map(word).sum()
}

/// A sum in 16 bits.
pub(crate) fn fold(sum: u64) -> u16 {
    match u16::try_from(sum) {
        Ok(folded) => folded,
        Err(_) => fold((sum & 0xffff) + (sum >> 16)),
    }
}

/// The sum of the pseudo-header.
pub(crate) fn pseudo_header(ip: &[u8], protocol: u8, len: usize) -> u64 {
    let addresses = if ip[0] >> 4 == 4 { &ip[12..20] } else { &ip[8..40] };
    words(addresses) + u64::from(protocol) + len as u64
}
