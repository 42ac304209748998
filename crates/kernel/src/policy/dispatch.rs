//! The base chains: the way of a packet to the chains of the endpoints it concerns.

use std::net::IpAddr;

use warren_model::Family;
use warren_policy::cluster::Interface;
use warren_policy::protocol::Protocol;
use warren_policy::ruleset::{Endpoint, EndpointName};
use warren_policy::{Decision, Direction, PortRange, RuleSet};

use super::names::Names;
use super::parts::{address_type, denied, deny, version};
use super::table::{CUT, Chain, Set, SetKind, Table, UNKNOWN_POD};
use crate::membership::port_inside;

/// The bit of a connection's mark that says that it is cut: what belongs to it is dropped, in both directions.
pub const CUT_MARK: u32 = 0x0100_0000;

/// How the host's side of a pod's veth is called.
const VETHS: &str = "\"wrn*\"";
/// What a link needs to work at all (RFC 4861, section 7.1: what comes from beyond the link has a lower hop limit), and MLD.
const LINK: [&str; 2] = [
    "ip6 hoplimit 255 icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect } accept",
    "ip6 hoplimit 1 icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept",
];

/// The chains for what pods send and get, and the maps from a pod's address to its chain: there is one for each address, which
/// leads to the one that pods with the same policies share.
pub(super) fn pods(table: &mut Table, rules: &RuleSet, names: &Names) {
    for family in [Family::V4, Family::V6] {
        let (v, kind) = (version(family), address_type(family));
        let itself = Set {
            kind: SetKind::Hash,
            make: format!("type {kind} . {kind};"),
            elements: rules
                .endpoints
                .iter()
                .filter(|endpoint| is_pod(endpoint))
                .flat_map(|pod| pairs(&pod.addresses, family))
                .collect(),
        };
        table.sets.insert(format!("itself-{v}"), itself);
        for direction in [Direction::Egress, Direction::Ingress] {
            let mut led = Vec::new();
            for (address, positions) in &rules.by_address {
                let to = leads_to(rules, names, positions, direction);
                if let Some(to) = to.filter(|_| Family::of(*address) == family) {
                    let name = address_chain(*address, direction);
                    led.push(format!("{address} : goto {name}"));
                    table.chain(name, vec![to]);
                }
            }
            let map = Set {
                kind: SetKind::Map,
                make: format!("type {kind} : verdict;"),
                elements: led.into_iter().collect(),
            };
            table.sets.insert(format!("{direction}-{v}"), map);
        }
    }
    let unknown_pod = denied_by_nobody(table, UNKNOWN_POD, "its pod is not known yet");
    for (name, hook, priority, direction) in [
        ("from-pods", "forward", -10, Direction::Egress),
        ("from-pods-to-node", "input", -10, Direction::Egress),
        ("to-pods", "forward", -9, Direction::Ingress),
    ] {
        let (field, interface) = match direction {
            Direction::Egress => ("saddr", "iifname"),
            Direction::Ingress => ("daddr", "oifname"),
        };
        let mut rules = opening(table);
        rules.extend([
            // A pod's neighbours are no peers.
            "ip6 hoplimit 255 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept".to_owned(),
            "ip saddr . ip daddr @itself-v4 accept".to_owned(),
            "ip6 saddr . ip6 daddr @itself-v6 accept".to_owned(),
            format!("ip {field} vmap @{direction}-v4"),
            format!("ip6 {field} vmap @{direction}-v6"),
            format!("{interface} {VETHS} {unknown_pod}"),
        ]);
        base(table, name, hook, priority, rules);
    }
}

/// The chains for what the node itself sends and gets, if it has host endpoints.
pub(super) fn hosts(table: &mut Table, rules: &RuleSet, names: &Names) {
    let mut hosts: Vec<(&Endpoint, &Option<Interface>)> = rules
        .endpoints
        .iter()
        .filter_map(|endpoint| match &endpoint.name {
            EndpointName::Host(_, interface) => Some((endpoint, interface)),
            EndpointName::Pod(_) => None,
        })
        .collect();
    if hosts.is_empty() {
        return;
    }
    // Who names an interface is asked before who means one by its address, and that before who means all.
    hosts.sort_by_key(|(_, interface)| match interface {
        Some(Interface::Named(_)) => 0,
        None => 1,
        Some(Interface::Every) => 2,
    });
    for (name, hook, direction, failsafe) in [
        ("to-node", "input", Direction::Ingress, &rules.failsafe.inbound),
        ("from-node", "output", Direction::Egress, &rules.failsafe.outbound),
    ] {
        let (field, interface) = match direction {
            Direction::Ingress => ("daddr", "iifname"),
            Direction::Egress => ("saddr", "oifname"),
        };
        let mut lines = opening(table);
        // The node and its own pods are left to themselves; what pods may send to it their egress says.
        lines.push(format!("{interface} \"lo\" accept"));
        lines.push(format!("{interface} {VETHS} accept"));
        lines.extend(LINK.map(str::to_owned));
        lines.extend(open_ports(failsafe));
        for (endpoint, which) in &hosts {
            let to = goto(table, rules, names, endpoint, direction);
            match which {
                Some(Interface::Named(name)) => lines.push(format!("{interface} \"{name}\" {to}")),
                Some(Interface::Every) => lines.push(to),
                None => lines.extend(endpoint.addresses.iter().map(|address| {
                    let ip = if address.is_ipv4() { "ip" } else { "ip6" };
                    format!("{ip} {field} {address} {to}")
                })),
            }
        }
        base(table, name, hook, -9, lines);
    }
}

/// What comes before any policy: connections that were cut, and those that were allowed when they were opened.
fn opening(table: &mut Table) -> Vec<String> {
    let cut = denied_by_nobody(table, CUT, "policy forbids it since it was opened");
    vec![
        format!("ct mark & {CUT_MARK:#010x} == {CUT_MARK:#010x} {cut}"),
        "ct state established,related accept".to_owned(),
    ]
}

/// What is denied by no policy of anybody's.
fn denied_by_nobody(table: &mut Table, name: &str, reason: &str) -> String {
    denied(table, name, String::new(), reason.to_owned())
}

fn base(table: &mut Table, name: &str, hook: &str, priority: i32, rules: Vec<String>) {
    let make = format!("{{ type filter hook {hook} priority {priority}; policy accept; }}");
    let make = Some(make);
    table.chains.insert(name.to_owned(), Chain { make, rules });
}

/// Rules for each protocol's ports that stay open; of a protocol without ports all of it does.
fn open_ports(open: &[(Protocol, PortRange)]) -> Vec<String> {
    let mut protocols: Vec<Protocol> = open.iter().map(|(protocol, _)| *protocol).collect();
    protocols.sort_unstable();
    protocols.dedup();
    let rules = |protocol: Protocol| {
        if !protocol.has_ports() {
            return vec![format!("meta l4proto {} accept", protocol.0)];
        }
        let ranges = open.iter().filter(|(of, _)| *of == protocol);
        let ranges: Vec<PortRange> = ranges.map(|(_, range)| *range).collect();
        let ports = port_inside("th dport", &ranges).into_iter();
        ports
            .map(|ports| format!("meta l4proto {} {ports} accept", protocol.0))
            .collect()
    };
    protocols.into_iter().flat_map(rules).collect()
}

/// Where a host endpoint's packets go.
fn goto(
    table: &mut Table,
    rules: &RuleSet,
    names: &Names,
    endpoint: &Endpoint,
    direction: Direction,
) -> String {
    let id = endpoint.chain(direction);
    match (rules.chains[id].stages.is_empty(), rules.chains[id].end) {
        (false, _) => format!("goto {}", names.chain(id, direction)),
        (true, Decision::Allow) => "accept".to_owned(),
        (true, Decision::Deny) => {
            let why = format!("{direction}: no policy allows it");
            deny(table, endpoint.name.to_string(), why)
        }
    }
}

fn is_pod(endpoint: &Endpoint) -> bool {
    matches!(endpoint.name, EndpointName::Pod(_))
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

/// The chain of one pod's address. It is there for as long as the pod is, whatever the pod's policies are: rules are replaced in one
/// instant, but whoever looks an element up that goes and comes again in one transaction may find neither.
fn address_chain(address: IpAddr, direction: Direction) -> String {
    match address {
        IpAddr::V4(v4) => format!("at-{:08x}-{direction}", v4.to_bits()),
        IpAddr::V6(v6) => format!("at-{:032x}-{direction}", v6.to_bits()),
    }
}

/// Where a pod's address leads, if it is one: to the pod's chain. No two pods have the same.
fn leads_to(rules: &RuleSet, names: &Names, positions: &[usize], direction: Direction) -> Option<String> {
    let mut there = positions.iter().map(|position| &rules.endpoints[*position]);
    let id = there.find(|it| is_pod(it))?.chain(direction);
    Some(match rules.chains[id].stages.is_empty() {
        true => "accept".to_owned(),
        false => format!("goto {}", names.chain(id, direction)),
    })
}
