//! How many handshakes are worth working off: in all, and from one source (the paper, section 5.3).
//!
//! While there is little to do, all are answered: a source address proves nothing, and to limit it would let an attacker
//! silence others by writing their address on his messages. Under load, a source has to show a cookie first, and then
//! has so many handshakes a second.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Millis;

/// What one handshake takes from a source's tokens, which are milliseconds: 20 a second, as in the kernel.
const COST: Millis = 1000 / 20;

/// What a source has at most: five handshakes at once.
const FULL: Millis = 5 * COST;

/// Sources that are known at once. Each has shown a cookie, so nobody invents them; beyond that, strangers wait.
const SOURCES: usize = 8192;

/// Handshakes in a second that are a load: they take about a twentieth of a processor. A queue alone does not tell one:
/// strangers who send just as many as are worked off would have a whole processor and never be asked for a cookie.
const MANY: u64 = 1000;

/// How long a load is taken to last after it was last seen.
const LOAD_LASTS: Millis = 1000;

/// Whether there are more handshakes than are worked off.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Until when, at least.
    until: AtomicU64,
    /// A second, and how many handshakes were begun in it.
    second: AtomicU64,
    begun: AtomicU64,
}

impl Load {
    /// Counts a handshake that is worked off.
    pub(super) fn count(&self, now: Millis) {
        let second = now / 1000;
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.begun.store(0, Ordering::Relaxed);
        }
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Looks at the queue of handshakes: `waiting` of `capacity` places are taken. An eighth is a load, as in the kernel;
    /// so are too many handshakes in this second.
    pub(super) fn is_high(&self, now: Millis, waiting: usize, capacity: usize) -> bool {
        let many =
            self.begun.load(Ordering::Relaxed) >= MANY && self.second.load(Ordering::Relaxed) == now / 1000;
        if many || waiting > 0 && waiting >= capacity / 8 {
            self.until
                .store(now.saturating_add(LOAD_LASTS), Ordering::Relaxed);
            return true;
        }
        now < self.until.load(Ordering::Relaxed)
    }
}

/// The handshakes of each source. Shared by threads.
#[derive(Debug, Default)]
pub(super) struct SourceLimit {
    sources: Mutex<HashMap<Source, Bucket>>,
}

/// What counts as one source: an IPv4 address, or the /64 that every IPv6 host has for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4(u32),
    V6(u64),
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: Millis,
    at: Millis,
}

impl SourceLimit {
    /// Takes one handshake's tokens, if the source has them.
    pub(super) fn allows(&self, now: Millis, source: IpAddr) -> bool {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let source = Source::of(source);
        if sources.len() >= SOURCES && !sources.contains_key(&source) {
            // One that has all its tokens again is like one that never was.
            sources.retain(|_, bucket| bucket.tokens_at(now) < FULL);
            if sources.len() >= SOURCES {
                return false;
            }
        }
        let bucket = sources.entry(source).or_insert(Bucket {
            tokens: FULL,
            at: now,
        });
        let tokens = bucket.tokens_at(now);
        let left = tokens.checked_sub(COST);
        *bucket = Bucket {
            tokens: left.unwrap_or(tokens),
            at: now,
        };
        left.is_some()
    }
}

impl Bucket {
    fn tokens_at(&self, now: Millis) -> Millis {
        self.tokens.saturating_add(now.saturating_sub(self.at)).min(FULL)
    }
}

impl Source {
    fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.to_bits()),
            IpAddr::V6(ip) => Self::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn allowed(limit: &SourceLimit, now: Millis, source: &str, tries: usize) -> usize {
        let source = source.parse().unwrap();
        (0..tries).filter(|_| limit.allows(now, source)).count()
    }

    #[test]
    fn a_source_has_five_at_once_and_twenty_a_second() {
        let limit = SourceLimit::default();
        assert_eq!(allowed(&limit, 0, "192.0.2.1", 100), 5);
        assert_eq!(allowed(&limit, 0, "192.0.2.2", 100), 5, "another source");
        let second: usize = (1..=1000).map(|now| allowed(&limit, now, "192.0.2.1", 3)).sum();
        assert_eq!(second, 20);
        assert_eq!(allowed(&limit, 10_000, "192.0.2.1", 100), 5);
    }

    #[test]
    fn one_network_of_64_bits_is_one_source_and_a_mapped_address_is_the_same() {
        let limit = SourceLimit::default();
        assert_eq!(allowed(&limit, 0, "2001:db8:0:1::1", 9), 5);
        assert_eq!(allowed(&limit, 0, "2001:db8:0:1:ffff::2", 9), 0);
        assert_eq!(allowed(&limit, 0, "2001:db8:0:2::1", 9), 5);
        assert_eq!(allowed(&limit, 0, "192.0.2.1", 9), 5);
        assert_eq!(allowed(&limit, 0, "::ffff:192.0.2.1", 9), 0);
    }

    #[test]
    fn the_table_is_bounded_and_lets_go_of_the_quiet() {
        let limit = SourceLimit::default();
        let v4 = |number: u32| IpAddr::from(number.to_be_bytes());
        let sources = u32::try_from(SOURCES).unwrap();
        for number in 0..sources {
            assert!(limit.allows(0, v4(number)));
        }
        assert!(!limit.allows(0, v4(sources)), "no place");
        assert!(limit.allows(0, v4(3)), "those that are known go on");
        assert!(limit.allows(COST, v4(sources)), "they have their tokens again");
        assert!(limit.sources.lock().unwrap().len() <= SOURCES);
    }

    #[test]
    fn many_handshakes_in_a_second_are_a_load_though_none_waits() {
        let load = Load::default();
        for begun in 0..MANY {
            assert!(!load.is_high(7000 + begun / 2, 0, 4096));
            load.count(7000 + begun / 2);
        }
        assert!(load.is_high(7999, 0, 4096));
        assert!(load.is_high(8998, 0, 4096));
        assert!(!load.is_high(8999, 0, 4096));
        // As many in two seconds are none.
        for begun in 0..MANY {
            let now = 9500 + begun;
            load.count(now);
            assert!(!load.is_high(now, 0, 4096));
        }
    }

    #[test]
    fn a_load_is_an_eighth_of_the_queue_and_a_second_after_it() {
        let load = Load::default();
        assert!(!load.is_high(0, 0, 4096));
        assert!(!load.is_high(0, 511, 4096));
        assert!(load.is_high(10, 512, 4096));
        assert!(load.is_high(1009, 0, 4096));
        assert!(!load.is_high(1010, 0, 4096));
        assert!(!load.is_high(1010, 0, 4), "an empty queue is none");
    }
}
