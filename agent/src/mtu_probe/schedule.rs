//! Which peers are due to be probed, and what was found. Time is an argument.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;
use warren_model::status::MtuHole;
use warren_model::{NodeName, PathKind};

/// How many peers are probed at once.
const BATCH: usize = 16;
/// The time between two batches.
const PAUSE: Duration = Duration::from_secs(1);
/// When a path that took full size is probed again.
const WHOLE_AGAIN: Duration = Duration::from_secs(600);
/// The same of one that did not, since it may have been put right, and of a peer that did not answer at all, where this is
/// doubled each time up to the other.
const SHORT_AGAIN: Duration = Duration::from_secs(10);

/// A peer that may be probed now without waking anything that sleeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) node: NodeName,
    /// Its node-local address.
    pub(super) address: IpAddr,
    pub(super) path: PathKind,
}

/// What came of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Packets of full size come through.
    Whole,
    /// They do not, and shorter ones do.
    Short(MtuHole),
    /// Not even short ones are answered, so nothing is known.
    Silent,
}

/// What is known of each peer.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    known: BTreeMap<NodeName, Known>,
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Known {
    path: PathKind,
    size: u32,
    again: Instant,
    /// Kept while a peer is silent.
    hole: Option<MtuHole>,
    /// The pause before a silent one is asked again.
    silence: Duration,
}

impl Schedule {
    /// Forgets the peers that are no more.
    pub(super) fn retain(&mut self, is_peer: impl Fn(&NodeName) -> bool) {
        self.known.retain(|node, _| is_peer(node));
    }

    /// Those that are due, as many as are probed at once: new ones, those with another path or size than they were probed
    /// with, and those whose time has come.
    pub(super) fn due(&self, candidates: &[Candidate], size: u32, now: Instant) -> Vec<Candidate> {
        if self.not_before.is_some_and(|not_before| now < not_before) {
            return Vec::new();
        }
        let due = candidates
            .iter()
            .filter(|candidate| self.due_at(candidate, size).is_none_or(|again| again <= now));
        due.take(BATCH).cloned().collect()
    }

    /// When there may be some that are due.
    pub(super) fn next(&self, candidates: &[Candidate], size: u32, now: Instant) -> Option<Instant> {
        let times = candidates
            .iter()
            .map(|candidate| self.due_at(candidate, size).unwrap_or(now));
        let first = times.min()?;
        Some(self.not_before.map_or(first, |not_before| first.max(not_before)))
    }

    /// Takes note of what came of probes of this size that ended now.
    pub(super) fn record(&mut self, probed: Vec<(Candidate, Verdict)>, size: u32, now: Instant) {
        for (candidate, verdict) in probed {
            let before = self.known.get(&candidate.node);
            let silence = before.map_or(SHORT_AGAIN, |known| (known.silence * 2).min(WHOLE_AGAIN));
            let (hole, pause, silence) = match verdict {
                Verdict::Whole => (None, WHOLE_AGAIN, SHORT_AGAIN / 2),
                Verdict::Short(hole) => (Some(hole), SHORT_AGAIN, SHORT_AGAIN / 2),
                Verdict::Silent => (before.and_then(|known| known.hole), silence, silence),
            };
            let known = Known {
                path: candidate.path,
                size,
                again: now + pause,
                hole,
                silence,
            };
            self.known.insert(candidate.node, known);
        }
        self.not_before = Some(now + PAUSE);
    }

    /// The peers to which full size does not come through.
    pub(super) fn holes(&self) -> BTreeMap<NodeName, MtuHole> {
        let hole = |(node, known): (&NodeName, &Known)| Some((node.clone(), known.hole?));
        self.known.iter().filter_map(hole).collect()
    }

    /// `None`: at once.
    fn due_at(&self, candidate: &Candidate, size: u32) -> Option<Instant> {
        let known = self.known.get(&candidate.node)?;
        (known.path == candidate.path && known.size == size).then_some(known.again)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    const SIZE: u32 = 1440;

    fn candidates(count: usize) -> Vec<Candidate> {
        (0..count)
            .map(|number| Candidate {
                node: format!("n{number:03}").parse().unwrap(),
                address: IpAddr::from([10, 244, number as u8, 1]),
                path: PathKind::Wireguard,
            })
            .collect()
    }

    fn all(batch: &[Candidate], verdict: Verdict) -> Vec<(Candidate, Verdict)> {
        batch
            .iter()
            .map(|candidate| (candidate.clone(), verdict))
            .collect()
    }

    #[test]
    fn peers_are_probed_a_few_at_a_time_and_those_that_are_well_not_again_for_long() {
        let mut schedule = Schedule::default();
        let candidates = candidates(40);
        let mut now = Instant::now();
        let mut probed = Vec::new();
        for count in [16, 16, 8] {
            let batch = schedule.due(&candidates, SIZE, now);
            assert_eq!(batch.len(), count);
            schedule.record(all(&batch, Verdict::Whole), SIZE, now);
            probed.extend(batch);
            assert_eq!(schedule.due(&candidates, SIZE, now), [], "a pause");
            now += PAUSE;
        }
        assert_eq!(probed, candidates);
        assert_eq!(schedule.due(&candidates, SIZE, now), []);
        let next = schedule.next(&candidates, SIZE, now).unwrap();
        assert_eq!(next, now - 3 * PAUSE + WHOLE_AGAIN);
        assert_eq!(schedule.due(&candidates, SIZE, next).len(), 16);
        assert_eq!(schedule.holes(), BTreeMap::new());
    }

    #[test]
    fn a_hole_is_kept_until_full_size_comes_through_or_the_peer_is_gone() {
        let mut schedule = Schedule::default();
        let candidates = candidates(1);
        let hole = MtuHole {
            lost: SIZE,
            passes: 1376,
        };
        let mut now = Instant::now();
        for (verdict, holes) in [
            (Verdict::Short(hole), 1),
            (Verdict::Silent, 1),
            (Verdict::Whole, 0),
            (Verdict::Silent, 0),
            (Verdict::Short(hole), 1),
        ] {
            schedule.record(all(&candidates, verdict), SIZE, now);
            assert_eq!(schedule.holes().len(), holes, "{verdict:?}");
            let pause = if verdict == Verdict::Whole {
                WHOLE_AGAIN
            } else {
                SHORT_AGAIN
            };
            assert_eq!(schedule.next(&candidates, SIZE, now), Some(now + pause));
            now += pause;
        }
        schedule.retain(|_| false);
        assert_eq!(schedule.holes(), BTreeMap::new());
    }

    #[test]
    fn a_silent_peer_is_asked_ever_more_rarely() {
        let mut schedule = Schedule::default();
        let candidates = candidates(1);
        let now = Instant::now();
        let mut ask = |verdict| {
            schedule.record(all(&candidates, verdict), SIZE, now);
            schedule.next(&candidates, SIZE, now).unwrap() - now
        };
        for factor in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(ask(Verdict::Silent), SHORT_AGAIN * factor);
        }
        ask(Verdict::Whole);
        assert_eq!(ask(Verdict::Silent), SHORT_AGAIN);
    }

    #[test]
    fn another_path_or_size_is_probed_at_once() {
        let mut schedule = Schedule::default();
        let mut candidates = candidates(1);
        let now = Instant::now();
        schedule.record(all(&candidates, Verdict::Whole), SIZE, now);
        let later = now + PAUSE;
        assert_eq!(schedule.due(&candidates, SIZE, later), []);
        assert_eq!(schedule.due(&candidates, 8940, later), candidates);
        candidates[0].path = PathKind::Vxlan;
        assert_eq!(schedule.due(&candidates, SIZE, later), candidates);
        assert_eq!(schedule.next(&[], SIZE, now), None, "nobody to probe");
    }
}
