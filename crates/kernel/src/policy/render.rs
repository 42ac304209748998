//! The table: sets, chains, and the way of a packet to them.

use std::collections::BTreeSet;
use std::sync::Arc;

use warren_model::Family;
use warren_policy::ruleset::{AddressSet, ChainId, PortSet};
use warren_policy::{Decision, Direction, RuleSet};

use super::dispatch;
use super::elements::Elements;
use super::names::Names;
use super::parts::{address_type, deny, version};
use super::rule::{nets_name, of_family, one_of_each_length, set_name};
use super::stage::{self, passes, policies_of, policy_rules};
use super::table::{DENIED, Set, SetKind, Table};

/// The table for the pods and host endpoints of a rule set.
///
/// Both sides must allow a packet, so each has a base chain of its own: what the pod that sends is allowed (`accept`) goes on
/// to the chains of the pod that receives, and a `drop` is final. Replies pass ahead of both. What the node itself sends
/// to its pods comes by neither. A veth whose pod is not in the rule set gets nothing and gives nothing.
///
/// Of two pods that claim one address the first with policies counts here, where [`warren_policy::verdict()`] asks both; so it is
/// with host endpoints that mean the same interface, of which one that names it comes before one that means all.
pub fn render(rules: &RuleSet) -> Table {
    rendered(rules, false)
}

/// The same, with some of what is denied logged on its way to its end, by the name of its counter and to
/// [`GROUP`](crate::packet_log::GROUP): a few packets a second of each denial. Whether anybody reads that does not matter.
pub fn render_logged(rules: &RuleSet) -> Table {
    rendered(rules, true)
}

fn rendered(rules: &RuleSet, logs: bool) -> Table {
    let names = Names::new(rules);
    let mut table = Table {
        logs,
        ..Table::default()
    };
    table.chain(DENIED.to_owned(), vec!["drop".to_owned()]);
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
                let rules = policy_rules(&mut table, rules, policy, direction);
                table.chain(names.policy(position, direction), rules);
            }
        }
        for id in used {
            endpoint_chains(&mut table, rules, &names, id, direction);
        }
    }
    dispatch::pods(&mut table, rules, &names);
    dispatch::hosts(&mut table, rules, &names);
    table
}

/// The nft sets of a set: one a family for its addresses, and one for each length that its networks have.
fn address_set(table: &mut Table, set: &Arc<AddressSet>) {
    for family in [Family::V4, Family::V6] {
        let make = format!("type {};", address_type(family));
        let made = |elements: Elements| Set {
            kind: SetKind::Hash,
            make: make.clone(),
            elements,
        };
        let single = made(Elements::Addresses(set.clone(), family));
        table.sets.insert(set_name(set, family), single);
        for length in one_of_each_length(&set.nets, family).into_keys() {
            let of_length = of_family(&set.nets, family).filter(|net| net.prefix_len() == length);
            let elements = of_length.map(|net| net.network().to_string()).collect();
            table.sets.insert(nets_name(set, length, family), made(elements));
        }
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

/// The chains that endpoints of this rule set meet in a direction. One without policies has no rules: nobody is led to it.
fn used(rules: &RuleSet, direction: Direction) -> BTreeSet<ChainId> {
    let chains = rules.endpoints.iter().map(|endpoint| endpoint.chain(direction));
    chains.filter(|id| !rules.chains[*id].stages.is_empty()).collect()
}

/// The chain that endpoints with these policies are led to, and one for each of its tiers: leaving a tier is returning from it.
fn endpoint_chains(table: &mut Table, rules: &RuleSet, names: &Names, id: ChainId, direction: Direction) {
    let met = &rules.chains[id];
    let name = names.chain(id, direction);
    let mut main = Vec::new();
    for (number, stage) in met.stages.iter().enumerate() {
        let stage_name = format!("{name}-{number}");
        main.push(format!("jump {stage_name}"));
        stage::chains(table, rules, names, stage, &stage_name, direction);
    }
    main.push(match met.end {
        Decision::Allow => "accept".to_owned(),
        Decision::Deny => {
            let policies = met.stages.iter().flat_map(|stage| &stage.policies);
            let why = format!("{direction}: no policy allows it");
            deny(table, policies_of(rules, policies), why)
        }
    });
    table.chain(name, main);
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
