//! Nodes, and what they publish about themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use warren_lab::{Lab, Place};

use crate::support::{self, assert_all_reach_all, lab, ping, status_when, two_pods_a_node};
use crate::{agents, refusals_counted, two_nodes};

const ANNOTATION: &str = "warren-mesh.io/wireguard";

/// A public key that no node of a lab has.
const KEY: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

/// Waits until a node that is made now is younger than all there are. The API tells ages to a second, and of two nodes that
/// claim the same the older one keeps it.
async fn wait_to_be_younger(nodes: &Api<Node>) {
    let created = |node: &Node| {
        node.metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0.as_second())
    };
    let newest = nodes
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .filter_map(created)
        .max();
    while newest >= Some(k8s_openapi::jiff::Timestamp::now().as_second()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A node that is wrong in one way.
struct BadNode<'a> {
    name: &'static str,
    object: Value,
    /// The code of its only refusal, and words of the message.
    code: &'static str,
    part: &'a str,
}

#[tokio::test]
async fn a_node_that_is_wrong_is_refused_by_name_and_the_others_go_on_as_before() {
    let Some(lab) = lab(two_nodes()).await else { return };
    let facts = two_pods_a_node(&lab).await;
    let (from, to) = (Place::Pod(facts.pods[0].key.clone()), &facts.pods[2].addresses);
    for address in to {
        assert_eq!(ping(&lab, &from, address, 1).await, (1, 1));
    }
    let key_of_node1 = key_of(&lab, 0).await;
    let bad = bad_nodes(&key_of_node1);
    let nodes: Api<Node> = Api::all(lab.client());
    wait_to_be_younger(&nodes).await;
    let make = async {
        for node in &bad {
            let object = serde_json::from_value(node.object.clone()).unwrap();
            nodes.create(&PostParams::default(), &object).await.unwrap();
        }
        status_when(&lab, "a refusal of each node by each agent", |status| {
            agents(status).all(|agent| bad.iter().all(|it| !refusals(agent, it.name).is_empty()))
        })
        .await
    };
    let (v4, v6, status) = tokio::join!(
        ping(&lab, &from, &to[0], 100),
        ping(&lab, &from, &to[1], 100),
        make
    );
    assert_eq!((v4, v6), ((100, 100), (100, 100)), "sent and received meanwhile");

    for agent in agents(&status) {
        for node in &bad {
            let name = node.name;
            let refusals = refusals(agent, name);
            let codes: Vec<_> = refusals.iter().map(|it| it["code"].as_str().unwrap()).collect();
            assert_eq!(codes, [node.code], "{name}: {refusals:#?}");
            let message = refusals[0]["message"].as_str().unwrap();
            assert!(message.contains(node.part), "{name}: {message}");
            assert!(message.len() < 400, "{name}: {message}");
            assert!(
                message.contains(": ") || message.contains("; "),
                "{name} has no remedy: {message}"
            );
        }
    }
    let mut wanted = BTreeMap::new();
    for node in &bad {
        *wanted.entry(node.code.to_owned()).or_insert(0) += 1;
    }
    for node in ["node1", "node2"] {
        refusals_counted(&lab, node, &wanted).await;
    }

    assert_all_reach_all(&lab, &facts).await;
    let nowhere = [
        "10.244.201.2",
        "10.244.208.2",
        "10.244.230.2",
        "fd00:10:244:e6::2",
    ];
    join_all(nowhere.map(async |address| {
        let argv = ["ping", "-n", "-q", "-c", "2", "-i", "0.1", "-W", "1", address];
        let output = lab.run(from.clone(), &argv).await.unwrap();
        assert!(!output.success(), "somebody answered for {address}: {output:?}");
    }))
    .await;
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);

    for node in &bad {
        nodes.delete(node.name, &DeleteParams::default()).await.unwrap();
    }
    // Odd, but right: it is reached by its only family, and no epoch of it is anybody else's.
    let keys = json!([{"epoch": 1, "publicKey": KEY, "port": 1}, {"epoch": 4294967294u32, "publicKey": KEY, "port": 65535}]);
    let text = json!({"version": 1, "keys": keys, "settled": 1, "paths": ["wireguard"]}).to_string();
    let metadata = json!({"name": "x-only-6", "annotations": {ANNOTATION: text}});
    let only_6 = node(metadata, json!(["10.244.235.0/24"]), &["fd00:211:1::1"]);
    let only_6 = serde_json::from_value(only_6).unwrap();
    nodes.create(&PostParams::default(), &only_6).await.unwrap();
    status_when(&lab, "a path to the node that has IPv6 only", |status| {
        agents(status).all(|agent| {
            let mut peers = agent["peers"].as_array().unwrap().iter();
            peers.any(|it| it["node"] == "x-only-6" && it["endpoint"] == "[fd00:211:1::1]:1")
        })
    })
    .await;
    status_when(&lab, "no refusal any more", |status| {
        agents(status).all(|agent| agent["refusals"] == json!([]))
    })
    .await;
}

fn bad_nodes(key_of_node1: &str) -> Vec<BadNode<'_>> {
    let mut all = Vec::new();
    let malformed = "annotation-malformed";
    let key = |epoch: u64, key: &str, port: i64| json!({"epoch": epoch, "publicKey": key, "port": port});
    let says =
        |keys: Value| json!({"version": 1, "keys": keys, "settled": 1, "paths": ["wireguard"]}).to_string();
    let one = |it: Value| says(json!([it]));
    let low_order = "4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA=";
    let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let annotations = [
        ("x-not-json", "nonsense".to_owned(), malformed, "delete it"),
        (
            "x-version",
            json!({"version": 9}).to_string(),
            "annotation-unknown-version",
            "version 9",
        ),
        (
            "x-short-key",
            one(key(1, "HIgo9xNz", 51821)),
            malformed,
            "44 characters",
        ),
        ("x-zero-key", one(key(1, zero, 51821)), malformed, "low order"),
        (
            "x-low-order",
            one(key(1, low_order, 51821)),
            malformed,
            "low order",
        ),
        (
            "x-others-key",
            one(key(1, key_of_node1, 51821)),
            "duplicate-public-key",
            key_of_node1,
        ),
        ("x-port-0", one(key(1, KEY, 0)), "annotation-no-port", "port 0"),
        ("x-port-65536", one(key(1, KEY, 65536)), malformed, "65536"),
        ("x-port-minus", one(key(1, KEY, -1)), malformed, "-1"),
        (
            "x-epoch-0",
            one(key(0, KEY, 51821)),
            malformed,
            "epochs start at 1",
        ),
        (
            "x-epoch-huge",
            one(key(1 << 32, KEY, 51821)),
            malformed,
            "4294967296",
        ),
        (
            "x-settled-ahead",
            one(key(1, KEY, 51821)).replace("\"settled\":1", "\"settled\":4294967295"),
            "annotation-settled-ahead",
            "4294967295",
        ),
        // The API takes 256 KiB of annotations in all.
        (
            "x-long",
            "x".repeat(250_000),
            "annotation-too-long",
            "250000 bytes",
        ),
        ("x-no-keys", says(json!([])), "annotation-no-keys", "no key"),
        (
            "x-3-keys",
            says(json!([key(1, KEY, 1), key(2, KEY, 1), key(3, KEY, 1)])),
            "annotation-too-many-keys",
            "3",
        ),
        (
            "x-1000-keys",
            says(json!(vec![key(1, KEY, 1); 1000])),
            "annotation-too-long",
            "4096",
        ),
        (
            "x-one-lane",
            says(json!([key(1, KEY, 1), key(3, KEY, 1)])),
            "annotation-same-lane",
            "1 and 3",
        ),
    ];
    for (number, (name, text, code, part)) in (201..).zip(annotations) {
        let metadata = json!({"name": name, "annotations": {ANNOTATION: text}});
        let object = node(
            metadata,
            json!([format!("10.244.{number}.0/24")]),
            &["10.211.1.1"],
        );
        all.push(BadNode {
            name,
            object,
            code,
            part,
        });
    }
    let invalid = "invalid-pod-cidr";
    let overlap = "overlapping-pod-cidr";
    let ip = ["10.211.1.1"].as_slice();
    for (name, cidrs, ips, code, part) in [
        ("x-no-cidr", json!([]), ip, "no-pod-cidr", "--allocate-node-cidrs"),
        (
            "x-same-cidr",
            json!(["10.244.2.0/24"]),
            ip,
            overlap,
            "older node node2",
        ),
        (
            "x-inside",
            json!(["10.244.2.128/25"]),
            ip,
            overlap,
            "older node node2",
        ),
        (
            "x-around",
            json!(["10.244.0.0/16"]),
            ip,
            overlap,
            "older node node",
        ),
        (
            "x-around-6",
            json!(["fd00:10:244::/48"]),
            ip,
            overlap,
            "older node node",
        ),
        ("x-slash-32", json!(["10.244.230.0/32"]), ip, invalid, "too small"),
        (
            "x-host-bits",
            json!(["10.244.230.7/24"]),
            ip,
            invalid,
            "use 10.244.230.0/24",
        ),
        ("x-no-range", json!(["10.244.230"]), ip, invalid, "not a CIDR"),
        ("x-everything", json!(["::/0"]), ip, invalid, "range of their own"),
        (
            "x-three-cidrs",
            json!(["10.244.231.0/24", "fd00:10:244:e7::/64", "10.244.232.0/24"]),
            ip,
            "surplus-pod-cidr",
            "10.244.232.0/24 is not used",
        ),
        (
            "x-no-ip",
            json!(["10.244.233.0/24"]),
            [].as_slice(),
            "no-internal-ip",
            "--node-ip",
        ),
        (
            "x-odd-ip",
            json!(["10.244.234.0/24"]),
            &["127.0.0.1", "10.211.1.1"],
            "invalid-ip",
            "--node-ip",
        ),
    ] {
        let object = node(json!({"name": name}), cidrs, ips);
        all.push(BadNode {
            name,
            object,
            code,
            part,
        });
    }
    all
}

/// A Node that no agent runs on. Its address is the router's, which says at once that nobody is there.
fn node(metadata: Value, cidrs: Value, ips: &[&str]) -> Value {
    let addresses: Vec<_> = ips
        .iter()
        .map(|ip| json!({"type": "InternalIP", "address": ip}))
        .collect();
    json!({
        "metadata": metadata,
        "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
        "status": {"addresses": addresses},
    })
}

/// What an agent refuses of a Node.
fn refusals<'a>(agent: &'a Value, node: &str) -> Vec<&'a Value> {
    let all = agent["refusals"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    all.iter()
        .filter(|it| it["object"] == format!("Node/{node}"))
        .collect()
}

async fn key_of(lab: &Lab, node: usize) -> String {
    let status = support::status(lab).await;
    let key = &status["nodes"][node]["announcement"]["keys"][0]["publicKey"];
    key.as_str().unwrap_or_else(|| panic!("{status:#}")).to_owned()
}
