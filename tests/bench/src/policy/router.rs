//! A node between two pods.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context;
use warren_policy::ruleset::EndpointName;
use warren_policy::{Decision, Direction, Flow, Protocol, Reason, RuleSet, verdict};

use super::change::{apply, feed};
use super::connections;
use super::scene::{PORT, Scene};
use crate::namespace::{Hosts, Namespace};
use crate::streams::Streams;

/// By which pods reach their node.
const GATEWAY: &str = "169.254.1.1";

/// What the node's kernel does with what passes.
pub(super) enum Filter {
    /// Nothing.
    None,
    /// A table, as text for nft.
    Nft(String),
    /// Tables, as text for iptables-restore.
    Iptables(String),
}

/// Who opens connections, and with whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) client: Ipv4Addr,
    pub(super) server: Ipv4Addr,
}

/// A node with two pods.
pub(super) struct Router {
    ends: Ends,
    pods: Hosts,
    /// There as long as this is.
    _node: Namespace,
}

/// The first pod of the node, and of all pods that may reach it the one that is let in by the last policy that lets anybody in: its
/// connections meet the most rules.
pub(super) fn ends(rules: &RuleSet, scene: &Scene) -> anyhow::Result<Ends> {
    let server = &scene.cluster.pods[0];
    let name = EndpointName::Pod(server.name.clone());
    let endpoint = rules.endpoints.iter().find(|it| it.name == name);
    let chain = &rules.chains[endpoint
        .context("the pod is not on this node")?
        .chain(Direction::Ingress)];
    let met: Vec<usize> = chain
        .stages
        .iter()
        .flat_map(|stage| &stage.policies)
        .copied()
        .collect();
    let asked_before = |client: IpAddr| {
        let flow = Flow::to_port(client, server.addresses[0], Protocol::TCP, PORT);
        let verdict = verdict(rules, &flow);
        match (verdict.action, &verdict.ingress.reason) {
            (Decision::Allow, Reason::Rule(rule)) => met
                .iter()
                .position(|position| rules.policies[*position].id == rule.policy),
            _ => None,
        }
    };
    let clients = scene.cluster.pods.iter().skip(1).map(|pod| pod.addresses[0]);
    let last = clients.filter_map(|it| Some((asked_before(it)?, it))).max();
    match (last.context("nobody may reach the pod")?.1, server.addresses[0]) {
        (IpAddr::V4(client), IpAddr::V4(server)) => Ok(Ends { client, server }),
        _ => anyhow::bail!("a pod without IPv4"),
    }
}

impl Router {
    pub(super) fn up(ends: Ends, filter: &Filter) -> anyhow::Result<Self> {
        let (node, near, far) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        node.run("sysctl", &["-qw", "net.ipv4.ip_forward=1"])?;
        for (pod, address, interface) in [(&near, ends.client, "near"), (&far, ends.server, "far")] {
            node.cable(interface, pod, "eth0")?;
            node.ip(&format!("address add {GATEWAY}/32 dev {interface}"))?;
            node.ip(&format!("link set {interface} up"))?;
            node.ip(&format!("route add {address}/32 dev {interface}"))?;
            pod.ip(&format!("address add {address}/32 dev eth0"))?;
            pod.ip("link set eth0 up")?;
            pod.ip(&format!("route add {GATEWAY}/32 dev eth0"))?;
            pod.ip(&format!("route add default via {GATEWAY}"))?;
        }
        match filter {
            Filter::None => {}
            Filter::Nft(text) => apply(&node, text)?,
            Filter::Iptables(text) => node.inside(|| feed("iptables-restore", &[], text))?,
        }
        Ok(Self {
            ends,
            pods: Hosts { near, far },
            _node: node,
        })
    }

    /// TCP, one stream, Gbit/s.
    pub(super) fn throughput(&self) -> anyhow::Result<f64> {
        let streams = Streams {
            count: 1,
            both: false,
        };
        Ok(streams.run(&self.pods, self.ends.server)?.gigabits_per_second())
    }

    /// Connections opened and closed, a second.
    pub(super) fn connections(&self) -> anyhow::Result<f64> {
        connections::measure(&self.pods, (self.ends.server, PORT).into())
    }
}
