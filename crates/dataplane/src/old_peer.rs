//! One peer of a device.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use warren_model::PublicKey;

use crate::old_noise::{Gate, Tunnel};
use crate::uapi::PresharedKey;

/// A peer. Each part has a lock of its own that is held for as long as a look or one encryption takes, never while
/// something is sent.
pub(crate) struct Peer {
    /// Its public key.
    pub(crate) key: PublicKey,
    /// What its session indices begin with: 24 random bits, unique within the device.
    pub(crate) index: u32,
    session: Mutex<Session>,
    endpoint: RwLock<Option<SocketAddr>>,
    keepalive: AtomicU16,
    tx_bytes: AtomicU64,
    rx_bytes: AtomicU64,
    /// Nanoseconds since the Unix epoch; 0: never.
    last_handshake: AtomicU64,
}

/// What changes with every packet.
pub(crate) struct Session {
    /// `None` while the device has no private key.
    pub(crate) tunnel: Option<Tunnel>,
    preshared: Option<PresharedKey>,
    /// When something authentic last went either way: a keepalive is due so long after.
    last_traffic: Option<Instant>,
}

impl Peer {
    /// A peer without endpoint, to be reached as soon as the device has a private key.
    pub(crate) fn new(key: PublicKey, index: u32, gate: Option<&Gate>) -> Self {
        let session = Session {
            tunnel: gate.map(|gate| Tunnel::new(gate, &key, None, index)),
            preshared: None,
            last_traffic: None,
        };
        Self {
            key,
            index,
            session: Mutex::new(session),
            endpoint: RwLock::new(None),
            keepalive: AtomicU16::new(0),
            tx_bytes: AtomicU64::new(0),
            rx_bytes: AtomicU64::new(0),
            last_handshake: AtomicU64::new(0),
        }
    }

    /// The protocol's state, for one operation. A thread that panicked while it held the lock has ended the process.
    pub(crate) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where its packets go.
    pub(crate) fn endpoint(&self) -> Option<SocketAddr> {
        *self.endpoint.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends its packets there from now on. To be called for a configured address or for the source of a message that
    /// was authentic and fresh, and for nothing else.
    pub(crate) fn set_endpoint(&self, endpoint: SocketAddr) {
        if self.endpoint() != Some(endpoint) {
            *self.endpoint.write().unwrap_or_else(PoisonError::into_inner) = Some(endpoint);
        }
    }

    /// Begins anew with the device's new private key (or none). Sessions under the old key end.
    pub(crate) fn rekey(&self, gate: Option<&Gate>) {
        let mut session = self.session();
        session.tunnel =
            gate.map(|gate| Tunnel::new(gate, &self.key, session.preshared.as_ref(), self.index));
    }

    /// Uses another preshared key, or none. Setting the same one again disturbs nothing; another one ends the session,
    /// for the protocol's state keeps the key that it began with.
    pub(crate) fn set_preshared_key(&self, preshared: Option<PresharedKey>, gate: Option<&Gate>) {
        if self.session().preshared != preshared {
            self.session().preshared = preshared;
            self.rekey(gate);
        }
    }

    /// A copy of the preshared key.
    pub(crate) fn preshared_key(&self) -> Option<PresharedKey> {
        self.session().preshared.as_ref().map(PresharedKey::copy)
    }

    /// Seconds between keepalives; 0: none.
    pub(crate) fn keepalive(&self) -> u16 {
        self.keepalive.load(Ordering::Relaxed)
    }

    /// Changes the interval. Where there was none before, the first keepalive is due at once: it is what tells a
    /// middlebox or a peer without our address where we are.
    pub(crate) fn set_keepalive(&self, seconds: u16) {
        if self.keepalive.swap(seconds, Ordering::Relaxed) == 0 && seconds != 0 {
            self.session().last_traffic = None;
        }
    }

    /// Counts what was sent.
    pub(crate) fn sent(&self, bytes: usize) {
        self.tx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts what was received and authentic.
    pub(crate) fn received(&self, bytes: usize) {
        self.rx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes sent and received.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (
            self.tx_bytes.load(Ordering::Relaxed),
            self.rx_bytes.load(Ordering::Relaxed),
        )
    }

    /// Notes that a handshake has just completed.
    pub(crate) fn shook_hands(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.last_handshake.store(nanos, Ordering::Relaxed);
    }

    /// When the last handshake completed, since the Unix epoch.
    pub(crate) fn last_handshake(&self) -> Option<Duration> {
        let nanos = self.last_handshake.load(Ordering::Relaxed);
        (nanos != 0).then(|| Duration::from_nanos(nanos))
    }
}

impl Session {
    /// Notes that something authentic has gone one way or the other.
    pub(crate) fn traffic(&mut self, now: Instant) {
        self.last_traffic = Some(now);
    }

    /// Whether a keepalive is due, of those sent every `interval` seconds.
    pub(crate) fn keepalive_due(&self, interval: u16, now: Instant) -> bool {
        let interval = Duration::from_secs(interval.into());
        !interval.is_zero()
            && self
                .last_traffic
                .is_none_or(|last| now.duration_since(last) >= interval)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer::new(PublicKey::from_bytes([7; 32]).unwrap(), 1, None)
    }

    #[test]
    fn a_keepalive_is_due_at_once_and_then_an_interval_after_the_last_traffic() {
        let peer = peer();
        let now = Instant::now();
        assert!(
            !peer.session().keepalive_due(peer.keepalive(), now),
            "none was asked for"
        );
        peer.session().traffic(now);
        peer.set_keepalive(25);
        assert!(peer.session().keepalive_due(peer.keepalive(), now));
        peer.session().traffic(now);
        assert!(
            !peer
                .session()
                .keepalive_due(peer.keepalive(), now + Duration::from_secs(24))
        );
        assert!(
            peer.session()
                .keepalive_due(peer.keepalive(), now + Duration::from_secs(25))
        );
    }

    #[test]
    fn setting_the_same_interval_again_sends_nothing() {
        let peer = peer();
        peer.set_keepalive(25);
        let now = Instant::now();
        peer.session().traffic(now);
        peer.set_keepalive(25);
        assert!(!peer.session().keepalive_due(peer.keepalive(), now));
    }
}
