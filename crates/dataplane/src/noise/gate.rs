//! Which handshake messages are worth a Diffie-Hellman (the paper, section 5.3).
//!
//! | mac1 | under load | mac2 | its source has | |
//! |---|---|---|---|---|
//! | wrong | | | | dropped: [`DropReason::BadMac`] |
//! | right | no | | | [`Admission::Pass`] |
//! | right | yes | none, wrong | | [`Admission::Cookie`] |
//! | right | yes | right | had too many | dropped: [`DropReason::SourceRateLimited`] |
//! | right | yes | right | more left | [`Admission::Pass`] |

use std::net::SocketAddr;

use rand_core::{CryptoRng, RngCore};
use warren_model::PrivateKey;

use super::cookie::Checker;
use super::limit::{Load, SourceLimit};
use super::{COOKIE_REPLY_LEN, Local, MessageKind, Millis};
use crate::drops::DropReason;

/// The device's own keys, and what guards them from work for strangers. One for as long as the private key stays. Shared
/// by threads: the cookie secret and the sources have a mutex each.
pub struct Gate {
    local: Local,
    checker: Checker,
    load: Load,
    limit: SourceLimit,
}

/// What to do with a handshake message that is not to be dropped silently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Take it in.
    Pass,
    /// Too many handshakes: send this back to where it came from, and drop the message
    /// ([`DropReason::RateLimited`]).
    Cookie([u8; COOKIE_REPLY_LEN]),
}

impl Gate {
    /// Takes a copy of the device's private key.
    pub fn new(private: &PrivateKey) -> Self {
        let local = Local::new(private);
        Self {
            checker: Checker::new(local.public_bytes()),
            local,
            load: Load::default(),
            limit: SourceLimit::default(),
        }
    }

    /// The device's own keys.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// Whether handshakes come faster than they are worked off (`waiting` of `capacity` places in their queue are taken),
    /// or too many were worked off in this second. Stays so for a second.
    pub fn under_load(&self, now: Millis, waiting: usize, capacity: usize) -> bool {
        self.load.is_high(now, waiting, capacity)
    }

    /// Counts a handshake that passed and is worked off.
    pub fn count(&self, now: Millis) {
        self.load.count(now);
    }

    /// Judges an initiation or a response by its macs and its source.
    ///
    /// # Errors
    /// [`DropReason::BadMac`], [`DropReason::SourceRateLimited`]; [`DropReason::Malformed`] for what is neither.
    pub fn admit(
        &self,
        now: Millis,
        source: SocketAddr,
        message: &[u8],
        under_load: bool,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<Admission, DropReason> {
        match MessageKind::of(message)? {
            MessageKind::Initiation | MessageKind::Response => {}
            MessageKind::CookieReply | MessageKind::Data => return Err(DropReason::Malformed),
        }
        if !self.checker.has_mac1(message) {
            return Err(DropReason::BadMac);
        }
        if !under_load {
            return Ok(Admission::Pass);
        }
        if !self.checker.has_mac2(now, message, source, rng) {
            let reply = self.checker.reply(now, message, source, rng);
            return reply.map(Admission::Cookie).ok_or(DropReason::Malformed);
        }
        if !self.limit.allows(now, source.ip()) {
            return Err(DropReason::SourceRateLimited);
        }
        Ok(Admission::Pass)
    }
}
