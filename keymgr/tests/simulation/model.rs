//! A cluster of nodes that rotate their keys.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use warren_keymgr::rotation::{Clocks, Peer, Step, View, next};
use warren_model::{Epoch, NodeName};

use crate::random::Random;

/// What one turn of the model stands for.
const TURN: Duration = Duration::from_secs(1);

/// Turns within which everything that is asked for must have come about.
const PATIENCE: usize = 400;

/// How likely things are to go wrong, for each node and turn; joining and leaving for each turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    /// An agent stops after some step of a pass, and starts anew some turns later.
    pub(crate) crash: f64,
    pub(crate) join: f64,
    pub(crate) leave: f64,
    /// A node is cut off and not ready, for longer than it is waited for.
    pub(crate) away: f64,
}

impl Faults {
    pub(crate) fn none() -> Self {
        Self {
            crash: 0.0,
            join: 0.0,
            leave: 0.0,
            away: 0.0,
        }
    }
}

/// What a node publishes, and whether it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Published {
    keys: BTreeSet<Epoch>,
    settled: Epoch,
    ready: bool,
}

/// A node, by the order in which it joined.
type Id = usize;

#[derive(Debug, Default)]
struct Node {
    /// On disk.
    keys: BTreeSet<Epoch>,
    /// In memory: gone after a crash.
    clocks: Clocks,
    /// What it last decided to say.
    says: Option<Epoch>,
    /// What its watch shows: each peer's announcement of some moment.
    sees: BTreeMap<Id, Published>,
    mesh: Option<Epoch>,
    /// In the kernel: the peers of each device, with which of them a handshake was completed, and by what each is sent to.
    devices: BTreeSet<(Epoch, Id)>,
    proven: BTreeSet<(Epoch, Id)>,
    sends: BTreeMap<Id, Epoch>,
    /// Turns until its agent runs again.
    down: usize,
    /// Turns until it is connected again.
    away: usize,
    /// It was away, and has not caught up since.
    behind: bool,
    /// It has lived in one epoch alone: who joins in the midst of a rotation has keys of both, and may be the last to have the earlier.
    has_settled: bool,
}

#[derive(Debug)]
pub(crate) struct World {
    mesh: Epoch,
    nodes: BTreeMap<Id, Node>,
    api: BTreeMap<Id, Published>,
    /// Who reaches whom.
    connected: BTreeSet<(Id, Id)>,
    faults: Faults,
    random: Random,
    seed: u64,
    now: Duration,
    born: Id,
    /// Nodes destroy their old keys without waiting for anybody.
    pub(crate) impatient: bool,
    /// The epoch that agents which start from now on see the Mesh ask for; those that run go on with the one they know.
    called_off: Option<Epoch>,
}

impl World {
    pub(crate) fn new(nodes: usize, seed: u64, faults: Faults) -> Self {
        let mut world = Self {
            mesh: Epoch::FIRST,
            nodes: BTreeMap::new(),
            api: BTreeMap::new(),
            connected: BTreeSet::new(),
            faults: Faults::none(),
            random: Random::new(seed),
            seed,
            now: Duration::ZERO,
            born: 0,
            impatient: false,
            called_off: None,
        };
        for _ in 0..nodes {
            world.join();
        }
        world.settle();
        world.faults = faults;
        world
    }

    /// Asks for so many rotations more.
    pub(crate) fn rotate(&mut self, by: u32) {
        self.mesh = Epoch::new(self.mesh.number() + by).unwrap();
    }

    /// The rotation that is under way is not asked for any more, as where its schedule is taken out of the Mesh.
    pub(crate) fn call_off(&mut self) {
        self.called_off = self.mesh.number().checked_sub(1).and_then(Epoch::new);
    }

    /// It is asked for after all.
    pub(crate) fn call_on(&mut self) {
        self.called_off = None;
    }

    /// Nothing goes wrong from now on.
    pub(crate) fn calm(&mut self) {
        self.faults = Faults::none();
    }

    pub(crate) fn run(&mut self, turns: usize) {
        for _ in 0..turns {
            self.turn();
        }
    }

    /// Until all live in the epoch that is asked for, and in no other.
    pub(crate) fn settle(&mut self) {
        for _ in 0..PATIENCE {
            if self.is_settled() {
                return;
            }
            self.turn();
        }
        let held = self.nodes.iter().map(|(id, node)| (id, &node.keys, node.says));
        panic!(
            "seed {}: not settled in {} after {PATIENCE} turns: {:?}",
            self.seed,
            self.mesh,
            held.collect::<Vec<_>>()
        );
    }

    fn is_settled(&self) -> bool {
        let is_here = |id: &Id| self.nodes[id].away == 0;
        let here: Vec<Id> = self.nodes.keys().copied().filter(is_here).collect();
        let only = BTreeSet::from([self.mesh]);
        here.iter().all(|id| {
            let node = &self.nodes[id];
            let mut others = here.iter().filter(|peer| *peer != id);
            let published = self.api.get(id);
            node.keys == only
                && published.is_some_and(|published| published.settled == self.mesh && published.keys == only)
                && others.all(|peer| node.sends.get(peer) == Some(&self.mesh))
        })
    }

    fn turn(&mut self) {
        self.now += TURN;
        let ids: Vec<Id> = self.nodes.keys().copied().collect();
        if self.random.happens(self.faults.join) {
            self.join();
        }
        if ids.len() > 2 && self.random.happens(self.faults.leave) {
            let id = ids[self.random.below(ids.len())];
            self.nodes.remove(&id);
            self.api.remove(&id);
            self.forget(id);
        }
        for id in ids {
            self.go(id);
        }
    }

    fn join(&mut self) {
        self.born += 1;
        self.nodes.insert(self.born, Node::default());
    }

    /// Nothing is promised to or by this node.
    fn forget(&mut self, id: Id) {
        self.connected.retain(|(from, to)| *from != id && *to != id);
    }

    /// One node's turn.
    fn go(&mut self, id: Id) {
        let leaves = self.random.happens(self.faults.away);
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        if node.away == 0 && leaves {
            node.away = 70 + self.random.below(60);
            node.behind = true;
            self.be_ready(id, false);
            self.forget(id);
        } else if node.away > 0 {
            node.away -= 1;
            if node.away == 0 {
                // A watch that was cut off begins with a list.
                node.sees.clear();
                self.be_ready(id, true);
            }
        } else if node.down > 0 {
            node.down -= 1;
        } else {
            self.watch(id);
            self.shake_hands(id);
            self.pass(id);
        }
    }

    fn be_ready(&mut self, id: Id, ready: bool) {
        if let Some(published) = self.api.get_mut(&id) {
            published.ready = ready;
        }
    }

    /// The watch shows some of what has changed.
    fn watch(&mut self, id: Id) {
        let node = self.nodes.get_mut(&id).unwrap();
        if self.random.happens(0.6) || node.mesh.is_none() {
            node.mesh = node.mesh.max(Some(self.called_off.unwrap_or(self.mesh)));
        }
        // The first list is whole; events come late, and in any order between nodes.
        let is_first = node.sees.is_empty();
        for (peer, published) in &self.api {
            if is_first || (self.random.happens(0.5) && node.sees.get(peer) != Some(published)) {
                node.sees.insert(*peer, published.clone());
            }
        }
        node.sees.retain(|peer, _| self.api.contains_key(peer));
    }

    /// Handshakes complete where both devices have each other.
    fn shake_hands(&mut self, id: Id) {
        let node = &self.nodes[&id];
        let missing: Vec<(Epoch, Id)> = node.devices.difference(&node.proven).copied().collect();
        for (epoch, peer) in missing {
            let knows_us = |node: &Node| node.away == 0 && node.devices.contains(&(epoch, id));
            if self.nodes.get(&peer).is_some_and(knows_us) && self.random.happens(0.7) {
                self.nodes.get_mut(&id).unwrap().proven.insert((epoch, peer));
                self.nodes.get_mut(&peer).unwrap().proven.insert((epoch, id));
            }
        }
    }

    /// The agent looks, acts and publishes. It may crash between any two acts.
    fn pass(&mut self, id: Id) {
        let crashes = self.random.happens(self.faults.crash);
        let mut acts = if crashes { self.random.below(6) } else { usize::MAX };
        let mut may = || {
            let may = acts > 0;
            acts = acts.saturating_sub(1);
            may
        };
        let node = self.nodes.get_mut(&id).unwrap();
        let view = node.view(id, self.api.get(&id));
        let mut steps = next(&view, &mut node.clocks, self.now).steps;
        if self.impatient && node.keys.len() == 2 {
            steps = vec![Step::Retire(*node.keys.first().unwrap())];
        }
        for step in steps {
            if !may() {
                break;
            }
            node.take(step);
        }
        if may() {
            node.configure();
        }
        if may() {
            node.route(id, self.api.get(&id));
        }
        if may() && !node.keys.is_empty() {
            let known = self.api.get(&id).map(|published| published.settled);
            let (first, last) = (*node.keys.first().unwrap(), *node.keys.last().unwrap());
            let settled = node.says.or(known).unwrap_or(first).clamp(first, last);
            let published = Published {
                keys: node.keys.clone(),
                settled,
                ready: true,
            };
            self.api.insert(id, published);
        }
        if crashes {
            node.clocks = Clocks::default();
            node.says = None;
            node.mesh = None;
            node.sees.clear();
            node.down = self.random.below(8);
        }
        self.check(id);
        self.check_epochs(id);
    }

    /// What must hold after each pass of a node, about its pairs.
    fn check(&mut self, id: Id) {
        let node = &self.nodes[&id];
        let lanes: BTreeSet<_> = node.keys.iter().map(|epoch| epoch.lane()).collect();
        assert_eq!(
            lanes.len(),
            node.keys.len(),
            "seed {}: {:?}",
            self.seed,
            node.keys
        );
        // Nothing is promised to who was away but in the epoch that is asked for, until it lives in no other.
        let lives_with_all = node.away == 0 && node.keys == BTreeSet::from([self.mesh]);
        for peer in self.nodes.keys().copied().filter(|peer| *peer != id) {
            for pair in [(id, peer), (peer, id)] {
                let (sender, receiver) = (&self.nodes[&pair.0], &self.nodes[&pair.1]);
                let by = sender.sends.get(&pair.1);
                let arrives = by.is_some_and(|epoch| {
                    sender.keys.contains(epoch) && receiver.devices.contains(&(*epoch, pair.0))
                });
                let here = sender.away == 0 && receiver.away == 0;
                let caught_up = !sender.behind && !receiver.behind;
                let counts = here && (caught_up || by == Some(&self.mesh));
                if arrives && counts {
                    self.connected.insert(pair);
                }
                assert!(
                    arrives || !self.connected.contains(&pair),
                    "seed {}: {} lost its path to {}: sends by {by:?}, has {:?}; the other has {:?}",
                    self.seed,
                    pair.0,
                    pair.1,
                    sender.keys,
                    receiver.keys
                );
            }
        }
        if lives_with_all {
            self.nodes.get_mut(&id).unwrap().behind = false;
        }
    }
}

impl World {
    /// A second rotation waits for the first, so there are never more than two epochs that anybody lives in.
    fn check_epochs(&mut self, id: Id) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.has_settled |= node.keys.len() == 1;
        let follows = |node: &&Node| node.away == 0 && !node.behind && node.has_settled;
        let follow = self.nodes.values().filter(follows);
        let live: BTreeSet<Epoch> = follow.flat_map(|node| node.keys.iter().copied()).collect();
        assert!(
            live.len() <= 2,
            "seed {}: more than two epochs: {live:?}",
            self.seed
        );
    }
}

impl Node {
    fn view(&self, own: Id, published: Option<&Published>) -> View {
        let peers = self.sees.iter().filter(|(id, _)| **id != own);
        let peers = peers.map(|(id, published)| {
            let peer = Peer {
                keys: published.keys.clone(),
                settled: published.settled,
                sends: self.sends.get(id).copied(),
                ready: published.ready,
            };
            (format!("node{id}").parse::<NodeName>().unwrap(), peer)
        });
        View {
            mesh: self.mesh.unwrap(),
            renews: true,
            own: self.keys.clone(),
            settled: published.map(|published| published.settled),
            peers: peers.collect(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Make(epoch) | Step::Carry { to: epoch, .. } => drop(self.keys.insert(epoch)),
            Step::Settle(epoch) => self.says = Some(epoch),
            Step::Retire(epoch) => {
                self.keys.remove(&epoch);
                self.devices.retain(|(of, _)| *of != epoch);
                self.proven.retain(|(of, _)| *of != epoch);
            }
        }
    }

    /// Gives each device the peers that publish a key of its epoch.
    fn configure(&mut self) {
        let shared = |id: &Id| {
            let theirs = self.sees.get(id).map(|seen| &seen.keys);
            theirs
                .into_iter()
                .flat_map(|theirs| theirs.intersection(&self.keys))
        };
        let wanted = self
            .sees
            .keys()
            .flat_map(|id| shared(id).map(|epoch| (*epoch, *id)));
        self.devices = wanted.collect();
        let devices = &self.devices;
        self.proven.retain(|pair| devices.contains(pair));
    }

    /// Sends to each peer by the newest epoch that a handshake was completed in, up to what the Mesh asks for and to what this node has
    /// settled in; while there is none, as before.
    fn route(&mut self, own: Id, published: Option<&Published>) {
        let devices = &self.devices;
        self.sends.retain(|id, epoch| devices.contains(&(*epoch, *id)));
        let last = self.mesh.max(published.map(|published| published.settled));
        let usable = |epoch: &Epoch| Some(*epoch) <= last;
        // Ascending: the newest is the last.
        for (epoch, id) in self
            .proven
            .iter()
            .filter(|(epoch, id)| *id != own && usable(epoch))
        {
            self.sends.insert(*id, *epoch);
        }
    }
}
