//! The rules of `networking.k8s.io/v1` NetworkPolicy as its API documentation states them, read as plainly as possible: for
//! each flow all policies, for each policy all rules. Nothing is prepared, indexed or shared.

use std::net::IpAddr;

use warren_policy::kubernetes::{IpBlock, Peer, PolicyPort};
use warren_policy::spec::{IntOrString, LabelSelector};
use warren_policy::{Cluster, Flow, Labels, Pod, Protocol};

use crate::clusters::NamedPolicy;

/// Whether a flow may be opened: the side that opens it must be let out and the other side must let it in.
pub(crate) fn allowed(policies: &[NamedPolicy], cluster: &Cluster, flow: &Flow) -> bool {
    let from = pod_at(cluster, flow.source);
    let to = pod_at(cluster, flow.destination);
    if let (Some(from), Some(to)) = (from, to)
        && from.name == to.name
    {
        return true;
    }
    let out = from.is_none_or(|pod| let_out(policies, cluster, pod, flow));
    let comes_from_own_node = to.is_some_and(|pod| {
        let node = pod.node.as_ref().and_then(|node| cluster.nodes.get(node));
        node.is_some_and(|addresses| addresses.contains(&flow.source))
    });
    let in_ = comes_from_own_node || to.is_none_or(|pod| let_in(policies, cluster, pod, flow));
    out && in_
}

/// "By default, if no policies exist in a namespace, then all traffic is allowed to and from pods in that namespace." A pod is
/// isolated once a policy that has the type selects it; then it is enough that one such policy allows the flow.
fn let_in(policies: &[NamedPolicy], cluster: &Cluster, pod: &Pod, flow: &Flow) -> bool {
    let selecting: Vec<_> = policies
        .iter()
        .filter(|policy| selects(policy, pod) && has_type(policy, "Ingress"))
        .collect();
    selecting.is_empty()
        || selecting.iter().any(|policy| {
            let rules = policy.spec.ingress.as_deref().unwrap_or(&[]);
            rules.iter().any(|rule| {
                peers_match(policy, cluster, rule.from.as_deref(), flow.source)
                    && ports_match(cluster, rule.ports.as_deref(), flow)
            })
        })
}

fn let_out(policies: &[NamedPolicy], cluster: &Cluster, pod: &Pod, flow: &Flow) -> bool {
    let selecting: Vec<_> = policies
        .iter()
        .filter(|policy| selects(policy, pod) && has_type(policy, "Egress"))
        .collect();
    selecting.is_empty()
        || selecting.iter().any(|policy| {
            let rules = policy.spec.egress.as_deref().unwrap_or(&[]);
            rules.iter().any(|rule| {
                peers_match(policy, cluster, rule.to.as_deref(), flow.destination)
                    && ports_match(cluster, rule.ports.as_deref(), flow)
            })
        })
}

/// Pods that run and have a network of their own; of those that are said to have an address, the one created last, of equals the last
/// by name.
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

/// "podSelector selects the pods to which this NetworkPolicy object applies": in its own namespace.
fn selects(policy: &NamedPolicy, pod: &Pod) -> bool {
    let selector = policy.spec.pod_selector.as_ref();
    pod.name.namespace == policy.namespace
        && selector.is_none_or(|selector| labels_match(selector, &pod.labels))
}

/// "If policyTypes is not specified, it will default based on the existence of ingress or egress rules; policies that contain
/// an egress section are assumed to affect egress, and all policies are assumed to affect ingress."
fn has_type(policy: &NamedPolicy, wanted: &str) -> bool {
    match policy.spec.policy_types.as_deref() {
        None | Some([]) if wanted == "Ingress" => true,
        None | Some([]) => !policy.spec.egress.as_deref().unwrap_or(&[]).is_empty(),
        Some(types) => types.iter().any(|given| given == wanted),
    }
}

/// "If this field is empty or missing, this rule matches all sources." Items are combined by a logical OR.
fn peers_match(policy: &NamedPolicy, cluster: &Cluster, peers: Option<&[Peer]>, other: IpAddr) -> bool {
    match peers {
        None | Some([]) => true,
        Some(peers) => peers
            .iter()
            .any(|peer| peer_matches(policy, cluster, peer, other)),
    }
}

fn peer_matches(policy: &NamedPolicy, cluster: &Cluster, peer: &Peer, other: IpAddr) -> bool {
    if let Some(block) = &peer.ip_block {
        return block_contains(block, other);
    }
    let Some(pod) = pod_at(cluster, other) else {
        return false;
    };
    let namespace_ok = match &peer.namespace_selector {
        None => pod.name.namespace == policy.namespace,
        Some(selector) => {
            let namespace = cluster.namespaces.iter().find(|n| n.name == pod.name.namespace);
            let mut labels = namespace.map(|n| n.labels.clone()).unwrap_or_default();
            // The API server labels each namespace with its name.
            labels.set("kubernetes.io/metadata.name", pod.name.namespace.as_str());
            labels_match(selector, &labels)
        }
    };
    let pod_ok = match &peer.pod_selector {
        None => true,
        Some(selector) => labels_match(selector, &pod.labels),
    };
    namespace_ok && pod_ok
}

fn block_contains(block: &IpBlock, address: IpAddr) -> bool {
    let except = block.except.as_deref().unwrap_or(&[]);
    cidr_contains(&block.cidr, address) && !except.iter().any(|cidr| cidr_contains(cidr, address))
}

/// By the bits of text that both begin with.
fn cidr_contains(cidr: &str, address: IpAddr) -> bool {
    let Some((network, length)) = cidr.split_once('/') else {
        panic!("{cidr} is no CIDR");
    };
    let (Ok(network), Ok(length)) = (network.parse::<IpAddr>(), length.parse::<usize>()) else {
        panic!("{cidr} is no CIDR");
    };
    network.is_ipv4() == address.is_ipv4() && binary(network)[..length] == binary(address)[..length]
}

fn binary(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.octets().iter().map(|byte| format!("{byte:08b}")).collect(),
        IpAddr::V6(v6) => v6.octets().iter().map(|byte| format!("{byte:08b}")).collect(),
    }
}

/// "If this field is empty or missing, this rule matches all ports (traffic not restricted by port)."
fn ports_match(cluster: &Cluster, ports: Option<&[PolicyPort]>, flow: &Flow) -> bool {
    match ports {
        None | Some([]) => true,
        Some(ports) => ports.iter().any(|port| port_matches(cluster, port, flow)),
    }
}

fn port_matches(cluster: &Cluster, wanted: &PolicyPort, flow: &Flow) -> bool {
    let protocol = match wanted.protocol.as_deref() {
        None | Some("TCP") => Protocol::TCP,
        Some("UDP") => Protocol::UDP,
        Some("SCTP") => Protocol::SCTP,
        Some(other) => panic!("{other} is no protocol of a NetworkPolicy"),
    };
    let Some(port) = flow.destination_port() else {
        return false;
    };
    if flow.protocol != protocol {
        return false;
    }
    match &wanted.port {
        None => true,
        Some(IntOrString::Number(first)) => {
            let last = wanted.end_port.unwrap_or(*first);
            *first <= i64::from(port) && i64::from(port) <= last
        }
        // A name is looked up at the pod that is reached, whichever side the policy is on.
        Some(IntOrString::Text(name)) => pod_at(cluster, flow.destination).is_some_and(|pod| {
            let mut ports = pod.ports.iter();
            ports.any(|known| known.name == *name && known.protocol == protocol && known.port == port)
        }),
    }
}

/// "The result of matchLabels and matchExpressions are ANDed. An empty label selector matches all objects."
fn labels_match(selector: &LabelSelector, labels: &Labels) -> bool {
    let mut equal = selector.match_labels.iter().flatten();
    let mut required = selector.match_expressions.iter().flatten();
    equal.all(|(key, value)| labels.get(key) == Some(value))
        && required.all(|requirement| {
            let value = labels.get(&requirement.key);
            let values = requirement.values.as_deref().unwrap_or(&[]);
            let listed = value.is_some_and(|value| values.iter().any(|one| one == value));
            match requirement.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                other => panic!("{other} is no operator"),
            }
        })
}
