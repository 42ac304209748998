//! What the workers leave to the thread that shakes hands: handshake messages, and peers to be looked after.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::member::Member;
use crate::endpoint::Endpoint;
use crate::noise::INITIATION_LEN;

/// Handshake messages that wait at most; as in the kernel, a flood fills it and is not waited for.
pub(super) const MESSAGES: usize = 1024;

/// A handshake message and where it came from.
pub(super) struct Letter {
    bytes: [u8; INITIATION_LEN],
    len: usize,
    /// Its sender, and the address of ours that it was sent to.
    pub(super) from: Endpoint,
}

impl Letter {
    /// A copy of a message; `None` when it is longer than any handshake message.
    pub(super) fn new(message: &[u8], from: Endpoint) -> Option<Self> {
        let mut bytes = [0; INITIATION_LEN];
        bytes.get_mut(..message.len())?.copy_from_slice(message);
        Some(Self {
            bytes,
            len: message.len(),
            from,
        })
    }

    /// The message.
    pub(super) fn message(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The box.
#[derive(Default)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    posted: Condvar,
}

/// What is in the box.
#[derive(Default)]
pub(super) struct Mail {
    /// Handshake messages, the oldest first.
    pub(super) letters: VecDeque<Letter>,
    /// Peers that want a handshake, or whose waiting packets may go.
    pub(super) wanted: Vec<Arc<Member>>,
}

impl Mailbox {
    /// Posts a handshake message. `false`: the box is full, and the message is dropped.
    pub(super) fn post(&self, letter: Letter) -> bool {
        let mut mail = self.lock();
        if mail.letters.len() >= MESSAGES {
            return false;
        }
        mail.letters.push_back(letter);
        drop(mail);
        self.posted.notify_one();
        true
    }

    /// Asks to look after a peer.
    pub(super) fn want(&self, member: &Arc<Member>) {
        if member.want() {
            self.lock().wanted.push(Arc::clone(member));
            self.posted.notify_one();
        }
    }

    /// Waits until there is mail, or until a time, and takes the peers and one letter. Gives also how many letters are
    /// left.
    pub(super) fn take(&self, until: Instant) -> (Vec<Arc<Member>>, Option<Letter>, usize) {
        let mut mail = self.lock();
        while mail.letters.is_empty() && mail.wanted.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (mail, _) = self
                .posted
                .wait_timeout(mail, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let wanted = std::mem::take(&mut mail.wanted);
        let letter = mail.letters.pop_front();
        for member in &wanted {
            member.taken_out();
        }
        (wanted, letter, mail.letters.len())
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
