//! The log of what policy denies here: a line for a flow, with the names of both ends, the policy and its rule.
//!
//! Any pod can cause as many denials as it likes, so there are limits in a row. Of each denial the rules log a few packets a second
//! (`warren_kernel::policy`); of those a bounded number is taken from the kernel in a window of time, and a smaller one gets lines.
//! Further packets of a flow that has a line get none in that window. How many packets got none is told once a window, by
//! what the rules have counted.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use warren_kernel::policy::Ruling;
use warren_kernel::{DropCounter, Kernel, LoggedPacket, PacketLog};
use warren_model::{Node, NodeName, Refusal};
use warren_policy::flow::Detail;
use warren_policy::{Cluster, Flow};

use crate::metrics::PolicyMetrics;

/// The code of the refusal that says that denied flows cannot be logged.
pub const NO_DENIED_LOG: &str = "denied-log-unavailable";

/// What log filters call these lines.
const TARGET: &str = "warren_agent::denied";
/// For how long a flow gets no second line, and limits hold.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines in a window.
const LINES: usize = 100;
/// Packets that are taken from the kernel in a window. It keeps some of those beyond for the next, and drops others.
const PACKETS: usize = 2000;
/// The pause before the kernel is asked again whether it can log.
const RETRY: Duration = Duration::from_secs(30);

/// The log, on or off.
#[derive(Debug)]
pub(super) struct DeniedLog {
    node: NodeName,
    reader: Option<PacketLog>,
    /// Why there is no reader although there should be, and until when none is tried.
    problem: Option<(String, Instant)>,
    told: watch::Sender<Option<Refusal>>,
    window: Window,
    tally: Tally,
    /// What denials are called, those also that were replaced in this window: their packets may come later.
    denials: BTreeMap<String, Ruling>,
}

impl DeniedLog {
    /// One that is off. `told` learns why it cannot be turned on.
    pub(super) fn new(node: NodeName, told: watch::Sender<Option<Refusal>>) -> Self {
        Self {
            node,
            reader: None,
            problem: None,
            told,
            window: Window::new(Instant::now()),
            tally: Tally::default(),
            denials: BTreeMap::new(),
        }
    }

    /// Whether the rules should log.
    pub(super) fn is_on(&self) -> bool {
        self.reader.is_some()
    }

    /// Turns it on or off, as the Mesh wants it and the kernel can do it.
    pub(super) async fn turn(&mut self, is_wanted: bool, kernel: &Kernel) {
        if !is_wanted {
            if self.reader.take().is_some() {
                tracing::info!("denied flows are logged no longer");
            }
            if self.problem.take().is_some() {
                self.told.send_replace(None);
            }
            return;
        }
        let now = Instant::now();
        if self.is_on() || self.problem.as_ref().is_some_and(|(_, until)| now < *until) {
            return;
        }
        // Ahead of the rules that log, so that no packet is missing in the sum.
        let counters = kernel.policy_counters().await.unwrap_or_default();
        match kernel.packet_log().await {
            Ok(reader) => {
                tracing::info!("denied flows are logged from now on");
                self.reader = Some(reader);
                self.window = Window::new(now);
                self.tally = Tally::since(&counters);
                self.problem = None;
                self.told.send_replace(None);
            }
            Err(error) => self.fail(&error.into()),
        }
    }

    /// Goes on without, for a while, after rules that log could not be put in force.
    pub(super) fn give_up(&mut self, error: &anyhow::Error) {
        if self.is_on() {
            self.fail(error);
        }
    }

    /// Learns what denials are called that are about to be in force.
    pub(super) fn learn(&mut self, rulings: &BTreeMap<String, Ruling>) {
        if self.is_on() {
            self.denials.extend(denials(rulings));
        }
    }

    /// Waits for packets. While it is off and where the window has had its share, none come.
    pub(super) async fn read(&mut self) -> io::Result<Vec<LoggedPacket>> {
        match &mut self.reader {
            Some(reader) if self.window.packets < PACKETS => reader.read().await,
            Some(_) | None => std::future::pending().await,
        }
    }

    /// Writes lines for what was read.
    pub(super) fn write(
        &mut self,
        packets: io::Result<Vec<LoggedPacket>>,
        whose: &Whose<'_>,
        metrics: &PolicyMetrics,
    ) {
        let packets = match packets {
            Ok(packets) => packets,
            Err(error) => return self.fail(&error.into()),
        };
        for packet in packets {
            let Some(flow) = self.window.admit(&packet) else {
                continue;
            };
            self.tally.lines += 1;
            metrics.logged();
            write_line(whose, &flow, self.denials.get(&packet.prefix));
        }
    }

    /// Takes note of what the rules have counted; at the end of a window tells how much of it had no line.
    pub(super) fn count(
        &mut self,
        counters: &[DropCounter],
        rulings: &BTreeMap<String, Ruling>,
        metrics: &PolicyMetrics,
    ) {
        if !self.is_on() {
            return;
        }
        self.tally.count(counters, |name| self.denials.contains_key(name));
        let now = Instant::now();
        if now < self.window.since + WINDOW {
            return;
        }
        let packets = self.tally.untold();
        if packets > 0 {
            metrics.unlogged(packets);
            let seconds = (now - self.window.since).as_secs();
            tracing::info!(target: TARGET, packets, seconds, "denied packets without a line of their own");
        }
        self.window = Window::new(now);
        self.denials = denials(rulings).collect();
    }

    /// Is off until it is tried again. Says why once.
    fn fail(&mut self, error: &anyhow::Error) {
        self.reader = None;
        let reason = format!("{error:#}");
        let is_known = self.problem.as_ref().is_some_and(|(known, _)| *known == reason);
        if !is_known {
            tracing::warn!(
                reason,
                "denied flows cannot be logged; policy is enforced all the same"
            );
            let message = format!(
                "spec.policy.logDenied is on, and denied flows are not logged here: {reason}; policy is enforced all the same"
            );
            let object = format!("Node/{}", self.node);
            self.told
                .send_replace(Some(Refusal::new(object, NO_DENIED_LOG, message)));
        }
        self.problem = Some((reason, Instant::now() + RETRY));
    }
}

/// What has been taken and written in a window of time.
#[derive(Debug)]
struct Window {
    since: Instant,
    packets: usize,
    /// The flows that have lines, by the denial, without the port they came from.
    flows: Vec<(String, Flow)>,
}

impl Window {
    fn new(since: Instant) -> Self {
        Self {
            since,
            packets: 0,
            flows: Vec::new(),
        }
    }

    /// The flow of a packet, if it is to have a line.
    fn admit(&mut self, packet: &LoggedPacket) -> Option<Flow> {
        self.packets += 1;
        let flow = packet.flow?;
        let known = (packet.prefix.clone(), without_source_port(flow));
        if self.flows.len() >= LINES || self.flows.contains(&known) {
            return None;
        }
        self.flows.push(known);
        Some(flow)
    }
}

/// Who tries again mostly does so from another port.
fn without_source_port(flow: Flow) -> Flow {
    match flow.detail {
        Detail::Ports { destination, .. } => Flow {
            detail: Detail::Ports {
                source: 0,
                destination,
            },
            ..flow
        },
        Detail::Icmp { .. } | Detail::Nothing => flow,
    }
}

/// How many packets were denied and how many lines were written since the log is on.
#[derive(Debug, Default)]
struct Tally {
    /// What the counters said last.
    counters: BTreeMap<String, u64>,
    denied: u64,
    lines: u64,
    told: u64,
}

impl Tally {
    /// Begins with what the counters say now.
    fn since(counters: &[DropCounter]) -> Self {
        Self {
            counters: by_name(counters),
            ..Self::default()
        }
    }

    /// Takes note of the counters, and adds up those of denials. One that is less than it was has begun anew.
    fn count(&mut self, counters: &[DropCounter], is_denial: impl Fn(&str) -> bool) {
        let now = by_name(counters);
        for (name, packets) in now.iter().filter(|(name, _)| is_denial(name)) {
            let before = self.counters.get(name).copied().unwrap_or_default();
            self.denied += packets.checked_sub(before).unwrap_or(*packets);
        }
        self.counters = now;
    }

    /// Packets without lines that have not been told of yet; now they are. A packet may be counted before its line is
    /// written: what is told too much once is told less the next time.
    fn untold(&mut self) -> u64 {
        let untold = self.denied.saturating_sub(self.lines + self.told);
        self.told += untold;
        untold
    }
}

fn denials(rulings: &BTreeMap<String, Ruling>) -> impl Iterator<Item = (String, Ruling)> {
    let denials = rulings.iter().filter(|(_, ruling)| ruling.denies());
    denials.map(|(name, ruling)| (name.clone(), ruling.clone()))
}

fn by_name(counters: &[DropCounter]) -> BTreeMap<String, u64> {
    let each = counters.iter().map(|it| (it.reason.clone(), it.packets));
    each.collect()
}

fn write_line(whose: &Whose<'_>, flow: &Flow, denial: Option<&Ruling>) {
    let (from, to) = (whose.name(flow.source), whose.name(flow.destination));
    let (icmp_type, icmp_code) = match flow.detail {
        Detail::Icmp { kind, code } => (Some(kind), Some(code)),
        Detail::Ports { .. } | Detail::Nothing => (None, None),
    };
    let policy = denial.map(|it| it.policy.as_str()).filter(|it| !it.is_empty());
    tracing::info!(
        target: TARGET,
        from,
        from_address = %flow.source,
        from_port = flow.source_port(),
        to,
        to_address = %flow.destination,
        to_port = flow.destination_port(),
        protocol = %flow.protocol,
        icmp_type,
        icmp_code,
        policy,
        rule = denial.map(|it| it.rule.as_str()),
        "denied flow"
    );
}

/// Whose addresses are, as policy and as the mesh sees it.
pub(super) struct Whose<'c> {
    pub(super) cluster: &'c Cluster,
    pub(super) nodes: &'c BTreeMap<NodeName, Node>,
}

impl Whose<'_> {
    /// `namespace/name` of the pod that has an address, the latest where several claim it; or the name of the node.
    fn name(&self, address: IpAddr) -> Option<String> {
        let pods = self.cluster.pods.iter().filter(|pod| {
            let is_named = !pod.name.namespace.is_empty();
            is_named && pod.is_subject() && pod.addresses.contains(&address)
        });
        let pod = pods.max_by_key(|pod| (pod.since, &pod.name));
        pod.map(|pod| pod.name.to_string())
            .or_else(|| self.node(address).map(ToString::to_string))
    }

    /// The node that has an address, or speaks to other nodes' pods by it.
    fn node(&self, address: IpAddr) -> Option<&NodeName> {
        let mut of_policy = self.cluster.nodes.iter();
        let mut of_mesh = self.nodes.iter();
        let of_policy = of_policy.find(|(_, addresses)| addresses.contains(&address));
        of_policy.map(|(name, _)| name).or_else(|| {
            let is_its = |node: &Node| node.pod_cidrs.iter().any(|cidr| cidr.node_address() == address);
            of_mesh.find(|(_, node)| is_its(node)).map(|(name, _)| name)
        })
    }
}

#[cfg(test)]
#[path = "denied_tests.rs"]
mod tests;
