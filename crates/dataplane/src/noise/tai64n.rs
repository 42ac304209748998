//! The time in an initiation (the paper, sections 5.1 and 5.4.2): TAI64N, twelve bytes that grow.
//!
//! A peer takes an initiation only if its time is later than that of the one before. So it need not be right, but it
//! must never go back, not even when the clock does: see [`Tai64n::after`].

use std::time::Duration;

/// Seconds of TAI64 at the Unix epoch: 2^62, and the ten seconds that TAI was ahead then.
const UNIX_EPOCH: u64 = (1 << 62) + 10;

/// Steps of the nanoseconds, as in the kernel (2^24, 17 ms): what is finer tells others about our clock, and no two
/// initiations to one peer are closer.
const STEP: u32 = 1 << 24;

const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// A TAI64N label (<https://cr.yp.to/libtai/tai64.html>): seconds, then nanoseconds, big-endian. Later ones compare
/// greater. Nanoseconds of somebody else's label may be out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tai64n([u8; 12]);

impl Tai64n {
    /// The label of a time since the Unix epoch, rounded down to a step of 17 ms.
    pub fn from_unix(since_epoch: Duration) -> Self {
        let nanos = since_epoch.subsec_nanos();
        Self::of(
            UNIX_EPOCH.saturating_add(since_epoch.as_secs()),
            nanos - nanos % STEP,
        )
    }

    /// Takes a label from a message. All are possible.
    pub(super) fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// The twelve bytes.
    pub(super) fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }

    /// This time, or the step after `before` if that is later: what a clock that has been put back would say.
    pub(crate) fn after(self, before: Option<Self>) -> Self {
        before.map_or(self, |before| self.max(before.next()))
    }

    fn next(self) -> Self {
        let seconds = self
            .0
            .first_chunk()
            .map_or(u64::MAX, |seconds| u64::from_be_bytes(*seconds));
        let nanos = self.0.last_chunk().map_or(0, |nanos| u32::from_be_bytes(*nanos));
        match nanos.checked_add(STEP) {
            Some(nanos) if nanos < NANOS_PER_SECOND => Self::of(seconds, nanos),
            _ => Self::of(seconds.saturating_add(1), 0),
        }
    }

    fn of(seconds: u64, nanos: u32) -> Self {
        let mut label = [0; 12];
        label[..8].copy_from_slice(&seconds.to_be_bytes());
        label[8..].copy_from_slice(&nanos.to_be_bytes());
        Self(label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_of_the_standard_s_example() {
        // 1992-06-02 08:07:09 TAI is 4000000000..2a2b2c2d; TAI was 26 seconds ahead of UTC then, which is left out here
        // as all implementations do, so the label is that of the Unix time and ten seconds.
        let label = Tai64n::from_unix(Duration::new(0x2a2b_2c2d - 10, 0));
        assert_eq!(
            label.as_bytes(),
            &[0x40, 0, 0, 0, 0x2a, 0x2b, 0x2c, 0x2d, 0, 0, 0, 0]
        );
    }

    #[test]
    fn times_within_a_step_look_the_same() {
        let at = |nanos| Tai64n::from_unix(Duration::new(1_700_000_000, nanos));
        assert_eq!(at(0), at(STEP - 1));
        assert!(at(STEP - 1) < at(STEP));
        assert!(at(999_999_999) < Tai64n::from_unix(Duration::new(1_700_000_001, 0)));
    }

    #[test]
    fn a_clock_that_goes_back_makes_labels_that_grow() {
        let mut last = Tai64n::from_unix(Duration::new(1_700_000_000, 950_000_000));
        for seconds in [1_600_000_000, 1_700_000_000, 0, 1_700_000_000, 5, 5] {
            let next = Tai64n::from_unix(Duration::from_secs(seconds)).after(Some(last));
            assert!(next > last);
            last = next;
        }
        let right = Tai64n::from_unix(Duration::from_secs(1_800_000_000));
        assert_eq!(
            right.after(Some(last)),
            right,
            "a clock that is right counts as it is"
        );
        assert_eq!(right.after(None), right);
        let end = Tai64n([0xff; 12]);
        assert!(end.next() <= end, "the end of time is no panic");
    }
}
