//! Nodes that learn of changes at any moments and in any order, as a model: at no moment does one send what the other
//! does not take.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;

use warren_model::{
    Announcement, Encryption, Epoch, Fallback, Lane, Mesh, Node, NodeName, OverlayMode, PathKind, PublicKey,
};
use warren_plan::handover::{HANDSHAKE_COURTESY, HANDSHAKE_PATIENCE, PEER_PATIENCE};
use warren_plan::state::{Desired, IPIP_INTERFACE, VXLAN_INTERFACE};
use warren_plan::{
    Action, Carrier, Cluster, Endpoints, Guard, InForce, Local, Observed, RouteTarget, UnderlayAddress,
    accord, compute, diff,
};

const NODES: usize = 3;
/// Passes of each node after which everything must have come to rest.
const ENOUGH: usize = 8;

/// One node: what it knows, what its kernel is, and what it has published.
struct Member {
    name: NodeName,
    can: BTreeSet<PathKind>,
    mesh: Mesh,
    /// What it knows of the others.
    known: BTreeMap<NodeName, Announcement>,
    observed: Observed,
    guard: Guard,
    desired: Option<Desired>,
    published: Option<Announcement>,
    accord_age: Duration,
}

/// What happens next.
#[derive(Debug, Clone)]
enum Event {
    /// Somebody writes the Mesh.
    Mesh(usize),
    /// A node comes to know the Mesh as it is.
    LearnsMesh(usize),
    /// A node comes to know what another has published.
    LearnsPeer(usize, usize),
    /// A node makes a pass and, later, publishes what came of it.
    Pass(usize),
    Publishes(usize),
    /// What a node's devices send of themselves, or carry, arrives.
    ShakesHands(usize),
    /// A node's agent is started anew, with or without WireGuard.
    Restart(usize, bool),
}

struct World {
    mesh: Mesh,
    members: Vec<Member>,
}

fn meshes() -> Vec<Mesh> {
    let clear = |mode, cross_subnet| {
        let mut mesh = Mesh {
            encryption: Encryption::None,
            ..Mesh::default()
        };
        mesh.overlay.mode = mode;
        mesh.overlay.cross_subnet = cross_subnet;
        mesh
    };
    vec![
        Mesh {
            fallback: Fallback::Vxlan,
            ..Mesh::default()
        },
        Mesh::default(),
        clear(OverlayMode::Vxlan, false),
        clear(OverlayMode::Vxlan, true),
        clear(OverlayMode::None, false),
        clear(OverlayMode::Ipip, false),
        clear(OverlayMode::Ipip, true),
        Mesh {
            fallback: Fallback::Ipip,
            ..Mesh::default()
        },
    ]
}

fn key(n: usize) -> PublicKey {
    PublicKey::from_bytes([u8::try_from(n).unwrap() + 2; 32]).unwrap()
}

fn net(n: usize) -> IpNet {
    format!("10.244.{n}.0/24").parse().unwrap()
}

fn ip(n: usize) -> IpAddr {
    format!("192.0.2.{}", n + 1).parse().unwrap()
}

fn kinds(wireguard: bool) -> BTreeSet<PathKind> {
    let wireguard = wireguard.then_some(PathKind::Wireguard);
    wireguard
        .into_iter()
        .chain([PathKind::Vxlan, PathKind::Ipip])
        .collect()
}

impl World {
    /// A cluster at rest.
    fn at_rest(mesh: usize) -> Self {
        let member = |n: usize| Member {
            name: format!("node{n}").parse().unwrap(),
            can: kinds(true),
            mesh: meshes()[mesh].clone(),
            known: BTreeMap::new(),
            observed: Observed::default(),
            guard: Guard::default(),
            desired: None,
            published: None,
            accord_age: Duration::ZERO,
        };
        let mut world = Self {
            mesh: meshes()[mesh].clone(),
            members: (0..NODES).map(member).collect(),
        };
        world.come_to_rest(|_| Ok(())).unwrap();
        world
    }

    fn cluster_of(&self, at: usize) -> (Cluster, Local) {
        let member = &self.members[at];
        let node = |n: usize| Node {
            name: self.members[n].name.clone(),
            uid: n.to_string(),
            created: 0,
            pod_cidrs: vec![net(n).to_string().parse().unwrap()],
            internal_ips: vec![ip(n)],
            announcement: member.known.get(&self.members[n].name).cloned().map(Ok),
            ready: true,
        };
        let cluster = Cluster {
            nodes: (0..NODES)
                .map(node)
                .map(|node| (node.name.clone(), node))
                .collect(),
            mesh: member.mesh.clone(),
            refusals: Vec::new(),
        };
        let local = Local {
            node: member.name.clone(),
            keys: [(Epoch::FIRST, key(at))].into(),
            can: member.can.clone(),
            attachments: Vec::new(),
            underlay: vec![UnderlayAddress {
                interface: "eth0".to_owned(),
                net: IpNet::new(ip(at), 24).unwrap(),
                mtu: 1500,
            }],
            underlay_routes: Vec::new(),
            mtu_holes: BTreeMap::new(),
            networks_before: BTreeSet::new(),
            endpoints_before: Endpoints::new(),
            settled: None,
            in_force: InForce::observed(&member.observed, member.accord_age),
        };
        (cluster, local)
    }

    fn happens(&mut self, event: &Event, check: impl Fn(&Self) -> Result<(), String>) -> Result<(), String> {
        match *event {
            Event::Mesh(n) => {
                self.mesh = Mesh {
                    generation: self.mesh.generation + 1,
                    ..meshes()[n].clone()
                };
            }
            Event::LearnsMesh(at) => {
                if self.members[at].mesh != self.mesh {
                    self.members[at].mesh = self.mesh.clone();
                    self.members[at].accord_age = Duration::ZERO;
                }
            }
            Event::LearnsPeer(at, of) => {
                if let Some(published) = self.members[of].published.clone() {
                    let name = self.members[of].name.clone();
                    self.members[at].known.insert(name, published);
                }
            }
            Event::Pass(at) => self.pass(at, check)?,
            Event::Publishes(at) => {
                let desired = self.members[at].desired.as_ref();
                self.members[at].published = desired.and_then(|desired| desired.announcement.clone());
                // Its own words come back to it at once.
                self.happens(&Event::LearnsPeer(at, at), check)?;
            }
            Event::ShakesHands(at) => self.shake_hands(at),
            Event::Restart(at, wireguard) => {
                self.members[at].can = kinds(wireguard);
                self.members[at].accord_age = Duration::ZERO;
                self.members[at].desired = None;
            }
        }
        Ok(())
    }

    fn pass(&mut self, at: usize, check: impl Fn(&Self) -> Result<(), String>) -> Result<(), String> {
        let (cluster, local) = self.cluster_of(at);
        let desired = compute(&cluster, &local);
        for step in diff(&desired, &self.members[at].observed) {
            if let Action::InstallGuard(guard) = &step.action {
                self.members[at].guard = guard.clone();
            }
            self.members[at].observed.apply(&step.action);
            check(self).map_err(|error| format!("{error}, after {} of node{at}", step.action))?;
        }
        self.members[at].desired = Some(desired);
        Ok(())
    }

    /// What a keepalive or a packet brings about where both ends have the other's key.
    fn shake_hands(&mut self, at: usize) {
        for to in (0..NODES).filter(|to| *to != at) {
            let peer = |member: &Member, of: usize| {
                let device = member.observed.lanes.get(&Lane::One)?;
                device.peers.get(&key(of)).map(|peer| peer.keepalive > 0)
            };
            let (one, other) = (peer(&self.members[at], to), peer(&self.members[to], at));
            let speaks = one == Some(true) || self.sends(at, to) == Some(PathKind::Wireguard);
            if speaks && one.is_some() && other.is_some() {
                for (one, other) in [(at, to), (to, at)] {
                    let device = self.members[one].observed.lanes.get_mut(&Lane::One).unwrap();
                    device.peers.get_mut(&key(other)).unwrap().handshake_age = Some(Duration::ZERO);
                }
            }
        }
    }

    fn come_to_rest(&mut self, check: impl Fn(&Self) -> Result<(), String>) -> Result<(), String> {
        for _ in 0..ENOUGH {
            for at in 0..NODES {
                self.happens(&Event::LearnsMesh(at), &check)?;
                for of in 0..NODES {
                    self.happens(&Event::LearnsPeer(at, of), &check)?;
                }
                self.happens(&Event::Pass(at), &check)?;
                self.happens(&Event::ShakesHands(at), &check)?;
                self.happens(&Event::Publishes(at), &check)?;
            }
        }
        Ok(())
    }

    /// How `at` sends to `to`; `None`: it does not.
    fn sends(&self, at: usize, to: usize) -> Option<PathKind> {
        let routed = InForce::observed(&self.members[at].observed, Duration::ZERO).routed;
        routed.get(&net(to)).map(|path| path.kind())
    }

    /// That what `at` sends to `to` leaves and is taken.
    fn delivers(&self, at: usize, to: usize) -> Result<(), String> {
        let (from, receiver) = (&self.members[at], &self.members[to]);
        let Some(kind) = self.sends(at, to) else {
            return Err(format!("node{at} has no way to node{to}"));
        };
        let Some(carrier) = Carrier::of(kind) else {
            let lane = |member: &Member, of: usize, nets: usize| {
                let device = member.observed.lanes.get(&Lane::One);
                let peer = device.and_then(|device| device.peers.get(&key(of)));
                peer.is_some_and(|peer| peer.allowed_ips.contains(&net(nets)))
            };
            let has_session = |member: &Member, of: usize| {
                let peer = member.observed.lanes[&Lane::One].peers[&key(of)].handshake_age;
                peer.is_some()
            };
            return if !lane(from, to, to) || !lane(receiver, at, at) {
                Err(format!(
                    "node{at} has no peer node{to} in its lane, or the other way"
                ))
            } else if has_session(from, to) && !has_session(receiver, at) {
                Err(format!("node{at} sends in a session that node{to} has not"))
            } else {
                Ok(())
            };
        };
        let stands = |member: &Member| {
            let device = match carrier {
                Carrier::Vxlan => VXLAN_INTERFACE,
                Carrier::Ipip => IPIP_INTERFACE,
                Carrier::Direct => return true,
            };
            member.observed.links.get(device).is_some_and(|it| it.up)
        };
        let lets = |guard: &Guard, of: usize, way: fn(&warren_plan::Clear) -> &BTreeSet<Carrier>| match guard
            .clear
            .get(&net(of))
        {
            Some(clear) => way(clear).contains(&carrier),
            None => !guard.sealed.contains(&net(of)),
        };
        if !stands(from) || !stands(receiver) {
            return Err(format!(
                "node{at} sends to node{to} by {carrier:?}, which one has not"
            ));
        }
        if !lets(&from.guard, to, |clear| &clear.outgoing) {
            return Err(format!(
                "node{at} sends to node{to} by {carrier:?} and does not let it out"
            ));
        }
        if !lets(&receiver.guard, at, |clear| &clear.incoming) {
            return Err(format!(
                "node{at} sends to node{to} by {carrier:?}, which it does not take"
            ));
        }
        Ok(())
    }

    fn all_deliver(&self) -> Result<(), String> {
        pairs().try_for_each(|(at, to)| self.delivers(at, to))
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..NODES).flat_map(|at| (0..NODES).filter(move |to| *to != at).map(move |to| (at, to)))
}

/// What follows from a change, in any order.
fn what_follows() -> impl Strategy<Value = Event> {
    let node = || 0..NODES;
    prop_oneof![
        2 => node().prop_map(Event::LearnsMesh),
        4 => (node(), node()).prop_map(|(at, of)| Event::LearnsPeer(at, of)),
        4 => node().prop_map(Event::Pass),
        3 => node().prop_map(Event::Publishes),
        1 => node().prop_map(Event::ShakesHands),
    ]
}

fn changes_of_the_mesh() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![1 => (0..meshes().len()).prop_map(Event::Mesh), 12 => what_follows()];
    vec(event, 0..200)
}

/// One node is started anew, and what follows from that; then another. An agent takes seconds to start: what it had
/// published before is known by then.
fn restarts() -> impl Strategy<Value = Vec<Vec<Event>>> {
    let restart = (0..NODES, any::<bool>()).prop_map(|(at, wireguard)| Event::Restart(at, wireguard));
    let run =
        (restart, vec(what_follows(), 0..60)).prop_map(|(first, rest)| [Vec::from([first]), rest].concat());
    vec(run, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn whoever_learns_of_a_change_first_no_packet_is_sent_that_is_not_taken(
        start in 0..meshes().len(), events in changes_of_the_mesh(),
    ) {
        let mut world = World::at_rest(start);
        prop_assert_eq!(world.all_deliver(), Ok(()));
        for event in &events {
            prop_assert_eq!(world.happens(event, World::all_deliver), Ok(()), "{:?}", event);
        }
        prop_assert_eq!(world.come_to_rest(World::all_deliver), Ok(()));
        assert_at_rest(&world)?;
    }

    #[test]
    fn a_node_gains_and_loses_wireguard_and_no_packet_is_sent_that_is_not_taken(runs in restarts()) {
        let mut world = World::at_rest(0);
        for run in runs {
            for event in &run {
                prop_assert_eq!(world.happens(event, World::all_deliver), Ok(()), "{:?}", event);
            }
            prop_assert_eq!(world.come_to_rest(World::all_deliver), Ok(()));
            assert_at_rest(&world)?;
        }
    }

    #[test]
    fn one_end_begins_the_handshake_and_the_other_only_if_that_comes_to_nothing(start in 2_usize..7) {
        let mut world = World::at_rest(start);
        world.mesh = Mesh { generation: 1, ..meshes()[1].clone() };
        for (age, both) in [(Duration::ZERO, false), (HANDSHAKE_COURTESY, true)] {
            for at in 0..NODES {
                world.happens(&Event::LearnsMesh(at), World::all_deliver).unwrap();
                world.members[at].accord_age = age;
                world.happens(&Event::Pass(at), World::all_deliver).unwrap();
            }
            for (at, to) in pairs() {
                let peer = &world.members[at].observed.lanes[&Lane::One].peers[&key(to)];
                prop_assert_eq!(peer.keepalive > 0, both || at < to, "node{} to node{}", at, to);
            }
        }
    }

    #[test]
    fn with_an_agent_that_is_gone_encryption_comes_about_and_what_it_sends_in_the_clear_is_not_heard(
        start in 2_usize..7, gone in 0..NODES,
    ) {
        let mut world = World::at_rest(start);
        world.mesh = Mesh { generation: 1, ..meshes()[1].clone() };
        let others: Vec<usize> = (0..NODES).filter(|at| *at != gone).collect();
        for age in [Duration::ZERO, HANDSHAKE_PATIENCE, PEER_PATIENCE] {
            for _ in 0..ENOUGH {
                for at in others.iter().copied() {
                    world.happens(&Event::LearnsMesh(at), |_| Ok(())).unwrap();
                    world.members[at].accord_age = age;
                    others.iter().for_each(|of| world.happens(&Event::LearnsPeer(at, *of), |_| Ok(())).unwrap());
                    world.happens(&Event::Pass(at), |_| Ok(())).unwrap();
                    world.happens(&Event::ShakesHands(at), |_| Ok(())).unwrap();
                    world.happens(&Event::Publishes(at), |_| Ok(())).unwrap();
                }
            }
            if age < PEER_PATIENCE {
                prop_assert_eq!(world.all_deliver(), Ok(()), "{:?}", age);
            }
        }
        for at in others {
            prop_assert!(world.members[at].guard.clear.is_empty());
            for to in (0..NODES).filter(|to| *to != at) {
                prop_assert_eq!(world.sends(at, to), Some(PathKind::Wireguard));
            }
        }
    }
}

/// Nothing is left of any hand-over: both ends send by the same kind of path, and only that is taken.
fn assert_at_rest(world: &World) -> Result<(), TestCaseError> {
    for (at, to) in pairs() {
        prop_assert_eq!(world.sends(at, to), world.sends(to, at));
        let kind = world.sends(at, to).unwrap();
        let member = &world.members[at];
        let clear = member.guard.clear.get(&net(to));
        if world.mesh.encryption == Encryption::Wireguard {
            let expected = Carrier::of(kind).map(warren_plan::Clear::by);
            prop_assert_eq!(clear, expected.as_ref());
        }
        for (device, fallback, mode) in [
            (VXLAN_INTERFACE, Fallback::Vxlan, OverlayMode::Vxlan),
            (IPIP_INTERFACE, Fallback::Ipip, OverlayMode::Ipip),
        ] {
            let wanted = match world.mesh.encryption {
                Encryption::Wireguard => world.mesh.fallback == fallback,
                Encryption::None => world.mesh.overlay.mode == mode,
            };
            prop_assert_eq!(member.observed.links.contains_key(device), wanted, "{}", device);
        }
        let (cluster, local) = world.cluster_of(at);
        let announcement = member.published.as_ref().unwrap();
        let progress = announcement.progress.as_ref().unwrap();
        prop_assert!(progress.has_settled(accord(&cluster, &local)));
        let onward = member.observed.routes.get(&net(to)).map(|route| &route.target);
        prop_assert!(!matches!(onward, None | Some(RouteTarget::Unreachable)));
        let lanes = !member.observed.lanes.is_empty();
        prop_assert_eq!(lanes, member.can.contains(&PathKind::Wireguard));
    }
    Ok(())
}
