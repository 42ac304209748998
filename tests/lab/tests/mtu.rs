//! What packets of pods may have, on underlays that take more, less, and less than they say.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use serde_json::{Value, json};
use support::{a_pod_on_each_of_two_nodes, lab, status_when, until};
use warren_lab::{Lab, LabOptions, Place};

#[tokio::test]
async fn jumbo_frames_are_used_where_the_underlay_has_them_and_the_narrowest_way_decides() {
    let Some(lab) = lab(LabOptions::default()).await else {
        return;
    };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    assert_eq!(interface_mtu(&lab, &from).await, 1440);
    // Of all nodes and of the switch between them.
    sh(
        &lab,
        Place::Root,
        "for link in under1 n1 n2 n3; do ip link set $link mtu 9000; done",
    )
    .await;
    for node in ["node1", "node2", "node3"] {
        sh(&lab, Place::Node(node.to_owned()), "ip link set eth0 mtu 9000").await;
    }
    status_when(&lab, "pods with jumbo frames", |status| {
        agents(status).iter().all(|agent| agent["podMtu"] == 8940)
    })
    .await;
    // The pods were there before.
    until("a pod with jumbo frames", async || {
        interface_mtu(&lab, &from).await == 8940
    })
    .await;
    for (address, header) in [(&to[0], 28), (&to[1], 48)] {
        let whole = (8940 - header).to_string();
        let ping = [
            "ping", "-n", "-M", "do", "-c", "3", "-i", "0.1", "-W", "2", "-s", &whole, address,
        ];
        let answer = lab.run(from.clone(), &ping).await.unwrap();
        assert!(answer.success(), "{answer:?}");
    }

    // The way from node1 to node3 is narrow. The peer says so, and the smallest decides for the pods of node1 alone.
    let narrow = "ip route add 10.211.1.13 dev eth0 mtu 1400";
    sh(&lab, Place::Node("node1".to_owned()), narrow).await;
    let status = status_when(&lab, "pods that fit through the narrow way", |status| {
        agents(status)[0]["podMtu"] == 1340
    })
    .await;
    let of_peers = |agent: &Value| json!([agent["peers"][0]["mtu"], agent["peers"][1]["mtu"]]);
    assert_eq!(of_peers(agents(&status)[0]), json!([8940, 1340]), "{status:#}");
    assert_eq!(agents(&status)[1]["podMtu"], 8940);
    // Others' routes come and go without a word to the agent, which looks every ten seconds.
    until("a pod with the small MTU", async || {
        interface_mtu(&lab, &from).await == 1340
    })
    .await;
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

fn agents(status: &Value) -> Vec<&Value> {
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().map(|node| &node["agent"]).collect()
}

/// Inside a pod, where whoever sends sees it.
async fn interface_mtu(lab: &Lab, pod: &Place) -> u32 {
    let said = sh(
        lab,
        pod.clone(),
        "ip -o link show eth0 | sed 's/.*mtu //; s/ .*//'",
    )
    .await;
    said.trim().parse().unwrap()
}

async fn sh(lab: &Lab, place: Place, script: &str) -> String {
    let output = lab.run(place, &["bash", "-c", script]).await.unwrap();
    assert!(output.success(), "{script}: {output:?}");
    output.stdout
}
