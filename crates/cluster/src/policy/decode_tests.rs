#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use serde_json::json;
use warren_policy::invalid::Problem;
use warren_policy::{Cluster, Input, compile};

use super::*;

fn object(metadata: Value, spec: Value) -> DynamicObject {
    let object = json!({"apiVersion": "v", "kind": "k", "metadata": metadata, "spec": spec});
    serde_json::from_value(object).unwrap()
}

#[test]
fn a_pod_is_its_labels_addresses_and_named_ports() {
    let read = pod(&serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": "web", "labels": {"app": "web"}},
        "spec": {
            "nodeName": "node1",
            "initContainers": [
                {"name": "once", "ports": [{"name": "gone", "containerPort": 1}]},
                {"name": "beside", "restartPolicy": "Always", "ports": [{"name": "proxy", "containerPort": 15001}]},
            ],
            "containers": [{"name": "main", "ports": [
                {"name": "http", "containerPort": 8080},
                {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                {"containerPort": 9000},
                {"name": "wrong", "containerPort": 70000},
            ]}],
        },
        "status": {"phase": "Running", "podIPs": [{"ip": "10.244.1.5"}, {"ip": "nonsense"}, {"ip": "fd00::5"}]},
    }))
    .unwrap());
    let ports: Vec<_> = read
        .ports
        .iter()
        .map(|it| (it.name.as_str(), it.protocol, it.port))
        .collect();
    assert_eq!(
        ports,
        [
            ("proxy", Protocol::TCP, 15001),
            ("http", Protocol::TCP, 8080),
            ("dns", Protocol::UDP, 53)
        ]
    );
    let addresses: Vec<_> = read.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.244.1.5", "fd00::5"]);
    assert_eq!(read.name.to_string(), "shop/web");
    assert_eq!(read.labels.get("app"), Some("web"));
    assert_eq!(read.node.as_ref().unwrap().as_str(), "node1");
    assert!(read.is_subject());
}

#[test]
fn pods_of_the_hosts_network_and_finished_ones_are_told_apart() {
    let read = |spec: Value, status: Value| {
        pod(&serde_json::from_value(json!({"metadata": {}, "spec": spec, "status": status})).unwrap())
    };
    assert!(read(json!({"containers": [], "hostNetwork": true}), json!({})).host_network);
    for (phase, finished) in [
        ("Pending", false),
        ("Running", false),
        ("Succeeded", true),
        ("Failed", true),
    ] {
        assert_eq!(
            read(json!({"containers": []}), json!({"phase": phase})).finished,
            finished
        );
    }
}

#[test]
fn a_policy_of_each_kind_is_read_whatever_it_is_called_in_the_api() {
    let read = kubernetes_policy(object(
        json!({"namespace": "shop", "name": "p"}),
        json!({"podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]}),
    ))
    .unwrap();
    assert_eq!(read.id.to_string(), "NetworkPolicy/shop/p");
    assert_eq!(read.ingress.unwrap().len(), 1);

    let spec = json!({"selector": "color == 'red'", "order": 1.5,
        "ingress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [6379, "80:90", "http"]}}]});
    let read = warren_policy(object(json!({"namespace": "shop", "name": "p"}), spec.clone())).unwrap();
    assert_eq!(read.id.to_string(), "NetworkPolicy.warren-mesh.io/shop/p");
    let read = global_policy(object(json!({"name": "p"}), spec)).unwrap();
    assert_eq!(read.id.to_string(), "GlobalNetworkPolicy/p");
    assert_eq!(read.ingress.unwrap()[0].destination.ports.len(), 3);
}

#[test]
fn a_policy_without_a_spec_selects_every_pod_of_its_namespace() {
    let mut without = object(json!({"namespace": "shop", "name": "p"}), Value::Null);
    let read = kubernetes_policy(without.clone()).unwrap();
    without.data = json!({});
    assert_eq!(kubernetes_policy(without).unwrap(), read);
    assert_eq!(
        (read.ingress.map(|it| it.len()), read.egress.map(|it| it.len())),
        (Some(0), None)
    );
}

#[test]
fn what_cannot_be_honoured_is_named_and_stands_for_what_it_selects() {
    let metadata = json!({"namespace": "shop", "name": "p"});
    for (spec, code, says) in [
        (
            json!({"ingress": [{"action": "Allow", "source": {"serviceAccounts": {"names": ["x"]}}}]}),
            "policy-unsupported",
            "spec.ingress[0].source.serviceAccounts",
        ),
        (json!({"selector": "a =="}), "policy-selector", "spec.selector"),
        (
            json!({"ingress": {"action": "Allow"}}),
            "policy-unreadable",
            "spec",
        ),
        (json!(7), "policy-unreadable", "spec"),
        (json!({"order": "first"}), "policy-unreadable", "spec"),
    ] {
        let invalid = warren_policy(object(metadata.clone(), spec.clone())).unwrap_err();
        let refusal = invalid.refusal();
        assert_eq!(
            (refusal.object.as_str(), refusal.code.as_str()),
            ("NetworkPolicy.warren-mesh.io/shop/p", code),
            "{spec}"
        );
        assert!(refusal.message.contains(says), "{spec}: {}", refusal.message);
        assert!(invalid.ingress, "{spec}");
    }
    let invalid = kubernetes_policy(object(metadata, json!({"podSelector": []}))).unwrap_err();
    assert!(
        matches!(invalid.problem, Problem::Unreadable { .. }),
        "{invalid:?}"
    );
    assert!(invalid.ingress && invalid.egress);
}

#[test]
fn of_a_set_each_network_is_refused_for_itself() {
    let read = network_set(object(
        json!({"name": "s", "labels": {"who": "office"}}),
        json!({"nets": ["198.51.100.0/24", "x", "2001:db8::1"]}),
    ));
    let set = read.value.unwrap();
    assert_eq!(
        (set.namespace, set.nets.len(), set.labels.get("who")),
        (None, 2, Some("office"))
    );
    assert_eq!(read.refusals.len(), 1);
    assert_eq!(read.refusals[0].object, "GlobalNetworkSet/s");

    let read = network_set(object(
        json!({"namespace": "n", "name": "s"}),
        json!({"nets": "10.0.0.0/8"}),
    ));
    assert_eq!(read.value.unwrap().nets, []);
    assert_eq!(
        (read.refusals[0].object.as_str(), read.refusals[0].code.as_str()),
        ("NetworkSet/n/s", "policy-unreadable")
    );
}

#[test]
fn a_host_endpoint_is_read_or_refused_by_name() {
    let read = host_endpoint(object(
        json!({"name": "h", "labels": {"role": "edge"}}),
        json!({"node": "node1", "interfaceName": "*", "expectedIPs": ["192.0.2.1"],
            "ports": [{"name": "ssh", "protocol": "TCP", "port": 22}]}),
    ));
    let host = read.value.unwrap();
    assert_eq!((host.node.as_str(), host.ports.len()), ("node1", 1));
    for spec in [
        json!({"node": "node1"}),
        json!({}),
        json!({"node": "Not a node", "interfaceName": "*"}),
        json!({"node": "node1", "interfaceName": "eth0\" accept; drop"}),
    ] {
        let read = host_endpoint(object(json!({"name": "h"}), spec.clone()));
        assert_eq!(
            (read.value, read.refusals[0].object.as_str()),
            (None, "HostEndpoint/h"),
            "{spec}"
        );
    }
}

#[test]
fn a_policy_in_a_tier_that_there_is_not_is_refused_before_it_is_compiled() {
    let spec =
        |tier: Value| json!({"tier": tier, "selector": "app == 'db'", "ingress": [{"action": "Allow"}]});
    for (metadata, read) in [
        (
            json!({"namespace": "shop", "name": "p"}),
            warren_policy as fn(DynamicObject) -> ReadPolicy,
        ),
        (json!({"name": "p"}), global_policy),
    ] {
        let of_tier = |tier: Value| read(object(metadata.clone(), spec(tier)));
        for known in [json!("default"), Value::Null] {
            assert_eq!(of_tier(known).unwrap().tier, DEFAULT_TIER);
        }
        let invalid = of_tier(json!("security")).unwrap_err();
        let refusal = invalid.refusal();
        assert_eq!(refusal.code, "policy-unknown-tier");
        assert_eq!(refusal.object, invalid.id.to_string());
        assert_eq!(
            refusal.message,
            "spec.tier: there is no tier \"security\"; leave it out, or use \"default\""
        );
        // It is compiled to what it was before it was refused here.
        let (policies, cluster) = ([of_tier(json!("default")).unwrap()], Cluster::default());
        let there = Policy {
            tier: "security".to_owned(),
            ..policies[0].clone()
        };
        let by_compile = compile(&Input::new(&[there], &cluster));
        let mut input = Input::new(&[], &cluster);
        let invalid = [*invalid];
        input.invalid = &invalid;
        assert_eq!(compile(&input), by_compile);
        assert_eq!(by_compile.refusals, [refusal]);
    }
}
