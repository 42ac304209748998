//! When keys are rotated by schedule: `spec.keys.rotationInterval`.
//!
//! Times are in seconds since 1970, by the clock of whoever asks: they are on the Mesh, where any agent may go on from what another
//! has written. Which agent may act on the answer is another matter, and so is what a rotation consists of.

use std::fmt;
use std::time::Duration;

use crate::epoch::Epoch;
use crate::fnv::Fnv;
use crate::name::NodeName;
use crate::node::Node;

/// A rotation is due up to this part of the interval later than that: not in all clusters of an operator at once.
const JITTER_PART: u64 = 10;

/// What of the mesh decides when its keys are rotated next.
#[derive(Debug, Clone, Copy)]
pub struct Rotations<'a> {
    /// How often; `None`: never by schedule.
    pub interval: Option<Duration>,
    /// The mesh's uid, which tells it from others.
    pub mesh: &'a str,
    /// The epoch that is asked for.
    pub epoch: Epoch,
    /// Since when it is; `None`: nobody has written that down yet.
    pub since: Option<i64>,
    /// Whether the configuration is as it was asked for.
    pub is_accepted: bool,
}

/// What is to be done by schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scheduled {
    /// Nothing, as long as things are as they are.
    Nothing,
    /// Nothing before this time.
    At(i64),
    /// A rotation has been due since this time, and waits until this is over.
    PutOff(i64, Unsettled),
    /// A rotation to this epoch.
    Now(Epoch),
}

/// Why no rotation may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsettled {
    /// The Mesh is wrong, so nobody knows what it is to be.
    Mesh,
    /// Nobody publishes a key.
    Nobody,
    /// What this node publishes cannot be read.
    Unreadable(NodeName),
    /// This node has not finished the rotation before.
    Rotating(NodeName),
    /// This node is changing how it reaches others.
    Moving(NodeName),
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mesh => f.write_str("the Mesh has a field that is refused"),
            Self::Nobody => f.write_str("no Ready node publishes a key"),
            Self::Unreadable(node) => write!(f, "what {node} publishes cannot be read"),
            Self::Rotating(node) => write!(f, "{node} has not finished the rotation before"),
            Self::Moving(node) => write!(f, "{node} is changing how it reaches others"),
        }
    }
}

/// The latest epoch that a schedule can have come to: the one after that which most nodes live in, because a rotation begins when all
/// have finished the one before. Where nobody publishes keys there is nothing to go by, and any will do.
pub fn furthest<'n>(nodes: impl Iterator<Item = &'n Node>) -> Epoch {
    let next = lived_in(nodes).map_or(u32::MAX, |epoch| epoch.number().saturating_add(1));
    Epoch::new(next).unwrap_or(Epoch::FIRST)
}

/// The epoch that most nodes live in: half of them, or more, have settled in this one or a later one, and as many in this one or an
/// earlier one. What a few nodes claim does not move it. Only those that are Ready count, if any is; `None` where none publishes keys.
fn lived_in<'n>(nodes: impl Iterator<Item = &'n Node>) -> Option<Epoch> {
    let (mut ready, mut others) = (Vec::new(), Vec::new());
    for node in nodes.filter(|node| !node.pod_cidrs.is_empty()) {
        if let Some(Ok(says)) = &node.announcement {
            let group = if node.ready { &mut ready } else { &mut others };
            group.push(says.settled);
        }
    }
    let mut settled = if ready.is_empty() { others } else { ready };
    settled.sort_unstable();
    // Of an even number the earlier of the two in the middle: one of two nodes is not to say where both go.
    settled.get(settled.len().checked_sub(1)? / 2).copied()
}

impl Rotations<'_> {
    /// What is to be done at that time.
    ///
    /// Nodes that are not Ready do not hold it up, as they do not hold up the rotation itself: there is always one in a large cluster.
    /// Nor does one that publishes nothing, which has no keys.
    pub fn scheduled<'n>(&self, nodes: impl Iterator<Item = &'n Node>, now: i64) -> Scheduled {
        let (Some(interval), Some(since)) = (self.interval, self.since) else {
            return Scheduled::Nothing;
        };
        let due = since.saturating_add(self.wait(interval));
        if now < due {
            return Scheduled::At(due);
        }
        if let Some(unsettled) = self.unsettled(nodes) {
            return Scheduled::PutOff(due, unsettled);
        }
        let next = self.epoch.number().checked_add(1).and_then(Epoch::new);
        next.map_or(Scheduled::Nothing, Scheduled::Now)
    }

    /// From one rotation to the next: the interval, and a part of it that depends on mesh and epoch, so that it is the same
    /// whoever asks.
    fn wait(&self, interval: Duration) -> i64 {
        let mut fnv = Fnv::new();
        fnv.update(self.mesh);
        fnv.update(&self.epoch.to_string());
        // The lower bits of this hash depend on the last letters alone.
        let chance = fnv.finish() >> 32;
        let jitter = chance % (interval.as_secs() / JITTER_PART).max(1);
        i64::try_from(interval.as_secs().saturating_add(jitter)).unwrap_or(i64::MAX)
    }

    fn unsettled<'n>(&self, nodes: impl Iterator<Item = &'n Node>) -> Option<Unsettled> {
        if !self.is_accepted {
            return Some(Unsettled::Mesh);
        }
        let mut anybody = false;
        let counted = nodes.filter(|node| node.ready && !node.pod_cidrs.is_empty());
        for node in counted {
            let says = match &node.announcement {
                None => continue,
                Some(Err(_)) => return Some(Unsettled::Unreadable(node.name.clone())),
                Some(Ok(says)) => says,
            };
            anybody = true;
            let lives_here =
                says.settled == self.epoch && says.keys.iter().all(|key| key.epoch == self.epoch);
            if !lives_here {
                return Some(Unsettled::Rotating(node.name.clone()));
            }
            let progress = says.progress.as_ref();
            if progress.is_some_and(|progress| !progress.has_settled(progress.accepts)) {
                return Some(Unsettled::Moving(node.name.clone()));
            }
        }
        (!anybody).then_some(Unsettled::Nobody)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::accord::{Accord, Progress};
    use crate::announcement::{AnnouncedKey, Announcement, AnnouncementError};
    use crate::key::PublicKey;
    use crate::path::PathKind;

    const HOUR: i64 = 3600;
    const THEN: i64 = 1_700_000_000;

    fn epoch(number: u32) -> Epoch {
        Epoch::new(number).unwrap()
    }

    fn daily(mesh: &str, number: u32) -> Rotations<'_> {
        Rotations {
            interval: Some(Duration::from_secs(24 * 3600)),
            mesh,
            epoch: epoch(number),
            since: Some(THEN),
            is_accepted: true,
        }
    }

    fn node(name: &str, keys: &[u32], settled: u32) -> Node {
        let key = |number: &u32| AnnouncedKey {
            epoch: epoch(*number),
            public_key: PublicKey::from_bytes([u8::try_from(*number).unwrap(); 32]).unwrap(),
            port: 51820,
        };
        let keys = keys.iter().map(key).collect();
        let says = Announcement::new(keys, epoch(settled), BTreeSet::from([PathKind::Wireguard]));
        Node {
            name: name.parse().unwrap(),
            uid: name.to_owned(),
            created: 0,
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
            internal_ips: Vec::new(),
            announcement: Some(says),
            ready: true,
        }
    }

    fn moving(mut node: Node) -> Node {
        let progress = Progress {
            accepts: Accord(2),
            sends: Some(Accord(1)),
            by: BTreeSet::new(),
        };
        node.announcement = node
            .announcement
            .map(|says| says.map(|says| says.with_progress(progress)));
        node
    }

    fn late(nodes: &[Node]) -> Scheduled {
        daily("m", 3).scheduled(nodes.iter(), THEN + 48 * HOUR)
    }

    #[test]
    fn a_rotation_is_due_once_the_interval_and_the_jitter_are_over_and_not_before() {
        let nodes = [node("a", &[3], 3)];
        let Scheduled::At(due) = daily("m", 3).scheduled(nodes.iter(), THEN) else {
            panic!("not due yet");
        };
        assert!(
            (THEN + 24 * HOUR..THEN + 24 * HOUR + 24 * HOUR / 10).contains(&due),
            "{due}"
        );
        assert_eq!(daily("m", 3).scheduled(nodes.iter(), due - 1), Scheduled::At(due));
        assert_eq!(
            daily("m", 3).scheduled(nodes.iter(), due),
            Scheduled::Now(epoch(4))
        );
    }

    #[test]
    fn the_jitter_differs_between_meshes_and_epochs_and_is_the_same_for_whoever_asks() {
        let due = |mesh: &str, number| daily(mesh, number).scheduled([].iter(), THEN);
        assert_eq!(due("m", 3), due("m", 3));
        let epochs: BTreeSet<String> = (1..20).map(|number| format!("{:?}", due("m", number))).collect();
        let meshes: BTreeSet<String> = (1..20)
            .map(|number| format!("{:?}", due(&format!("m{number}"), 1)))
            .collect();
        assert!(epochs.len() > 15 && meshes.len() > 15, "{epochs:?} {meshes:?}");
    }

    #[test]
    fn without_an_interval_or_a_beginning_nothing_is_ever_due() {
        let nodes = [node("a", &[3], 3)];
        let never = Rotations {
            interval: None,
            ..daily("m", 3)
        };
        let unknown = Rotations {
            since: None,
            ..daily("m", 3)
        };
        for rotations in [never, unknown] {
            assert_eq!(rotations.scheduled(nodes.iter(), i64::MAX), Scheduled::Nothing);
        }
    }

    #[test]
    fn no_rotation_begins_while_another_is_under_way() {
        let done = node("a", &[3], 3);
        for behind in [
            node("b", &[2, 3], 3),
            node("b", &[2, 3], 2),
            node("b", &[2], 2),
            node("b", &[3, 4], 3),
        ] {
            let put_off = late(&[done.clone(), behind]);
            let Scheduled::PutOff(due, Unsettled::Rotating(name)) = put_off else {
                panic!("{put_off:?}");
            };
            assert_eq!(name.as_str(), "b");
            assert!(due < THEN + 48 * HOUR);
        }
        assert_eq!(
            late(&[done.clone(), node("b", &[3], 3)]),
            Scheduled::Now(epoch(4))
        );
    }

    #[test]
    fn a_mesh_that_is_unsettled_in_another_way_is_left_alone_too() {
        let done = node("a", &[3], 3);
        let unreadable = Node {
            announcement: Some(Err(AnnouncementError::NoKeys)),
            ..node("b", &[3], 3)
        };
        let reason = |nodes: &[Node]| match late(nodes) {
            Scheduled::PutOff(_, reason) => reason.to_string(),
            other @ (Scheduled::Nothing | Scheduled::At(_) | Scheduled::Now(_)) => panic!("{other:?}"),
        };
        assert_eq!(
            reason(&[done.clone(), moving(node("b", &[3], 3))]),
            "b is changing how it reaches others"
        );
        assert_eq!(
            reason(&[done.clone(), unreadable]),
            "what b publishes cannot be read"
        );
        assert_eq!(reason(&[]), "no Ready node publishes a key");
        let wrong = Rotations {
            is_accepted: false,
            ..daily("m", 3)
        };
        let put_off = wrong.scheduled([done].iter(), THEN + 48 * HOUR);
        assert!(
            matches!(put_off, Scheduled::PutOff(_, Unsettled::Mesh)),
            "{put_off:?}"
        );
    }

    #[test]
    fn what_a_few_nodes_claim_does_not_move_the_epoch_that_most_live_in() {
        let at = |settled: &[u32]| {
            let nodes: Vec<Node> = settled
                .iter()
                .map(|number| node("a", &[*number], *number))
                .collect();
            lived_in(nodes.iter()).map(Epoch::number)
        };
        assert_eq!(at(&[]), None);
        assert_eq!(at(&[3]), Some(3));
        assert_eq!(at(&[200, 3]), Some(3));
        assert_eq!(at(&[200, 3, 3]), Some(3));
        assert_eq!(at(&[1, 200, 3, 3, 3]), Some(3));
        assert_eq!(at(&[3, 4, 4]), Some(4));
        let away = Node {
            ready: false,
            ..node("b", &[2], 2)
        };
        assert_eq!(
            lived_in([&away, &away, &node("a", &[3], 3)].into_iter()),
            Some(epoch(3))
        );
        assert_eq!(lived_in([&away].into_iter()), Some(epoch(2)));
        assert_eq!(furthest([&away].into_iter()), epoch(3));
        assert_eq!(furthest([].into_iter()), epoch(u32::MAX));
    }

    #[test]
    fn nodes_that_are_not_ready_or_have_no_keys_hold_nothing_up() {
        let unready = Node {
            ready: false,
            ..node("b", &[2], 2)
        };
        let silent = Node {
            announcement: None,
            ..node("c", &[3], 3)
        };
        assert_eq!(
            late(&[node("a", &[3], 3), unready, silent]),
            Scheduled::Now(epoch(4))
        );
    }
}
