//! Two ends and what lies between them, in virtual time. Each end has a clock of its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::end::{Datagrams, End};
use crate::noise::testing::TestRng;
use crate::noise::{MessageKind, Millis};

/// A packet that needs no padding.
pub(super) const PACKET: &[u8] = b"sixteen bytes ..";

/// How often timers are looked at.
pub(super) const TICK: Millis = 200;

/// What the network does to datagrams.
#[derive(Clone, Copy)]
pub(super) struct Weather {
    /// Per thousand that are lost.
    pub(super) lost: u64,
    /// Per thousand that come twice.
    pub(super) twice: u64,
    /// The shortest way.
    pub(super) delay: Millis,
    /// What is added to that at most, at random: datagrams overtake each other.
    pub(super) jitter: Millis,
}

/// Nothing is lost.
pub(super) const FAIR: Weather = Weather {
    lost: 0,
    twice: 0,
    delay: 10,
    jitter: 0,
};

pub(super) struct Network {
    pub(super) ends: [End; 2],
    /// Each end's time when the network's begins.
    pub(super) clocks: [Millis; 2],
    pub(super) now: Millis,
    pub(super) weather: Weather,
    /// Whether datagrams to an end arrive at all.
    pub(super) reachable: [bool; 2],
    rng: TestRng,
    events: BinaryHeap<Reverse<(Millis, u64)>>,
    what: BTreeMap<u64, Event>,
    serial: u64,
    /// Data messages with a packet that were lost on the way to each end: none of their copies came through.
    pub(super) lost: [usize; 2],
}

/// Two ends with a session that the first has begun; the packet that it was begun for has arrived.
pub(super) fn connected(seed: u64) -> Network {
    let mut network = Network::new(seed);
    network.send(0, PACKET);
    network.run(100);
    assert_eq!(network.ends[1].take_received(), [PACKET]);
    assert_eq!([network.ends[0].handshakes, network.ends[1].handshakes], [1, 1]);
    network
}

/// Sends a packet each way ten times a second. Gives the number of packets.
pub(super) fn talk(network: &mut Network, time: Millis) -> usize {
    for _ in 0..time / 100 {
        network.send(0, PACKET);
        network.send(1, PACKET);
        network.run(100);
    }
    usize::try_from(time / 100).unwrap()
}

enum Event {
    Arrives(usize, Vec<u8>),
    Ticks(usize),
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        let mut network = Self {
            ends: [End::new(8, 16, seed), End::new(16, 8, seed + 1)],
            clocks: [0, 0],
            now: 0,
            weather: FAIR,
            reachable: [true; 2],
            rng: TestRng::new(seed + 2),
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            serial: 0,
            lost: [0; 2],
        };
        network.schedule(50, Event::Ticks(0));
        network.schedule(130, Event::Ticks(1));
        network
    }

    /// An end sends a packet.
    pub(super) fn send(&mut self, end: usize, packet: &[u8]) {
        let now = self.clock(end);
        let out = self.ends[end].send(now, packet);
        self.carry(end, out);
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Millis) {
        self.run_until(self.now + time);
    }

    pub(super) fn run_until(&mut self, until: Millis) {
        while let Some(Reverse((at, serial))) = self.events.peek().copied().filter(|next| next.0.0 <= until) {
            self.events.pop();
            self.now = at;
            match self.what.remove(&serial).unwrap() {
                Event::Ticks(end) => {
                    let now = self.clock(end);
                    let out = self.ends[end].tick(now);
                    self.carry(end, out);
                    self.schedule(TICK, Event::Ticks(end));
                }
                Event::Arrives(end, datagram) => {
                    let now = self.clock(end);
                    let out = self.ends[end].receive(now, &datagram);
                    self.carry(end, out);
                }
            }
        }
        self.now = until;
    }

    /// What an end's clock says.
    pub(super) fn clock(&self, end: usize) -> Millis {
        self.clocks[end] + self.now
    }

    /// Puts datagrams of an end on their way.
    pub(super) fn carry(&mut self, from: usize, datagrams: Datagrams) {
        let to = 1 - from;
        for datagram in datagrams {
            let is_data = MessageKind::of(&datagram) == Ok(MessageKind::Data) && datagram.len() > 32;
            if !self.reachable[to] || self.rng.below(1000) < self.weather.lost {
                self.lost[to] += usize::from(is_data);
                continue;
            }
            let copies = 1 + u64::from(self.rng.below(1000) < self.weather.twice);
            for _ in 0..copies {
                let delay = self.weather.delay + self.rng.below(self.weather.jitter + 1);
                self.schedule(delay, Event::Arrives(to, datagram.clone()));
            }
        }
    }

    fn schedule(&mut self, after: Millis, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((self.now + after, self.serial)));
        self.what.insert(self.serial, event);
    }
}
