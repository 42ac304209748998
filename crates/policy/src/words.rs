//! Rules and their parts in words.

use std::fmt::{Display, Write};

use ipnet::IpNet;

use crate::policy::{Action, Decision, Direction, TierEnd};
use crate::ruleset::{End, Part, Ports, Rule, RuleSet};

/// What a rule does, to what: `allow TCP to port 80 from pods of namespace web`.
pub fn rule(rules: &RuleSet, rule: &Rule) -> String {
    let mut text = String::from(match rule.action {
        Action::Allow => "allow ",
        Action::Deny => "deny ",
        Action::Log => "log ",
        Action::Pass => "leave to the next tier ",
    });
    text += &part(rules, rule, Part::Protocol);
    for (preposition, which) in [
        (" ", Part::Icmp),
        (" over ", Part::Family),
        (" from ", Part::SourcePort),
        (" to ", Part::DestinationPort),
        (" from ", Part::Source),
        (" to ", Part::Destination),
    ] {
        let said = part(rules, rule, which);
        if !said.is_empty() {
            text = text + preposition + &said;
        }
    }
    text
}

/// What one part of a rule asks for; empty if it asks for nothing.
pub fn part(rules: &RuleSet, rule: &Rule, part: Part) -> String {
    match part {
        Part::Family => rule.family.map(|family| family.to_string()).unwrap_or_default(),
        Part::Protocol => match (rule.protocol, rule.not_protocol) {
            (None, None) => "anything".to_owned(),
            (Some(protocol), _) => protocol.to_string(),
            (None, Some(not)) => format!("anything but {not}"),
        },
        Part::Icmp => match (rule.icmp, rule.not_icmp) {
            (None, None) => String::new(),
            (Some(icmp), None) => icmp.to_string(),
            (None, Some(not)) => format!("but {not}"),
            (Some(icmp), Some(not)) => format!("{icmp} but {not}"),
        },
        Part::SourcePort => ports(rules, &rule.source),
        Part::DestinationPort => ports(rules, &rule.destination),
        Part::Source => end(rules, &rule.source),
        Part::Destination => end(rules, &rule.destination),
    }
}

/// The chain of an endpoint for a direction, a line for each policy and rule in the order they are asked.
pub fn chain(rules: &RuleSet, endpoint: usize, direction: Direction) -> Vec<String> {
    let chain = &rules.chains[rules.endpoints[endpoint].chain(direction)];
    let mut lines = Vec::new();
    for stage in &chain.stages {
        for policy in stage.policies.iter().map(|position| &rules.policies[*position]) {
            lines.push(format!(
                "{} (tier {}, order {})",
                policy.id, stage.tier, policy.order
            ));
            for (number, one) in policy.rules(direction).iter().enumerate() {
                lines.push(format!("  {}. {}", number + 1, rule(rules, one)));
            }
        }
        lines.push(match stage.end {
            TierEnd::Deny => format!("end of tier {}: deny", stage.tier),
            TierEnd::Pass => format!("end of tier {}: leave to the next", stage.tier),
        });
    }
    lines.push(match chain.end {
        Decision::Allow => "everything else: allow".to_owned(),
        Decision::Deny => "everything else: deny".to_owned(),
    });
    lines
}

fn ports(rules: &RuleSet, end: &End) -> String {
    let mut text = String::new();
    if let Some(ports) = &end.ports {
        text = format!("port {}", port_list(rules, ports));
    }
    if let Some(ports) = &end.not_ports {
        let any = if text.is_empty() { "any port" } else { "" };
        let _ = write!(text, "{any} but {}", port_list(rules, ports));
    }
    text
}

fn port_list(rules: &RuleSet, ports: &Ports) -> String {
    let named = ports
        .sets
        .iter()
        .map(|set| format!("{:?}", rules.port_sets[*set].port_name));
    let numbers = ports.ranges.iter().map(ToString::to_string);
    joined(numbers.chain(named), " or ")
}

fn end(rules: &RuleSet, end: &End) -> String {
    let mut parts = Vec::new();
    if let Some(set) = end.set {
        parts.push(rules.sets[set].query.to_string());
    }
    if !end.nets.is_empty() {
        parts.push(nets(&end.nets));
    }
    let positive = !parts.is_empty();
    let mut text = joined(parts, " in ");
    if let Some(set) = end.not_set {
        let any = if positive { "" } else { "anybody" };
        let _ = write!(text, "{any} but {}", rules.sets[set].query);
    }
    if !end.not_nets.is_empty() {
        let any = if text.is_empty() { "anybody" } else { "" };
        let _ = write!(text, "{any} but {}", nets(&end.not_nets));
    }
    text
}

fn nets(nets: &[IpNet]) -> String {
    joined(nets, " or ")
}

fn joined(parts: impl IntoIterator<Item: Display>, separator: &str) -> String {
    let parts: Vec<_> = parts.into_iter().map(|part| part.to_string()).collect();
    parts.join(separator)
}
