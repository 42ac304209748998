#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

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
    let object = json!({"metadata": metadata, "spec": one_cidr(), "status": one_ip()});
    decode_node(&serde_json::from_value(object).unwrap())
}

fn one_cidr() -> Value {
    json!({"podCIDRs": ["10.0.1.0/24"]})
}

fn one_ip() -> Value {
    json!({"addresses": [{"type": "InternalIP", "address": "192.0.2.9"}]})
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
    const INVALID: &str = "invalid-pod-cidr";
    for (spec, taken, refused) in [
        (json!({}), vec![], vec!["no-pod-cidr"]),
        (
            json!({"podCIDR": "", "podCIDRs": [""]}),
            vec![],
            vec!["no-pod-cidr"],
        ),
        (json!({"podCIDR": "10.0.1.0/24"}), vec!["10.0.1.0/24"], vec![]),
        (
            json!({"podCIDR": "10.0.1.0/24", "podCIDRs": []}),
            vec!["10.0.1.0/24"],
            vec![],
        ),
        (
            json!({"podCIDR": "10.9.9.0/24", "podCIDRs": ["10.0.1.0/24"]}),
            vec!["10.0.1.0/24"],
            vec![],
        ),
        (
            json!({"podCIDRs": ["10.0.1.0/24", "10.0.1.0/24"]}),
            vec!["10.0.1.0/24"],
            vec![],
        ),
        (
            json!({"podCIDRs": ["10.0.1.0/24", "10.0.2.0/24", "fd00:1::/64", "fd00:2::/64"]}),
            vec!["10.0.1.0/24", "fd00:1::/64"],
            vec!["surplus-pod-cidr"; 2],
        ),
        (
            json!({"podCIDRs": ["nonsense", "fd00:1::/64"]}),
            vec!["fd00:1::/64"],
            vec![INVALID],
        ),
        (json!({"podCIDRs": ["10.0.1.7/24"]}), vec![], vec![INVALID]),
        (
            json!({"podCIDRs": ["0.0.0.0/0", "127.0.0.0/8", "10.0.0.0/32"]}),
            vec![],
            vec![INVALID; 3],
        ),
        (json!({"podCIDR": long}), vec![], vec![INVALID]),
    ] {
        let decoded = node(spec.clone(), one_ip());
        let cidrs: Vec<_> = decoded
            .value
            .unwrap()
            .pod_cidrs
            .iter()
            .map(PodCidr::to_string)
            .collect();
        assert_eq!(cidrs, taken, "{spec}");
        assert_eq!(codes(&decoded.refusals), refused, "{spec}");
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
        let decoded = node(one_cidr(), json!({"addresses": addresses}));
        let ips = decoded.value.unwrap().internal_ips;
        assert_eq!(ips, ["192.0.2.9".parse::<IpAddr>().unwrap()], "{bad:?} was taken");
        assert_eq!(codes(&decoded.refusals), ["invalid-ip"], "{bad:?}");
    }
    let external = json!({"addresses": [{"type": "ExternalIP", "address": "192.0.2.9"}]});
    for status in [json!({}), external] {
        let decoded = node(one_cidr(), status);
        assert_eq!(codes(&decoded.refusals), ["no-internal-ip"]);
        assert!(decoded.refusals[0].message.contains("--node-ip"));
    }
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
