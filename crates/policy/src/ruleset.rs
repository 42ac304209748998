//! What policies come to: chains of rules for each pod, and the sets of addresses they match.
//!
//! A packet filter is rendered from this alone. Each endpoint has two [`Chain`]s; endpoints with the same policies share them. A
//! chain goes through policies by tier, and a policy's rules are there once however many endpoints it applies to, with
//! the sets of addresses in them once for all equal selectors.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use warren_model::{Family, NodeName, PodName, Refusal};

use crate::cluster::{Failsafe, Interface};
use crate::flow::Flow;
use crate::policy::{Action, Decision, Direction, Order, PolicyId, TierEnd};
use crate::protocol::{Icmp, PortRange, Protocol};
use crate::query::Query;

/// Everything a packet filter needs to know. Equal inputs, in whatever order, make equal rule sets.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleSet {
    /// Sets of addresses, by [`SetId`].
    pub sets: Vec<Arc<AddressSet>>,
    /// Sets of addresses with ports, by [`PortSetId`].
    pub port_sets: Vec<Arc<PortSet>>,
    /// Policies that apply to some endpoint here, in the order they are asked.
    pub policies: Vec<PolicyRules>,
    /// Chains, by [`ChainId`].
    pub chains: Vec<Chain>,
    /// The endpoints: pods by name, then host endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Which endpoints have an address: positions in `endpoints`. It is one pod at most; where host endpoints have the same, all must
    /// allow.
    pub by_address: BTreeMap<IpAddr, Vec<usize>>,
    /// Each node's own addresses.
    pub nodes: BTreeMap<NodeName, Vec<IpAddr>>,
    /// What stays open on host endpoints.
    pub failsafe: Failsafe,
    /// Policies that are not honoured as written.
    pub refusals: Vec<Refusal>,
}

/// Position in [`RuleSet::sets`].
pub type SetId = usize;
/// Position in [`RuleSet::port_sets`].
pub type PortSetId = usize;
/// Position in [`RuleSet::chains`].
pub type ChainId = usize;

/// The addresses that a query finds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressSet {
    /// A name that depends on the query only, so that a changed pod changes elements and not rules.
    pub name: String,
    /// What it holds.
    pub query: Query,
    /// Single addresses of both families, in order.
    pub addresses: Vec<IpAddr>,
    /// Networks of both families, in order; only from network sets.
    pub nets: Vec<IpNet>,
}

impl AddressSet {
    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.addresses.binary_search(&address).is_ok() || is_in(&self.nets, address)
    }
}

/// Where a port's name leads: all pods' ports of that name and protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSet {
    /// A name that depends on protocol and port name only.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The port's name.
    pub port_name: String,
    /// Address and port, in order: a hash set of pairs.
    pub members: Vec<(IpAddr, u16)>,
}

/// A pod or host endpoint and what it meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Which one.
    pub name: EndpointName,
    /// The node it is on.
    pub node: Option<NodeName>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// What comes in meets this.
    pub ingress: ChainId,
    /// What goes out meets this.
    pub egress: ChainId,
}

impl Endpoint {
    /// Its chain for a direction.
    pub fn chain(&self, direction: Direction) -> ChainId {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }
}

/// Which endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointName {
    /// A pod.
    Pod(PodName),
    /// A host endpoint and its `interfaceName`.
    Host(String, Option<Interface>),
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "pod {name}"),
            Self::Host(name, _) => write!(f, "host endpoint {name}"),
        }
    }
}

/// The policies that one direction of an endpoint meets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chain {
    /// Tiers with policies for it, in their order.
    pub stages: Vec<Stage>,
    /// What becomes of what no tier has decided: a pod's passes, a host endpoint's does not.
    pub end: Decision,
}

/// The policies of one tier that apply.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stage {
    /// The tier.
    pub tier: String,
    /// Positions in [`RuleSet::policies`], at least one.
    pub policies: Vec<usize>,
    /// What becomes of what these have not decided.
    pub end: TierEnd,
}

/// The rules of one policy.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyRules {
    /// Which policy.
    pub id: PolicyId,
    /// Its place in its tier.
    pub order: Order,
    /// Whether it stands in the place of one that was refused.
    pub refused: bool,
    /// Rules for what comes in, in their order.
    pub ingress: Vec<Rule>,
    /// Rules for what goes out, in their order.
    pub egress: Vec<Rule>,
}

impl PolicyRules {
    /// Its rules for a direction.
    pub fn rules(&self, direction: Direction) -> &[Rule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which rule of the object's list it comes from, counted from 0.
    pub written: usize,
    /// What it does with what it matches.
    pub action: Action,
    /// Packets of this family only.
    pub family: Option<Family>,
    /// Packets of this protocol only.
    pub protocol: Option<Protocol>,
    /// Packets of other protocols only.
    pub not_protocol: Option<Protocol>,
    /// These ICMP messages only.
    pub icmp: Option<Icmp>,
    /// Not these ICMP messages.
    pub not_icmp: Option<Icmp>,
    /// The side that opens the connection.
    pub source: End,
    /// The other side.
    pub destination: End,
}

/// What one side of a packet must be; all of it must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// In this set.
    pub set: Option<SetId>,
    /// Not in this set.
    pub not_set: Option<SetId>,
    /// In one of these networks; empty: nothing is said.
    pub nets: Vec<IpNet>,
    /// In none of these networks.
    pub not_nets: Vec<IpNet>,
    /// Has one of these ports.
    pub ports: Option<Ports>,
    /// Has none of these ports.
    pub not_ports: Option<Ports>,
}

/// Ports by number and by name; one match is enough.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports {
    /// By number.
    pub ranges: Vec<PortRange>,
    /// By name: the address and the port are in one of these sets.
    pub sets: Vec<PortSetId>,
}

/// One thing that a rule may ask of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// IPv4 or IPv6.
    Family,
    /// The protocol.
    Protocol,
    /// ICMP type and code.
    Icmp,
    /// The port it is opened from.
    SourcePort,
    /// The port it is opened to.
    DestinationPort,
    /// Who opens it.
    Source,
    /// With whom.
    Destination,
}

impl Part {
    /// All of them, cheapest first.
    pub const ALL: [Self; 7] = [
        Self::Family,
        Self::Protocol,
        Self::Icmp,
        Self::SourcePort,
        Self::DestinationPort,
        Self::Source,
        Self::Destination,
    ];
}

impl RuleSet {
    /// Whether a rule matches a flow.
    pub fn matches(&self, rule: &Rule, flow: &Flow) -> bool {
        Part::ALL.iter().all(|part| self.holds(rule, *part, flow))
    }

    /// Whether one part of a rule holds for a flow.
    pub fn holds(&self, rule: &Rule, part: Part, flow: &Flow) -> bool {
        match part {
            Part::Family => rule.family.is_none_or(|family| family == flow.family()),
            Part::Protocol => {
                rule.protocol.is_none_or(|wanted| wanted == flow.protocol)
                    && rule.not_protocol.is_none_or(|other| other != flow.protocol)
            }
            Part::Icmp => {
                rule.icmp.is_none_or(|wanted| flow.is_icmp(wanted))
                    && !rule.not_icmp.is_some_and(|other| flow.is_icmp(other))
            }
            Part::SourcePort => self.ports_hold(&rule.source, flow, flow.source, flow.source_port()),
            Part::DestinationPort => {
                self.ports_hold(&rule.destination, flow, flow.destination, flow.destination_port())
            }
            Part::Source => self.address_holds(&rule.source, flow.source),
            Part::Destination => self.address_holds(&rule.destination, flow.destination),
        }
    }

    fn address_holds(&self, end: &End, address: IpAddr) -> bool {
        end.set.is_none_or(|set| self.sets[set].contains(address))
            && !end.not_set.is_some_and(|set| self.sets[set].contains(address))
            && (end.nets.is_empty() || is_in(&end.nets, address))
            && !is_in(&end.not_nets, address)
    }

    fn ports_hold(&self, end: &End, flow: &Flow, address: IpAddr, port: Option<u16>) -> bool {
        let has = |ports: &Ports| port.is_some_and(|port| self.has_port(ports, flow.protocol, address, port));
        end.ports.as_ref().is_none_or(has) && !end.not_ports.as_ref().is_some_and(has)
    }

    fn has_port(&self, ports: &Ports, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        ports.ranges.iter().any(|range| range.contains(port))
            || ports.sets.iter().any(|set| {
                let set = &self.port_sets[*set];
                set.protocol == protocol && set.members.binary_search(&(address, port)).is_ok()
            })
    }
}

fn is_in(nets: &[IpNet], address: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&address))
}
