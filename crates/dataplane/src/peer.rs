//! One peer of a device: its sessions, its endpoint, its timers, and the packets that wait for it.
//!
//! | who calls | what | cost |
//! |---|---|---|
//! | workers, per run | [`Peer::sending`], [`Peer::sent_run`], [`Peer::received_run`], [`Peer::want_handshake`] | a few relaxed atomics |
//! | the handshake thread | [`Peer::begin_handshake`], [`Peer::take_initiation`], [`Peer::take_response`], [`Peer::take_cookie`] | a mutex, Diffie-Hellmans |
//! | the timer thread | [`Peer::tick`] | the mutex |
//! | configuration | the setters, [`Peer::set_identity`], [`Peer::forget_sessions`] | the mutex, a Diffie-Hellman |
//!
//! | module | what it is about |
//! |---|---|
//! | `handshakes` | what happens seldom, under the mutex |
//! | `sessions` | which session is sent with, which ones are received with |
//! | [`endpoint`] | where datagrams go, and from where |
//! | [`staged`] | packets that wait for a session |

pub mod endpoint;
mod handshakes;
mod sessions;
pub mod staged;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use warren_model::PublicKey;

use crate::endpoint::Endpoint;
use crate::noise::timers::Timers;
use crate::noise::{Local, Millis, RESPONSE_LEN, Session};
use endpoint::EndpointCell;
use handshakes::Slow;
use sessions::Current;
use staged::{Staged, StagedBudget, Waiting};

/// A peer. Shared by threads as an `Arc`.
pub struct Peer {
    key: PublicKey,
    current: Current,
    timers: Timers,
    tx_bytes: AtomicU64,
    rx_bytes: AtomicU64,
    endpoint: EndpointCell,
    /// [`NEVER`]: none has.
    last_handshake: AtomicU64,
    waiting: Waiting,
    slow: Mutex<Slow>,
}

const NEVER: Millis = Millis::MAX;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Wish {
    /// Nothing.
    Nothing,
    /// A new session: call [`Peer::begin_handshake`] soon, on the handshake thread. Said once; should that not come to
    /// pass, [`Peer::tick`] says it again.
    Initiate,
}

/// What came of a run that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Heard {
    /// The peer used a session that it began for the first time: it is what we send with from now on, and packets
    /// that waited may go ([`Peer::take_staged`]).
    pub confirmed: bool,
    /// A new session is wanted, as [`Wish::Initiate`].
    pub initiate: bool,
}

/// Our answer to an initiation.
pub struct Answer {
    /// To be sent to where the initiation came from, which is no endpoint until the session is confirmed.
    pub response: [u8; RESPONSE_LEN],
    /// To be found by its local index from now on.
    pub session: Arc<Session>,
}

/// What is due at a peer.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Due {
    /// Call [`Peer::begin_handshake`].
    pub initiate: bool,
    /// Send an empty data message with [`Peer::sending`], and note it as any run, with `data: false`.
    pub keepalive: bool,
    /// The handshake has been repeated long enough: packets that wait are to be dropped ([`Peer::take_staged`]).
    pub gave_up: bool,
    /// Local indices that are free again: sessions and handshakes that have ended.
    pub retired: Vec<u32>,
}

/// Bytes of a peer's datagrams, handshakes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Sent.
    pub tx_bytes: u64,
    /// Received and authentic.
    pub rx_bytes: u64,
}

impl Peer {
    /// A peer without session and endpoint. `local`: the device's keys, if it has any. Costs a Diffie-Hellman.
    pub fn new(key: PublicKey, local: Option<&Local>) -> Self {
        Self {
            current: Current::empty(),
            timers: Timers::new(),
            tx_bytes: AtomicU64::new(0),
            rx_bytes: AtomicU64::new(0),
            endpoint: EndpointCell::default(),
            last_handshake: AtomicU64::new(NEVER),
            waiting: Waiting::default(),
            slow: Mutex::new(Slow::new(&key, local)),
            key,
        }
    }

    /// Its public key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The session to send with, if there is one that is young enough. If not: stage the packet, and
    /// [`Self::want_handshake`].
    pub fn sending(&self, now: Millis) -> Option<Arc<Session>> {
        self.current.load_full().filter(|session| session.may_send(now))
    }

    /// Notes that datagrams of so many bytes in all were sent with a session. `data`: one of them was no keepalive.
    pub fn sent_run(&self, now: Millis, session: &Session, bytes: usize, data: bool) -> Wish {
        self.count_sent(bytes);
        self.timers.sent(now, data);
        let due = session.wants_next_after_sending(now) && self.is_current(session);
        wish(due && self.timers.want(now))
    }

    /// Notes that authentic datagrams of so many bytes in all, none of them a repetition, were received with a session.
    /// `data`: one of them was no keepalive.
    pub fn received_run(&self, now: Millis, session: &Arc<Session>, bytes: usize, data: bool) -> Heard {
        self.count_received(bytes);
        self.timers.received(now, data);
        let confirmed = session.is_unconfirmed() && self.confirm(now, session);
        let due = self.is_due_after_receiving(now, session);
        Heard {
            confirmed,
            initiate: due && self.timers.want(now),
        }
    }

    /// Notes that a packet waits for a session: if handshakes were about to be given up, they are not.
    pub fn want_handshake(&self, now: Millis) -> Wish {
        wish(self.timers.want(now))
    }

    /// Where its packets go.
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.endpoint.get()
    }

    /// Sends its packets there from now on. To be called for a configured address or for the source of a message that was
    /// authentic and no repetition, and for nothing else: that of an initiation is not to be trusted yet.
    pub fn set_endpoint(&self, endpoint: Endpoint) {
        self.endpoint.set(endpoint);
    }

    /// Our address that the peer last sent to is gone.
    pub fn forget_source(&self) {
        self.endpoint.forget_source();
    }

    /// Keeps a packet until there is a session. Gives the number of packets that were dropped for it
    /// ([`crate::drops::DropReason::NoSession`]): older ones when the peer's places are taken, itself when the device's
    /// budget is spent.
    pub fn stage(&self, packet: Box<[u8]>, budget: &StagedBudget) -> usize {
        self.waiting.push(packet, budget)
    }

    /// Takes all packets that wait. To be called also for a peer that is removed: its share of the budget comes back.
    pub fn take_staged(&self, budget: &StagedBudget) -> Staged {
        self.waiting.take(budget)
    }

    /// Seconds between persistent keepalives; 0: none.
    pub fn keepalive(&self) -> u16 {
        self.timers.interval()
    }

    /// Changes the interval. Where there was none before, the first keepalive is due at once.
    pub fn set_keepalive(&self, seconds: u16) {
        self.timers.set_interval(seconds);
    }

    /// Bytes sent and received.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            tx_bytes: self.tx_bytes.load(Ordering::Relaxed),
            rx_bytes: self.rx_bytes.load(Ordering::Relaxed),
        }
    }

    /// When the last handshake completed.
    pub fn last_handshake(&self) -> Option<Millis> {
        let at = self.last_handshake.load(Ordering::Relaxed);
        (at != NEVER).then_some(at)
    }

    fn count_sent(&self, bytes: usize) {
        self.tx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn count_received(&self, bytes: usize) {
        self.rx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn is_due_after_receiving(&self, now: Millis, session: &Session) -> bool {
        self.is_current(session) && session.wants_next_after_receiving(now)
    }

    /// Whether a session is the one that is sent with. One that has been replaced wants nothing.
    fn is_current(&self, session: &Session) -> bool {
        let current = self.current.load();
        current
            .as_ref()
            .is_some_and(|current| std::ptr::eq(&**current, session))
    }
}

fn wish(wanted: bool) -> Wish {
    if wanted { Wish::Initiate } else { Wish::Nothing }
}

#[cfg(test)]
mod tests;
