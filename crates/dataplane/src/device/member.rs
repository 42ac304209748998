//! A peer as a member of the device: what the protocol does not need to know of it.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::noise::Local;
use crate::peer::Peer;
use warren_model::PublicKey;

/// A peer of the device.
pub(crate) struct Member {
    peer: Peer,
    /// What allowed IPs know it by: its own among all peers that the device has ever had.
    id: u32,
    /// Packets wait for a session, or are being sent now that there is one. Until all are gone, later ones wait behind
    /// them, so that they leave in order.
    waiting: AtomicBool,
    /// It is in the mailbox already.
    wanted: AtomicBool,
}

impl Member {
    pub(crate) fn new(id: u32, key: PublicKey, local: Option<&Local>) -> Self {
        Self {
            id,
            peer: Peer::new(key, local),
            waiting: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
        }
    }

    /// What allowed IPs know it by.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Whether later packets have to wait behind others.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Says that packets wait, or that all of them have been sent.
    pub(crate) fn set_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::Release);
    }

    /// Asks to be put into the mailbox: `true` for the first of those who ask until it is taken out.
    pub(super) fn want(&self) -> bool {
        !self.wanted.swap(true, Ordering::AcqRel)
    }

    /// It has been taken out of the mailbox.
    pub(super) fn taken_out(&self) {
        self.wanted.store(false, Ordering::Release);
    }
}

impl Deref for Member {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}
