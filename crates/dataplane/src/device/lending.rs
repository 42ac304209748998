//! Who waits for the interface.
//!
//! Where little goes on, one thread waits for frames and for datagrams alike. What it hands to the kernel is often
//! answered before the call returns, and it carries the answer too: to wake another thread for it would take longer than
//! all the rest. Where much goes on it lends the interface to a second thread, so that each direction has a core. It
//! takes the interface back when there has been little to carry for a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::noise::Millis;

/// For how long there must have been little to carry before the interface is taken back, in milliseconds.
const REST: Millis = 20;

/// How much was carried at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Load {
    /// At most one datagram.
    Little,
    /// More.
    Much,
}

/// What the two threads know of each other.
#[derive(Default)]
pub(super) struct Lending {
    /// Whether the interface is lent. Held by whoever carries a batch of frames, so that they leave in the order in which
    /// they came.
    lent: Mutex<bool>,
    begun: Condvar,
    /// When there was last much to carry.
    busy: AtomicU64,
}

impl Lending {
    /// The second thread may have the interface from now on.
    pub(super) fn lend(&self) {
        *self.lock() = true;
        self.begun.notify_one();
    }

    /// The second thread, which may just be waiting for a frame, will carry none any more.
    pub(super) fn take_back(&self) {
        *self.lock() = false;
    }

    /// Waits until the interface is lent.
    pub(super) fn await_loan(&self) {
        let lent = self.begun.wait_while(self.lock(), |lent| !*lent);
        drop(lent.unwrap_or_else(PoisonError::into_inner));
    }

    /// The second thread's turn to carry a batch of frames, unless the interface has been taken back.
    pub(super) fn turn(&self) -> Option<MutexGuard<'_, bool>> {
        Some(self.lock()).filter(|lent| **lent)
    }

    /// There is much to carry.
    pub(super) fn note_much(&self, now: Millis) {
        self.busy.store(now, Ordering::Relaxed);
    }

    /// Whether there has been little to carry for a while.
    pub(super) fn has_rested(&self, now: Millis) -> bool {
        now.saturating_sub(self.busy.load(Ordering::Relaxed)) > REST
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_thread_has_a_turn_only_while_the_interface_is_lent() {
        let lending = Lending::default();
        assert!(lending.turn().is_none());
        lending.lend();
        lending.await_loan();
        assert!(lending.turn().is_some());
        lending.take_back();
        assert!(lending.turn().is_none());
    }

    #[test]
    fn rest_begins_when_there_was_last_much_to_carry() {
        let lending = Lending::default();
        lending.note_much(1_000);
        assert!(!lending.has_rested(1_000 + REST));
        assert!(lending.has_rested(1_001 + REST));
        lending.note_much(1_010);
        assert!(!lending.has_rested(1_001 + REST));
    }
}
