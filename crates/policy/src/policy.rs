//! A policy as every kind of object is read to.

use std::cmp::Ordering;
use std::fmt;

use ipnet::IpNet;
use warren_model::Family;

use crate::protocol::{Icmp, PortRange, Protocol};
use crate::query::Query;

/// The tier of policies that name none; Kubernetes's are in it.
pub const DEFAULT_TIER: &str = "default";

/// A policy that can be honoured.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Which one it is.
    pub id: PolicyId,
    /// The tier it is in.
    pub tier: String,
    /// Where it stands in its tier.
    pub order: Order,
    /// What it applies to.
    pub subject: Query,
    /// Its rules for what comes in; `None`: it does not speak of that. With no rules at all it lets nothing in.
    pub ingress: Option<Vec<PolicyRule>>,
    /// Its rules for what goes out; `None`: it does not speak of that.
    pub egress: Option<Vec<PolicyRule>>,
}

/// The kinds of object that policies come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// `warren-mesh.io` GlobalNetworkPolicy.
    Global,
    /// `warren-mesh.io` NetworkPolicy.
    Warren,
    /// `networking.k8s.io` NetworkPolicy.
    Kubernetes,
}

/// Which policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId {
    /// The kind of object.
    pub kind: PolicyKind,
    /// `metadata.namespace`; `None`: a global one.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            PolicyKind::Global => "GlobalNetworkPolicy",
            PolicyKind::Warren => "NetworkPolicy.warren-mesh.io",
            PolicyKind::Kubernetes => "NetworkPolicy",
        })?;
        if let Some(namespace) = &self.namespace {
            write!(f, "/{namespace}")?;
        }
        write!(f, "/{}", self.name)
    }
}

/// A place in a tier: a finite number, or behind all numbers.
#[derive(Debug, Clone, Copy)]
pub struct Order(f64);

impl Order {
    /// Ahead of all numbers.
    pub(crate) const FIRST: Self = Self(f64::NEG_INFINITY);
    /// Where policies stand that do not say.
    pub const LAST: Self = Self(f64::INFINITY);
    /// Where Kubernetes's policies stand, as with Calico.
    pub const KUBERNETES: Self = Self(1000.0);

    /// That place; `None` for what is not a number one can count with.
    pub fn new(order: f64) -> Option<Self> {
        order.is_finite().then_some(Self(order))
    }

    /// The number; `None` for a place that has none.
    pub fn number(self) -> Option<f64> {
        self.0.is_finite().then_some(self.0)
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Order {}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Order {
    fn cmp(&self, other: &Self) -> Ordering {
        // Adding zero makes -0 the same place as 0.
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::LAST {
            f.write_str("last")
        } else {
            self.0.fmt(f)
        }
    }
}

/// A group of policies. Those of one tier are asked before those of the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// Its place among the tiers.
    pub order: Order,
    /// What becomes of traffic that policies of this tier apply to, and that none of their rules decides.
    pub end: TierEnd,
}

impl Tier {
    /// The tier of policies that name none, at Calico's place for it. It denies what its policies do not allow.
    pub fn default_tier() -> Self {
        Self {
            name: DEFAULT_TIER.to_owned(),
            order: Order(1_000_000.0),
            end: TierEnd::Deny,
        }
    }
}

/// What a tier does with what it has not decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TierEnd {
    /// Drops it.
    Deny,
    /// Leaves it to the next tier.
    Pass,
}

/// Into a pod or out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Into it.
    Ingress,
    /// Out of it.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// Whether something passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// It does.
    Allow,
    /// It is dropped.
    Deny,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allowed",
            Self::Deny => "denied",
        })
    }
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Lets it through; nothing more is asked on this side.
    Allow,
    /// Drops it.
    Deny,
    /// Notes it, and goes on with the next rule.
    Log,
    /// Leaves it to the next tier.
    Pass,
}

/// One rule, about one sort of peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// Which rule of the object's list this is a part of, counted from 0.
    pub written: usize,
    /// What it does.
    pub action: Action,
    /// `ipVersion`.
    pub family: Option<Family>,
    /// The only protocol it matches.
    pub protocol: Option<Protocol>,
    /// The only protocol it does not match.
    pub not_protocol: Option<Protocol>,
    /// The ICMP messages it matches.
    pub icmp: Option<Icmp>,
    /// The ICMP messages it does not match.
    pub not_icmp: Option<Icmp>,
    /// Whence.
    pub source: Entity,
    /// Where to.
    pub destination: Entity,
}

impl PolicyRule {
    /// A rule that matches everything.
    pub fn any(written: usize, action: Action) -> Self {
        Self {
            written,
            action,
            family: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: Entity::default(),
            destination: Entity::default(),
        }
    }
}

/// One side of a rule. All that is said must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entity {
    /// It is one of these.
    pub peers: Option<Query>,
    /// It is none of these.
    pub not_peers: Option<Query>,
    /// It is in one of these networks; empty: nothing is said.
    pub nets: Vec<IpNet>,
    /// It is in none of these networks.
    pub not_nets: Vec<IpNet>,
    /// It has one of these ports; empty: nothing is said.
    pub ports: Vec<Port>,
    /// It has none of these ports.
    pub not_ports: Vec<Port>,
}

/// Ports, by number or by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// By number.
    Numbers(PortRange),
    /// The port that the pod at that side calls so.
    Named(String),
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbers(range) => range.fmt(f),
            Self::Named(name) => write!(f, "{name:?}"),
        }
    }
}
