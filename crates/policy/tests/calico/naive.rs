//! What Calico's reference says of GlobalNetworkPolicy and NetworkPolicy
//! (<https://docs.tigera.io/calico/latest/reference/resources/networkpolicy>), read as plainly as possible.

use std::net::IpAddr;

use ipnet::IpNet;
use warren_policy::{Cluster, Flow, Labels, Pod, Protocol};

use crate::policies::{Expression, RandomEntity, RandomPolicy, RandomPort, RandomRule};

pub(crate) fn allowed(policies: &[RandomPolicy], cluster: &Cluster, flow: &Flow) -> bool {
    let (from, to) = (pod_at(cluster, flow.source), pod_at(cluster, flow.destination));
    if let (Some(from), Some(to)) = (from, to)
        && from.name == to.name
    {
        return true;
    }
    let own_node = to.and_then(|pod| cluster.nodes.get(pod.node.as_ref()?));
    let from_own_node = own_node.is_some_and(|addresses| addresses.contains(&flow.source));
    from.is_none_or(|pod| passes(policies, cluster, flow, pod, "Egress"))
        && (from_own_node || to.is_none_or(|pod| passes(policies, cluster, flow, pod, "Ingress")))
}

/// Policies "are applied in order", the lowest first, those without one last, of one order by name; within one the rules as
/// listed. If any policy applies and no rule decides, traffic is denied; if none applies, it is allowed.
fn passes(policies: &[RandomPolicy], cluster: &Cluster, flow: &Flow, pod: &Pod, direction: &str) -> bool {
    let mut applying: Vec<(usize, &RandomPolicy)> = policies
        .iter()
        .enumerate()
        .filter(|(_, policy)| applies(policy, cluster, pod) && speaks_of(policy, direction))
        .collect();
    if applying.is_empty() {
        return true;
    }
    // Names end in the number, of which there is one digit.
    applying.sort_by(|(a, one), (b, other)| {
        let order = |policy: &RandomPolicy| policy.order.unwrap_or(f64::MAX);
        order(one).total_cmp(&order(other)).then(a.cmp(b))
    });
    for (_, policy) in applying {
        let rules = match direction {
            "Ingress" => &policy.ingress,
            _ => &policy.egress,
        };
        for rule in rules
            .iter()
            .filter(|rule| matches(rule, policy.namespace, cluster, flow))
        {
            match rule.action {
                "Allow" => return true,
                "Deny" => return false,
                // There is no other tier, and the profile of a namespace allows.
                "Pass" => return true,
                _ => {}
            }
        }
    }
    false
}

/// Of pods that are said to have it, the one created last; of equals the last by name.
fn pod_at(cluster: &Cluster, address: IpAddr) -> Option<&Pod> {
    let subjects = cluster
        .pods
        .iter()
        .filter(|pod| !pod.host_network && !pod.finished);
    let claiming = subjects.filter(|pod| pod.addresses.contains(&address));
    claiming
        .max_by_key(|pod| (pod.since, &pod.name))
        .map(AsRef::as_ref)
}

fn applies(policy: &RandomPolicy, cluster: &Cluster, pod: &Pod) -> bool {
    let own = pod.name.namespace.as_str();
    let in_namespace = policy.namespace.is_none_or(|namespace| namespace == own);
    let selected = policy.selector.as_ref().is_none_or(|it| holds(it, &pod.labels));
    let in_selected = policy.namespace_selector.as_ref();
    in_namespace && selected && in_selected.is_none_or(|it| holds_of_namespace(it, cluster, Some(own)))
}

/// "If both ingress and egress rules are absent: Ingress. Only ingress rules: Ingress. Only egress rules: Egress. Both: both."
fn speaks_of(policy: &RandomPolicy, direction: &str) -> bool {
    match &policy.types {
        Some(types) if !types.is_empty() => types.contains(&direction),
        _ => match direction {
            "Egress" => !policy.egress.is_empty(),
            _ => !policy.ingress.is_empty() || policy.egress.is_empty(),
        },
    }
}

fn matches(rule: &RandomRule, namespace: Option<&str>, cluster: &Cluster, flow: &Flow) -> bool {
    let is = |name: &str| match name {
        "TCP" => flow.protocol == Protocol::TCP,
        "UDP" | "17" => flow.protocol == Protocol::UDP,
        "SCTP" => flow.protocol == Protocol::SCTP,
        other => panic!("{other} is not made here"),
    };
    let version = if flow.destination.is_ipv4() { 4 } else { 6 };
    rule.ip_version.is_none_or(|wanted| wanted == version)
        && rule.protocol.is_none_or(is)
        && !rule.not_protocol.is_some_and(is)
        && side_matches(
            &rule.source,
            namespace,
            cluster,
            flow,
            flow.source,
            flow.source_port(),
        )
        && side_matches(
            &rule.destination,
            namespace,
            cluster,
            flow,
            flow.destination,
            flow.destination_port(),
        )
}

fn side_matches(
    side: &RandomEntity,
    namespace: Option<&str>,
    cluster: &Cluster,
    flow: &Flow,
    address: IpAddr,
    port: Option<u16>,
) -> bool {
    let in_net = |net: &&str| match net.parse::<IpNet>() {
        Ok(net) => net.contains(&address),
        Err(_) => net.parse() == Ok(address),
    };
    let is_port = |wanted: &RandomPort| match wanted {
        RandomPort::Range(first, last) => port.is_some_and(|port| *first <= port && port <= *last),
        RandomPort::Named(name) => pod_at(cluster, address).is_some_and(|pod| {
            let mut ports = pod.ports.iter();
            ports.any(|it| it.name == *name && it.protocol == flow.protocol && Some(it.port) == port)
        }),
    };
    selected(side, namespace, cluster, address)
        && !side
            .not_selector
            .as_ref()
            .is_some_and(|it| anything(cluster, address, |_, labels| holds(it, labels)))
        && (side.nets.is_empty() || side.nets.iter().any(&in_net))
        && !side.not_nets.iter().any(in_net)
        && (side.ports.is_empty() || side.ports.iter().any(is_port))
        && !side.not_ports.iter().any(is_port)
}

/// A namespaceSelector says in which namespaces; without one the selectors of a NetworkPolicy, a notSelector among them, look in
/// its own namespace, and those of a GlobalNetworkPolicy everywhere.
fn selected(side: &RandomEntity, namespace: Option<&str>, cluster: &Cluster, address: IpAddr) -> bool {
    let by_labels = |labels: &Labels| side.selector.as_ref().is_none_or(|it| holds(it, labels));
    match (&side.namespace_selector, namespace) {
        (Some(namespaces), _) => anything(cluster, address, |of, labels| {
            holds_of_namespace(namespaces, cluster, of) && by_labels(labels)
        }),
        (None, Some(own)) if side.selector.is_some() || side.not_selector.is_some() => {
            anything(cluster, address, |of, labels| {
                of == Some(own) && by_labels(labels)
            })
        }
        (None, _) => side.selector.is_none() || anything(cluster, address, |_, labels| by_labels(labels)),
    }
}

/// Whether any pod or network set that has the address is what is looked for, by its namespace and labels.
fn anything(cluster: &Cluster, address: IpAddr, is: impl Fn(Option<&str>, &Labels) -> bool) -> bool {
    let sets = cluster.network_sets.iter();
    let mut sets = sets.filter(|set| set.nets.iter().any(|net| net.contains(&address)));
    pod_at(cluster, address).is_some_and(|pod| is(Some(&pod.name.namespace), &pod.labels))
        || sets.any(|set| is(set.namespace.as_deref(), &set.labels))
}

/// "all()" selects all namespaces, not what is in none. A thing in no namespace has none of a namespace's labels.
fn holds_of_namespace(expression: &Expression, cluster: &Cluster, namespace: Option<&str>) -> bool {
    let known = cluster
        .namespaces
        .iter()
        .find(|it| Some(it.name.as_str()) == namespace);
    let labels = known.map(|it| it.labels.clone()).unwrap_or_default();
    evaluate(expression, &labels, namespace.is_some())
}

fn holds(expression: &Expression, labels: &Labels) -> bool {
    evaluate(expression, labels, true)
}

fn evaluate(expression: &Expression, labels: &Labels, all: bool) -> bool {
    let listed = |key: &str, values: &[&str]| labels.get(key).is_some_and(|value| values.contains(&value));
    match expression {
        Expression::All => all,
        Expression::Is(key, value) => labels.get(key) == Some(value),
        Expression::IsNot(key, value) => labels.get(key) != Some(value),
        Expression::In(key, values) => listed(key, values),
        Expression::NotIn(key, values) => !listed(key, values),
        Expression::Has(key) => labels.get(key).is_some(),
        Expression::Not(inner) => !evaluate(inner, labels, all),
        Expression::Both(one, other) => evaluate(one, labels, all) && evaluate(other, labels, all),
        Expression::Either(one, other) => evaluate(one, labels, all) || evaluate(other, labels, all),
    }
}
