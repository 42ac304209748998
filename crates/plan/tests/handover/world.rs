//! The model: nodes, what they know of each other, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use warren_model::{
    Announcement, Encryption, Epoch, Fallback, Lane, Mesh, Node, NodeName, OverlayMode, Path, PathKind,
    PublicKey,
};
use warren_plan::state::{Desired, IPIP_INTERFACE, VXLAN_INTERFACE};
use warren_plan::{
    Action, Carrier, Cluster, Endpoints, Guard, InForce, LaneChange, Local, Observed, UnderlayAddress,
    compute, diff,
};

pub(crate) const NODES: usize = 3;
/// Passes of each node after which everything must have come to rest.
pub(crate) const ENOUGH: usize = 8;

/// One node: what it knows, what its kernel is, and what it has published.
pub(crate) struct Member {
    pub(crate) name: NodeName,
    pub(crate) can: BTreeSet<PathKind>,
    pub(crate) mesh: Mesh,
    /// What it knows of the others.
    pub(crate) known: BTreeMap<NodeName, Announcement>,
    pub(crate) observed: Observed,
    pub(crate) guard: Guard,
    pub(crate) desired: Option<Desired>,
    pub(crate) published: Option<Announcement>,
    pub(crate) accord_age: Duration,
    /// How the packets may be sent that are on their way still.
    pub(crate) left: BTreeMap<IpNet, BTreeSet<Path>>,
}

/// What happens next.
#[derive(Debug, Clone)]
pub(crate) enum Event {
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
    /// What a node has sent by earlier routes is where it belongs.
    Arrives(usize),
    /// A node's agent is started anew, with or without WireGuard.
    Restart(usize, bool),
}

pub(crate) struct World {
    pub(crate) mesh: Mesh,
    pub(crate) members: Vec<Member>,
}

pub(crate) fn meshes() -> Vec<Mesh> {
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

pub(crate) fn key(n: usize) -> PublicKey {
    PublicKey::from_bytes([u8::try_from(n).unwrap() + 2; 32]).unwrap()
}

pub(crate) fn net(n: usize) -> IpNet {
    format!("10.244.{n}.0/24").parse().unwrap()
}

pub(crate) fn ip(n: usize) -> IpAddr {
    format!("192.0.2.{}", n + 1).parse().unwrap()
}

pub(crate) fn kinds(wireguard: bool) -> BTreeSet<PathKind> {
    let wireguard = wireguard.then_some(PathKind::Wireguard);
    wireguard
        .into_iter()
        .chain([PathKind::Vxlan, PathKind::Ipip])
        .collect()
}

impl World {
    /// A cluster at rest.
    pub(crate) fn at_rest(mesh: usize) -> Self {
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
            left: BTreeMap::new(),
        };
        let mut world = Self {
            mesh: meshes()[mesh].clone(),
            members: (0..NODES).map(member).collect(),
        };
        world.come_to_rest(|_| Ok(())).unwrap();
        world
    }

    pub(crate) fn cluster_of(&self, at: usize) -> (Cluster, Local) {
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
            in_force: InForce {
                left: member.left.clone(),
                ..InForce::observed(&member.observed, member.accord_age)
            },
        };
        (cluster, local)
    }

    pub(crate) fn happens(
        &mut self,
        event: &Event,
        check: impl Fn(&Self) -> Result<(), String>,
    ) -> Result<(), String> {
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
                if let Some(said) = desired.and_then(|desired| desired.announcement.clone()) {
                    self.members[at].published = Some(said);
                }
                // Its own words come back to it at once.
                self.happens(&Event::LearnsPeer(at, at), check)?;
            }
            Event::ShakesHands(at) => self.shake_hands(at),
            Event::Arrives(at) => self.members[at].left.clear(),
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
        let mut spoken_to = Vec::new();
        for step in diff(&desired, &self.members[at].observed) {
            if let Action::InstallGuard(guard) = &step.action {
                self.members[at].guard = guard.clone();
            }
            // A device speaks long before anybody is told what it is good for.
            if let Action::ConfigureLane(Lane::One, LaneChange::AddPeer(to, peer)) = &step.action
                && peer.keepalive > 0
            {
                spoken_to.extend((0..NODES).find(|n| key(*n) == *to));
            }
            let before = self.routed(at);
            self.members[at].observed.apply(&step.action);
            let now = self.routed(at);
            for (net, path) in before {
                if now.get(&net) != Some(&path) {
                    self.members[at].left.entry(net).or_default().insert(path);
                }
            }
            check(self).map_err(|error| format!("{error}, after {} of node{at}", step.action))?;
        }
        for to in spoken_to {
            self.shake_hands_with(at, to);
        }
        self.members[at].desired = Some(desired);
        Ok(())
    }

    /// What a keepalive or a packet brings about where both ends have the other's key.
    fn shake_hands(&mut self, at: usize) {
        for to in (0..NODES).filter(|to| *to != at) {
            let device = self.members[at].observed.lanes.get(&Lane::One);
            let peer = device.and_then(|device| device.peers.get(&key(to)));
            let is_told_to = peer.is_some_and(|peer| peer.keepalive > 0);
            if is_told_to || self.sends(at, to) == Some(PathKind::Wireguard) {
                self.shake_hands_with(at, to);
            }
        }
    }

    /// What comes of it where one speaks: a session, if each has the other.
    fn shake_hands_with(&mut self, at: usize, to: usize) {
        let has = |member: &Member, of: usize| {
            let device = member.observed.lanes.get(&Lane::One);
            device.is_some_and(|device| device.peers.contains_key(&key(of)))
        };
        if !has(&self.members[at], to) || !has(&self.members[to], at) {
            return;
        }
        for (one, other) in [(at, to), (to, at)] {
            let device = self.members[one].observed.lanes.get_mut(&Lane::One).unwrap();
            device.peers.get_mut(&key(other)).unwrap().handshake_age = Some(Duration::ZERO);
        }
    }

    pub(crate) fn come_to_rest(&mut self, check: impl Fn(&Self) -> Result<(), String>) -> Result<(), String> {
        for _ in 0..ENOUGH {
            for at in 0..NODES {
                self.happens(&Event::LearnsMesh(at), &check)?;
                for of in 0..NODES {
                    self.happens(&Event::LearnsPeer(at, of), &check)?;
                }
                self.happens(&Event::Arrives(at), &check)?;
                self.happens(&Event::Pass(at), &check)?;
                self.happens(&Event::ShakesHands(at), &check)?;
                self.happens(&Event::Publishes(at), &check)?;
            }
        }
        Ok(())
    }

    /// How `at` sends to `to`; `None`: it does not.
    pub(crate) fn sends(&self, at: usize, to: usize) -> Option<PathKind> {
        self.routed(at).get(&net(to)).map(|path| path.kind())
    }

    fn routed(&self, at: usize) -> BTreeMap<IpNet, Path> {
        InForce::observed(&self.members[at].observed, Duration::ZERO).routed
    }

    /// That what `at` sends to `to`, or has sent by earlier routes, leaves and is taken.
    fn delivers(&self, at: usize, to: usize) -> Result<(), String> {
        let Some(kind) = self.sends(at, to) else {
            return Err(format!("node{at} has no way to node{to}"));
        };
        let left = self.members[at].left.get(&net(to)).into_iter().flatten();
        let kinds: BTreeSet<PathKind> = left.map(|path| path.kind()).chain([kind]).collect();
        kinds
            .into_iter()
            .try_for_each(|kind| self.delivers_by(kind, at, to))
    }

    fn delivers_by(&self, kind: PathKind, at: usize, to: usize) -> Result<(), String> {
        let (from, receiver) = (&self.members[at], &self.members[to]);
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

    pub(crate) fn all_deliver(&self) -> Result<(), String> {
        pairs().try_for_each(|(at, to)| self.delivers(at, to))
    }
}

pub(crate) fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..NODES).flat_map(|at| (0..NODES).filter(move |to| *to != at).map(move |to| (at, to)))
}
