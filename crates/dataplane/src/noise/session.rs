//! A session: one key pair, for as long as it lasts (the paper, section 5.4.6).
//!
//! Threads share a session. Its hot calls, per message or per run of messages:
//!
//! | call | per | takes |
//! |---|---|---|
//! | [`Session::reserve`] | run | one compare-and-swap |
//! | [`Session::seal`], [`Session::seal_two`] | message, two | nothing shared |
//! | [`Session::open`], [`Session::open_two`] | message, two | a look at how far the window has gone |
//! | [`Session::window`] | run | the window's mutex |
//! | [`WindowGuard::accept`] | message | nothing more |
//!
//! Messages are opened before they are marked as seen, for only what is authentic may move the window. So threads may
//! open the same message at once, and one of them learns at marking that it was a repetition.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use warren_cipher::{Key, NotAuthentic};

use super::handshake::Keys;
use super::replay::{Window, is_too_old};
use super::{
    DATA_HEADER_LEN, KEEPALIVE_TIMEOUT, Millis, REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME,
    REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME, REKEY_TIMEOUT, TAG_LEN,
};
use crate::drops::DropReason;

/// Age at which receiving calls for another session: an answer can still be a keepalive late, and a handshake after it.
const REKEY_AFTER_RECEIVING_TIME: Millis = REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT;

/// One transport key pair.
pub struct Session {
    local_index: u32,
    remote_index: u32,
    initiator: bool,
    born: Millis,
    sealing: Key,
    opening: Key,
    /// The counter of the next message.
    next: AtomicU64,
    /// Where the window ended when it was last marked: see [`Window::end`].
    window_end: AtomicU64,
    window: Mutex<Window>,
    /// The other side has still to show that it has the keys.
    unconfirmed: AtomicBool,
    /// Receiving has already asked for the session after this one.
    asked_for_next: AtomicBool,
    ended: AtomicBool,
}

/// An authentic data message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Its counter, still to be marked as seen.
    pub counter: u64,
    /// Where the (padded) packet is within the datagram. Empty: a keepalive.
    pub packet: Range<usize>,
}

/// A slot that has no room for a message's header and authenticator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a slot of {len} bytes has no room for the header and the authenticator of a message, or too much for one"
)]
pub struct BadSlot {
    /// The slot's length.
    pub len: usize,
}

impl Session {
    pub(crate) fn new(
        keys: &Keys,
        local_index: u32,
        remote_index: u32,
        initiator: bool,
        now: Millis,
    ) -> Self {
        Self {
            local_index,
            remote_index,
            initiator,
            born: now,
            sealing: Key::new(&keys.sealing),
            opening: Key::new(&keys.opening),
            next: AtomicU64::new(0),
            window_end: AtomicU64::new(0),
            window: Mutex::default(),
            unconfirmed: AtomicBool::new(!initiator),
            asked_for_next: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    /// The index that the other side puts into its messages.
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// The index that goes into ours.
    pub fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// Whether we sent the initiation.
    pub fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// When its keys were derived.
    pub fn born(&self) -> Millis {
        self.born
    }

    /// The first of `count` counters that belong to the caller. `None` once the key has sealed all it may.
    pub fn reserve(&self, count: u64) -> Option<u64> {
        // No plain addition: calls that come too late must not add up to an overflow.
        let within_limit = |next: u64| {
            next.checked_add(count)
                .filter(|end| *end <= REJECT_AFTER_MESSAGES)
        };
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within_limit)
            .ok()
    }

    /// Makes a data message of a slot: 16 bytes for the header, the padded packet, 16 bytes for the authenticator.
    /// Encrypts in place. A counter must be used once only: see [`Self::reserve`].
    ///
    /// # Errors
    /// The slot is too short (or longer than [`warren_cipher::MAX_LEN`]). It must not be sent.
    pub fn seal(&self, counter: u64, slot: &mut [u8]) -> Result<(), BadSlot> {
        let (packet, tag) = self.frame(counter, slot)?;
        *tag = self.sealing.seal(counter, packet);
        Ok(())
    }

    /// Seals two slots, with the counters `first` and the one after it. Takes less time than one after the other for packets
    /// of the same usual length.
    ///
    /// # Errors
    /// One of the slots is as in [`Self::seal`]. Neither must be sent.
    pub fn seal_two(&self, first: u64, slots: [&mut [u8]; 2]) -> Result<(), BadSlot> {
        let counters = [first, first + 1];
        let [one, other] = slots;
        let (packet, tag) = self.frame(counters[0], one)?;
        let (other_packet, other_tag) = self.frame(counters[1], other)?;
        [*tag, *other_tag] = self.sealing.seal_two(counters, [packet, other_packet]);
        Ok(())
    }

    /// Writes the header of a message. Gives the places of packet and authenticator.
    fn frame<'s>(
        &self,
        counter: u64,
        slot: &'s mut [u8],
    ) -> Result<(&'s mut [u8], &'s mut [u8; TAG_LEN]), BadSlot> {
        let bad = BadSlot { len: slot.len() };
        let (header, rest) = slot.split_first_chunk_mut::<DATA_HEADER_LEN>().ok_or(bad)?;
        let (packet, tag) = rest.split_last_chunk_mut::<TAG_LEN>().ok_or(bad)?;
        if packet.len() > warren_cipher::MAX_LEN {
            return Err(bad);
        }
        header[..4].copy_from_slice(&4_u32.to_le_bytes());
        header[4..8].copy_from_slice(&self.remote_index.to_le_bytes());
        header[8..].copy_from_slice(&counter.to_le_bytes());
        Ok((packet, tag))
    }

    /// Opens a data message in place, without a lock. It is authentic then, but may still be a repetition: see
    /// [`Self::window`] and [`Self::accept`]. One that fails to open leaves garbage in its place.
    ///
    /// # Errors
    /// [`DropReason::SessionExpired`], [`DropReason::Replayed`] (too old for sure), [`DropReason::DecryptFailed`];
    /// [`DropReason::Malformed`] for what is no data message; [`DropReason::UnknownSession`] for another session's.
    pub fn open(&self, now: Millis, datagram: &mut [u8]) -> Result<Opened, DropReason> {
        let (counter, sealed) = self.accepted(now, datagram)?;
        opened(counter, self.opening.open(counter, sealed))
    }

    /// Opens two data messages as [`Self::open`] does, in less time than one after the other if they are of the same usual
    /// length.
    pub fn open_two(&self, now: Millis, datagrams: [&mut [u8]; 2]) -> [Result<Opened, DropReason>; 2] {
        match datagrams.map(|datagram| self.accepted(now, datagram)) {
            [Ok((counter, sealed)), Ok((other_counter, other_sealed))] => {
                let [one, other] = self
                    .opening
                    .open_two([counter, other_counter], [sealed, other_sealed]);
                [opened(counter, one), opened(other_counter, other)]
            }
            each => each.map(|accepted| {
                let (counter, sealed) = accepted?;
                opened(counter, self.opening.open(counter, sealed))
            }),
        }
    }

    /// The counter and what is sealed of a data message that may be opened.
    fn accepted<'d>(&self, now: Millis, datagram: &'d mut [u8]) -> Result<(u64, &'d mut [u8]), DropReason> {
        let (header, sealed) = datagram
            .split_first_chunk_mut::<DATA_HEADER_LEN>()
            .ok_or(DropReason::TooShort)?;
        let ([4, 0, 0, 0, index @ .., _, _, _, _, _, _, _, _], Some(counter)) =
            (*header, header.last_chunk())
        else {
            return Err(DropReason::Malformed);
        };
        if u32::from_le_bytes(index) != self.local_index {
            return Err(DropReason::UnknownSession);
        }
        let counter = u64::from_le_bytes(*counter);
        if counter >= REJECT_AFTER_MESSAGES || !self.is_alive(now) {
            return Err(DropReason::SessionExpired);
        }
        if is_too_old(counter, self.window_end.load(Ordering::Relaxed)) {
            return Err(DropReason::Replayed);
        }
        Ok((counter, sealed))
    }

    /// Takes the lock under which counters are marked as seen, for a run of them.
    pub fn window(&self) -> WindowGuard<'_> {
        WindowGuard {
            session: self,
            window: self.window.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Marks one counter: [`WindowGuard::accept`].
    ///
    /// # Errors
    /// See there.
    pub fn accept(&self, counter: u64) -> Result<(), DropReason> {
        self.window().accept(counter)
    }

    /// Whether it may still be sent with: young enough, not ended. Whether there are counters left says
    /// [`Self::reserve`].
    pub fn may_send(&self, now: Millis) -> bool {
        self.is_alive(now) && self.next.load(Ordering::Relaxed) < REJECT_AFTER_MESSAGES
    }

    /// Whether having sent with it calls for another session (section 6.2): its initiator when it is old, either side when
    /// its key has sealed very much.
    pub(crate) fn wants_next_after_sending(&self, now: Millis) -> bool {
        (self.initiator && self.age(now) >= REKEY_AFTER_TIME)
            || self.next.load(Ordering::Relaxed) > REKEY_AFTER_MESSAGES
    }

    /// Whether having received with it calls for another session, so late that the other side could not be answered
    /// otherwise. Says so once.
    pub(crate) fn wants_next_after_receiving(&self, now: Millis) -> bool {
        self.initiator
            && self.age(now) >= REKEY_AFTER_RECEIVING_TIME
            && !self.asked_for_next.swap(true, Ordering::Relaxed)
    }

    /// Whether nothing has been received with it although the other side began it.
    pub(crate) fn is_unconfirmed(&self) -> bool {
        self.unconfirmed.load(Ordering::Relaxed)
    }

    /// It has been used by the other side, or never needs to be.
    pub(crate) fn confirm(&self) {
        self.unconfirmed.store(false, Ordering::Relaxed);
    }

    /// Sends and opens nothing from now on. Its keys are erased when nobody holds it any more.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether it is too old to be of any use.
    pub(crate) fn is_expired(&self, now: Millis) -> bool {
        self.age(now) >= REJECT_AFTER_TIME
    }

    fn is_alive(&self, now: Millis) -> bool {
        !self.is_expired(now) && !self.ended.load(Ordering::Relaxed)
    }

    /// A caller's time may be that of the batch before the one in which the session was made.
    fn age(&self, now: Millis) -> Millis {
        now.saturating_sub(self.born)
    }

    /// As if it had sealed so many messages.
    #[cfg(test)]
    pub(crate) fn skip_to(&self, counter: u64) {
        self.next.store(counter, Ordering::Relaxed);
    }
}

/// A message that the cipher has judged.
fn opened(counter: u64, len: Result<usize, NotAuthentic>) -> Result<Opened, DropReason> {
    let len = len.map_err(|NotAuthentic| DropReason::DecryptFailed)?;
    Ok(Opened {
        counter,
        packet: DATA_HEADER_LEN..DATA_HEADER_LEN + len,
    })
}

/// The window of a session, held to mark a run of counters.
pub struct WindowGuard<'s> {
    session: &'s Session,
    window: MutexGuard<'s, Window>,
}

impl WindowGuard<'_> {
    /// Marks the counter of an authentic message as seen.
    ///
    /// # Errors
    /// [`DropReason::Replayed`]: it was marked before, or is too old to tell.
    pub fn accept(&mut self, counter: u64) -> Result<(), DropReason> {
        self.window.mark(counter)
    }
}

impl Drop for WindowGuard<'_> {
    fn drop(&mut self) {
        // A look at an older value is no harm: what it lets pass, marking refuses.
        self.session
            .window_end
            .store(self.window.end(), Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
