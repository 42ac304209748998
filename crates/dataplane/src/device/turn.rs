//! Whether a worker takes the processor from others or waits for its turn.
//!
//! What wakes a worker is mostly a program or a device that has just sent something and would rest in a microsecond. As the scheduler
//! treats everybody, the worker takes the processor from it, and while two want to run there, one of them is taken to a processor that
//! sleeps: to wake that takes longer than a whole round trip. So a worker is a batch task (sched(7): `SCHED_BATCH`), which takes the
//! processor from nobody and has its turn when the other rests.
//!
//! Where processors have more to do than they can, that turn comes after milliseconds. So the worker looks how long it has waited for
//! turns, which the kernel counts, and is scheduled like everybody for a while where that is long; and where there is much to carry.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::str;

use crate::noise::Millis;

/// The least time between two looks.
const LOOK: Millis = 10;

/// A turn that is waited for longer than this on average comes late, in nanoseconds: a few times what a round trip takes.
const LATE: u64 = 300_000;

/// For how long a worker does not wait for its turn, after turns came late; doubled each time up to the longest.
const FIRST: Millis = 1_000;
const LONGEST: Millis = 64_000;

/// Whose turns have not come late for so long begins with the first pause anew.
const WELL: Millis = 5_000;

/// How a worker is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// It waits for its turn.
    Batch,
    /// Like everybody.
    Normal,
}

/// What the kernel has counted of a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Waited {
    /// For how long it waited for turns, in nanoseconds.
    time: u64,
    /// Turns it had.
    turns: u64,
}

/// The turns of the thread that made it.
pub(super) struct Turn {
    /// `None`: how long turns are waited for is not to be had, so it is scheduled like everybody.
    counts: Option<File>,
    choice: Choice,
}

impl Turn {
    /// The calling thread waits for its turn from now on, where it can be seen that this is not for long.
    pub(super) fn begin(now: Millis) -> Self {
        let counts = File::open("/proc/thread-self/schedstat").and_then(|counts| {
            let waited = waited(&counts)?;
            set_class(Class::Batch)?;
            Ok((counts, waited))
        });
        let (counts, waited) = match counts {
            Ok((counts, waited)) => (Some(counts), waited),
            Err(error) => {
                tracing::debug!(%error, "a worker is scheduled like everybody");
                (None, Waited::default())
            }
        };
        Self {
            counts,
            choice: Choice::new(now, waited),
        }
    }

    /// Where there is much to carry it is scheduled like everybody: nobody waits for a single packet then.
    pub(super) fn set_busy(&mut self, busy: bool, now: Millis) {
        let Some(counts) = &self.counts else { return };
        let set = if busy {
            set_class(Class::Normal)
        } else {
            waited(counts).and_then(|waited| set_class(self.choice.skip_to(now, waited)))
        };
        self.note(set);
    }

    /// Looks now and then whether turns come late. To be called between two waits for packets.
    pub(super) fn look(&mut self, now: Millis) {
        let Some(counts) = self.counts.as_ref().filter(|_| self.choice.is_due(now)) else {
            return;
        };
        let looked = waited(counts).and_then(|waited| match self.choice.look(now, waited) {
            Some(class) => set_class(class),
            None => Ok(()),
        });
        self.note(looked);
    }

    fn note(&mut self, set: io::Result<()>) {
        if let Err(error) = set {
            tracing::debug!(%error, "a worker stays scheduled as it is");
            self.counts = None;
        }
    }
}

/// Which class is right, from what was seen.
#[derive(Debug)]
struct Choice {
    class: Class,
    /// Since when it is in that class.
    since: Millis,
    /// For how long it is scheduled like everybody, this time or the next.
    pause: Millis,
    looked: Millis,
    waited: Waited,
}

impl Choice {
    fn new(now: Millis, waited: Waited) -> Self {
        Self {
            class: Class::Batch,
            since: now,
            // The first time that it is doubled.
            pause: FIRST / 2,
            looked: now,
            waited,
        }
    }

    fn is_due(&self, now: Millis) -> bool {
        now.saturating_sub(self.looked) >= LOOK
    }

    /// The class to change to, if another is right from now on.
    fn look(&mut self, now: Millis, waited: Waited) -> Option<Class> {
        let turns = waited.turns.saturating_sub(self.waited.turns);
        let time = waited.time.saturating_sub(self.waited.time);
        (self.looked, self.waited) = (now, waited);
        let late = time > turns.saturating_mul(LATE);
        let lasted = now.saturating_sub(self.since);
        match self.class {
            Class::Batch if late => {
                self.pause = if lasted >= WELL {
                    FIRST
                } else {
                    (self.pause * 2).min(LONGEST)
                };
                Some(self.change(Class::Normal, now))
            }
            Class::Normal if lasted >= self.pause && !late => Some(self.change(Class::Batch, now)),
            Class::Batch | Class::Normal => None,
        }
    }

    /// Leaves out what was waited for until now. The class that was right before.
    fn skip_to(&mut self, now: Millis, waited: Waited) -> Class {
        (self.looked, self.waited) = (now, waited);
        self.class
    }

    fn change(&mut self, class: Class, now: Millis) -> Class {
        (self.class, self.since) = (class, now);
        class
    }
}

/// Reads `schedstat` (proc(5)): time on a processor, time waited for one, turns.
fn waited(counts: &File) -> io::Result<Waited> {
    let mut text = [0; 128];
    let length = counts.read_at(&mut text, 0)?;
    let read = || {
        let mut words = str::from_utf8(&text[..length]).ok()?.split_whitespace().skip(1);
        Some(Waited {
            time: words.next()?.parse().ok()?,
            turns: words.next()?.parse().ok()?,
        })
    };
    let waited = read().ok_or(io::ErrorKind::InvalidData)?;
    // Whoever reads this had a turn: a kernel that counts none keeps no account.
    match waited.turns {
        0 => Err(io::ErrorKind::Unsupported.into()),
        _ => Ok(waited),
    }
}

/// For the calling thread. It takes no right: both classes are everybody's.
fn set_class(class: Class) -> io::Result<()> {
    let policy = match class {
        Class::Batch => libc::SCHED_BATCH,
        Class::Normal => libc::SCHED_OTHER,
    };
    let parameters = libc::sched_param { sched_priority: 0 };
    #[expect(unsafe_code, reason = "nix has no function for it")]
    // SAFETY: the call reads the parameters, which live until it returns.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::thread;

    use super::*;

    fn class_of_this_thread() -> libc::c_int {
        #[expect(unsafe_code, reason = "nix has no function for it")]
        // SAFETY: the call has no argument but the number of a thread.
        unsafe {
            libc::sched_getscheduler(0)
        }
    }

    #[test]
    fn a_worker_waits_for_its_turn_and_can_stop_that() {
        // Threads inherit the class.
        let worker = thread::spawn(|| {
            let mut turn = Turn::begin(0);
            assert!(turn.counts.is_some(), "the kernel keeps no account of turns");
            assert_eq!(class_of_this_thread(), libc::SCHED_BATCH);
            turn.set_busy(true, 1);
            assert_eq!(class_of_this_thread(), libc::SCHED_OTHER);
            turn.set_busy(false, 2);
            assert_eq!(class_of_this_thread(), libc::SCHED_BATCH);
        });
        worker.join().unwrap();
    }

    #[test]
    fn the_kernel_counts_on() {
        let counts = File::open("/proc/thread-self/schedstat").unwrap();
        let before = waited(&counts).unwrap();
        for _ in 0..20 {
            thread::sleep(std::time::Duration::from_millis(1));
        }
        let after = waited(&counts).unwrap();
        assert!(after.turns >= before.turns + 20 && after.time >= before.time);
    }

    /// A worker that has had a turn a millisecond, each waited for as long as this.
    struct Worker {
        choice: Choice,
        now: Millis,
        waited: Waited,
    }

    impl Worker {
        fn new() -> Self {
            Self {
                choice: Choice::new(0, Waited::default()),
                now: 0,
                waited: Waited::default(),
            }
        }

        /// How many of that time's milliseconds it was a batch task.
        fn works(&mut self, time: Millis, waits: impl Fn(Class) -> u64) -> Millis {
            let mut batch = 0;
            for _ in 0..time {
                self.now += 1;
                self.waited.turns += 1;
                self.waited.time += waits(self.choice.class);
                if self.choice.is_due(self.now) {
                    self.choice.look(self.now, self.waited);
                }
                batch += u64::from(self.choice.class == Class::Batch);
            }
            batch
        }
    }

    #[test]
    fn whose_turn_comes_soon_waits_for_it() {
        let mut worker = Worker::new();
        assert_eq!(worker.works(60_000, |_| 100_000), 60_000);
        // Little was to do: long ago is not late.
        worker.now += 3_600_000;
        assert_eq!(worker.works(1_000, |_| 100_000), 1_000);
    }

    #[test]
    fn whose_turn_comes_late_waits_for_it_ever_more_rarely_and_again_once_it_comes_soon() {
        let crowded = |class| match class {
            Class::Batch => 4_000_000,
            Class::Normal => 50_000,
        };
        let mut worker = Worker::new();
        assert!(worker.works(1_000, crowded) <= LOOK);
        let tries = worker.works(600_000, crowded) / LOOK;
        assert!((9..=20).contains(&tries), "{tries} times in ten minutes");
        // It is noticed after the pause, and one late turn long after that costs a short pause again.
        worker.works(LONGEST + LOOK, |_| 50_000);
        assert_eq!(worker.works(2 * WELL, |_| 50_000), 2 * WELL);
        worker.works(LOOK, crowded);
        assert_eq!(worker.choice.class, Class::Normal);
        worker.works(FIRST + LOOK, |_| 50_000);
        assert_eq!(worker.choice.class, Class::Batch);
    }

    #[test]
    fn where_turns_come_late_for_everybody_none_is_waited_for() {
        let mut worker = Worker::new();
        worker.works(LOOK, |_| 1_000_000);
        assert_eq!(worker.works(60_000, |_| 1_000_000), 0);
        assert_eq!(worker.works(LOOK, |_| 50_000), 1);
    }
}
