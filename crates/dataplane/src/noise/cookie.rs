//! The two macs at the end of a handshake message, and cookies (the paper, sections 5.3, 5.4.4 and 5.4.7).
//!
//! | | made with | shows | checked |
//! |---|---|---|---|
//! | mac1 | a hash of the receiver's public key | that the sender knows whom he talks to | always |
//! | mac2 | the cookie last received, zero without one | that the sender receives at his address | under load |
//!
//! A cookie is a mac of the sender's address and port under a secret that changes every two minutes. It is sent
//! encrypted, bound to the mac1 of the message that it answers: nobody who has not seen that message can make one.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand_core::{CryptoRng, RngCore};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::crypto::{self, Secret};
use super::{COOKIE_REPLY_LEN, Millis};
use crate::drops::DropReason;

/// How long a cookie secret is used.
const SECRET_MAX_AGE: Millis = 120_000;

/// How long a cookie is used: less than its secret, which may have been old already, by the time a message takes.
const COOKIE_MAX_AGE: Millis = SECRET_MAX_AGE - 5_000;

const MAC_LEN: usize = 16;

/// A handshake message: what mac1 is about, mac1, mac2.
struct Macs<'m> {
    text: &'m [u8],
    mac1: &'m [u8; MAC_LEN],
    mac2: &'m [u8; MAC_LEN],
}

impl<'m> Macs<'m> {
    fn of(message: &'m [u8]) -> Option<Self> {
        let (rest, mac2) = message.split_last_chunk()?;
        let (text, mac1) = rest.split_last_chunk()?;
        Some(Self { text, mac1, mac2 })
    }
}

/// The key of mac1 of messages to the holder of a public key.
pub(super) fn mac1_key(receiver: &[u8; 32]) -> [u8; 32] {
    crypto::hash([b"mac1----", receiver])
}

/// The key of cookie replies by the holder of a public key.
fn cookie_key(sender: &[u8; 32]) -> [u8; 32] {
    crypto::hash([b"cookie--", sender])
}

/// Checks macs of messages to us, and makes cookies. Shared by threads.
pub(super) struct Checker {
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
    secret: Mutex<CookieSecret>,
}

struct CookieSecret {
    bytes: Secret,
    /// When it was drawn. `None`: never.
    born: Option<Millis>,
}

impl Checker {
    /// A checker of messages to the holder of this key.
    pub(super) fn new(own_public: &[u8; 32]) -> Self {
        Self {
            mac1_key: mac1_key(own_public),
            cookie_key: cookie_key(own_public),
            secret: Mutex::new(CookieSecret {
                bytes: Zeroizing::new([0; 32]),
                born: None,
            }),
        }
    }

    /// Whether the sender knows our public key.
    pub(super) fn has_mac1(&self, message: &[u8]) -> bool {
        Macs::of(message).is_some_and(|macs| {
            let right = crypto::mac(&self.mac1_key, [macs.text, &[]]);
            right.ct_eq(macs.mac1).into()
        })
    }

    /// Whether the sender has our present cookie for his address and port.
    pub(super) fn has_mac2(
        &self,
        now: Millis,
        message: &[u8],
        source: SocketAddr,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> bool {
        let cookie = self.cookie(now, source, rng);
        Macs::of(message).is_some_and(|macs| {
            let right = crypto::mac(&cookie, [macs.text, macs.mac1]);
            right.ct_eq(macs.mac2).into()
        })
    }

    /// The reply to a handshake message whose mac1 is right: the cookie for where it came from. `None` for what is no
    /// handshake message.
    pub(super) fn reply(
        &self,
        now: Millis,
        message: &[u8],
        source: SocketAddr,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Option<[u8; COOKIE_REPLY_LEN]> {
        let macs = Macs::of(message)?;
        let sender = macs.text.get(4..8)?;
        let mut nonce = [0; 24];
        rng.fill_bytes(&mut nonce);
        let cookie = self.cookie(now, source, rng);
        let mut reply = [0; COOKIE_REPLY_LEN];
        reply[0] = 3;
        reply[4..8].copy_from_slice(sender);
        reply[8..32].copy_from_slice(&nonce);
        let sealed = crypto::seal_cookie(&self.cookie_key, &nonce, macs.mac1, cookie);
        reply[32..].copy_from_slice(&sealed);
        Some(reply)
    }

    fn cookie(&self, now: Millis, source: SocketAddr, rng: &mut (impl RngCore + CryptoRng)) -> [u8; 16] {
        let mut secret = self.secret();
        if secret
            .born
            .is_none_or(|born| now.saturating_sub(born) >= SECRET_MAX_AGE)
        {
            rng.fill_bytes(&mut *secret.bytes);
            secret.born = Some(now);
        }
        let port = source.port().to_be_bytes();
        // The families differ in length, so no address of one is an address of the other.
        match source.ip() {
            IpAddr::V4(ip) => crypto::mac(&secret.bytes, [&ip.octets(), &port]),
            IpAddr::V6(ip) => crypto::mac(&secret.bytes, [&ip.octets(), &port]),
        }
    }

    fn secret(&self) -> MutexGuard<'_, CookieSecret> {
        self.secret.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts macs on messages to one peer, and keeps the cookie that it gave us.
pub(crate) struct Signer {
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
    cookie: Option<(Millis, Zeroizing<[u8; 16]>)>,
    /// mac1 of the last message, until a cookie has answered it.
    awaiting: Option<[u8; MAC_LEN]>,
}

impl Signer {
    /// For messages to the holder of this key. The first has no cookie.
    pub(crate) fn new(peer_public: &[u8; 32]) -> Self {
        Self {
            mac1_key: mac1_key(peer_public),
            cookie_key: cookie_key(peer_public),
            cookie: None,
            awaiting: None,
        }
    }

    /// Writes both macs, the last 32 bytes of a handshake message.
    pub(crate) fn sign(&mut self, now: Millis, message: &mut [u8]) {
        let Some((rest, mac2)) = message.split_last_chunk_mut::<MAC_LEN>() else {
            return;
        };
        let Some((text, mac1)) = rest.split_last_chunk_mut::<MAC_LEN>() else {
            return;
        };
        *mac1 = crypto::mac(&self.mac1_key, [text, &[]]);
        self.awaiting = Some(*mac1);
        self.cookie
            .take_if(|(born, _)| now.saturating_sub(*born) >= COOKIE_MAX_AGE);
        *mac2 = match &self.cookie {
            Some((_, cookie)) => crypto::mac(cookie, [text, mac1]),
            None => [0; MAC_LEN],
        };
    }

    /// Takes a cookie reply to the last message. One message takes one cookie: repetitions are refused.
    pub(crate) fn take(&mut self, now: Millis, reply: &[u8]) -> Result<(), DropReason> {
        let reply: &[u8; COOKIE_REPLY_LEN] = reply.try_into().map_err(|_| DropReason::Malformed)?;
        let mac1 = self.awaiting.as_ref().ok_or(DropReason::UnknownSession)?;
        let (head, sealed) = reply.split_last_chunk::<32>().ok_or(DropReason::Malformed)?;
        let nonce = head.last_chunk::<24>().ok_or(DropReason::Malformed)?;
        let cookie = crypto::open_cookie(&self.cookie_key, nonce, mac1, sealed)
            .map_err(|_| DropReason::BadHandshake)?;
        self.cookie = Some((now, Zeroizing::new(cookie)));
        self.awaiting = None;
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use crate::noise::testing::TestRng;

    fn signed(signer: &mut Signer, now: Millis) -> [u8; 148] {
        let mut message = [7; 148];
        signer.sign(now, &mut message);
        message
    }

    fn at(source: &str) -> SocketAddr {
        source.parse().unwrap()
    }

    #[test]
    fn mac1_is_that_of_the_receiver_s_key_and_of_each_byte() {
        let checker = Checker::new(&[1; 32]);
        let message = signed(&mut Signer::new(&[1; 32]), 0);
        assert!(checker.has_mac1(&message));
        assert!(!checker.has_mac1(&signed(&mut Signer::new(&[2; 32]), 0)));
        for at in 0..132 {
            let mut forged = message;
            forged[at] ^= 0x10;
            assert!(!checker.has_mac1(&forged), "byte {at}");
        }
        assert!(!checker.has_mac1(&[0; 31]));
    }

    #[test]
    fn a_cookie_lets_its_address_and_port_through_and_no_other() {
        let (checker, mut signer, mut rng) = (Checker::new(&[1; 32]), Signer::new(&[1; 32]), TestRng::new(1));
        for source in ["192.0.2.1:51820", "[2001:db8::1]:51820"].map(at) {
            let message = signed(&mut signer, 0);
            assert!(!checker.has_mac2(0, &message, source, &mut rng));
            let reply = checker.reply(0, &message, source, &mut rng).unwrap();
            assert_eq!(signer.take(0, &reply), Ok(()));
            let message = signed(&mut signer, 0);
            assert!(checker.has_mac2(0, &message, source, &mut rng));
            for elsewhere in ["192.0.2.1:51821", "192.0.2.2:51820", "[2001:db8::2]:51820"].map(at) {
                assert!(!checker.has_mac2(0, &message, elsewhere, &mut rng), "{elsewhere}");
            }
            let mut forged = message;
            forged[147] ^= 1;
            assert!(!checker.has_mac2(0, &forged, source, &mut rng));
        }
    }

    #[test]
    fn a_cookie_is_used_for_two_minutes_at_most_and_its_secret_too() {
        let (checker, mut signer, mut rng) = (Checker::new(&[1; 32]), Signer::new(&[1; 32]), TestRng::new(2));
        let source = at("192.0.2.1:1");
        let reply = checker
            .reply(0, &signed(&mut signer, 0), source, &mut rng)
            .unwrap();
        assert_eq!(signer.take(0, &reply), Ok(()));
        let young = signed(&mut signer, COOKIE_MAX_AGE - 1);
        assert!(checker.has_mac2(SECRET_MAX_AGE - 1, &young, source, &mut rng));
        assert!(
            !checker.has_mac2(SECRET_MAX_AGE, &young, source, &mut rng),
            "another secret"
        );
        let old = signed(&mut signer, COOKIE_MAX_AGE);
        assert_eq!(old[132..], [0; 16], "no mac2 of an old cookie");
    }

    #[test]
    fn a_cookie_answers_the_last_message_once() {
        let (checker, mut signer, mut rng) = (Checker::new(&[1; 32]), Signer::new(&[1; 32]), TestRng::new(3));
        let source = at("192.0.2.1:1");
        let first = signed(&mut signer, 0);
        let stale = checker.reply(0, &first, source, &mut rng).unwrap();
        let mut other = [9; 148];
        signer.sign(0, &mut other);
        assert_eq!(signer.take(0, &stale), Err(DropReason::BadHandshake));
        let reply = checker.reply(0, &other, source, &mut rng).unwrap();
        let forger = Checker::new(&[2; 32]).reply(0, &other, source, &mut rng).unwrap();
        assert_eq!(signer.take(0, &forger), Err(DropReason::BadHandshake));
        assert_eq!(signer.take(0, &reply[..63]), Err(DropReason::Malformed));
        assert_eq!(signer.take(0, &reply), Ok(()));
        assert_eq!(signer.take(0, &reply), Err(DropReason::UnknownSession));
    }
}
