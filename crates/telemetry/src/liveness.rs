//! Whether a program is alive: each of its loops beats within its limit.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The loops of a program. Cheap to clone; all clones show the same loops.
#[derive(Debug, Clone, Default)]
pub struct Liveness {
    loops: Arc<Mutex<Vec<LoopState>>>,
}

impl Liveness {
    /// No loops yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a loop that has to beat within every `limit`; its first beat is now. The limit is several times what a
    /// turn takes at worst: whoever is found stuck is killed and started again.
    pub fn watch(&self, name: &'static str, limit: Duration) -> Heartbeat {
        let mut loops = lock(&self.loops);
        loops.push(LoopState {
            name,
            limit,
            last_beat: Instant::now(),
            ended: false,
        });
        Heartbeat {
            loops: Arc::clone(&self.loops),
            index: loops.len() - 1,
        }
    }

    /// `Ok` if every loop beats, else those that do not.
    pub fn report(&self) -> Result<(), Vec<Stuck>> {
        let now = Instant::now();
        let stuck: Vec<_> = lock(&self.loops)
            .iter()
            .map(|each| Stuck {
                name: each.name,
                silent: now.saturating_duration_since(each.last_beat),
                limit: each.limit,
                ended: each.ended,
            })
            .filter(|each| each.ended || each.silent > each.limit)
            .collect();
        if stuck.is_empty() { Ok(()) } else { Err(stuck) }
    }
}

/// Held by a loop, which beats once a turn. Dropping it says that the loop has ended, which no loop of ours does
/// while the program is to go on.
#[derive(Debug)]
pub struct Heartbeat {
    loops: Arc<Mutex<Vec<LoopState>>>,
    index: usize,
}

impl Heartbeat {
    /// The loop has taken another turn.
    pub fn beat(&self) {
        lock(&self.loops)[self.index].last_beat = Instant::now();
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        lock(&self.loops)[self.index].ended = true;
    }
}

/// A loop that does not beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// Its name.
    pub name: &'static str,
    /// How long ago its last beat was.
    pub silent: Duration,
    /// How long ago it may be.
    pub limit: Duration,
    /// Whether the loop has ended rather than hangs.
    pub ended: bool,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, silent, limit) = (self.name, self.silent.as_secs_f64(), self.limit.as_secs_f64());
        if self.ended {
            write!(f, "{name}: has ended; its last turn was {silent:.1} s ago")
        } else {
            write!(
                f,
                "{name}: no turn for {silent:.1} s, where {limit:.1} s is the limit"
            )
        }
    }
}

#[derive(Debug)]
struct LoopState {
    name: &'static str,
    limit: Duration,
    last_beat: Instant,
    ended: bool,
}

/// A panic elsewhere leaves the list whole: every change to it is one assignment or one push.
fn lock(loops: &Mutex<Vec<LoopState>>) -> MutexGuard<'_, Vec<LoopState>> {
    loops.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_is_stuck_when_its_limit_has_passed_without_a_beat() {
        let liveness = Liveness::new();
        let plan = liveness.watch("plan", Duration::from_secs(30));
        let _pods = liveness.watch("pods", Duration::from_secs(100));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(liveness.report(), Ok(()));
        tokio::time::advance(Duration::from_secs(12)).await;
        let stuck = liveness.report().unwrap_err();
        assert_eq!(stuck.len(), 1);
        assert_eq!(
            stuck[0].to_string(),
            "plan: no turn for 42.0 s, where 30.0 s is the limit"
        );
        plan.beat();
        assert_eq!(liveness.report(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_has_ended_is_reported_at_once() {
        let liveness = Liveness::new();
        drop(liveness.watch("plan", Duration::from_secs(30)));
        let stuck = liveness.report().unwrap_err();
        assert_eq!(
            stuck[0].to_string(),
            "plan: has ended; its last turn was 0.0 s ago"
        );
    }
}
