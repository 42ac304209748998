//! Which agent reports for the mesh: the decisions of an election by a Lease that is renewed when it is used.
//!
//! Pure: the time is an argument, each agent's own monotonic one, and clocks of two agents are never compared. Each act is
//! one request to the API, done by the caller, who then tells what came of it.
//!
//! An ordinary Lease is renewed every few seconds, which would be the only write of an idle mesh. This one is renewed only
//! when its holder has something to write. So an old Lease proves nothing; what proves that the holder is gone is
//! something that has been waiting to be written while the Lease stayed as it was for its whole duration.
//!
//! Where two agents disagree about what should be written, each would find the other's work missing and take the Lease back
//! and forth. After a few such turns an agent's patience doubles with each, up to [`MOST_PATIENCE`].

use std::time::Duration;

/// `spec.leaseDurationSeconds` as we write it: how long a Lease must stay as it is before another agent may take it.
pub const LEASE: Duration = Duration::from_secs(8);

/// How long a holder writes without renewing, counted from when it asked for the Lease. Shorter than [`LEASE`], so that a
/// write under way has arrived before anybody else may begin.
pub const FRESH: Duration = Duration::from_secs(5);

/// How long the holder is given before anybody looks whether it is still there.
pub const LOOK_AFTER: Duration = Duration::from_secs(2);

/// How often is looked while something waits to be written.
pub const LOOK_EVERY: Duration = Duration::from_secs(3);

/// How many agents, the most senior ones, stand for election at once. All others wait for [`LAST_RESORT`].
pub const PLACES: usize = 8;

/// The head start of each of them over the next.
pub const PLACE: Duration = Duration::from_millis(150);

/// What is added to the head start at random, at most.
pub const SPREAD: Duration = Duration::from_millis(300);

/// How long agents of no place wait, and once more that long spread over all of them: nobody asks in a crowd.
pub const LAST_RESORT: Duration = Duration::from_secs(30);

/// How many Leases an agent takes from others within [`CALM`] before its patience grows.
pub const TURNS: u32 = 4;

/// When the last turn is so long ago, they are forgotten.
pub const CALM: Duration = Duration::from_secs(3600);

/// The most patience of all.
pub const MOST_PATIENCE: Duration = Duration::from_secs(600);

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Nothing, until something is due.
    Rest,
    /// Nothing until this time, unless something changes.
    Wait(Duration),
    /// Read the Lease, and tell [`Election::saw`].
    Look,
    /// Make this agent the Lease's holder, if it is still as it was seen, and tell [`Election::signed`].
    Take,
    /// This agent is the holder: renew the Lease, if it is still as it was seen, and tell [`Election::signed`].
    Renew,
    /// Write what is due.
    Write,
}

/// What of the Lease decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `spec.holderIdentity`; `None`: nobody has had it yet.
    pub holder: Option<String>,
    /// `spec.leaseDurationSeconds`.
    pub duration: Duration,
}

/// One agent's part in the election. Times are since some moment of its own, the same for all calls.
#[derive(Debug, Clone)]
pub struct Election {
    me: String,
    known: Option<Known>,
    /// When the Lease was last asked for with success.
    renewed: Option<Duration>,
    /// When what is due became due, and what chance adds to the wait for it.
    due: Option<Waiting>,
    /// The same for wanting to know the Lease at all.
    ignorant: Option<Waiting>,
    not_before: Duration,
    turns: u32,
    last_turn: Duration,
}

#[derive(Debug, Clone)]
struct Known {
    record: Record,
    /// When this version was seen first.
    since: Duration,
    /// When it was seen last.
    looked: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    since: Duration,
    chance: u64,
}

impl Election {
    /// Of the agent with that identity, which knows nothing of the Lease yet.
    pub fn new(me: impl Into<String>) -> Self {
        Self {
            me: me.into(),
            known: None,
            renewed: None,
            due: None,
            ignorant: None,
            not_before: Duration::ZERO,
            turns: 0,
            last_turn: Duration::ZERO,
        }
    }

    /// What to do. `due`: something waits to be written. `place`: how many agents are more senior than this one. `random`:
    /// any number, another one each time.
    pub fn next(&mut self, now: Duration, due: bool, place: usize, random: u64) -> Act {
        let waiting = Waiting {
            since: now,
            chance: random,
        };
        if due {
            self.due.get_or_insert(waiting);
        } else {
            self.due = None;
        }
        if now < self.not_before {
            return Act::Wait(self.not_before);
        }
        let Some(known) = &self.known else {
            let waiting = *self.ignorant.get_or_insert(waiting);
            let at = waiting.since + head_start(place, waiting.chance);
            return if now < at { Act::Wait(at) } else { Act::Look };
        };
        let Some(due) = self.due else {
            return Act::Rest;
        };
        match &known.record.holder {
            None => Act::Take,
            Some(holder) if *holder == self.me => {
                let fresh = self.renewed.is_some_and(|asked| now < asked + FRESH);
                if fresh { Act::Write } else { Act::Renew }
            }
            Some(_) => self.challenge(now, known, due, place),
        }
    }

    /// The Lease as it was just read.
    pub fn saw(&mut self, now: Duration, record: Record) {
        let same = self
            .known
            .take()
            .filter(|known| known.record.version == record.version);
        if record.holder.as_ref() != Some(&self.me) {
            self.renewed = None;
        }
        self.ignorant = None;
        self.known = Some(Known {
            record,
            since: same.map_or(now, |known| known.since),
            looked: now,
        });
    }

    /// The Lease as it was written by this agent; `asked`: when that request began.
    pub fn signed(&mut self, asked: Duration, record: Record) {
        let before = self.known.take().and_then(|known| known.record.holder);
        if before.is_some_and(|holder| holder != self.me) {
            let calm = asked.saturating_sub(self.last_turn) > CALM;
            self.turns = if calm { 1 } else { self.turns.saturating_add(1) };
            self.last_turn = asked;
        }
        self.renewed = Some(asked);
        self.known = Some(Known {
            record,
            since: asked,
            looked: asked,
        });
    }

    /// The Lease was not as it had been seen: it must be looked at before anything else.
    pub fn was_changed(&mut self) {
        self.known = None;
        self.renewed = None;
    }

    /// The Lease cannot be used; it is not asked for before that time.
    pub fn hold_off(&mut self, until: Duration) {
        self.not_before = until;
    }

    /// Whether this agent is the holder, as far as it knows.
    pub fn is_holder(&self) -> bool {
        self.holder() == Some(self.me.as_str())
    }

    /// The holder, as far as this agent knows.
    pub fn holder(&self) -> Option<&str> {
        self.known.as_ref()?.record.holder.as_deref()
    }

    /// Something is due and another agent holds the Lease.
    fn challenge(&self, now: Duration, known: &Known, due: Waiting, place: usize) -> Act {
        let start = head_start(place, due.chance);
        let patience = self.patience(now, known.record.duration);
        let take = known.since.max(due.since) + patience + start;
        let has_a_place = place < PLACES;
        let first_look = due.since
            + LOOK_AFTER
            + if has_a_place {
                spread(SPREAD, due.chance)
            } else {
                start
            };
        let look = first_look.max(known.looked + LOOK_EVERY);
        if now >= look {
            Act::Look
        } else if now >= take && known.looked >= first_look {
            Act::Take
        } else if take > now {
            Act::Wait(look.min(take))
        } else {
            Act::Wait(look)
        }
    }

    /// For how long the Lease must stay as it is.
    fn patience(&self, now: Duration, duration: Duration) -> Duration {
        let calm = now.saturating_sub(self.last_turn) > CALM;
        let doublings = if calm { 0 } else { self.turns.saturating_sub(TURNS) };
        duration
            .saturating_mul(2_u32.saturating_pow(doublings))
            .min(MOST_PATIENCE)
    }
}

/// How much later than the first an agent at that place goes ahead.
fn head_start(place: usize, chance: u64) -> Duration {
    match u32::try_from(place) {
        Ok(ahead) if place < PLACES => PLACE * ahead + spread(SPREAD, chance),
        Ok(_) | Err(_) => LAST_RESORT + spread(LAST_RESORT, chance),
    }
}

fn spread(over: Duration, chance: u64) -> Duration {
    let micros = u64::try_from(over.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(chance % micros.max(1))
}

#[cfg(test)]
#[path = "election_simulation.rs"]
mod simulation;
#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;
