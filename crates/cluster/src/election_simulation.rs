//! Many elections: agents with clocks and views of their own, an API that answers late, and holders that die or stall.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A number from a seed and a counter (splitmix64, <https://prng.di.unimi.it/splitmix64.c>).
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.roll(most))
    }
}

/// Several agents, one Lease, and one object whose `wanted` number changes and whose `written` number must follow.
struct World {
    dice: Dice,
    now: Duration,
    wanted: u32,
    changed: Duration,
    /// The number and the object's version, with the time from which agents may see them.
    written: (u32, u32),
    lease: (u32, Option<usize>),
    term: u32,
    agents: Vec<Agent>,
    lease_writes: u32,
    /// Which agent wrote, in which term.
    writes: Vec<(usize, u32)>,
}

struct Agent {
    election: Election,
    /// Its clock shows the time since then, and runs a little fast or slow.
    booted: Duration,
    rate: u32,
    alive: bool,
    stalled_until: Duration,
    /// What it has seen of `wanted` and `written`.
    view: (u32, (u32, u32)),
    sees_after: Duration,
    term: u32,
    request: Option<Request>,
}

/// One request under way: it reaches the server, and its answer the agent.
#[derive(Debug, Clone)]
struct Request {
    act: Act,
    asked: Duration,
    lands: Duration,
    back: Duration,
    /// The version that it is bound to, and what it writes.
    bound: u32,
    content: u32,
    term: u32,
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone)]
enum Outcome {
    Lease(Record, u32),
    Written,
    Conflict,
}

fn name(agent: usize) -> String {
    format!("agent{agent}")
}

impl World {
    fn new(seed: u64, agents: usize) -> Self {
        let mut dice = Dice(seed);
        let agents = (0..agents).map(|index| Agent {
            election: Election::new(name(index)),
            booted: Duration::ZERO,
            rate: 990 + u32::try_from(dice.roll(20)).unwrap(),
            alive: true,
            stalled_until: Duration::ZERO,
            view: (0, (0, 0)),
            sees_after: Duration::ZERO,
            term: 0,
            request: None,
        });
        Self {
            agents: agents.collect(),
            now: SECOND * 1000,
            wanted: 0,
            changed: Duration::ZERO,
            written: (0, 0),
            lease: (0, None),
            term: 0,
            lease_writes: 0,
            writes: Vec::new(),
            dice,
        }
    }

    fn change(&mut self) {
        self.wanted += 1;
        self.changed = self.now;
        self.show();
    }

    /// The agents see it, each a little later.
    fn show(&mut self) {
        for agent in &mut self.agents {
            agent.sees_after = self.now + self.dice.millis(150);
        }
    }

    /// Ten milliseconds.
    fn step(&mut self) {
        self.now += Duration::from_millis(10);
        for index in 0..self.agents.len() {
            self.land(index);
            let agent = &mut self.agents[index];
            if !agent.alive || self.now < agent.stalled_until {
                continue;
            }
            if self.now >= agent.sees_after {
                agent.view = (self.wanted, self.written);
            }
            self.act(index);
        }
    }

    /// Requests land whether or not their sender still lives.
    fn land(&mut self, index: usize) {
        let Some(mut request) = self.agents[index].request.take() else {
            return;
        };
        if self.now >= request.lands && request.outcome.is_none() {
            request.outcome = Some(self.serve(index, &request));
        }
        self.agents[index].request = Some(request);
    }

    fn serve(&mut self, index: usize, request: &Request) -> Outcome {
        match request.act {
            Act::Take | Act::Renew => {
                if request.bound != self.lease.0 {
                    return Outcome::Conflict;
                }
                if self.lease.1 != Some(index) {
                    self.term += 1;
                }
                self.lease = (self.lease.0 + 1, Some(index));
                self.lease_writes += 1;
                Outcome::Lease(self.record(), self.term)
            }
            Act::Write => {
                if request.bound != self.written.1 {
                    return Outcome::Conflict;
                }
                self.written = (request.content, self.written.1 + 1);
                self.writes.push((index, request.term));
                self.show();
                Outcome::Written
            }
            Act::Look => Outcome::Lease(self.record(), self.term),
            Act::Rest | Act::Wait(_) => unreachable!("no request"),
        }
    }

    fn record(&self) -> Record {
        Record {
            version: self.lease.0.to_string(),
            holder: self.lease.1.map(name),
            duration: LEASE,
        }
    }

    fn act(&mut self, index: usize) {
        let (latency, random) = (self.dice.millis(200), self.dice.roll(u64::MAX));
        let agent = &mut self.agents[index];
        let clock = (self.now - agent.booted) * agent.rate / 1000;
        if let Some(request) = &agent.request {
            let Some(outcome) = request.outcome.clone().filter(|_| self.now >= request.back) else {
                return;
            };
            match (request.act, outcome) {
                (Act::Look, Outcome::Lease(record, term)) => {
                    agent.election.saw(clock, record);
                    agent.term = term;
                }
                (_, Outcome::Lease(record, term)) => {
                    agent.election.signed(request.asked, record);
                    agent.term = term;
                }
                (Act::Take | Act::Renew, Outcome::Conflict) => agent.election.was_changed(),
                // The watch shows what became of it.
                (_, Outcome::Written | Outcome::Conflict) => {}
            }
            agent.request = None;
        }
        let (wanted, written) = agent.view;
        let act = agent.election.next(clock, wanted != written.0, index, random);
        let bound = match act {
            Act::Rest | Act::Wait(_) => return,
            Act::Write => written.1,
            Act::Take | Act::Renew | Act::Look => agent
                .election
                .known
                .as_ref()
                .map_or(0, |known| known.record.version.parse().unwrap()),
        };
        agent.request = Some(Request {
            act,
            asked: clock,
            lands: self.now + latency / 2,
            back: self.now + latency,
            bound,
            content: wanted,
            term: agent.term,
            outcome: None,
        });
    }

    /// Steps until the change is written, and returns how long that took.
    fn served(&mut self) -> Duration {
        while self.written.0 != self.wanted {
            self.step();
            let waited = self.now - self.changed;
            assert!(waited < SECOND * 60, "nobody writes");
        }
        self.now - self.changed
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn holder(&self) -> usize {
        self.lease.1.unwrap()
    }
}

/// Crashes, restarts and stalls of holders at random moments, between changes that come alone or in quick succession.
#[test]
fn each_change_is_written_once_by_one_agent_within_fifteen_seconds_whatever_becomes_of_the_holder() {
    for seed in 0..60 {
        let mut world = World::new(seed, 5);
        world.change();
        world.served();
        for _ in 0..8 {
            let quiet = world.dice.millis(40_000);
            world.pass(quiet);
            let holder = world.holder();
            let event = world.dice.roll(4);
            match event {
                0 => world.agents[holder].alive = false,
                1 => world.agents[holder].stalled_until = world.now + SECOND * 5 + world.dice.millis(25_000),
                _ => {}
            }
            let (before, signed) = (world.writes.len(), world.lease_writes);
            world.change();
            if event == 2 {
                // Struck in the middle of its work.
                let moment = world.dice.millis(300);
                world.pass(moment);
                world.agents[holder].alive = false;
            }
            let took = world.served();
            assert!(took < SECOND * 15, "seed {seed}: {took:?}");
            assert!(
                event != 3 || took < SECOND,
                "seed {seed}: a holder that lives is quick: {took:?}"
            );
            world.pass(SECOND * 35);
            assert_eq!(world.writes.len(), before + 1, "seed {seed}: one write a change");
            let signatures = world.lease_writes - signed;
            assert!(
                signatures <= 2,
                "seed {seed}: the Lease was written {signatures} times"
            );
            assert!(event != 3 || signatures <= 1, "seed {seed}: a holder renews once");
            // Whoever died is started again: another process, with a clock of its own and no memory.
            let now = world.now;
            for (index, agent) in world
                .agents
                .iter_mut()
                .enumerate()
                .filter(|(_, agent)| !agent.alive)
            {
                agent.election = Election::new(name(index));
                (agent.alive, agent.booted, agent.request) = (true, now, None);
            }
        }
        let terms: Vec<_> = world.writes.iter().map(|(_, term)| *term).collect();
        assert!(
            terms.is_sorted(),
            "seed {seed}: a former holder wrote after its successor: {terms:?}"
        );
        for pair in world.writes.windows(2) {
            let same_term = pair[0].1 == pair[1].1;
            assert!(
                !same_term || pair[0].0 == pair[1].0,
                "seed {seed}: two writers in one term"
            );
        }
    }
}

#[test]
fn an_idle_mesh_writes_nothing() {
    let mut world = World::new(1, 5);
    world.change();
    world.served();
    world.pass(SECOND);
    let before = (world.writes.len(), world.lease_writes);
    world.pass(SECOND * 300);
    assert_eq!((world.writes.len(), world.lease_writes), before);
}
