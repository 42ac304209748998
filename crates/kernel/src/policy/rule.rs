//! One rule of a policy as rules of nft.

use ipnet::IpNet;
use warren_model::Family;
use warren_model::fnv::Fnv;
use warren_policy::ruleset::{AddressSet, End, PolicyRules, Ports, Rule};
use warren_policy::{Action, Direction, PortRange, Protocol, RuleSet};

use super::parts::{allow, comment, deny, plain, version};
use super::table::Table;

/// The rules that one rule becomes: as many as there are families and ways to say its ports, none if it can never match.
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
        let Some(addresses) = addresses(rules, rule, family) else {
            continue;
        };
        for ports in ports(rules, rule, family) {
            // The cheapest first: most rules that a packet meets are about another port.
            let mut parts = protocol(rule, family);
            parts.extend(ports.numbers);
            parts.extend(addresses.iter().cloned());
            parts.extend(ports.names);
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

/// The nft set of a set's addresses of a family. One with networks is another kind of set, so it has another name; and another
/// one whenever its networks change, because such a set is not changed but made anew, with the rules that use it.
pub(super) fn set_name(set: &AddressSet, family: Family) -> String {
    if set.nets.is_empty() {
        return format!("{}-{}", set.name, version(family));
    }
    let mut hash = Fnv::new();
    for net in &set.nets {
        hash.update(&net.to_string());
        hash.update(" ");
    }
    for address in &set.addresses {
        hash.update(&address.to_string());
        hash.update(" ");
    }
    format!("{}-nets-{:016x}-{}", set.name, hash.finish(), version(family))
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

/// What both sides' addresses must be; `None` if no address of the family can be that.
fn addresses(rules: &RuleSet, rule: &Rule, family: Option<Family>) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let Some(family) = family else {
        return Some(parts);
    };
    for (end, field) in [(&rule.source, "saddr"), (&rule.destination, "daddr")] {
        let field = format!("{} {field}", ip(family));
        if let Some(set) = end.set {
            parts.push(format!("{field} @{}", set_name(&rules.sets[set], family)));
        }
        if let Some(set) = end.not_set {
            parts.push(format!("{field} != @{}", set_name(&rules.sets[set], family)));
        }
        if !end.nets.is_empty() {
            parts.push(format!("{field} {}", nets(&end.nets, family)?));
        }
        if let Some(nets) = nets(&end.not_nets, family) {
            parts.push(format!("{field} != {nets}"));
        }
    }
    Some(parts)
}

/// Those of a family, as a set without overlaps, which nft would refuse; `None` if there are none.
fn nets(nets: &[IpNet], family: Family) -> Option<String> {
    let of_family = nets.iter().filter(|net| Family::of(net.addr()) == family);
    let merged = IpNet::aggregate(&of_family.copied().collect());
    let texts: Vec<String> = merged.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| format!("{{ {} }}", texts.join(", ")))
}

/// One way to say what both sides' ports must be; all of it must hold.
#[derive(Debug, Clone, Default)]
struct PortsWay {
    /// What is said by numbers.
    numbers: Vec<String>,
    /// What is said by names: a look into a set for each.
    names: Vec<String>,
}

impl PortsWay {
    fn and_number(mut self, number: String) -> Self {
        self.numbers.push(number);
        self
    }

    fn and_name(mut self, name: String) -> Self {
        self.names.push(name);
        self
    }
}

/// Every way to say what both sides' ports must be: numbers or any of the named ones, of either side.
fn ports(rules: &RuleSet, rule: &Rule, family: Option<Family>) -> Vec<PortsWay> {
    let mut ways = vec![PortsWay::default()];
    for (end, port, address) in [
        (&rule.source, "sport", "saddr"),
        (&rule.destination, "dport", "daddr"),
    ] {
        // A name is of use with an address only, and rules with names are said for each family.
        let named = |set: &usize, not: &str| {
            let family = family?;
            let name = &rules.port_sets[*set].name;
            Some(format!(
                "{} {address} . th {port} {not}@{name}-{}",
                ip(family),
                version(family)
            ))
        };
        if let Some(ports) = &end.ports {
            let number = numbers(&ports.ranges).map(|numbers| format!("th {port} {numbers}"));
            let names: Vec<String> = ports.sets.iter().filter_map(|set| named(set, "")).collect();
            let each_with = |way: &PortsWay| {
                let by_number = number.clone().map(|number| way.clone().and_number(number));
                let by_name = names.iter().map(|name| way.clone().and_name(name.clone()));
                by_number.into_iter().chain(by_name).collect::<Vec<PortsWay>>()
            };
            ways = ways.iter().flat_map(each_with).collect();
        }
        if let Some(ports) = &end.not_ports {
            let number = numbers(&ports.ranges).map(|numbers| format!("th {port} != {numbers}"));
            let names = ports.sets.iter().filter_map(|set| named(set, "!= "));
            let names: Vec<String> = names.collect();
            for way in &mut ways {
                way.numbers.extend(number.clone());
                way.names.extend(names.iter().cloned());
            }
        }
    }
    ways
}

/// Ports as a set without overlaps; `None` if there are none.
pub(super) fn numbers(ranges: &[PortRange]) -> Option<String> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.first() <= last.last() => {
                if let Some(longer) = PortRange::new(last.first(), last.last().max(range.last())) {
                    *last = longer;
                }
            }
            _ => merged.push(range),
        }
    }
    let texts: Vec<String> = merged.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| format!("{{ {} }}", texts.join(", ")))
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}
