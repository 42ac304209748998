//! Packets that wait for a session.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Packets that wait for one peer at most; the oldest makes room, as in the kernel.
pub const STAGED_PACKETS: usize = 128;

/// Packets as they came from the interface, without padding, the oldest first.
pub type Staged = VecDeque<Box<[u8]>>;

/// Bytes that may wait for all peers of a device together. Shared by threads.
#[derive(Debug)]
pub struct StagedBudget {
    left: AtomicUsize,
}

impl StagedBudget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self {
            left: AtomicUsize::new(bytes),
        }
    }

    fn take(&self, bytes: usize) -> bool {
        let enough = |left: usize| left.checked_sub(bytes);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough)
            .is_ok()
    }

    fn give_back(&self, packets: &Staged) {
        let bytes: usize = packets.iter().map(|packet| packet.len()).sum();
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The packets that wait for one peer.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<Staged>);

impl Waiting {
    /// Adds a packet. Gives the number of those that are dropped for it: the oldest when the peer's places are taken,
    /// itself when the budget is spent.
    pub(super) fn push(&self, packet: Box<[u8]>, budget: &StagedBudget) -> usize {
        let mut staged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = (staged.len() + 1).saturating_sub(STAGED_PACKETS);
        let dropped: Staged = staged.drain(..over).collect();
        budget.give_back(&dropped);
        let fits = budget.take(packet.len());
        if fits {
            staged.push_back(packet);
        }
        dropped.len() + usize::from(!fits)
    }

    /// Takes all.
    pub(super) fn take(&self, budget: &StagedBudget) -> Staged {
        let staged = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        budget.give_back(&staged);
        staged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(first: u8) -> Box<[u8]> {
        Box::new([first; 10])
    }

    #[test]
    fn packets_come_out_in_order_and_the_oldest_make_room() {
        let (waiting, budget) = (Waiting::default(), StagedBudget::new(10_000));
        for number in 0..u8::MAX {
            let full = usize::from(number) >= STAGED_PACKETS;
            assert_eq!(waiting.push(packet(number), &budget), usize::from(full));
        }
        let staged = waiting.take(&budget);
        let firsts: Vec<u8> = staged.iter().map(|packet| packet[0]).collect();
        let expected: Vec<u8> = (u8::MAX - 128..u8::MAX).collect();
        assert_eq!(firsts, expected);
        assert!(waiting.take(&budget).is_empty());
        assert!(budget.take(10_000) && !budget.take(1), "all is given back");
    }

    #[test]
    fn one_peer_s_packets_leave_none_of_the_budget_to_another_until_they_go() {
        let budget = StagedBudget::new(25);
        let (one, other) = (Waiting::default(), Waiting::default());
        assert_eq!(one.push(packet(1), &budget), 0);
        assert_eq!(one.push(packet(2), &budget), 0);
        assert_eq!(other.push(packet(3), &budget), 1);
        assert_eq!(one.take(&budget).len(), 2);
        assert_eq!(other.push(packet(3), &budget), 0);
    }
}
