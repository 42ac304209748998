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

    #[test]
    fn letters_are_taken_in_order_and_one_at_a_time() {
        let mailbox = Mailbox::default();
        for number in 0..3 {
            assert!(mailbox.post(letter(number)));
        }
        for number in 0..3 {
            let (_, letter, left) = mailbox.take(Instant::now());
            assert_eq!(letter.unwrap().message(), [number; 64]);
            assert_eq!(left, usize::from(2 - number));
        }
        assert!(mailbox.take(Instant::now()).1.is_none());
    }

    #[test]
    fn a_flood_fills_the_box_and_no_more() {
        let mailbox = Mailbox::default();
        for number in 0..MESSAGES + 10 {
            assert_eq!(mailbox.post(letter(0)), number < MESSAGES);
        }
        // Peers find their way past it.
        mailbox.want(&member());
        assert_eq!(mailbox.take(Instant::now()).0.len(), 1);
    }

    #[test]
    fn a_peer_is_wanted_once_until_it_is_taken_out() {
        let (mailbox, member) = (Mailbox::default(), member());
        for _ in 0..2 {
            mailbox.want(&member);
            mailbox.want(&member);
            assert_eq!(mailbox.take(Instant::now()).0.len(), 1);
        }
        assert!(mailbox.take(Instant::now()).0.is_empty());
    }

    #[test]
    fn whoever_waits_is_woken() {
        let mailbox = Mailbox::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| mailbox.take(Instant::now() + Duration::from_secs(60)));
            mailbox.want(&member());
            assert_eq!(waiting.join().unwrap().0.len(), 1);
        });
    }

    #[test]
    fn what_is_longer_than_any_handshake_message_is_no_letter() {
        let from = Endpoint::from(std::net::SocketAddr::from(([192, 0, 2, 1], 51820)));
        assert!(Letter::new(&[0; INITIATION_LEN + 1], from).is_none());
    }
}
