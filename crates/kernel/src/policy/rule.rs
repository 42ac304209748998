//! One rule of a policy as rules of nft.

use std::collections::BTreeMap;

use ipnet::IpNet;
use warren_model::Family;
use warren_policy::ruleset::{AddressSet, End, PolicyRules, Ports, Rule};
use warren_policy::{Action, Direction, Protocol, RuleSet};

use super::parts::{allow, comment, deny, plain, version};
use super::table::Table;
use crate::membership::{inside, masked, outside, port_inside, port_outside};

/// The rules that one rule becomes: as many as there are families and ways to meet it, none if it can never match.
pub(super) fn statements(
    table: &mut Table,
    rules: &RuleSet,
    policy: &PolicyRules,
    rule: &Rule,
    direction: Direction,
) -> Vec<String> {
    let name = if policy.refused {
        format!("{direction}: {}, refused", policy.id)
    } else {
        format!("{direction}[{}] of {}", rule.written, policy.id)
    };
    let action = match rule.action {
        Action::Allow => {
            let allow = allow(table, policy.id.to_string(), rule_name(policy, rule, direction));
            format!("{allow}{}", comment(&name))
        }
        Action::Deny => deny(table, policy.id.to_string(), rule_name(policy, rule, direction)),
        Action::Pass => format!("return{}", comment(&name)),
        Action::Log => format!(
            "limit rate 10/second log prefix \"warren {}: \"",
            plain(&name, 100)
        ),
    };
    let mut lines = Vec::new();
    for family in families(rule) {
        let protocol = protocol(rule, family);
        for tests in ways(&conditions(rules, rule, family)) {
            let mut parts = protocol.clone();
            parts.extend(tests.into_iter().map(|test| test.text.clone()));
            parts.push(action.clone());
            lines.push(parts.join(" "));
        }
    }
    lines
}

/// Which of a policy's rules it is, for who reads the counters.
fn rule_name(policy: &PolicyRules, rule: &Rule, direction: Direction) -> String {
    if policy.refused {
        format!("{direction}: refused")
    } else {
        format!("{direction}[{}]", rule.written)
    }
}

/// The nft set of a set's addresses of a family.
pub(super) fn set_name(set: &AddressSet, family: Family) -> String {
    format!("{}-{}", set.name, version(family))
}

/// The nft set of those of its networks of a family that have this length: of their addresses.
pub(super) fn nets_name(set: &AddressSet, length: u8, family: Family) -> String {
    format!("{}-nets{length}-{}", set.name, version(family))
}

/// One of a family for each length.
pub(super) fn one_of_each_length(nets: &[IpNet], family: Family) -> BTreeMap<u8, IpNet> {
    of_family(nets, family)
        .map(|net| (net.prefix_len(), net))
        .collect()
}

/// Those of a family.
pub(super) fn of_family(nets: &[IpNet], family: Family) -> impl Iterator<Item = IpNet> {
    let nets = nets.iter().copied();
    nets.filter(move |net| Family::of(net.addr()) == family)
}

/// The families to say a rule for; `None` says it for both at once, where no part of it is about addresses.
fn families(rule: &Rule) -> Vec<Option<Family>> {
    let of_protocol = match rule.protocol {
        Some(Protocol::ICMP) => Some(Family::V4),
        Some(Protocol::ICMPV6) => Some(Family::V6),
        _ => None,
    };
    let has_sets = |ports: &Option<Ports>| ports.as_ref().is_some_and(|ports| !ports.sets.is_empty());
    let about_addresses = |end: &End| {
        end.set.is_some()
            || end.not_set.is_some()
            || !end.nets.is_empty()
            || !end.not_nets.is_empty()
            || has_sets(&end.ports)
            || has_sets(&end.not_ports)
    };
    let icmp = rule.icmp.is_some() || rule.not_icmp.is_some();
    if !icmp && !about_addresses(&rule.source) && !about_addresses(&rule.destination) {
        return vec![rule.family];
    }
    let fits = |family: &Family| {
        rule.family.is_none_or(|only| only == *family)
            // Without icmp matches any protocol may come over either.
            && (!icmp || of_protocol.is_none_or(|only| only == *family))
    };
    [Family::V4, Family::V6]
        .into_iter()
        .filter(fits)
        .map(Some)
        .collect()
}

fn protocol(rule: &Rule, family: Option<Family>) -> Vec<String> {
    let mut parts = Vec::new();
    match family {
        Some(Family::V4) => parts.push("meta nfproto ipv4".to_owned()),
        Some(Family::V6) => parts.push("meta nfproto ipv6".to_owned()),
        None => {}
    }
    if let Some(protocol) = rule.protocol {
        parts.push(format!("meta l4proto {}", protocol.0));
    }
    if let Some(not) = rule.not_protocol {
        parts.push(format!("meta l4proto != {}", not.0));
    }
    let icmp = match family {
        Some(Family::V6) => "icmpv6",
        Some(Family::V4) | None => "icmp",
    };
    if let Some(wanted) = rule.icmp {
        parts.push(format!("{icmp} type {}", wanted.kind));
        parts.extend(wanted.code.map(|code| format!("{icmp} code {code}")));
    }
    if let Some(not) = rule.not_icmp {
        parts.push(match not.code {
            Some(code) => format!("{icmp} type . {icmp} code != {{ {} . {code} }}", not.kind),
            None => format!("{icmp} type != {}", not.kind),
        });
    }
    parts
}

/// How much it takes to find out whether a test holds: most rules that a packet meets are about another port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cost {
    /// The packet's port is compared.
    Port,
    /// An address is, or is looked up.
    Address,
    /// An address and a port are looked up.
    NamedPort,
}

/// A part of a rule that holds or does not.
#[derive(Debug, Clone)]
struct Test {
    cost: Cost,
    text: String,
}

/// Tests of which one must hold.
type Condition = Vec<Test>;

/// What both sides' addresses and ports must be: all of these. One without tests cannot be met.
fn conditions(rules: &RuleSet, rule: &Rule, family: Option<Family>) -> Vec<Condition> {
    let mut all = Vec::new();
    for (end, address, port) in [
        (&rule.source, "saddr", "sport"),
        (&rule.destination, "daddr", "dport"),
    ] {
        if let Some(family) = family {
            addresses(&mut all, rules, end, &format!("{} {address}", ip(family)), family);
        }
        ports(&mut all, rules, end, family, address, port);
    }
    all
}

fn addresses(all: &mut Vec<Condition>, rules: &RuleSet, end: &End, field: &str, family: Family) {
    let test = |text| Test {
        cost: Cost::Address,
        text,
    };
    if let Some(set) = end.set {
        all.push(looks(&rules.sets[set], field, "", family).map(test).collect());
    }
    if let Some(set) = end.not_set {
        all.extend(looks(&rules.sets[set], field, "!= ", family).map(|look| vec![test(look)]));
    }
    if !end.nets.is_empty() {
        all.push(
            inside(field, of_family(&end.nets, family))
                .into_iter()
                .map(test)
                .collect(),
        );
    }
    let not = outside(field, of_family(&end.not_nets, family));
    all.extend(not.into_iter().map(|it| vec![test(it)]));
}

/// A look into each of the nft sets that one set of addresses is.
fn looks(set: &AddressSet, field: &str, not: &str, family: Family) -> impl Iterator<Item = String> {
    let single = format!("{field} {not}@{}", set_name(set, family));
    let by_length = one_of_each_length(&set.nets, family).into_iter();
    let by_length = by_length.map(move |(length, like)| {
        let masked = masked(field, &like);
        format!("{masked} {not}@{}", nets_name(set, length, family))
    });
    std::iter::once(single).chain(by_length)
}

/// Ports are told by number or by name, of which any may hold. A name is of use with an address only, and rules with names are
/// said for each family.
fn ports(
    all: &mut Vec<Condition>,
    rules: &RuleSet,
    end: &End,
    family: Option<Family>,
    address: &str,
    port: &str,
) {
    let field = format!("th {port}");
    let number = |text| Test {
        cost: Cost::Port,
        text,
    };
    let named = |set: &usize, not: &str| {
        let family = family?;
        let name = &rules.port_sets[*set].name;
        let ip = ip(family);
        let text = format!("{ip} {address} . th {port} {not}@{name}-{}", version(family));
        Some(Test {
            cost: Cost::NamedPort,
            text,
        })
    };
    if let Some(ports) = &end.ports {
        let numbers = port_inside(&field, &ports.ranges).into_iter().map(number);
        let names = ports.sets.iter().filter_map(|set| named(set, ""));
        all.push(numbers.chain(names).collect());
    }
    if let Some(ports) = &end.not_ports {
        let numbers = port_outside(&field, &ports.ranges).into_iter().map(number);
        let names = ports.sets.iter().filter_map(|set| named(set, "!= "));
        all.extend(numbers.chain(names).map(|test| vec![test]));
    }
}

/// Every way to meet all conditions: one test of each, the cheapest first.
fn ways<'c>(conditions: &'c [Condition]) -> Vec<Vec<&'c Test>> {
    let mut ways = vec![Vec::new()];
    for condition in conditions {
        let longer = |way: Vec<&'c Test>| {
            let with = move |test| [&way[..], &[test]].concat();
            condition.iter().map(with)
        };
        ways = ways.into_iter().flat_map(longer).collect();
    }
    for way in &mut ways {
        way.sort_by_key(|test| test.cost);
    }
    ways
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}
