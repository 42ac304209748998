//! A verdict in words, with what would have to change for the other one.

use std::fmt;
use std::net::IpAddr;

use thiserror::Error;
use warren_model::{Family, PodName};

use crate::change::Change;
use crate::flow::Flow;
use crate::policy::{Action, Decision, Direction, Order, PolicyId};
use crate::protocol::Protocol;
use crate::ruleset::{Endpoint, EndpointName, Part, Rule, RuleSet};
use crate::verdict::{Reason, RuleRef, Side, Verdict, verdict};
use crate::words;

/// Why a flow is allowed or denied.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The flow.
    pub flow: Flow,
    /// What becomes of it.
    pub verdict: Verdict,
    /// What the side that opens it says, in words.
    pub egress: String,
    /// What the other side says, in words.
    pub ingress: String,
    /// What would turn the verdict: of a denied flow one for each side that denies, several where there is a choice; of an
    /// allowed one ways to deny it. Empty: no policy can.
    pub changes: Vec<Change>,
}

/// A question that has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExplainError {
    /// Policy does not speak of it.
    #[error("pod {pod} is unknown, on its host's network or finished: no policy speaks of it")]
    NoSuchPod {
        /// The pod.
        pod: PodName,
    },
    /// Nothing can flow between them.
    #[error("{from} and {to} have no addresses of one family")]
    NoCommonFamily {
        /// The one.
        from: Peer,
        /// The other.
        to: Peer,
    },
}

/// One side of a connection that is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A pod, by each family that it has.
    Pod(PodName),
    /// Whoever has this address.
    Address(IpAddr),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "pod {name}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Explains connections from one peer to another's port: one explanation for each family that both have.
pub fn explain_between(
    rules: &RuleSet,
    from: &Peer,
    to: &Peer,
    protocol: Protocol,
    port: u16,
) -> Result<Vec<Explanation>, ExplainError> {
    let (sources, destinations) = (addresses(rules, from)?, addresses(rules, to)?);
    let mut explanations = Vec::new();
    for family in [Family::V4, Family::V6] {
        let of = |addresses: &[IpAddr]| addresses.iter().copied().find(|it| Family::of(*it) == family);
        if let (Some(source), Some(destination)) = (of(&sources), of(&destinations)) {
            explanations.push(explain(
                rules,
                &Flow::to_port(source, destination, protocol, port),
            ));
        }
    }
    if explanations.is_empty() {
        return Err(ExplainError::NoCommonFamily {
            from: from.clone(),
            to: to.clone(),
        });
    }
    Ok(explanations)
}

fn addresses(rules: &RuleSet, peer: &Peer) -> Result<Vec<IpAddr>, ExplainError> {
    match peer {
        Peer::Pod(name) => pod(rules, name).map(|endpoint| endpoint.addresses.clone()),
        Peer::Address(address) => Ok(vec![*address]),
    }
}

/// The endpoint of a pod.
///
/// # Errors
/// [`ExplainError::NoSuchPod`]: policy does not speak of it.
pub fn pod<'r>(rules: &'r RuleSet, name: &PodName) -> Result<&'r Endpoint, ExplainError> {
    let wanted = EndpointName::Pod(name.clone());
    let found = rules.endpoints.iter().find(|endpoint| endpoint.name == wanted);
    found.ok_or_else(|| ExplainError::NoSuchPod { pod: name.clone() })
}

/// Explains one flow.
pub fn explain(rules: &RuleSet, flow: &Flow) -> Explanation {
    let verdict = verdict(rules, flow);
    let sides = [
        (Direction::Egress, &verdict.egress),
        (Direction::Ingress, &verdict.ingress),
    ];
    let mut changes = Vec::new();
    for (direction, side) in sides {
        match (verdict.action, side.decision) {
            (Decision::Deny, Decision::Deny) => changes.extend(to_allow(rules, flow, direction, side)),
            (Decision::Allow, Decision::Allow) => changes.extend(to_deny(rules, flow, direction, side)),
            // The other side denies; this one is content.
            (Decision::Deny, Decision::Allow) | (Decision::Allow, Decision::Deny) => {}
        }
    }
    Explanation {
        flow: *flow,
        egress: in_words(rules, flow, Direction::Egress, &verdict.egress),
        ingress: in_words(rules, flow, Direction::Ingress, &verdict.ingress),
        changes,
        verdict,
    }
}

fn in_words(rules: &RuleSet, flow: &Flow, direction: Direction, side: &Side) -> String {
    let who = match (&side.endpoint, direction) {
        (Some(endpoint), _) => endpoint.to_string(),
        (None, Direction::Egress) => flow.source.to_string(),
        (None, Direction::Ingress) => flow.destination.to_string(),
    };
    let why = match &side.reason {
        Reason::NoEndpoint => "no pod or host endpoint here has this address".to_owned(),
        Reason::Itself => "nobody is kept from itself".to_owned(),
        Reason::OwnNode => "a node and its own pods are not kept apart here".to_owned(),
        Reason::Failsafe => "this port stays open on host endpoints".to_owned(),
        Reason::NoPolicy => format!("no policy selects it for {direction}"),
        Reason::PassedOn => "every tier left it to the next".to_owned(),
        Reason::Refused(policy) => format!("{policy} was refused, and what it selects fails closed"),
        Reason::EndOfTier { tier, policies } => format!(
            "{} for {direction}, no rule matches, and tier {tier} denies what is left",
            selected_by(policies)
        ),
        Reason::Rule(rule) => match matched(rules, flow, rule) {
            Some(matched) => format!("{rule}: {}", words::rule(rules, matched)),
            None => rule.to_string(),
        },
    };
    format!("{direction} of {who} is {}: {why}", side.decision)
}

fn selected_by(policies: &[PolicyId]) -> String {
    let names: Vec<_> = policies.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [one] => format!("{one} selects it"),
        many => format!("{} select it", many.join(", ")),
    }
}

/// The rule that a reference means: of several that one entry of a list became, the one that matches.
fn matched<'r>(rules: &'r RuleSet, flow: &Flow, wanted: &RuleRef) -> Option<&'r Rule> {
    let policy = rules.policies.iter().find(|policy| policy.id == wanted.policy)?;
    let mut candidates = policy.rules(wanted.direction).iter();
    candidates.find(|rule| rule.written == wanted.written && rules.matches(rule, flow))
}

/// What would have to change for this side to allow the flow; one of these is enough.
fn to_allow(rules: &RuleSet, flow: &Flow, direction: Direction, side: &Side) -> Vec<Change> {
    let Some(endpoint) = &side.endpoint else {
        return Vec::new();
    };
    match &side.reason {
        Reason::Rule(rule) => {
            let policy = rules.policies.iter().find(|policy| policy.id == rule.policy);
            vec![Change::Overrule {
                rule: rule.clone(),
                order: policy.map_or(Order::LAST, |policy| policy.order),
            }]
        }
        Reason::Refused(policy) => {
            let object = policy.to_string();
            let refusal = rules.refusals.iter().find(|refusal| refusal.object == object);
            vec![Change::Repair {
                policy: policy.clone(),
                why: refusal.map(|refusal| refusal.message.clone()).unwrap_or_default(),
            }]
        }
        Reason::EndOfTier { policies, .. } => {
            let mut changes = near_misses(rules, flow, direction, policies);
            changes.push(Change::Allow {
                endpoint: endpoint.clone(),
                direction,
                policies: policies.clone(),
            });
            changes
        }
        // A host endpoint lets nothing pass that no policy allows.
        Reason::NoPolicy | Reason::PassedOn => vec![Change::Allow {
            endpoint: endpoint.clone(),
            direction,
            policies: Vec::new(),
        }],
        Reason::NoEndpoint | Reason::Itself | Reason::OwnNode | Reason::Failsafe => Vec::new(),
    }
}

/// Rules of these policies that would allow the flow if one of their parts did not stand in the way.
fn near_misses(rules: &RuleSet, flow: &Flow, direction: Direction, policies: &[PolicyId]) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for policy in rules
        .policies
        .iter()
        .filter(|policy| policies.contains(&policy.id))
    {
        for rule in policy
            .rules(direction)
            .iter()
            .filter(|rule| rule.action == Action::Allow)
        {
            let missing = Part::ALL.iter().filter(|part| !rules.holds(rule, **part, flow));
            if let [part] = missing.copied().collect::<Vec<_>>()[..] {
                changes.push(Change::Widen {
                    rule: RuleRef {
                        policy: policy.id.clone(),
                        direction,
                        written: rule.written,
                    },
                    part,
                    asks: words::part(rules, rule, part),
                });
            }
        }
    }
    changes
}

/// What would make this side deny the flow.
fn to_deny(rules: &RuleSet, flow: &Flow, direction: Direction, side: &Side) -> Vec<Change> {
    let Some(endpoint) = &side.endpoint else {
        return Vec::new();
    };
    match &side.reason {
        Reason::Rule(rule) => vec![Change::Narrow {
            rule: rule.clone(),
            others: also_allowing(rules, flow, direction, endpoint, rule),
        }],
        Reason::NoPolicy | Reason::PassedOn => vec![Change::Select {
            endpoint: endpoint.clone(),
            direction,
        }],
        Reason::NoEndpoint
        | Reason::Itself
        | Reason::OwnNode
        | Reason::Failsafe
        | Reason::Refused(_)
        | Reason::EndOfTier { .. } => Vec::new(),
    }
}

fn also_allowing(
    rules: &RuleSet,
    flow: &Flow,
    direction: Direction,
    endpoint: &EndpointName,
    but: &RuleRef,
) -> Vec<RuleRef> {
    let mut others = Vec::new();
    let Some(endpoint) = rules.endpoints.iter().find(|known| known.name == *endpoint) else {
        return others;
    };
    let stages = &rules.chains[endpoint.chain(direction)].stages;
    for position in stages.iter().flat_map(|stage| &stage.policies) {
        let policy = &rules.policies[*position];
        for rule in policy.rules(direction) {
            let this = RuleRef {
                policy: policy.id.clone(),
                direction,
                written: rule.written,
            };
            let allows = rule.action == Action::Allow && rules.matches(rule, flow);
            if allows && this != *but && !others.contains(&this) {
                others.push(this);
            }
        }
    }
    others
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} is {}", self.flow, self.verdict.action)?;
        writeln!(f, "  {}", self.egress)?;
        writeln!(f, "  {}", self.ingress)?;
        let (heading, none) = match self.verdict.action {
            Decision::Allow => ("to deny it:", "no policy can deny it"),
            Decision::Deny => ("to allow it:", "no policy can allow it"),
        };
        if self.changes.is_empty() {
            return writeln!(f, "{none}");
        }
        writeln!(f, "{heading}")?;
        for change in &self.changes {
            writeln!(f, "  - {change}")?;
        }
        Ok(())
    }
}
