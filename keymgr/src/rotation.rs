//! When a node makes the key of the next epoch, says that it has settled in it, and destroys the one before.
//!
//! A pure function of what the node sees: [`next`]. It is asked again whenever anything changes, remembers nothing but the times in
//! [`Clocks`], and so goes on after a crash from what is on disk and in the API. Which of two keys of a peer is sent by is not decided here:
//! routes move to the newer one once a handshake with it is completed.
//!
//! | a node with the key of epoch E | does | when |
//! |---|---|---|
//! | alone, and the Mesh asks for a later one | makes that of E+1 | nobody needs an epoch before E any more: a second rotation waits for the first |
//! | and that of E+1 | says "settled in E+1" | it sends to each peer by E+1 |
//! | and that of E+1, settled | destroys that of E | every peer has settled in E+1 and is sent to by it, for [`DRAIN`] |
//! | alone, which no peer lives in any more | makes that which they live in | at once: it was away for a whole rotation |
//!
//! A peer counts while its Node is ready, or was less than [`Limits::grace`] ago. A rotation that has gone on for longer than
//! [`Limits::deadline`] waits for nobody: who has not followed by then is reached again when it has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use warren_model::{Epoch, NodeName};

/// How long packets that are on their way by the earlier key are still taken after the last peer has settled.
pub const DRAIN: Duration = Duration::from_secs(5);

/// How long is waited for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a Node that is not ready is still waited for.
    pub grace: Duration,
    /// How long a rotation waits for anybody.
    pub deadline: Duration,
}

impl Default for Limits {
    /// A minute, and a quarter of an hour.
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(60),
            deadline: Duration::from_secs(15 * 60),
        }
    }
}

/// What a node sees of a rotation.
#[derive(Debug, Clone)]
pub struct View {
    /// `spec.keys.epoch`.
    pub mesh: Epoch,
    /// Whether the rotation to that epoch renews this node's key; otherwise it is carried over.
    pub renews: bool,
    /// The epochs that this node has a key of.
    pub own: BTreeSet<Epoch>,
    /// What it has said last about where it has settled, as the API shows it; `None`: nothing yet.
    pub settled: Option<Epoch>,
    /// The other nodes that publish keys.
    pub peers: BTreeMap<NodeName, Peer>,
}

/// What a node sees of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The epochs of the keys it publishes; never empty.
    pub keys: BTreeSet<Epoch>,
    /// The newest epoch in which it says that it reaches everybody.
    pub settled: Epoch,
    /// The epoch by which this node sends to it, if it does by any.
    pub sends: Option<Epoch>,
    /// Whether its Node is ready.
    pub ready: bool,
}

/// A change to this node's keys, or to what it says of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make the key of an epoch.
    Make(Epoch),
    /// Keep the key of one epoch for another too.
    Carry {
        /// The epoch that has it.
        from: Epoch,
        /// The epoch that is to have it.
        to: Epoch,
    },
    /// Say that this node has settled in this epoch.
    Settle(Epoch),
    /// Destroy the key of this epoch.
    Retire(Epoch),
}

/// Why a rotation does not go on yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// The rotation before it is not over: this node still has a key of the epoch before.
    Earlier(NodeName),
    /// This node has not published the epoch's key.
    Key(NodeName),
    /// No handshake with this node has been completed with the epoch's keys.
    Handshake(NodeName),
    /// This node has not said that it reaches everybody.
    Settled(NodeName),
    /// What was sent by the earlier key before the last node settled may still be on its way.
    Drain,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earlier(node) => write!(f, "{node} has not finished the rotation before"),
            Self::Key(node) => write!(f, "{node} has not published its new key"),
            Self::Handshake(node) => write!(f, "no handshake with {node} by the new keys"),
            Self::Settled(node) => write!(f, "{node} has not settled"),
            Self::Drain => f.write_str("packets on their way by the earlier key"),
        }
    }
}

/// What is to be done, and what is waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Next {
    /// In this order.
    pub steps: Vec<Step>,
    /// Empty: for nothing, or nothing is under way.
    pub waiting: Vec<Waiting>,
    /// What would be waited for if the deadline were not over.
    pub given_up: Vec<Waiting>,
    /// After how long time alone may change this.
    pub again: Option<Duration>,
}

/// Since when things are as they are. A restart forgets it, but for the rotation's own time ([`Clocks::resume`]): it would go
/// on for ever where agents end more often than it.
#[derive(Debug, Clone, Default)]
pub struct Clocks {
    limits: Limits,
    /// The rotation that is under way, by its epoch, and when it was first seen.
    rotation: Option<(Epoch, Duration)>,
    /// When everybody was first seen to have settled in that epoch.
    drained: Option<Duration>,
    /// When each node was first seen not to be ready.
    unready: BTreeMap<NodeName, Duration>,
}

/// What this node is to do now. `now`: time since any one moment, which never goes back.
pub fn next(view: &View, clocks: &mut Clocks, now: Duration) -> Next {
    clocks.look(view, now);
    let counted: BTreeMap<&NodeName, &Peer> = view
        .peers
        .iter()
        .filter(|(name, peer)| clocks.counts(name, peer, now))
        .collect();
    let (Some(&oldest), Some(&newest)) = (view.own.first(), view.own.last()) else {
        return first(view, &counted);
    };
    let next = if oldest == newest {
        begin(view, newest, &counted, clocks.is_overdue(now))
    } else {
        finish(view, oldest, newest, &counted, clocks, now)
    };
    Next {
        again: (!next.waiting.is_empty())
            .then(|| clocks.next_change(now))
            .flatten(),
        ..next
    }
}

/// A node without keys makes one for each epoch that somebody lives in, so that everybody reaches it.
fn first(view: &View, counted: &BTreeMap<&NodeName, &Peer>) -> Next {
    let mut lived_in: BTreeMap<Epoch, usize> = BTreeMap::new();
    for peer in counted.values() {
        *lived_in.entry(peer.settled).or_default() += 1;
    }
    // Not the latest of all: one node that claims an absurd epoch would cut off every node that joins after it. Where as many say
    // one thing as another, the Mesh decides.
    let most = lived_in
        .into_iter()
        .max_by_key(|(epoch, count)| (*count, *epoch == view.mesh, *epoch));
    let main = most.map_or(view.mesh, |(epoch, _)| epoch);
    let shared = |epoch: Epoch| counted.values().any(|peer| peer.keys.contains(&epoch));
    let beside = [after(main), before(main)]
        .into_iter()
        .flatten()
        .find(|epoch| shared(*epoch));
    Next {
        steps: [Some(main), beside]
            .into_iter()
            .flatten()
            .map(Step::Make)
            .collect(),
        ..Next::default()
    }
}

/// A node with one key.
fn begin(view: &View, own: Epoch, counted: &BTreeMap<&NodeName, &Peer>, overdue: bool) -> Next {
    let make = |to: Epoch| match view.renews {
        true => Step::Make(to),
        false => Step::Carry { from: own, to },
    };
    let is_alone = !counted.is_empty() && counted.values().all(|peer| !peer.keys.contains(&own));
    if is_alone {
        // The others have gone on. What they have in common is where they have settled.
        let theirs = counted.values().map(|peer| peer.settled).max();
        return match theirs.filter(|theirs| *theirs <= view.mesh && *theirs > own) {
            Some(theirs) if theirs.lane() == own.lane() => {
                Next::steps([Step::Retire(own), Step::Make(theirs)].into())
            }
            Some(theirs) => Next::steps(vec![Step::Make(theirs)]),
            None => Next::default(),
        };
    }
    let Some(to) = after(own).filter(|to| *to <= view.mesh) else {
        return settle(view, own);
    };
    let needs_earlier = |peer: &Peer| peer.keys.first().is_some_and(|oldest| *oldest < own);
    let behind = counted.iter().filter(|(_, peer)| needs_earlier(peer));
    let waiting = behind.map(|(name, _)| Waiting::Earlier((*name).clone()));
    // While it waits it lives in its own.
    Next::once(waiting.collect(), overdue, vec![make(to)]).or(settle(view, own).steps)
}

/// A node with one key only has settled in it, whatever it said before.
fn settle(view: &View, own: Epoch) -> Next {
    match view.settled {
        Some(settled) if settled >= own => Next::default(),
        _ => Next::steps(vec![Step::Settle(own)]),
    }
}

/// A node with two keys.
fn finish(
    view: &View,
    old: Epoch,
    new: Epoch,
    counted: &BTreeMap<&NodeName, &Peer>,
    clocks: &mut Clocks,
    now: Duration,
) -> Next {
    let overdue = clocks.is_overdue(now);
    // Who lives beyond this rotation has finished it: this node was away, or counts no more there.
    let is_beyond = |peer: &Peer| peer.keys.first().is_some_and(|oldest| *oldest > new);
    let waited_for = counted.iter().filter(|(_, peer)| !is_beyond(peer));
    if view.settled.is_none_or(|settled| settled < new) {
        let waiting = waited_for.filter_map(|(name, peer)| {
            if !peer.keys.contains(&new) {
                Some(Waiting::Key((*name).clone()))
            } else if peer.sends != Some(new) {
                Some(Waiting::Handshake((*name).clone()))
            } else {
                None
            }
        });
        return Next::once(waiting.collect(), overdue, vec![Step::Settle(new)]);
    }
    // That a peer has settled may be from a time when this node did not count, so it does not suffice.
    let waiting = waited_for.filter_map(|(name, peer)| {
        if peer.settled < new {
            Some(Waiting::Settled((*name).clone()))
        } else if peer.sends != Some(new) {
            Some(Waiting::Handshake((*name).clone()))
        } else {
            None
        }
    });
    let next = Next::once(waiting.collect(), overdue, vec![Step::Retire(old)]);
    if !next.waiting.is_empty() {
        clocks.drained = None;
        return next;
    }
    let since = *clocks.drained.get_or_insert(now);
    match now.saturating_sub(since) >= DRAIN {
        true => next,
        false => Next {
            steps: Vec::new(),
            waiting: vec![Waiting::Drain],
            ..next
        },
    }
}

impl Next {
    fn steps(steps: Vec<Step>) -> Self {
        Self {
            steps,
            ..Self::default()
        }
    }

    /// These steps once nothing is waited for any more, or once the deadline is over.
    fn once(waiting: Vec<Waiting>, overdue: bool, steps: Vec<Step>) -> Self {
        match (waiting.is_empty(), overdue) {
            (true, _) => Self::steps(steps),
            (false, true) => Self {
                steps,
                given_up: waiting,
                ..Self::default()
            },
            (false, false) => Self {
                waiting,
                ..Self::default()
            },
        }
    }

    /// The same, with these steps while it waits.
    fn or(self, meanwhile: Vec<Step>) -> Self {
        match self.waiting.is_empty() {
            true => self,
            false => Self {
                steps: meanwhile,
                ..self
            },
        }
    }
}

impl Clocks {
    /// Clocks that have seen nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Takes up the rotation that an earlier process of this node has seen begin, as [`Clocks::under_way`] said there. Times must
    /// be since the same moment here and there.
    pub fn resume(&mut self, epoch: Epoch, since: Duration) {
        self.rotation = Some((epoch, since));
    }

    /// The rotation that is under way, by the newest epoch of this node, and since when.
    pub fn under_way(&self) -> Option<(Epoch, Duration)> {
        self.rotation
    }

    fn look(&mut self, view: &View, now: Duration) {
        let newest = view.own.last().copied();
        let under_way = newest.filter(|newest| view.own.len() > 1 || *newest < view.mesh);
        match (self.rotation, under_way) {
            (Some((known, _)), Some(epoch)) if known == epoch => {}
            (_, Some(epoch)) => {
                self.rotation = Some((epoch, now));
                self.drained = None;
            }
            (_, None) => {
                self.rotation = None;
                self.drained = None;
            }
        }
        let is_unready = |name: &NodeName| view.peers.get(name).is_some_and(|peer| !peer.ready);
        self.unready.retain(|name, _| is_unready(name));
        for (name, _) in view.peers.iter().filter(|(_, peer)| !peer.ready) {
            self.unready.entry(name.clone()).or_insert(now);
        }
    }

    fn counts(&self, name: &NodeName, peer: &Peer, now: Duration) -> bool {
        let since = self.unready.get(name).copied().unwrap_or(now);
        peer.ready || now.saturating_sub(since) < self.limits.grace
    }

    /// How long until the first of these times is over.
    fn next_change(&self, now: Duration) -> Option<Duration> {
        let drain = self.drained.map(|since| since + DRAIN);
        let deadline = self.rotation.map(|(_, since)| since + self.limits.deadline);
        let graces = self.unready.values().map(|since| *since + self.limits.grace);
        let ends = drain.into_iter().chain(deadline).chain(graces);
        ends.filter(|end| *end > now).min().map(|end| end - now)
    }

    fn is_overdue(&self, now: Duration) -> bool {
        self.rotation
            .is_some_and(|(_, since)| now.saturating_sub(since) >= self.limits.deadline)
    }
}

fn after(epoch: Epoch) -> Option<Epoch> {
    epoch.number().checked_add(1).and_then(Epoch::new)
}

fn before(epoch: Epoch) -> Option<Epoch> {
    epoch.number().checked_sub(1).and_then(Epoch::new)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
