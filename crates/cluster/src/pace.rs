//! How many Events may be written: a bucket of tokens. Pure, the time is an argument.

use std::time::Duration;

/// How many Events may follow each other at once.
pub const BURST: u32 = 25;

/// The time in which one more is allowed after that.
pub const EVERY: Duration = Duration::from_secs(10);

/// A bucket of [`BURST`] tokens, of which one comes back every [`EVERY`].
#[derive(Debug, Clone)]
pub struct Pace {
    tokens: u32,
    /// When the last token came back.
    filled: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            tokens: BURST,
            filled: Duration::ZERO,
        }
    }
}

impl Pace {
    /// Takes a token. Without one: when there will be one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.fill(now);
        if self.tokens == 0 {
            return Err(self.filled + EVERY);
        }
        self.tokens -= 1;
        Ok(())
    }

    /// When there is a token: now, or later.
    pub fn ready(&mut self, now: Duration) -> Duration {
        self.fill(now);
        if self.tokens == 0 {
            self.filled + EVERY
        } else {
            now
        }
    }

    fn fill(&mut self, now: Duration) {
        let came_back = now.saturating_sub(self.filled).as_secs() / EVERY.as_secs();
        let came_back = u32::try_from(came_back).unwrap_or(u32::MAX).min(BURST);
        self.tokens = self.tokens.saturating_add(came_back).min(BURST);
        self.filled = if self.tokens == BURST {
            now
        } else {
            self.filled + EVERY * came_back
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_one_in_ten_seconds() {
        let mut pace = Pace::default();
        let start = Duration::from_secs(1000);
        for _ in 0..BURST {
            assert_eq!(pace.take(start), Ok(()));
        }
        assert_eq!(pace.take(start), Err(start + EVERY));
        let almost = start + EVERY - Duration::from_millis(1);
        assert_eq!(pace.take(almost), Err(start + EVERY));
        assert_eq!(pace.ready(almost), start + EVERY);
        assert_eq!(pace.take(start + EVERY), Ok(()));
        assert_eq!(pace.take(start + EVERY), Err(start + EVERY * 2));
        let over = start + EVERY * 1000;
        let mut granted = 0;
        while pace.take(over).is_ok() {
            granted += 1;
        }
        assert_eq!(granted, BURST, "it never holds more");
    }

    #[test]
    fn over_a_long_time_no_more_than_the_rate_passes() {
        let mut pace = Pace::default();
        let hour = 3600_u64;
        let granted = (0..hour * 10).filter(|tenth| pace.take(Duration::from_millis(tenth * 100)).is_ok());
        let granted = granted.count() as u64;
        let most = u64::from(BURST) + hour / EVERY.as_secs();
        assert!(granted <= most && granted + 1 >= most, "{granted} of {most}");
    }
}
