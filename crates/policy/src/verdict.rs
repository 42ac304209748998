//! What a flow meets in a rule set.

use std::fmt;
use std::net::IpAddr;

use warren_model::NodeName;

use crate::flow::Flow;
use crate::policy::{Action, Decision, Direction, PolicyId, TierEnd};
use crate::protocol::{PortRange, Protocol};
use crate::ruleset::{Endpoint, EndpointName, RuleSet};

/// Whether a flow may be opened. Both sides must allow it; its replies are part of it and are not judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What becomes of it.
    pub action: Decision,
    /// What the side that opens it says.
    pub egress: Side,
    /// What the other side says.
    pub ingress: Side,
}

impl Verdict {
    /// The side that decides: the one that denies, the sending one first; of an allowed flow the receiving one.
    pub fn deciding(&self) -> (Direction, &Side) {
        match self.egress.decision {
            Decision::Deny => (Direction::Egress, &self.egress),
            Decision::Allow => (Direction::Ingress, &self.ingress),
        }
    }
}

/// What one side says of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// Whether it lets it pass.
    pub decision: Decision,
    /// Who that side is; `None`: nobody that policy speaks of here.
    pub endpoint: Option<EndpointName>,
    /// Why.
    pub reason: Reason,
    /// Rules with the action Log that matched on the way.
    pub logged: Vec<RuleRef>,
}

/// One rule of a policy, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleRef {
    /// The policy.
    pub policy: PolicyId,
    /// In which list.
    pub direction: Direction,
    /// Its position there, from 0.
    pub written: usize,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] of {}", self.direction, self.written, self.policy)
    }
}

/// Why a side decides as it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The address is no pod's or host endpoint's here.
    NoEndpoint,
    /// Nobody is kept from itself.
    Itself,
    /// The node may always reach its own pods, and host endpoints are about what leaves the node or comes from elsewhere.
    OwnNode,
    /// A port that stays open on host endpoints.
    Failsafe,
    /// No policy speaks of the endpoint in this direction.
    NoPolicy,
    /// This rule matched.
    Rule(RuleRef),
    /// A policy that is refused stands here, and the pods it selects fail closed.
    Refused(PolicyId),
    /// Policies of this tier apply, and none of their rules matched.
    EndOfTier {
        /// The tier.
        tier: String,
        /// The policies that apply.
        policies: Vec<PolicyId>,
    },
    /// Every tier with policies for it left it to the next.
    PassedOn,
}

/// Judges a flow. Sides that the rule set has no endpoint for let it pass: they are outside, or another node's to judge.
pub fn verdict(rules: &RuleSet, flow: &Flow) -> Verdict {
    let egress = side(rules, flow, Direction::Egress);
    let ingress = side(rules, flow, Direction::Ingress);
    let action = match (egress.decision, ingress.decision) {
        (Decision::Allow, Decision::Allow) => Decision::Allow,
        (Decision::Deny, _) | (_, Decision::Deny) => Decision::Deny,
    };
    Verdict {
        action,
        egress,
        ingress,
    }
}

fn side(rules: &RuleSet, flow: &Flow, direction: Direction) -> Side {
    let address = match direction {
        Direction::Ingress => flow.destination,
        Direction::Egress => flow.source,
    };
    let endpoints = rules.by_address.get(&address).map_or(&[][..], Vec::as_slice);
    let mut sides = endpoints
        .iter()
        .map(|position| endpoint_side(rules, &rules.endpoints[*position], flow, direction));
    let Some(first) = sides.next() else {
        return Side {
            decision: Decision::Allow,
            endpoint: None,
            reason: Reason::NoEndpoint,
            logged: Vec::new(),
        };
    };
    if first.decision == Decision::Deny {
        return first;
    }
    let denied = sides.find(|side| side.decision == Decision::Deny);
    denied.unwrap_or(first)
}

fn endpoint_side(rules: &RuleSet, endpoint: &Endpoint, flow: &Flow, direction: Direction) -> Side {
    let (decision, reason, logged) = match exempt(rules, endpoint, flow, direction) {
        Some(reason) => (Decision::Allow, reason, Vec::new()),
        None => by_chain(rules, endpoint, flow, direction),
    };
    Side {
        decision,
        endpoint: Some(endpoint.name.clone()),
        reason,
        logged,
    }
}

/// Why a flow passes an endpoint without meeting its chain, if it does.
fn exempt(rules: &RuleSet, endpoint: &Endpoint, flow: &Flow, direction: Direction) -> Option<Reason> {
    if endpoint.addresses.contains(&flow.source) && endpoint.addresses.contains(&flow.destination) {
        return Some(Reason::Itself);
    }
    let node = endpoint.node.as_ref();
    match (&endpoint.name, direction) {
        (EndpointName::Pod(_), Direction::Ingress) => {
            node.filter(|node| is_node(rules, node, flow.source))?;
            Some(Reason::OwnNode)
        }
        (EndpointName::Pod(_), Direction::Egress) => None,
        (EndpointName::Host(..), _) => {
            let (other, open) = match direction {
                Direction::Ingress => (flow.source, &rules.failsafe.inbound),
                Direction::Egress => (flow.destination, &rules.failsafe.outbound),
            };
            if node.is_some_and(|node| is_node(rules, node, other) || has_pod(rules, node, other)) {
                Some(Reason::OwnNode)
            } else if is_open(open, flow) {
                Some(Reason::Failsafe)
            } else {
                None
            }
        }
    }
}

fn is_node(rules: &RuleSet, node: &NodeName, address: IpAddr) -> bool {
    let addresses = rules.nodes.get(node);
    addresses.is_some_and(|addresses| addresses.contains(&address))
}

fn has_pod(rules: &RuleSet, node: &NodeName, address: IpAddr) -> bool {
    let there = rules.by_address.get(&address).into_iter().flatten();
    there
        .map(|position| &rules.endpoints[*position])
        .any(|endpoint| matches!(endpoint.name, EndpointName::Pod(_)) && endpoint.node.as_ref() == Some(node))
}

fn is_open(open: &[(Protocol, PortRange)], flow: &Flow) -> bool {
    // Of a protocol without ports all is open, or nothing.
    let is_in = |range: &PortRange| match flow.destination_port() {
        Some(port) => range.contains(port),
        None => !flow.protocol.has_ports(),
    };
    open.iter()
        .any(|(protocol, range)| *protocol == flow.protocol && is_in(range))
}

fn by_chain(
    rules: &RuleSet,
    endpoint: &Endpoint,
    flow: &Flow,
    direction: Direction,
) -> (Decision, Reason, Vec<RuleRef>) {
    let chain = &rules.chains[endpoint.chain(direction)];
    let mut logged = Vec::new();
    'stages: for stage in &chain.stages {
        for policy in stage.policies.iter().map(|position| &rules.policies[*position]) {
            for rule in policy.rules(direction) {
                if !rules.matches(rule, flow) {
                    continue;
                }
                let this = RuleRef {
                    policy: policy.id.clone(),
                    direction,
                    written: rule.written,
                };
                let decision = match rule.action {
                    Action::Log => {
                        logged.push(this);
                        continue;
                    }
                    Action::Pass => continue 'stages,
                    Action::Allow => Decision::Allow,
                    Action::Deny => Decision::Deny,
                };
                let reason = if policy.refused {
                    Reason::Refused(this.policy)
                } else {
                    Reason::Rule(this)
                };
                return (decision, reason, logged);
            }
        }
        if stage.end == TierEnd::Deny {
            let policies = stage.policies.iter();
            let reason = Reason::EndOfTier {
                tier: stage.tier.clone(),
                policies: policies
                    .map(|position| rules.policies[*position].id.clone())
                    .collect(),
            };
            return (Decision::Deny, reason, logged);
        }
    }
    let reason = match chain.stages.is_empty() {
        true => Reason::NoPolicy,
        false => Reason::PassedOn,
    };
    (chain.end, reason, logged)
}
