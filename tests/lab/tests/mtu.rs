//! What packets of pods may have, on underlays that take more, less, and less than they say.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use serde_json::{Value, json};
use support::{a_pod_on_each_of_two_nodes, lab, status_when, until};
use warren_lab::{Lab, LabOptions, Place, PodOptions};

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

#[tokio::test]
async fn a_pod_whose_interface_has_more_than_the_lane_gets_segments_that_fit() {
    let options = LabOptions {
        nodes: 2,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    let from = Place::Pod("from".into());
    let server = Place::Pod("server".into());
    lab.pod_add(PodOptions::new("from", "node1")).await.unwrap();
    let mut listening = PodOptions::new("server", "node2");
    listening.ports = vec!["tcp:80".parse().unwrap()];
    let to = lab.pod_add(listening).await.unwrap().addresses;
    // The agent would put it right.
    lab.node_kill("node1").await.unwrap();
    let node1 = Place::Node("node1".to_owned());
    sh(
        &lab,
        node1,
        "ip link set warren0 mtu 1300; ip link set warren1 mtu 1300",
    )
    .await;
    // 1300 less the headers of IP and TCP, and 12 for time stamps.
    for (address, segment) in to.iter().zip([1248, 1228]) {
        let open =
            format!("{{ exec 3<> /dev/tcp/{address}/80; read -rt 30 -u 3; }} > /dev/null 2>&1 < /dev/null &");
        sh(&lab, from.clone(), &open).await;
        let heard = format!("mss:{segment} ");
        until(&format!("{address} to hear of {heard}"), async || {
            sh(&lab, server.clone(), "ss -Htin state established")
                .await
                .contains(&heard)
        })
        .await;
    }
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
