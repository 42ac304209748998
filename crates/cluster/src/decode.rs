//! From a Kubernetes Node or Pod to the model, and a [`Refusal`] for each part that cannot be used.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use warren_model::announcement::ANNOTATION;
use warren_model::{Announcement, Node, NodeName, Pod, PodCidr, PodName, Refusal};

/// What became of one object: the part that can be used, and what was refused of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<T> {
    /// `None` when not even the name can be used.
    pub value: Option<T>,
    /// One a part.
    pub refusals: Vec<Refusal>,
}

/// Decodes a Node. A pod CIDR or address that cannot be used is left out and refused; an annotation that cannot be used
/// stays in the node as the error it is, and is refused too.
pub fn decode_node(node: &k8s::Node) -> Decoded<Node> {
    let raw_name = node.metadata.name.as_deref().unwrap_or_default();
    let object = format!("Node/{raw_name}");
    let mut refusals = Vec::new();
    let name: NodeName = match raw_name.parse() {
        Ok(name) => name,
        Err(error) => {
            let refusal = Refusal::new(object, "invalid-node-name", format!("metadata.name: {error}"));
            return Decoded {
                value: None,
                refusals: vec![refusal],
            };
        }
    };
    let announcement = annotation(&node.metadata).map(Announcement::parse);
    if let Some(Err(error)) = &announcement {
        let message = format!("the annotation {ANNOTATION} {error}");
        refusals.push(Refusal::new(&object, error.code(), message));
    }
    let value = Node {
        name,
        uid: node.metadata.uid.clone().unwrap_or_default(),
        created: created(&node.metadata),
        pod_cidrs: pod_cidrs(node, &object, &mut refusals),
        internal_ips: internal_ips(node, &object, &mut refusals),
        announcement,
        ready: is_ready(node),
    };
    Decoded {
        value: Some(value),
        refusals,
    }
}

/// Decodes a Pod. An address that cannot be read is left out and refused.
pub fn decode_pod(pod: &k8s::Pod) -> Decoded<Pod> {
    let name = PodName {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
    };
    let object = format!("Pod/{name}");
    let mut refusals = Vec::new();
    let status = pod.status.as_ref();
    let texts = status.and_then(|it| it.pod_ips.as_deref()).unwrap_or_default();
    let mut ips = Vec::with_capacity(texts.len());
    for text in texts.iter().map(|it| it.ip.as_str()) {
        match text.parse::<IpAddr>() {
            Ok(ip) => ips.push(ip),
            Err(_) => refusals.push(invalid_ip(&object, "status.podIPs", text, "delete the Pod")),
        }
    }
    let phase = status.and_then(|it| it.phase.as_deref());
    let value = Pod {
        name,
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        ips,
        host_network: pod.spec.as_ref().and_then(|it| it.host_network).unwrap_or(false),
        finished: matches!(phase, Some("Succeeded" | "Failed")),
    };
    Decoded {
        value: Some(value),
        refusals,
    }
}

/// `spec.podCIDRs`, or what servers before dual-stack wrote: `spec.podCIDR`. At most one a family, as the API's own
/// validation has it.
fn pod_cidrs(node: &k8s::Node, object: &str, refusals: &mut Vec<Refusal>) -> Vec<PodCidr> {
    let spec = node.spec.as_ref();
    let many = spec.and_then(|it| it.pod_cidrs.as_deref()).unwrap_or_default();
    let (field, texts) = if many.is_empty() {
        let one = spec.map(|it| it.pod_cidr.as_slice()).unwrap_or_default();
        ("spec.podCIDR", one)
    } else {
        ("spec.podCIDRs", many)
    };
    let mut texts = texts.iter().filter(|it| !it.is_empty()).peekable();
    if texts.peek().is_none() {
        let message = "spec.podCIDRs is empty, so the node's pods get no addresses: have the controller manager allocate \
                       them (--allocate-node-cidrs, with room in --cluster-cidr)";
        refusals.push(Refusal::new(object, "no-pod-cidr", message));
    }
    let mut cidrs: Vec<PodCidr> = Vec::new();
    for text in texts {
        match text.parse::<PodCidr>() {
            Ok(cidr) if cidrs.contains(&cidr) => {}
            Ok(cidr) => match cidrs.iter().find(|it| it.family() == cidr.family()) {
                None => cidrs.push(cidr),
                Some(first) => {
                    let message = format!(
                        "{field}: {cidr} is not used, a node has one range a family and {first} comes first; delete the \
                         Node and let it register anew"
                    );
                    refusals.push(Refusal::new(object, "surplus-pod-cidr", message));
                }
            },
            Err(error) => {
                let message = format!("{field}: {error}; delete the Node and let it register anew");
                refusals.push(Refusal::new(object, "invalid-pod-cidr", message));
            }
        }
    }
    cidrs
}

/// Addresses of type InternalIP that another node can send to.
fn internal_ips(node: &k8s::Node, object: &str, refusals: &mut Vec<Refusal>) -> Vec<IpAddr> {
    let addresses = node.status.as_ref().and_then(|it| it.addresses.as_deref());
    let mut ips = Vec::new();
    for address in addresses.unwrap_or_default() {
        if address.type_ != "InternalIP" {
            continue;
        }
        match address.address.parse::<IpAddr>() {
            Ok(ip) if ips.contains(&ip) => {}
            Ok(ip) if is_reachable(ip) => ips.push(ip),
            Ok(_) | Err(_) => refusals.push(invalid_ip(
                object,
                "status.addresses",
                &address.address,
                "set the kubelet's --node-ip",
            )),
        }
    }
    if ips.is_empty() {
        let message = "status.addresses holds no InternalIP that packets can be sent to, so no other node reaches its \
                       pods: set the kubelet's --node-ip";
        refusals.push(Refusal::new(object, "no-internal-ip", message));
    }
    ips
}

/// Whether an address can be another machine's. Link-local ones cannot be used: a Node does not say on which link.
fn is_reachable(ip: IpAddr) -> bool {
    let special = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !(special || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified())
}

fn is_ready(node: &k8s::Node) -> bool {
    let conditions = node.status.as_ref().and_then(|it| it.conditions.as_deref());
    conditions
        .unwrap_or_default()
        .iter()
        .find(|condition| condition.type_ == "Ready")
        .is_none_or(|condition| condition.status == "True")
}

fn annotation(metadata: &ObjectMeta) -> Option<&str> {
    let text = metadata.annotations.as_ref()?.get(ANNOTATION)?;
    Some(text.as_str())
}

pub(crate) fn created(metadata: &ObjectMeta) -> i64 {
    metadata
        .creation_timestamp
        .as_ref()
        .map_or(0, |time| time.0.as_second())
}

fn invalid_ip(object: &str, field: &str, text: &str, remedy: &str) -> Refusal {
    let shown: String = text.chars().take(64).collect();
    let message = format!("{field}: {shown:?} is not an address that packets can be sent to: {remedy}");
    Refusal::new(object, "invalid-ip", message)
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
