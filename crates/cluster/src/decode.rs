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

/// `spec.podCIDRs`, or what servers before dual-stack wrote: `spec.podCIDR`.
fn pod_cidrs(node: &k8s::Node, object: &str, refusals: &mut Vec<Refusal>) -> Vec<PodCidr> {
    let Some(spec) = &node.spec else {
        return Vec::new();
    };
    let many = spec.pod_cidrs.as_deref().unwrap_or_default();
    let (field, texts) = if many.is_empty() {
        ("spec.podCIDR", spec.pod_cidr.as_slice())
    } else {
        ("spec.podCIDRs", many)
    };
    let mut cidrs = Vec::with_capacity(texts.len());
    for text in texts.iter().filter(|it| !it.is_empty()) {
        match text.parse::<PodCidr>() {
            Ok(cidr) if cidrs.contains(&cidr) => {}
            Ok(cidr) => cidrs.push(cidr),
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

fn created(metadata: &ObjectMeta) -> i64 {
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
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use serde_json::{Value, json};
    use warren_model::AnnouncementError;

    use super::*;

    const KEY: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

    fn node(spec: Value, status: Value) -> Decoded<Node> {
        let metadata = json!({"name": "a", "uid": "u1", "creationTimestamp": "2026-01-02T03:04:05Z"});
        let object = json!({"metadata": metadata, "spec": spec, "status": status});
        decode_node(&serde_json::from_value(object).unwrap())
    }

    fn annotated(text: &str) -> Decoded<Node> {
        let metadata = json!({"name": "a", "annotations": {ANNOTATION: text}});
        decode_node(&serde_json::from_value(json!({"metadata": metadata})).unwrap())
    }

    fn pod(spec: Value, status: Value) -> Decoded<Pod> {
        let object =
            json!({"metadata": {"namespace": "ns", "name": "p", "uid": "u"}, "spec": spec, "status": status});
        decode_pod(&serde_json::from_value(object).unwrap())
    }

    fn codes(refusals: &[Refusal]) -> Vec<&str> {
        refusals.iter().map(|refusal| refusal.code.as_str()).collect()
    }

    #[test]
    fn a_whole_node_is_taken() {
        let text = format!(
            r#"{{"version":1,"keys":[{{"epoch":1,"publicKey":"{KEY}","port":51821}}],"settled":1,"paths":["wireguard"]}}"#
        );
        let object = json!({
            "metadata": {
                "name": "a", "uid": "u1", "creationTimestamp": "1970-01-01T00:01:40Z",
                "annotations": {ANNOTATION: text},
            },
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:1::/64"]},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "a"},
                    {"type": "InternalIP", "address": "192.0.2.1"},
                    {"type": "ExternalIP", "address": "198.51.100.1"},
                    {"type": "InternalIP", "address": "2001:db8::1"},
                ],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        let decoded = decode_node(&serde_json::from_value(object).unwrap());
        assert_eq!(decoded.refusals, []);
        let expected = Node {
            name: "a".parse().unwrap(),
            uid: "u1".into(),
            created: 100,
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
            internal_ips: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            announcement: Some(Ok(Announcement::parse(&text).unwrap())),
            ready: true,
        };
        assert_eq!(decoded.value, Some(expected));
    }

    #[test]
    fn pod_cidrs_come_from_either_field_and_bad_ones_are_refused() {
        let long = "x".repeat(1000);
        for (spec, taken, refused) in [
            (json!({}), vec![], 0),
            (json!({"podCIDR": ""}), vec![], 0),
            (json!({"podCIDR": "10.0.1.0/24"}), vec!["10.0.1.0/24"], 0),
            (
                json!({"podCIDR": "10.0.1.0/24", "podCIDRs": []}),
                vec!["10.0.1.0/24"],
                0,
            ),
            (
                json!({"podCIDR": "10.9.9.0/24", "podCIDRs": ["10.0.1.0/24"]}),
                vec!["10.0.1.0/24"],
                0,
            ),
            (
                json!({"podCIDRs": ["10.0.1.0/24", "10.0.1.0/24"]}),
                vec!["10.0.1.0/24"],
                0,
            ),
            (
                json!({"podCIDRs": ["10.0.1.0/24", "10.0.2.0/24"]}),
                vec!["10.0.1.0/24", "10.0.2.0/24"],
                0,
            ),
            (
                json!({"podCIDRs": ["nonsense", "fd00:1::/64"]}),
                vec!["fd00:1::/64"],
                1,
            ),
            (json!({"podCIDRs": ["10.0.1.7/24"]}), vec![], 1),
            (
                json!({"podCIDRs": ["0.0.0.0/0", "127.0.0.0/8", "10.0.0.0/32"]}),
                vec![],
                3,
            ),
            (json!({"podCIDR": long}), vec![], 1),
        ] {
            let decoded = node(spec.clone(), json!({}));
            let cidrs: Vec<_> = decoded
                .value
                .unwrap()
                .pod_cidrs
                .iter()
                .map(PodCidr::to_string)
                .collect();
            assert_eq!(cidrs, taken, "{spec}");
            assert_eq!(
                codes(&decoded.refusals),
                vec!["invalid-pod-cidr"; refused],
                "{spec}"
            );
            for refusal in decoded.refusals {
                assert_eq!(refusal.object, "Node/a");
                assert!(refusal.message.len() < 300, "{}", refusal.message);
            }
        }
    }

    #[test]
    fn internal_ips_that_are_no_other_machines_are_refused() {
        for bad in [
            "",
            "nonsense",
            "192.0.2.1/24",
            "0.0.0.0",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:192.0.2.1",
            "192.0.2.01",
        ] {
            let addresses = json!([
                {"type": "InternalIP", "address": bad},
                {"type": "InternalIP", "address": "192.0.2.9"},
                {"type": "ExternalIP", "address": "nonsense"},
            ]);
            let decoded = node(json!({}), json!({"addresses": addresses}));
            let ips = decoded.value.unwrap().internal_ips;
            assert_eq!(ips, ["192.0.2.9".parse::<IpAddr>().unwrap()], "{bad:?} was taken");
            assert_eq!(codes(&decoded.refusals), ["invalid-ip"], "{bad:?}");
        }
        assert_eq!(
            node(json!({}), json!({})).refusals,
            [],
            "no InternalIP is no refusal"
        );
    }

    #[test]
    fn a_bad_annotation_stays_in_the_node_as_its_error_and_is_refused() {
        let decoded = annotated("{");
        assert!(matches!(
            decoded.value.unwrap().announcement,
            Some(Err(AnnouncementError::Malformed { .. }))
        ));
        assert_eq!(codes(&decoded.refusals), ["annotation-malformed"]);
        assert_eq!(
            codes(&annotated(r#"{"version":9}"#).refusals),
            ["annotation-unknown-version"]
        );
    }

    #[test]
    fn readiness_is_no_only_when_the_condition_says_no() {
        for (status, ready) in [
            (json!({}), true),
            (json!({"conditions": []}), true),
            (
                json!({"conditions": [{"type": "DiskPressure", "status": "False"}]}),
                true,
            ),
            (json!({"conditions": [{"type": "Ready", "status": "True"}]}), true),
            (
                json!({"conditions": [{"type": "Ready", "status": "False"}]}),
                false,
            ),
            (
                json!({"conditions": [{"type": "Ready", "status": "Unknown"}]}),
                false,
            ),
        ] {
            assert_eq!(
                node(json!({}), status.clone()).value.unwrap().ready,
                ready,
                "{status}"
            );
        }
    }

    #[test]
    fn a_node_without_a_usable_name_is_refused_whole() {
        for name in [json!(null), json!(""), json!("A B")] {
            let object = json!({"metadata": {"name": name}});
            let decoded = decode_node(&serde_json::from_value(object).unwrap());
            assert_eq!(decoded.value, None, "{name}");
            assert_eq!(codes(&decoded.refusals), ["invalid-node-name"], "{name}");
        }
    }

    #[test]
    fn pods_are_told_apart_by_network_phase_and_addresses() {
        let running = pod(
            json!({"containers": []}),
            json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.2"}, {"ip": "fd00::2"}]}),
        );
        assert_eq!(running.refusals, []);
        let expected = Pod {
            name: PodName {
                namespace: "ns".into(),
                name: "p".into(),
            },
            uid: "u".into(),
            ips: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            host_network: false,
            finished: false,
        };
        assert_eq!(running.value, Some(expected));
        for (phase, finished) in [
            ("Pending", false),
            ("Unknown", false),
            ("Succeeded", true),
            ("Failed", true),
        ] {
            let decoded = pod(
                json!({"containers": [], "hostNetwork": true}),
                json!({"phase": phase}),
            );
            let value = decoded.value.unwrap();
            assert_eq!((value.finished, value.host_network), (finished, true), "{phase}");
        }
        let bad = pod(
            json!({"containers": []}),
            json!({"podIPs": [{"ip": "x"}, {"ip": "10.0.0.2"}]}),
        );
        assert_eq!(codes(&bad.refusals), ["invalid-ip"]);
        assert_eq!(bad.refusals[0].object, "Pod/ns/p");
        assert_eq!(bad.value.unwrap().ips.len(), 1);
    }
}
