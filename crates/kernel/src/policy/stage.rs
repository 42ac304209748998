//! The policies of one tier, one after the other or found by port.

use std::collections::BTreeMap;

use warren_policy::policy::TierEnd;
use warren_policy::ruleset::{PolicyRules, Ports, Rule, Stage};
use warren_policy::{Action, Direction, Protocol, RuleSet};

use super::names::Names;
use super::parts::deny;
use super::rule::statements;
use super::table::Table;

/// A policy about more ports than these is asked about every packet: it would be in the map once for each.
const PORTS_OF_A_POLICY: usize = 8;

/// The chain of a tier, and those it finds by port.
///
/// Of policies in a row that only allow it does not matter which is asked first. Those of them that are about few ports are found by
/// one look into a map, so a packet meets those about its port only: 100 policies of other ports cost it what one does.
pub(super) fn chains(
    table: &mut Table,
    rules: &RuleSet,
    names: &Names,
    stage: &Stage,
    name: &str,
    direction: Direction,
) {
    let mut lines = Vec::new();
    let only_allows = |position: &usize| only_allows(&rules.policies[*position], direction);
    for (number, run) in stage
        .policies
        .chunk_by(|one, next| only_allows(one) && only_allows(next))
        .enumerate()
    {
        let mut by_port: BTreeMap<Port, Vec<String>> = BTreeMap::new();
        let mut asked = Vec::new();
        for position in run {
            let policy = &rules.policies[*position];
            if passes(policy, direction) {
                // To pass is to return from this chain; from a chain of the policy's own it would be to go on with the next policy.
                asked.extend(policy_rules(table, rules, policy, direction));
                continue;
            }
            let jump = format!("jump {}", names.policy(*position, direction));
            match few_ports(policy, direction).filter(|_| run.len() > 1) {
                Some(ports) => {
                    for port in ports {
                        by_port.entry(port).or_default().push(jump.clone());
                    }
                }
                None => asked.push(jump),
            }
        }
        lines.extend(vmap(table, by_port, &format!("{name}-{number}")));
        lines.extend(asked);
    }
    if stage.end == TierEnd::Deny {
        let why = format!("{direction}: no rule of tier {} allows it", stage.tier);
        lines.push(deny(table, policies_of(rules, stage.policies.iter()), why));
    }
    table.chain(name.to_owned(), lines);
}

/// Whether some rule passes to the next tier.
pub(super) fn passes(policy: &PolicyRules, direction: Direction) -> bool {
    let mut rules = policy.rules(direction).iter();
    rules.any(|rule| rule.action == Action::Pass)
}

/// The rules of a policy.
pub(super) fn policy_rules(
    table: &mut Table,
    rules: &RuleSet,
    policy: &PolicyRules,
    direction: Direction,
) -> Vec<String> {
    let each = policy.rules(direction).iter();
    each.flat_map(|rule| statements(table, rules, policy, rule, direction))
        .collect()
}

/// The policies at these positions, as many as one wants to read.
pub(super) fn policies_of<'p>(rules: &RuleSet, positions: impl Iterator<Item = &'p usize>) -> String {
    const NAMED: usize = 3;
    let all: Vec<String> = positions
        .map(|position| rules.policies[*position].id.to_string())
        .collect();
    match all.len().checked_sub(NAMED) {
        None | Some(0) => all.join(", "),
        Some(more) => format!("{} and {more} more", all[..NAMED].join(", ")),
    }
}

fn only_allows(policy: &PolicyRules, direction: Direction) -> bool {
    let mut rules = policy.rules(direction).iter();
    rules.all(|rule| rule.action == Action::Allow)
}

/// A port that a connection is opened to.
type Port = (Protocol, u16);

/// The ports that all rules of a policy are about, if they say so by number and there are few; in no order.
fn few_ports(policy: &PolicyRules, direction: Direction) -> Option<Vec<Port>> {
    let mut all = Vec::new();
    for rule in policy.rules(direction) {
        all.extend(ports(rule)?);
        all.sort_unstable();
        all.dedup();
        if all.len() > PORTS_OF_A_POLICY {
            return None;
        }
    }
    Some(all)
}

fn ports(rule: &Rule) -> Option<Vec<Port>> {
    let protocol = rule.protocol?;
    let Ports { ranges, sets } = rule.destination.ports.as_ref()?;
    if !sets.is_empty() {
        return None;
    }
    let mut all = Vec::new();
    for range in ranges {
        if usize::from(range.last() - range.first()) >= PORTS_OF_A_POLICY {
            return None;
        }
        all.extend((range.first()..=range.last()).map(|port| (protocol, port)));
    }
    Some(all)
}

/// The rule that looks a packet's port up, if there are any, and the chains of ports that more than one policy is about.
fn vmap(table: &mut Table, by_port: BTreeMap<Port, Vec<String>>, name: &str) -> Option<String> {
    let mut elements = Vec::new();
    for ((protocol, port), jumps) in by_port {
        let to = match <[String; 1]>::try_from(jumps) {
            Ok([only]) => only,
            Err(several) => {
                let name = format!("{name}-{}-{port}", protocol.0);
                let jump = format!("jump {name}");
                table.chain(name, several);
                jump
            }
        };
        elements.push(format!("{} . {port} : {to}", protocol.0));
    }
    (!elements.is_empty()).then(|| format!("meta l4proto . th dport vmap {{ {} }}", elements.join(", ")))
}
