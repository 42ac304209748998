//! What the workers leave to the thread that shakes hands: handshake messages, and peers to be looked after.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::member::Member;
use crate::endpoint::Endpoint;
use crate::noise::INITIATION_LEN;

/// Handshake messages that wait at most; as in the kernel, a flood fills it and is not waited for.
pub(super) const MESSAGES: usize = 1024;

/// Handshake messages that are taken out at once: under a flood, a lock for each would be most of the work.
const TAKEN_AT_ONCE: usize = 64;

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
        let was_empty = mail.is_empty();
        mail.letters.push_back(letter);
        drop(mail);
        // Whoever empties the box looks again before he sleeps: a system call for each letter would be for nothing.
        if was_empty {
            self.posted.notify_one();
        }
        true
    }

    /// Asks to look after a peer.
    pub(super) fn want(&self, member: &Arc<Member>) {
        if member.want() {
            let mut mail = self.lock();
            let was_empty = mail.is_empty();
            mail.wanted.push(Arc::clone(member));
            drop(mail);
            if was_empty {
                self.posted.notify_one();
            }
        }
    }

    /// Waits until there is mail, or until a time, and takes the peers and some letters, which are added to `letters`.
    /// Gives also how many letters are left. One thread takes: it is the only one to be woken.
    pub(super) fn take(&self, until: Instant, letters: &mut Vec<Letter>) -> (Vec<Arc<Member>>, usize) {
        let mut mail = self.lock();
        while mail.is_empty() {
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
        let taken = mail.letters.len().min(TAKEN_AT_ONCE);
        letters.extend(mail.letters.drain(..taken));
        for member in &wanted {
            member.taken_out();
        }
        (wanted, mail.letters.len())
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mail {
    fn is_empty(&self) -> bool {
        self.letters.is_empty() && self.wanted.is_empty()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::time::Duration;

    use warren_model::PublicKey;

    use super::*;

    fn letter(number: u8) -> Letter {
        let from = Endpoint::from(std::net::SocketAddr::from(([192, 0, 2, 1], 51820)));
        Letter::new(&[number; 64], from).unwrap()
    }

    fn member() -> Arc<Member> {
        Arc::new(Member::new(1, PublicKey::from_bytes([7; 32]).unwrap(), None))
    }

    /// The peers in the box.
    fn wanted(mailbox: &Mailbox) -> usize {
        mailbox.take(Instant::now(), &mut Vec::new()).0.len()
    }

    #[test]
    fn letters_are_taken_in_order_and_some_at_a_time() {
        let mailbox = Mailbox::default();
        let posted = u8::try_from(2 * TAKEN_AT_ONCE + 3).unwrap();
        for number in 0..posted {
            assert!(mailbox.post(letter(number)));
        }
        let mut letters = Vec::new();
        for left in [TAKEN_AT_ONCE + 3, 3, 0, 0] {
            assert_eq!(mailbox.take(Instant::now(), &mut letters).1, left);
        }
        let numbers: Vec<u8> = letters.iter().map(|letter| letter.message()[0]).collect();
        assert_eq!(numbers, (0..posted).collect::<Vec<_>>());
    }

    #[test]
    fn a_flood_fills_the_box_and_no_more() {
        let mailbox = Mailbox::default();
        for number in 0..MESSAGES + 10 {
            assert_eq!(mailbox.post(letter(0)), number < MESSAGES);
        }
        // Peers find their way past it.
        mailbox.want(&member());
        assert_eq!(wanted(&mailbox), 1);
    }

    #[test]
    fn a_peer_is_wanted_once_until_it_is_taken_out() {
        let (mailbox, member) = (Mailbox::default(), member());
        for _ in 0..2 {
            mailbox.want(&member);
            mailbox.want(&member);
            assert_eq!(wanted(&mailbox), 1);
        }
        assert_eq!(wanted(&mailbox), 0);
    }

    #[test]
    fn whoever_waits_is_woken() {
        let mailbox = Mailbox::default();
        std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| mailbox.take(Instant::now() + Duration::from_secs(60), &mut Vec::new()));
            mailbox.want(&member());
            assert_eq!(waiting.join().unwrap().0.len(), 1);
        });
    }

    #[test]
    fn nobody_sleeps_over_mail_however_it_comes() {
        const LETTERS: usize = 20_000;
        let mailbox = Mailbox::default();
        std::thread::scope(|scope| {
            let taking = scope.spawn(|| {
                let deadline = Instant::now() + Duration::from_secs(60);
                let (mut letters, mut taken) = (Vec::new(), 0);
                while taken < LETTERS {
                    mailbox.take(deadline, &mut letters);
                    assert!(!letters.is_empty(), "slept until the deadline");
                    taken += letters.drain(..).len();
                }
            });
            for _ in 0..LETTERS {
                while !mailbox.post(letter(0)) {
                    std::thread::yield_now();
                }
            }
            taking.join().unwrap();
        });
    }

    #[test]
    fn what_is_longer_than_any_handshake_message_is_no_letter() {
        let from = Endpoint::from(std::net::SocketAddr::from(([192, 0, 2, 1], 51820)));
        assert!(Letter::new(&[0; INITIATION_LEN + 1], from).is_none());
    }
}
