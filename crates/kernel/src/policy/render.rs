//! The table: sets, chains, and the way of a packet to them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use warren_model::Family;
use warren_policy::policy::TierEnd;
use warren_policy::ruleset::{AddressSet, ChainId, Endpoint, EndpointName, PolicyRules, PortSet, Stage};
use warren_policy::{Action, Decision, Direction, RuleSet};

use super::elements::Elements;
use super::names::Names;
use super::rule::{comment, set_name, statements};
use super::table::{Chain, Set, SetKind, Table};

/// The table for the pods of a rule set.
///
/// Both sides must allow a packet, so each has a base chain of its own: what the pod that sends is allowed (`accept`) goes on
/// to the chains of the pod that receives, and a `drop` is final. Replies pass ahead of both. What the node itself sends
/// comes by neither.
///
/// Host endpoints are not rendered. Of two pods that claim one address the first with policies counts here, where
/// [`warren_policy::verdict()`] asks both.
pub fn render(rules: &RuleSet) -> Table {
    let names = Names::new(rules);
    let mut table = Table::default();
    for set in &rules.sets {
        address_set(&mut table, set);
    }
    for set in &rules.port_sets {
        port_set(&mut table, set);
    }
    for direction in [Direction::Egress, Direction::Ingress] {
        let used = used(rules, direction);
        let stages = used.iter().flat_map(|id| &rules.chains[*id].stages);
        let met: BTreeSet<usize> = stages.flat_map(|stage| &stage.policies).copied().collect();
        for position in met {
            let policy = &rules.policies[position];
            if !passes(policy, direction) {
                let rules = policy_rules(rules, policy, direction);
                chain(&mut table, names.policy(position, direction), rules);
            }
        }
        for id in used {
            pod_chains(&mut table, rules, &names, id, direction);
        }
    }
    dispatch(&mut table, rules, &names);
    table
}

fn address_set(table: &mut Table, set: &Arc<AddressSet>) {
    for family in [Family::V4, Family::V6] {
        let kind = address_type(family);
        let single = Elements::Addresses(set.clone(), family);
        // A hash set unless there are networks, which only network sets bring.
        let made = if set.nets.is_empty() {
            Set {
                kind: SetKind::Hash,
                make: format!("type {kind};"),
                elements: single,
            }
        } else {
            let nets = set.nets.iter().filter(|net| Family::of(net.addr()) == family);
            let single = single.all().into_iter().map(|address| address.to_string());
            Set {
                kind: SetKind::Interval,
                make: format!("type {kind}; flags interval; auto-merge;"),
                elements: single.chain(nets.map(ToString::to_string)).collect(),
            }
        };
        table.sets.insert(set_name(set, family), made);
    }
}

fn port_set(table: &mut Table, set: &Arc<PortSet>) {
    for family in [Family::V4, Family::V6] {
        let made = Set {
            kind: SetKind::Hash,
            make: format!("type {} . inet_service;", address_type(family)),
            elements: Elements::Ports(set.clone(), family),
        };
        table
            .sets
            .insert(format!("{}-{}", set.name, version(family)), made);
    }
}

fn chain(table: &mut Table, name: String, rules: Vec<String>) {
    table.chains.insert(name, Chain { make: None, rules });
}

/// The chains that pods of this rule set meet in a direction. One without policies lets everything pass: no pod is led to it.
fn used(rules: &RuleSet, direction: Direction) -> BTreeSet<ChainId> {
    let chains = pods(rules).map(|endpoint| endpoint.chain(direction));
    chains.filter(|id| !rules.chains[*id].stages.is_empty()).collect()
}

fn pods(rules: &RuleSet) -> impl Iterator<Item = &Endpoint> {
    rules.endpoints.iter().filter(|endpoint| is_pod(endpoint))
}

fn is_pod(endpoint: &Endpoint) -> bool {
    matches!(endpoint.name, EndpointName::Pod(_))
}

/// The chain that pods with these policies are led to, and one for each of its tiers: leaving a tier is returning from it.
fn pod_chains(table: &mut Table, rules: &RuleSet, names: &Names, id: ChainId, direction: Direction) {
    let met = &rules.chains[id];
    let name = names.chain(id, direction);
    let mut main = Vec::new();
    for (number, stage) in met.stages.iter().enumerate() {
        let stage_name = format!("{name}-{number}");
        main.push(format!("jump {stage_name}"));
        chain(table, stage_name, stage_rules(rules, names, stage, direction));
    }
    main.push(match met.end {
        Decision::Allow => "accept".to_owned(),
        Decision::Deny => "counter drop".to_owned(),
    });
    chain(table, name, main);
}

fn stage_rules(rules: &RuleSet, names: &Names, stage: &Stage, direction: Direction) -> Vec<String> {
    let mut lines = Vec::new();
    for position in &stage.policies {
        let policy = &rules.policies[*position];
        if passes(policy, direction) {
            // To pass is to return from this chain; from a chain of the policy's own it would be to go on with the next policy.
            lines.extend(policy_rules(rules, policy, direction));
        } else {
            lines.push(format!("jump {}", names.policy(*position, direction)));
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
fn dispatch(table: &mut Table, rules: &RuleSet, names: &Names) {
    for family in [Family::V4, Family::V6] {
        let (v, kind) = (version(family), address_type(family));
        let itself = Set {
            kind: SetKind::Hash,
            make: format!("type {kind} . {kind};"),
            elements: pods(rules)
                .flat_map(|pod| pairs(&pod.addresses, family))
                .collect(),
        };
        table.sets.insert(format!("itself-{v}"), itself);
        for direction in [Direction::Egress, Direction::Ingress] {
            let of_family = rules
                .by_address
                .iter()
                .filter(|(address, _)| Family::of(**address) == family);
            let led = of_family.filter_map(|(address, positions)| {
                let id = leads_to(rules, positions, direction)?;
                Some(format!("{address} : goto {}", names.chain(id, direction)))
            });
            let map = Set {
                kind: SetKind::Map,
                make: format!("type {kind} : verdict;"),
                elements: led.collect(),
            };
            table.sets.insert(format!("{direction}-{v}"), map);
        }
    }
    for (name, hook, priority, field, direction) in [
        ("from-pods", "forward", -10, "saddr", Direction::Egress),
        ("from-pods-to-node", "input", -10, "saddr", Direction::Egress),
        ("to-pods", "forward", -9, "daddr", Direction::Ingress),
    ] {
        let make = format!("{{ type filter hook {hook} priority {priority}; policy accept; }}");
        let rules = vec![
            "ct state established,related accept".to_owned(),
            // A pod's neighbours are no peers (RFC 4861, section 7.1: what comes from beyond the link has a lower hop limit).
            "ip6 hoplimit 255 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept".to_owned(),
            "ip saddr . ip daddr @itself-v4 accept".to_owned(),
            "ip6 saddr . ip6 daddr @itself-v6 accept".to_owned(),
            format!("ip {field} vmap @{direction}-v4"),
            format!("ip6 {field} vmap @{direction}-v6"),
        ];
        let make = Some(make);
        table.chains.insert(name.to_owned(), Chain { make, rules });
    }
}

/// Every pair of a pod's addresses of a family: by these it reaches itself.
fn pairs(addresses: &[IpAddr], family: Family) -> Vec<String> {
    let of_family = || {
        addresses
            .iter()
            .filter(move |address| Family::of(**address) == family)
    };
    of_family()
        .flat_map(|one| of_family().map(move |other| format!("{one} . {other}")))
        .collect()
}

/// The chain for an address; of pods that claim the same, the first that has one.
fn leads_to(rules: &RuleSet, positions: &[usize], direction: Direction) -> Option<ChainId> {
    let there = positions.iter().map(|position| &rules.endpoints[*position]);
    let mut chains = there.filter(|it| is_pod(it)).map(|pod| pod.chain(direction));
    chains.find(|id| !rules.chains[*id].stages.is_empty())
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

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
