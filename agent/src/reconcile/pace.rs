//! When the next pass is due.

use std::time::Duration;

use tokio::time::Instant;
use warren_plan::handover::HANDSHAKE_PATIENCE;

/// The time between two passes that nothing asked for.
const RESYNC: Duration = Duration::from_secs(10);
/// The pause before a failed pass is repeated, doubled each time up to [`RESYNC`].
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// The pause before something is looked at again that comes about soon.
const SOON: Duration = Duration::from_millis(20);
/// For how long no event of the kernel comes before a pass: one act there makes several, and pods that end together many.
const GATHER: Duration = Duration::from_millis(20);
/// How long events of the kernel are gathered at most.
const GATHER_AT_MOST: Duration = Duration::from_millis(300);
/// The least time between two passes for changes of the guard: a program that undoes ours each time gets four a second.
const GUARD_PAUSE: Duration = Duration::from_millis(250);

/// When the next pass is due, as long as nobody asks for one.
#[derive(Debug)]
pub(super) struct Pace {
    resync: Instant,
    events: Option<Events>,
    retry: Duration,
    failed: bool,
    last: Option<Instant>,
}

/// Events of the kernel since the last pass.
#[derive(Debug)]
struct Events {
    quiet: Instant,
    at_last: Instant,
}

impl Pace {
    /// The first pass is due at once.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            resync: now,
            events: None,
            retry: FIRST_RETRY,
            failed: false,
            last: None,
        }
    }

    /// Takes note that somebody else has changed the guard. No pass makes such an event, so this does not wait for the
    /// repetition of a pass that failed.
    pub(super) fn guard_changed(&mut self, now: Instant) {
        let rested = self.last.map_or(now, |last| last + GUARD_PAUSE);
        self.resync = self.resync.min(rested.max(now + GATHER));
    }

    /// Takes note of an event of the kernel. A pass that fails makes events of its own: it is repeated when its time has come,
    /// not for them.
    pub(super) fn event(&mut self, now: Instant) {
        if self.failed {
            return;
        }
        let at_last = self
            .events
            .as_ref()
            .map_or(now + GATHER_AT_MOST, |events| events.at_last);
        self.events = Some(Events {
            quiet: now + GATHER,
            at_last,
        });
    }

    /// Takes note of the end of a pass that has seen all events until it began.
    pub(super) fn passed(&mut self, now: Instant, failed: bool) {
        self.failed = failed;
        self.events = None;
        self.last = Some(now);
        self.resync = now + if failed { self.retry } else { RESYNC };
        self.retry = if failed {
            (self.retry * 2).min(RESYNC)
        } else {
            FIRST_RETRY
        };
    }

    /// Takes note of something that comes about soon and that nobody will tell of, and that has been waited for so long: the
    /// longer, the more rarely it is looked at.
    pub(super) fn hurry(&mut self, now: Instant, waited: Duration) {
        let pause = if waited > HANDSHAKE_PATIENCE {
            waited / 50
        } else {
            SOON
        };
        self.again(now + pause);
    }

    /// Takes note that something changes at that time by itself.
    pub(super) fn again(&mut self, at: Instant) {
        self.resync = self.resync.min(at);
    }

    /// When the next pass is due.
    pub(super) fn due(&self) -> Instant {
        let events = self.events.as_ref();
        events.map_or(self.resync, |events| {
            self.resync.min(events.quiet).min(events.at_last)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_gathered_while_they_come_but_not_for_ever() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.passed(start, false);
        assert_eq!(pace.due(), start + RESYNC);
        pace.event(start);
        assert_eq!(pace.due(), start + GATHER);
        for elapsed in (0..=1000).step_by(10).map(Duration::from_millis) {
            pace.event(start + elapsed);
        }
        assert_eq!(pace.due(), start + GATHER_AT_MOST);
        pace.passed(start + GATHER_AT_MOST, false);
        assert_eq!(pace.due(), start + GATHER_AT_MOST + RESYNC);
    }

    #[test]
    fn a_guard_changed_by_others_is_seen_to_at_once_but_four_times_a_second_at_most() {
        let start = Instant::now();
        for failed in [false, true] {
            let mut pace = Pace::new(start);
            for _ in 0..10 {
                pace.passed(start, failed);
            }
            pace.guard_changed(start + RESYNC / 2);
            assert_eq!(pace.due(), start + RESYNC / 2 + GATHER);
            pace.passed(start, failed);
            pace.guard_changed(start);
            assert_eq!(pace.due(), start + GUARD_PAUSE);
            pace.guard_changed(start + GUARD_PAUSE / 2);
            assert_eq!(pace.due(), start + GUARD_PAUSE);
        }
    }

    #[test]
    fn what_comes_about_soon_is_looked_at_again_soon_and_once() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.passed(start, false);
        pace.hurry(start, Duration::ZERO);
        assert_eq!(pace.due(), start + SOON);
        pace.passed(start + SOON, false);
        assert_eq!(pace.due(), start + SOON + RESYNC);
        pace.hurry(start, HANDSHAKE_PATIENCE);
        assert_eq!(pace.due(), start + SOON);
    }

    #[test]
    fn what_does_not_come_about_is_looked_at_ever_more_rarely() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let pauses = [7, 20, 59].map(|waited| {
            pace.passed(start, false);
            pace.hurry(start, Duration::from_secs(waited));
            pace.due() - start
        });
        assert!(
            pauses.is_sorted() && pauses[0] > SOON && pauses[2] < RESYNC,
            "{pauses:?}"
        );
    }

    #[test]
    fn a_failed_pass_is_repeated_ever_later_and_not_for_events() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.passed(start, true);
        pace.event(start);
        assert_eq!(pace.due(), start + FIRST_RETRY);
        pace.passed(start, true);
        assert_eq!(pace.due(), start + 2 * FIRST_RETRY);
        for _ in 0..10 {
            pace.passed(start, true);
        }
        assert_eq!(pace.due(), start + RESYNC);
        pace.passed(start, false);
        pace.passed(start, true);
        assert_eq!(pace.due(), start + FIRST_RETRY);
    }
}
