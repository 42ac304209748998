//! How long to wait before asking again.

use std::time::Duration;

/// The first wait is at most this long.
pub const FIRST: Duration = Duration::from_millis(250);

/// No wait is longer.
pub const LONGEST: Duration = Duration::from_secs(15);

/// Waits that double up to [`LONGEST`], each drawn from the upper half of its range: the agents of all nodes lose the
/// API server in the same moment and must not come back in the same moment.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait. `random` is any number; all of them equally likely gives waits spread evenly.
    pub fn next_wait(&mut self, random: u64) -> Duration {
        let doubled = FIRST.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        let half = doubled.min(LONGEST) / 2;
        let micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        half + Duration::from_micros(random % micros.max(1))
    }

    /// Whether nothing has failed since something went well.
    pub fn is_reset(&self) -> bool {
        self.failures == 0
    }

    /// Something went well: the next wait is a short one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_stay_in_the_upper_half_and_end_at_the_longest() {
        for random in [0, 1, 12_345_678_901, u64::MAX] {
            let mut backoff = Backoff::default();
            let mut ceiling = FIRST;
            for _ in 0..100 {
                let wait = backoff.next_wait(random);
                assert!(wait >= ceiling / 2 && wait <= ceiling, "{wait:?} of {ceiling:?}");
                ceiling = (ceiling * 2).min(LONGEST);
            }
        }
    }

    #[test]
    fn those_who_fail_in_the_same_moment_do_not_come_back_in_the_same_moment() {
        let mut tenths = [0; 10];
        for node in 0..1000_u64 {
            let mut backoff = Backoff { failures: 20 };
            let random = node.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let into_half = backoff.next_wait(random) - LONGEST / 2;
            let tenth = into_half.as_micros() * 10 / (LONGEST / 2).as_micros();
            tenths[usize::try_from(tenth).unwrap_or(usize::MAX)] += 1;
        }
        assert!(tenths.iter().all(|count| (50..150).contains(count)), "{tenths:?}");
    }

    #[test]
    fn success_makes_waits_short_again() {
        let mut backoff = Backoff::default();
        let first = backoff.next_wait(7);
        assert!(backoff.next_wait(7) > first);
        backoff.reset();
        assert_eq!(backoff.next_wait(7), first);
    }
}
