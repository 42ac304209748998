//! The WireGuard protocol, without sockets, clocks and threads: time and randomness are arguments.
//!
//! "The paper" is J. A. Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel" (NDSS 2017, revised 2020). The
//! construction is `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` (section 5.4).
//!
//! | module | what it is about | paper |
//! |---|---|---|
//! | `handshake` | [`Local`] and [`Remote`]: two messages make a key pair | 5.4.1 to 5.4.5 |
//! | `cookie` | both macs of a handshake message, cookies on both sides | 5.3, 5.4.4, 5.4.7 |
//! | `gate` | which handshake messages are worth a Diffie-Hellman | 5.3 |
//! | `limit` | handshakes per source, and when there are too many in all | 5.3 |
//! | `session` | a [`Session`]: sealing and opening data messages | 5.4.6 |
//! | `replay` | the window of counters that have been seen | 5.4.6 |
//! | `timers` | when to rekey, to keep alive, to give up | 6 |
//! | `tai64n` | the time in an initiation | 5.1, 5.4.2 |
//! | `crypto` | the functions that all of it builds on | 5.4 |
//!
//! What a peer does with all that is in [`crate::peer`].

pub(crate) mod cookie;
mod crypto;
mod gate;
pub(crate) mod handshake;
mod limit;
mod replay;
mod session;
mod tai64n;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod timers;

use crate::drops::DropReason;

pub use gate::{Admission, Gate};
pub use handshake::{Initiation, Local, Remote};
pub use session::{BadSlot, Opened, Session, WindowGuard};
pub use tai64n::Tai64n;

/// Milliseconds since the device started. Everything in here is measured in them.
pub type Millis = u64;

/// Messages that one key may seal until another is wanted (section 6.1).
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;

/// Messages that one key may seal at all (section 6.1).
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// Age of a session at which its initiator wants another when it sends.
pub const REKEY_AFTER_TIME: Millis = 120_000;

/// Age of a session at which nothing is sent or received with it any more.
pub const REJECT_AFTER_TIME: Millis = 180_000;

/// How long a handshake is repeated before it is given up.
pub const REKEY_ATTEMPT_TIME: Millis = 90_000;

/// Time between two initiations to a peer.
pub const REKEY_TIMEOUT: Millis = 5_000;

/// The most that is added to [`REKEY_TIMEOUT`] at random, so that two peers that began at once do not stay in step.
pub const REKEY_TIMEOUT_JITTER: Millis = 333;

/// How long data is left unanswered before an empty message answers it.
pub const KEEPALIVE_TIMEOUT: Millis = 10_000;

/// Time between two initiations that are taken from one peer: 50 a second, as the kernel's `INITIATIONS_PER_SECOND`.
pub const INITIATION_INTERVAL: Millis = 20;

/// Length of a handshake initiation.
pub const INITIATION_LEN: usize = 148;

/// Length of a handshake response.
pub const RESPONSE_LEN: usize = 92;

/// Length of a cookie reply.
pub const COOKIE_REPLY_LEN: usize = 64;

/// Length of the header of a data message: kind 4, receiver 4, counter 8.
pub const DATA_HEADER_LEN: usize = 16;

/// Length of an authenticator.
pub const TAG_LEN: usize = 16;

/// Bytes a data message has beyond its (padded) packet. A keepalive is just as long.
pub const DATA_OVERHEAD: usize = DATA_HEADER_LEN + TAG_LEN;

/// The four messages (section 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// Begins a handshake.
    Initiation,
    /// Answers an initiation.
    Response,
    /// Answers a handshake message of somebody who has to show first that he receives at his address.
    CookieReply,
    /// Carries a packet, or nothing.
    Data,
}

impl MessageKind {
    /// What a datagram claims to be, by its first four bytes and its length.
    ///
    /// # Errors
    /// [`DropReason::TooShort`] or [`DropReason::Malformed`].
    pub fn of(datagram: &[u8]) -> Result<Self, DropReason> {
        let Some((kind, _)) = datagram.split_first_chunk::<4>() else {
            return Err(DropReason::TooShort);
        };
        let (kind, fits) = match u32::from_le_bytes(*kind) {
            1 => (Self::Initiation, datagram.len() == INITIATION_LEN),
            2 => (Self::Response, datagram.len() == RESPONSE_LEN),
            3 => (Self::CookieReply, datagram.len() == COOKIE_REPLY_LEN),
            4 => (Self::Data, datagram.len() >= DATA_OVERHEAD),
            _ if datagram.len() < DATA_OVERHEAD => return Err(DropReason::TooShort),
            _ => return Err(DropReason::Malformed),
        };
        match fits {
            true => Ok(kind),
            false if datagram.len() < DATA_OVERHEAD => Err(DropReason::TooShort),
            false => Err(DropReason::Malformed),
        }
    }

    /// The local index that a response, a cookie reply or a data message is addressed to.
    pub fn receiver(self, datagram: &[u8]) -> Option<u32> {
        let at = match self {
            Self::Initiation => return None,
            Self::Response => 8,
            Self::CookieReply | Self::Data => 4,
        };
        u32_at(datagram, at)
    }
}

/// A little-endian number within a message.
pub(crate) fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

/// Length of a packet with its padding: a multiple of 16, but not beyond the MTU (section 5.4.6).
pub fn padded_len(len: usize, mtu: usize) -> usize {
    len.checked_next_multiple_of(16).unwrap_or(len).min(mtu.max(len))
}
