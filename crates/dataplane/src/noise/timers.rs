//! When to keep alive, to become suspicious, to begin a handshake (the paper, section 6), as atomics: workers note what
//! happened with a handful of relaxed stores per run, the timer thread looks.
//!
//! | what | set | unset | then |
//! |---|---|---|---|
//! | answer | data came, 10 s | anything was sent | a keepalive answers it |
//! | silence | data was sent, 15 s and jitter | anything authentic came | a handshake: perhaps the peer has lost its keys |
//! | persistent keepalive | anything either way, its interval | | a keepalive |
//! | pause | a handshake message was sent, 5 s and jitter | | only then another initiation |
//!
//! Two threads may note opposite things at the same time. Whichever comes last counts; the other happened no more than a
//! run before.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

use super::{KEEPALIVE_TIMEOUT, Millis, REKEY_TIMEOUT};

/// A time that does not come.
const NEVER: Millis = Millis::MAX;

/// The timers of one peer, but for those of a handshake's repetition and of sessions.
#[derive(Debug)]
pub(crate) struct Timers {
    /// When anything authentic last went either way. [`NEVER`]: not since a persistent keepalive was asked for.
    traffic: AtomicU64,
    /// When data is to be answered.
    answer: AtomicU64,
    /// When silence is suspicious.
    silence: AtomicU64,
    /// When the next initiation may be sent.
    pause: AtomicU64,
    /// What is added to times at random. Drawn with each handshake: a draw per run would cost more than it is worth.
    jitter: AtomicU64,
    /// Somebody wants a handshake.
    wanted: AtomicBool,
    /// Seconds between persistent keepalives; 0: none.
    interval: AtomicU16,
}

impl Timers {
    /// No timer is set.
    pub(crate) fn new() -> Self {
        Self {
            traffic: AtomicU64::new(NEVER),
            answer: AtomicU64::new(NEVER),
            silence: AtomicU64::new(NEVER),
            pause: AtomicU64::new(0),
            jitter: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            interval: AtomicU16::new(0),
        }
    }

    /// Something authentic was sent.
    pub(crate) fn sent(&self, now: Millis, data: bool) {
        self.traffic.store(now, Ordering::Relaxed);
        unset(&self.answer);
        if data {
            set(&self.silence, now + SILENCE + self.jitter.load(Ordering::Relaxed));
        }
    }

    /// Something authentic was received.
    pub(crate) fn received(&self, now: Millis, data: bool) {
        self.traffic.store(now, Ordering::Relaxed);
        unset(&self.silence);
        if data {
            set(&self.answer, now + KEEPALIVE_TIMEOUT);
        }
    }

    /// A handshake message was sent, so there is no need of an initiation for a while.
    pub(crate) fn handshake_sent(&self, now: Millis, jitter: Millis) {
        self.jitter.store(jitter, Ordering::Relaxed);
        self.pause.store(now + REKEY_TIMEOUT + jitter, Ordering::Relaxed);
        self.sent(now, false);
    }

    /// Whether an initiation may be sent.
    pub(crate) fn may_initiate(&self, now: Millis) -> bool {
        now >= self.pause.load(Ordering::Relaxed)
    }

    /// Notes that a handshake is wanted. Says whether that is news that can be acted upon now.
    pub(crate) fn want(&self, now: Millis) -> bool {
        let known = self.wanted.load(Ordering::Relaxed) || self.wanted.swap(true, Ordering::Relaxed);
        !known && self.may_initiate(now)
    }

    /// Whether a handshake is wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// The handshake has begun or completed, or has been given up.
    pub(crate) fn want_no_more(&self) {
        self.wanted.store(false, Ordering::Relaxed);
    }

    /// Whether data has waited for an answer long enough.
    pub(crate) fn answer_is_due(&self, now: Millis) -> bool {
        now >= self.answer.load(Ordering::Relaxed)
    }

    /// There is nothing to answer any more: the peer cannot be reached.
    pub(crate) fn forget_answer(&self) {
        unset(&self.answer);
    }

    /// Whether the peer has been silent for too long. Says so once.
    pub(crate) fn silence_is_over(&self, now: Millis) -> bool {
        let over = now >= self.silence.load(Ordering::Relaxed);
        if over {
            unset(&self.silence);
        }
        over
    }

    /// Whether a persistent keepalive is due.
    pub(crate) fn keepalive_is_due(&self, now: Millis) -> bool {
        let interval = Millis::from(self.interval()) * 1000;
        let traffic = self.traffic.load(Ordering::Relaxed);
        interval != 0 && (traffic == NEVER || now.saturating_sub(traffic) >= interval)
    }

    /// Seconds between persistent keepalives; 0: none.
    pub(crate) fn interval(&self) -> u16 {
        self.interval.load(Ordering::Relaxed)
    }

    /// Changes the interval. Where there was none before, the first keepalive is due at once: it is what tells a
    /// middlebox, or a peer without our address, where we are.
    pub(crate) fn set_interval(&self, seconds: u16) {
        if self.interval.swap(seconds, Ordering::Relaxed) == 0 && seconds != 0 {
            self.traffic.store(NEVER, Ordering::Relaxed);
        }
    }

    /// Forgets what was sent and received under keys that are no more.
    pub(crate) fn reset(&self) {
        unset(&self.answer);
        unset(&self.silence);
        self.pause.store(0, Ordering::Relaxed);
        self.want_no_more();
    }
}

/// How long data may go out and nothing come in: time for the other side's keepalive, and as long as for a handshake.
const SILENCE: Millis = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT;

/// Sets a timer unless it is set: it is about the first of several events.
fn set(timer: &AtomicU64, at: Millis) {
    if timer.load(Ordering::Relaxed) == NEVER {
        timer.store(at, Ordering::Relaxed);
    }
}

/// Unsets a timer. Most are not set most of the time, and what is not written is not taken from other cores.
fn unset(timer: &AtomicU64) {
    if timer.load(Ordering::Relaxed) != NEVER {
        timer.store(NEVER, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_answered_ten_seconds_after_the_first_of_it_unless_something_was_sent() {
        let timers = Timers::new();
        assert!(!timers.answer_is_due(1_000_000));
        timers.received(1000, false);
        assert!(!timers.answer_is_due(1_000_000), "a keepalive is not answered");
        timers.received(1000, true);
        timers.received(9000, true);
        assert!(!timers.answer_is_due(10_999));
        assert!(timers.answer_is_due(11_000));
        timers.sent(11_000, false);
        assert!(!timers.answer_is_due(1_000_000));
    }

    #[test]
    fn silence_is_suspicious_fifteen_seconds_and_jitter_after_the_first_data() {
        let timers = Timers::new();
        timers.handshake_sent(0, 300);
        timers.sent(1000, false);
        assert!(!timers.silence_is_over(1_000_000), "keepalives are not answered");
        timers.sent(1000, true);
        timers.sent(9000, true);
        assert!(!timers.silence_is_over(16_299));
        assert!(timers.silence_is_over(16_300));
        assert!(!timers.silence_is_over(16_301), "once");
        timers.sent(20_000, true);
        timers.received(21_000, false);
        assert!(!timers.silence_is_over(1_000_000));
    }

    #[test]
    fn a_persistent_keepalive_is_due_at_once_and_then_an_interval_after_the_last_traffic() {
        let timers = Timers::new();
        timers.sent(500, true);
        assert!(!timers.keepalive_is_due(1_000_000), "none was asked for");
        timers.set_interval(25);
        assert!(timers.keepalive_is_due(500));
        timers.sent(1000, false);
        timers.set_interval(25);
        assert!(
            !timers.keepalive_is_due(25_999),
            "the same interval again changes nothing"
        );
        timers.received(2000, false);
        assert!(!timers.keepalive_is_due(26_999));
        assert!(timers.keepalive_is_due(27_000));
    }

    #[test]
    fn a_wish_is_news_once_and_initiations_are_five_seconds_apart() {
        let timers = Timers::new();
        assert!(timers.want(0));
        assert!(!timers.want(0));
        assert!(timers.is_wanted());
        timers.want_no_more();
        timers.handshake_sent(0, 333);
        assert!(!timers.want(5332), "too early to act upon");
        assert!(timers.is_wanted(), "but noted");
        assert!(!timers.may_initiate(5332));
        assert!(timers.may_initiate(5333));
    }
}
