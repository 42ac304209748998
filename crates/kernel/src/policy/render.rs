//! The table: sets, chains, and the way of a packet to them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

use warren_model::Family;
use warren_policy::policy::TierEnd;
use warren_policy::ruleset::{AddressSet, ChainId, EndpointName, PolicyRules, PortSet, Stage};
use warren_policy::{Action, Decision, Direction, RuleSet};

use super::rule::{comment, statements};

/// The table, of family inet. It is not the guard's: that one stands whatever policy says.
pub const TABLE: &str = "warren-policy";

/// The text that makes the table this, whatever it was before, in one transaction.
///
/// Both sides must allow a packet, so each has a base chain of its own: what the pod that sends is allowed (`accept`) goes on
/// to the chains of the pod that receives, and a `drop` is final. Replies pass ahead of both. What the node itself sends
/// comes by neither.
///
/// Host endpoints are not rendered. Of two pods that claim one address the first with policies counts here, where
/// [`warren_policy::verdict()`] asks both.
pub fn render(rules: &RuleSet) -> String {
    let mut text = String::new();
    line(&mut text, format_args!("add table inet {TABLE}"));
    line(&mut text, format_args!("delete table inet {TABLE}"));
    line(&mut text, format_args!("add table inet {TABLE}"));
    for set in &rules.sets {
        address_set(&mut text, set);
    }
    for set in &rules.port_sets {
        port_set(&mut text, set);
    }
    let mut chains = Vec::new();
    for direction in [Direction::Egress, Direction::Ingress] {
        let used = used(rules, direction);
        for (position, policy) in rules.policies.iter().enumerate() {
            let shared = used.iter().any(|id| {
                let mut stages = rules.chains[*id].stages.iter();
                stages.any(|stage| stage.policies.contains(&position))
            });
            if shared && !passes(policy, direction) {
                let rules = policy_rules(rules, policy, direction);
                chains.push((policy_chain(position, direction), rules));
            }
        }
        for id in used {
            chains.extend(endpoint_chains(rules, id, direction));
        }
    }
    // All chains before any rule: rules jump to chains.
    for (name, _) in &chains {
        line(&mut text, format_args!("add chain inet {TABLE} {name}"));
    }
    for (name, rules) in &chains {
        for rule in rules {
            line(&mut text, format_args!("add rule inet {TABLE} {name} {rule}"));
        }
    }
    dispatch(&mut text, rules);
    text
}

fn address_set(text: &mut String, set: &AddressSet) {
    for family in [Family::V4, Family::V6] {
        let of_family = |address: &IpAddr| Family::of(*address) == family;
        let nets = set.nets.iter().filter(|net| of_family(&net.addr()));
        let nets: Vec<String> = nets.map(ToString::to_string).collect();
        // A hash set unless there are networks, which only network sets bring.
        let flags = if nets.is_empty() {
            ""
        } else {
            " flags interval; auto-merge;"
        };
        let addresses = set.addresses.iter().filter(|address| of_family(address));
        let elements = addresses.map(ToString::to_string).chain(nets);
        let (v, kind) = (version(family), address_type(family));
        fill(
            text,
            "set",
            &format!("{}-{v}", set.name),
            &format!("type {kind};{flags}"),
            elements,
        );
    }
}

fn port_set(text: &mut String, set: &PortSet) {
    for family in [Family::V4, Family::V6] {
        let members = set
            .members
            .iter()
            .filter(|(address, _)| Family::of(*address) == family);
        let elements = members.map(|(address, port)| format!("{address} . {port}"));
        let (v, kind) = (version(family), address_type(family));
        fill(
            text,
            "set",
            &format!("{}-{v}", set.name),
            &format!("type {kind} . inet_service;"),
            elements,
        );
    }
}

/// Makes a set or a map with its elements.
fn fill(text: &mut String, what: &str, name: &str, make: &str, elements: impl Iterator<Item = String>) {
    line(text, format_args!("add {what} inet {TABLE} {name} {{ {make} }}"));
    let elements: Vec<String> = elements.collect();
    if !elements.is_empty() {
        let elements = elements.join(", ");
        line(
            text,
            format_args!("add element inet {TABLE} {name} {{ {elements} }}"),
        );
    }
}

/// The chains that pods of this rule set meet in a direction. One without policies lets everything pass: no pod is led to it.
fn used(rules: &RuleSet, direction: Direction) -> BTreeSet<ChainId> {
    let pods = rules
        .endpoints
        .iter()
        .filter(|it| matches!(it.name, EndpointName::Pod(_)));
    let chains = pods.map(|endpoint| endpoint.chain(direction));
    chains.filter(|id| !rules.chains[*id].stages.is_empty()).collect()
}

/// The chain that pods with these policies are led to, and one for each of its tiers: leaving a tier is returning from it.
fn endpoint_chains(rules: &RuleSet, id: ChainId, direction: Direction) -> Vec<(String, Vec<String>)> {
    let chain = &rules.chains[id];
    let name = endpoint_chain(id, direction);
    let mut chains = Vec::new();
    let mut main = Vec::new();
    for (number, stage) in chain.stages.iter().enumerate() {
        let stage_name = format!("{name}-{number}");
        main.push(format!("jump {stage_name}"));
        chains.push((stage_name, stage_rules(rules, stage, direction)));
    }
    main.push(match chain.end {
        Decision::Allow => "accept".to_owned(),
        Decision::Deny => "counter drop".to_owned(),
    });
    chains.push((name, main));
    chains
}

fn stage_rules(rules: &RuleSet, stage: &Stage, direction: Direction) -> Vec<String> {
    let mut lines = Vec::new();
    for position in &stage.policies {
        let policy = &rules.policies[*position];
        if passes(policy, direction) {
            // To pass is to return from this chain; from a chain of the policy's own it would be to go on with the next policy.
            lines.extend(policy_rules(rules, policy, direction));
        } else {
            lines.push(format!("jump {}", policy_chain(*position, direction)));
        }
    }
    if stage.end == TierEnd::Deny {
        let comment = comment(&format!("{direction}: end of tier {}", stage.tier));
        lines.push(format!("counter drop{comment}"));
    }
    lines
}

fn passes(policy: &PolicyRules, direction: Direction) -> bool {
    let mut rules = policy.rules(direction).iter();
    rules.any(|rule| rule.action == Action::Pass)
}

fn policy_rules(rules: &RuleSet, policy: &PolicyRules, direction: Direction) -> Vec<String> {
    let each = policy.rules(direction).iter();
    each.flat_map(|rule| statements(rules, policy, rule, direction))
        .collect()
}

/// The base chains, and the maps from a pod's address to its chain.
fn dispatch(text: &mut String, rules: &RuleSet) {
    let pods = rules
        .endpoints
        .iter()
        .filter(|it| matches!(it.name, EndpointName::Pod(_)));
    let pods: Vec<_> = pods.collect();
    for family in [Family::V4, Family::V6] {
        let (v, kind) = (version(family), address_type(family));
        let itself = pods.iter().flat_map(|pod| {
            let own = pod
                .addresses
                .iter()
                .filter(move |address| Family::of(**address) == family);
            let own: Vec<_> = own.collect();
            let pairs = own
                .iter()
                .flat_map(|one| own.iter().map(move |other| format!("{one} . {other}")));
            pairs.collect::<Vec<_>>()
        });
        fill(
            text,
            "set",
            &format!("itself-{v}"),
            &format!("type {kind} . {kind};"),
            itself,
        );
        for direction in [Direction::Egress, Direction::Ingress] {
            let led = rules.by_address.iter().filter_map(|(address, positions)| {
                let chain = leads_to(rules, positions, direction)?;
                (Family::of(*address) == family).then(|| format!("{address} : goto {chain}"))
            });
            fill(
                text,
                "map",
                &format!("{direction}-{v}"),
                &format!("type {kind} : verdict;"),
                led,
            );
        }
    }
    for (name, hook, priority, field, direction) in [
        ("from-pods", "forward", -10, "saddr", Direction::Egress),
        ("from-pods-to-node", "input", -10, "saddr", Direction::Egress),
        ("to-pods", "forward", -9, "daddr", Direction::Ingress),
    ] {
        line(
            text,
            format_args!(
                "add chain inet {TABLE} {name} {{ type filter hook {hook} priority {priority}; policy accept; }}"
            ),
        );
        for rule in [
            "ct state established,related accept".to_owned(),
            // A pod's neighbours are no peers (RFC 4861, section 7.1: what comes from beyond the link has a lower hop limit).
            "ip6 hoplimit 255 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept".to_owned(),
            "ip saddr . ip daddr @itself-v4 accept".to_owned(),
            "ip6 saddr . ip6 daddr @itself-v6 accept".to_owned(),
            format!("ip {field} vmap @{direction}-v4"),
            format!("ip6 {field} vmap @{direction}-v6"),
        ] {
            line(text, format_args!("add rule inet {TABLE} {name} {rule}"));
        }
    }
}

/// The chain for an address; of pods that claim the same, the first that has one.
fn leads_to(rules: &RuleSet, positions: &[usize], direction: Direction) -> Option<String> {
    let pods = positions.iter().map(|position| &rules.endpoints[*position]);
    let mut pods = pods.filter(|it| matches!(it.name, EndpointName::Pod(_)));
    let chain = pods.find_map(|pod| {
        let id = pod.chain(direction);
        (!rules.chains[id].stages.is_empty()).then_some(id)
    })?;
    Some(endpoint_chain(chain, direction))
}

fn endpoint_chain(id: ChainId, direction: Direction) -> String {
    format!("{direction}-{id}")
}

fn policy_chain(position: usize, direction: Direction) -> String {
    format!("policy-{position}-{direction}")
}

/// What the names of sets of a family end in.
pub(super) fn version(family: Family) -> &'static str {
    match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    }
}

fn address_type(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
