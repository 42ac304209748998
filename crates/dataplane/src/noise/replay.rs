//! The window of counters that have been seen (the paper, section 5.4.6; the form is that of RFC 6479).
//!
//! Counters of the last [`WINDOW`] before the greatest are known one by one; older ones are refused unseen. The bits
//! are a ring of words: going forward clears whole words and shifts nothing.

use crate::drops::DropReason;

/// Bits of the ring, as in the kernel.
const BITS: u64 = 8192;

/// Counters that may come late: all bits but those of one word, which is cleared while the ring goes on.
const WINDOW: u64 = BITS - 64;

const WORDS: usize = (BITS / 64) as usize;

/// The counters that have been seen on one session.
pub(super) struct Window {
    /// One more than the greatest counter that was marked; 0: none was.
    end: u64,
    seen: [u64; WORDS],
}

impl Window {
    /// A window in which nothing was seen.
    pub(super) fn new() -> Self {
        Self {
            end: 0,
            seen: [0; WORDS],
        }
    }

    /// One more than the greatest counter that was marked; 0: none was.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Marks a counter.
    ///
    /// # Errors
    /// [`DropReason::Replayed`]: it was marked before, or is too old to tell.
    pub(super) fn mark(&mut self, counter: u64) -> Result<(), DropReason> {
        if is_too_old(counter, self.end) {
            return Err(DropReason::Replayed);
        }
        let word = counter / 64;
        if counter >= self.end {
            // From the word after the one that holds the greatest so far (whose upper bits were never set) to this one.
            let first = self.end.div_ceil(64);
            for stale in first..=word.min(first.saturating_add(WORDS as u64)) {
                self.seen[place(stale)] = 0;
            }
            self.end = counter.saturating_add(1);
        }
        let bit = 1 << (counter % 64);
        let seen = &mut self.seen[place(word)];
        if *seen & bit != 0 {
            return Err(DropReason::Replayed);
        }
        *seen |= bit;
        Ok(())
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a counter has left the window that ends (exclusively) there. A window only goes forward, so one that was too
/// old once stays it.
pub(super) fn is_too_old(counter: u64, end: u64) -> bool {
    end.saturating_sub(counter) > WINDOW
}

fn place(word: u64) -> usize {
    (word % WORDS as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_counter_of_the_window_is_taken_once_in_any_order() {
        let mut window = Window::new();
        for counter in (0..WINDOW).rev().chain(WINDOW..3 * WINDOW) {
            assert_eq!(window.mark(counter), Ok(()), "{counter}");
            assert_eq!(window.mark(counter), Err(DropReason::Replayed), "{counter}");
        }
    }

    #[test]
    fn the_oldest_that_counts_is_a_whole_window_before_the_end() {
        let mut window = Window::new();
        assert_eq!(window.mark(WINDOW), Ok(()));
        assert_eq!(window.mark(1), Ok(()));
        assert_eq!(window.mark(0), Err(DropReason::Replayed));
    }

    #[test]
    fn a_leap_over_the_whole_ring_forgets_what_was_there() {
        for leap in [
            WINDOW,
            BITS - 1,
            BITS,
            BITS + 1,
            5 * BITS + 7,
            u64::MAX / 2,
            u64::MAX - 1,
        ] {
            let mut window = Window::new();
            assert_eq!(window.mark(5), Ok(()));
            assert_eq!(window.mark(leap), Ok(()), "{leap}");
            let fresh = leap - 64;
            assert_eq!(window.mark(fresh), Ok(()), "{leap}");
            assert_eq!(window.mark(leap), Err(DropReason::Replayed));
        }
    }

    #[test]
    fn the_last_counters_there_are_do_not_overflow() {
        let mut window = Window::new();
        assert_eq!(window.mark(u64::MAX - 1), Ok(()));
        assert_eq!(window.mark(u64::MAX - 1), Err(DropReason::Replayed));
        assert_eq!(window.mark(0), Err(DropReason::Replayed));
    }

    proptest! {
        /// The window agrees with a set that forgets nothing.
        #[test]
        fn it_takes_what_is_new_and_within_reach(
            steps in prop::collection::vec((0..20_000_u64, 0..12_000_u64), 1..400)
        ) {
            let mut window = Window::new();
            let mut seen = BTreeSet::new();
            let mut base = 0;
            for (forward, back) in steps {
                base += forward / 8;
                let counter = (base + forward).saturating_sub(back);
                let reachable = seen.last().is_none_or(|last: &u64| *last < counter + WINDOW);
                let expected = reachable && !seen.contains(&counter);
                prop_assert_eq!(window.mark(counter).is_ok(), expected, "{}", counter);
                if expected {
                    seen.insert(counter);
                }
                prop_assert_eq!(Some(window.end()), seen.last().map(|last| last + 1));
            }
        }
    }
}
