//! Nodes that go, come back as others, and move.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::time::{Duration, Instant};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use support::{assert_all_reach_all, crossed_since, lab, status_when};
use warren_lab::{ApiKind, Counts, Lab, LabOptions, Place, PodFacts, PodOptions};

/// How long a node that has moved may stay unreached: far less than the three minutes for which a handshake counts.
const SOON: Duration = Duration::from_secs(8);

#[tokio::test]
async fn a_node_that_comes_back_with_other_pod_cidrs_is_followed() {
    with_other_pod_cidrs(ApiKind::Embedded).await;
}

#[tokio::test]
async fn a_node_that_comes_back_with_other_pod_cidrs_is_followed_on_a_real_api_server() {
    with_other_pod_cidrs(ApiKind::Real).await;
}

async fn with_other_pod_cidrs(api: ApiKind) {
    let Some(lab) = lab(LabOptions {
        nodes: 2,
        api,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    let (from, old) = a_pod_on_each_of_two_nodes(&lab).await;
    assert_reaches(&lab, &from, &old, SOON).await;

    let other = ["10.244.200.0/24", "fd00:10:244:c8::/64"];
    come_back_as(&lab, "node2", &other).await;
    status_when(&lab, "both nodes to know the new pod CIDRs", |status| {
        let [one, two] = [&status["nodes"][0]["agent"], &status["nodes"][1]["agent"]];
        let peer = &one["peers"][0];
        two["podCidrs"] == json!(other) && peer["podCidrs"] == json!(other) && peer["path"] == "wireguard"
    })
    .await;

    let new = lab.pod_add(PodOptions::new("new", "node2")).await.unwrap();
    for address in &new.addresses {
        let within = |net: &&str| {
            let net: IpNet = net.parse().unwrap();
            net.contains(&address.parse::<std::net::IpAddr>().unwrap())
        };
        assert!(other.iter().any(within), "{address} is in none of {other:?}");
    }
    assert_reaches(&lab, &from, &new, SOON).await;
    assert_reaches(&lab, &Place::Node("node1".to_owned()), &new, SOON).await;

    // The pod from before is said to be cut off, on its node and to whoever looks; nothing for it leaves in the clear.
    let status = status_when(&lab, "the refusal of the old pod's addresses", |status| {
        refusals(status, "foreign-pod-address").len() == old.addresses.len()
    })
    .await;
    for refusal in refusals(&status, "foreign-pod-address") {
        assert_eq!(refusal["object"], "Pod/default/to", "{refusal}");
    }
    let before = lab.counts().await.unwrap();
    for address in &old.addresses {
        let ping = ["ping", "-n", "-q", "-c", "3", "-i", "0.1", "-W", "1", address];
        assert!(
            !lab.run(from.clone(), &ping).await.unwrap().success(),
            "{address} answers"
        );
    }
    assert_eq!(crossed_since(&lab, &before).await.plaintext, 0);

    // Its successor has an address of the node.
    lab.pod_remove("to").await.unwrap();
    lab.pod_add(PodOptions::new("to", "node2")).await.unwrap();
    let status = status_when(&lab, "no refusal", |status| {
        refusals(status, "foreign-pod-address").is_empty()
    })
    .await;
    assert_eq!(status["nodes"][1]["agent"]["pods"], 2, "{status:#}");
    assert_all_reach_all(&lab, &lab.facts().await.unwrap()).await;
    assert_eq!(crossed_since(&lab, &Counts::default()).await.plaintext, 0);
}

#[tokio::test]
async fn a_node_of_ipv4_alone_is_part_of_a_dual_stack_mesh() {
    let options = LabOptions {
        nodes: 2,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    come_back_as(&lab, "node2", &["10.244.200.0/24"]).await;
    let nodes: Api<Node> = Api::all(lab.client());
    let status = nodes.get("node2").await.unwrap().status.unwrap();
    let mut addresses = status.addresses.unwrap();
    addresses.retain(|it| !it.address.contains(':'));
    write_status(&nodes, "node2", json!({"addresses": addresses})).await;
    status_when(&lab, "both nodes to know what node2 is now", |status| {
        let [one, two] = [&status["nodes"][0]["agent"], &status["nodes"][1]["agent"]];
        let only = json!(["10.244.200.0/24"]);
        two["podCidrs"] == only
            && one["peers"][0]["podCidrs"] == only
            && two["peers"][0]["path"] == "wireguard"
    })
    .await;

    // The lab gives pods both families or none; the node has an address of its pod CIDR as well.
    let pod = lab.pod_add(PodOptions::new("from", "node1")).await.unwrap();
    for (from, to) in [
        (Place::Pod("from".into()), "10.244.200.1"),
        (Place::Node("node2".to_owned()), pod.addresses[0].as_str()),
    ] {
        let ping = ["ping", "-n", "-q", "-c", "1", "-i", "0.2", "-w", "8", to];
        let answer = lab.run(from, &ping).await.unwrap();
        assert!(answer.success(), "{to}: {answer:?}");
    }
    let crossed = crossed_since(&lab, &Counts::default()).await;
    assert_eq!(crossed.plaintext, 0, "{crossed:?}");
    assert!(crossed.wireguard_data >= 4, "{crossed:?}");
}

#[tokio::test]
async fn a_node_whose_internal_ip_changes_is_reached_again_although_it_shook_hands_a_moment_ago() {
    let Some(lab) = lab(LabOptions {
        nodes: 2,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    assert_reaches(&lab, &from, &to, SOON).await;

    // Nothing is sent from the node that moves, so nobody learns of it by roaming.
    move_to(&lab, &[("node2", "10.211.1.99")]).await;
    let took = assert_reaches(&lab, &from, &to, SOON).await;
    eprintln!("reached again {took:?} after the Node's status showed the new address");
    assert_reaches(&lab, &Place::Node("node1".to_owned()), &to, SOON).await;
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn a_node_that_moves_while_no_agent_runs_is_reached_once_one_does() {
    let Some(lab) = lab(LabOptions {
        nodes: 2,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    assert_reaches(&lab, &from, &to, SOON).await;
    lab.node_kill("node1").await.unwrap();
    move_to(&lab, &[("node2", "10.211.1.99")]).await;
    lab.node_start("node1").await.unwrap();
    assert_reaches(&lab, &from, &to, SOON).await;
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn two_nodes_that_swap_their_addresses_are_reached_by_all_and_by_each_other() {
    let Some(lab) = lab(LabOptions::default()).await else {
        return;
    };
    for node in ["node1", "node2", "node3"] {
        let name = format!("on-{node}");
        lab.pod_add(PodOptions::new(name.as_str(), node)).await.unwrap();
    }
    let facts = lab.facts().await.unwrap();
    assert_all_reach_all(&lab, &facts).await;
    // Their agents' connections to the API would hang until their time-outs: they were made from the addresses that go.
    for node in ["node2", "node3"] {
        lab.node_kill(node).await.unwrap();
    }
    move_to(&lab, &[("node2", "10.211.1.13"), ("node3", "10.211.1.12")]).await;
    let (two, three) = tokio::join!(lab.node_start("node2"), lab.node_start("node3"));
    two.and(three).unwrap();
    for from in &facts.pods {
        for to in facts.pods.iter().filter(|to| to.key != from.key) {
            let took = assert_reaches(&lab, &Place::Pod(from.key.clone()), to, SOON).await;
            eprintln!("{} reached {} after {took:?}", from.key, to.key);
        }
    }
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

/// The place of the first, and the second.
async fn a_pod_on_each_of_two_nodes(lab: &Lab) -> (Place, PodFacts) {
    lab.pod_add(PodOptions::new("from", "node1")).await.unwrap();
    let to = lab.pod_add(PodOptions::new("to", "node2")).await.unwrap();
    (Place::Pod("from".into()), to)
}

/// Waits until every address of a pod has answered, and tells how long that took.
async fn assert_reaches(lab: &Lab, from: &Place, to: &PodFacts, within: Duration) -> Duration {
    let began = Instant::now();
    for address in &to.addresses {
        let seconds = within.as_secs().to_string();
        let ping = [
            "ping", "-n", "-q", "-c", "1", "-i", "0.2", "-w", &seconds, address,
        ];
        let answer = lab.run(from.clone(), &ping).await.unwrap();
        assert!(
            answer.success(),
            "{from:?} to {} at {address}: {answer:?}",
            to.key
        );
    }
    began.elapsed()
}

/// Deletes a Node and makes one with its name and other pod CIDRs, as the control plane does for a machine that
/// registers anew.
async fn come_back_as(lab: &Lab, name: &str, pod_cidrs: &[&str]) {
    let nodes: Api<Node> = Api::all(lab.client());
    let old = nodes.get(name).await.unwrap();
    nodes.delete(name, &DeleteParams::default()).await.unwrap();
    status_when(lab, "nobody to be a peer of the deleted node", |status| {
        support::peers(status).iter().all(|peer| peer["node"] != name)
    })
    .await;
    let new = json!({
        "metadata": {"name": name, "labels": old.metadata.labels},
        "spec": {"podCIDR": pod_cidrs[0], "podCIDRs": pod_cidrs},
    });
    let new: Node = serde_json::from_value(new).unwrap();
    nodes.create(&PostParams::default(), &new).await.unwrap();
    let old = old.status.unwrap();
    write_status(
        &nodes,
        name,
        json!({"addresses": old.addresses, "conditions": old.conditions}),
    )
    .await;
}

/// Gives nodes other IPv4 addresses, all at once, and then writes that to their Nodes, as their kubelets do.
async fn move_to(lab: &Lab, moves: &[(&str, &str)]) {
    let facts = lab.facts().await.unwrap();
    let old = |node: &str| facts.nodes.iter().find(|it| it.name == node).unwrap().addresses[0];
    for (node, _) in moves {
        in_node(lab, node, &format!("ip address delete {} dev eth0", old(node))).await;
    }
    for (node, address) in moves {
        let prefix = old(node).prefix_len();
        let script = format!(
            "ip address add {address}/{prefix} dev eth0 && ip route replace default via 10.211.1.1 dev eth0"
        );
        in_node(lab, node, &script).await;
    }
    // What a gratuitous ARP does to the neighbours.
    for node in &facts.nodes {
        in_node(lab, &node.name, "ip neigh flush dev eth0").await;
    }
    let nodes: Api<Node> = Api::all(lab.client());
    for (name, address) in moves {
        let status = nodes.get(name).await.unwrap().status.unwrap();
        let mut addresses = status.addresses.unwrap();
        let gone = old(name).addr().to_string();
        for it in addresses.iter_mut().filter(|it| it.address == gone) {
            (*address).clone_into(&mut it.address);
        }
        write_status(&nodes, name, json!({"addresses": addresses})).await;
    }
}

async fn write_status(nodes: &Api<Node>, name: &str, status: Value) {
    let patch = Patch::Merge(json!({"status": status}));
    nodes
        .patch_status(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

async fn in_node(lab: &Lab, node: &str, script: &str) {
    let output = lab
        .run(Place::Node(node.to_owned()), &["sh", "-c", script])
        .await
        .unwrap();
    assert!(output.success(), "{script}: {output:?}");
}

/// What all agents refuse, of one kind.
fn refusals<'a>(status: &'a Value, code: &str) -> Vec<&'a Value> {
    let nodes = status["nodes"].as_array().unwrap().iter();
    nodes
        .flat_map(|node| {
            node["agent"]["refusals"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default()
        })
        .filter(|refusal| refusal["code"] == code)
        .collect()
}
