//! Why packets were not carried, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// A reason for which a packet or datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum DropReason {
    /// From the interface: no peer has the destination among its allowed IPs.
    NoPeerForDestination,
    /// From the interface: the peer has no endpoint yet.
    NoEndpoint,
    /// Either way: the device has no private key.
    NoPrivateKey,
    /// From the interface: neither an IPv4 nor an IPv6 packet.
    NotIp,
    /// From the network: too short for any message.
    TooShort,
    /// From the network: no WireGuard message.
    Malformed,
    /// From the network: a handshake message by someone who does not know our public key.
    BadMac,
    /// From the network: too many handshakes a second; a cookie was sent.
    RateLimited,
    /// From the network: a handshake by a key that is no peer's.
    UnknownPeer,
    /// From the network: for a session that there is not, or no longer.
    UnknownSession,
    /// From the network: not encrypted with the session's key.
    DecryptFailed,
    /// From the network: it met congestion on the way, which its packet has no means to tell (RFC 6040).
    Congestion,
    /// From the network: seen before, or too old to tell.
    Replayed,
    /// From a peer: its source address is not among that peer's allowed IPs.
    BadSource,
    /// From a peer: authentic, but no IP packet.
    BadPacket,
    /// From the network: too many handshakes by one source that has shown its cookie.
    SourceRateLimited,
    /// From the network: a handshake message or cookie that was not made with this peer's keys. A preshared key that
    /// differs looks like this.
    BadHandshake,
    /// From the network: a peer began a handshake right after another.
    HandshakeTooSoon,
    /// From the network: for a session that is too old.
    SessionExpired,
    /// From the interface: waited for a session that could not be had, or made room for a later one that waits.
    NoSession,
    /// To the network: the kernel did not take it.
    SendFailed,
    /// To the interface: the kernel did not take it (the interface is down, for one).
    InterfaceRefused,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 22] = [
        Self::NoPeerForDestination,
        Self::NoEndpoint,
        Self::NoPrivateKey,
        Self::NotIp,
        Self::TooShort,
        Self::Malformed,
        Self::BadMac,
        Self::RateLimited,
        Self::UnknownPeer,
        Self::UnknownSession,
        Self::DecryptFailed,
        Self::Congestion,
        Self::Replayed,
        Self::BadSource,
        Self::BadPacket,
        Self::SourceRateLimited,
        Self::BadHandshake,
        Self::HandshakeTooSoon,
        Self::SessionExpired,
        Self::NoSession,
        Self::SendFailed,
        Self::InterfaceRefused,
    ];

    /// The reason's name on the configuration socket and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoPeerForDestination => "no_peer_for_destination",
            Self::NoEndpoint => "no_endpoint",
            Self::NoPrivateKey => "no_private_key",
            Self::NotIp => "not_ip",
            Self::TooShort => "too_short",
            Self::Malformed => "malformed",
            Self::BadMac => "bad_mac",
            Self::RateLimited => "rate_limited",
            Self::UnknownPeer => "unknown_peer",
            Self::UnknownSession => "unknown_session",
            Self::DecryptFailed => "decrypt_failed",
            Self::Congestion => "congestion",
            Self::Replayed => "replayed",
            Self::BadSource => "bad_source",
            Self::BadPacket => "bad_packet",
            Self::SourceRateLimited => "source_rate_limited",
            Self::BadHandshake => "bad_handshake",
            Self::HandshakeTooSoon => "handshake_too_soon",
            Self::SessionExpired => "session_expired",
            Self::NoSession => "no_session",
            Self::SendFailed => "send_failed",
            Self::InterfaceRefused => "interface_refused",
        }
    }
}

/// How often each reason has occurred since the device started.
#[derive(Debug, Default)]
pub struct DropCounters([AtomicU64; DropReason::ALL.len()]);

impl DropCounters {
    /// Counts one packet.
    pub fn count(&self, reason: DropReason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts so many packets.
    pub fn count_many(&self, reason: DropReason, packets: usize) {
        self.0[reason as usize].fetch_add(packets as u64, Ordering::Relaxed);
    }

    /// All reasons with their counts, zero included.
    pub fn all(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL
            .into_iter()
            .map(|reason| (reason, self.0[reason as usize].load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed_once_at_its_own_place_and_has_a_name_of_its_own() {
        for (at, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at, "{reason:?}");
        }
        let names: std::collections::BTreeSet<_> = DropReason::ALL.map(DropReason::name).into();
        assert_eq!(names.len(), DropReason::ALL.len());
    }

    #[test]
    fn every_reason_has_its_remedy_in_the_documentation() {
        let documentation = include_str!("../../../docs/warren-wg.md");
        let rows = documentation.lines().filter(|line| line.starts_with("| `"));
        let named: String = rows.filter_map(|row| row.split('|').nth(1)).collect();
        for reason in DropReason::ALL {
            assert!(named.contains(&format!("`{}`", reason.name())), "{reason:?}");
        }
    }

    #[test]
    fn a_count_is_kept_under_its_own_reason() {
        let counters = DropCounters::default();
        counters.count(DropReason::BadSource);
        counters.count(DropReason::BadSource);
        let counted: Vec<_> = counters.all().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(DropReason::BadSource, 2)]);
    }
}
