//! Nodes with WireGuard devices of the kernel. For a machine whose kernel has WireGuard, such as the virtual machine of `hack/vm.sh`,
//! which runs what is ignored elsewhere.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use serde_json::Value;
use support::{
    a_pod_on_each_of_two_nodes, assert_all_reach_all, crossed_since, lab, lanes, ping, status_when,
};
use warren_lab::{Counts, Lab, LabOptions, Place};

#[tokio::test]
#[ignore = "needs kernel WireGuard: hack/vm.sh"]
async fn a_node_with_a_kernel_device_and_one_with_a_userspace_device_are_one_mesh() {
    let Some(lab) = lab(one_of_each()).await else {
        return;
    };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    let status = status_when(&lab, "a device of each kind", |status| {
        kinds(status) == ["kernel", "userspace"]
    })
    .await;
    let facts = lab.facts().await.unwrap();
    // Each is the first to speak to the other once.
    assert_all_reach_all(&lab, &facts).await;
    for lane in [&status["nodes"][0], &status["nodes"][1]].map(|node| &node["agent"]["lanes"][1]) {
        assert!(lane["up"] == true && lane["publicKey"].is_string(), "{lane}");
    }
    // As long as the MTU allows, both ways, in each family: padding and offloads meet here.
    let script = "ip -oneline link show eth0 | grep -o 'mtu [0-9]*' | cut -d ' ' -f 2";
    let mtu: u32 = printed(&lab, &from, script).await.parse().unwrap();
    for (address, headers) in [(&to[0], 28), (&to[1], 48)] {
        let size = (mtu - headers).to_string();
        let argv = [
            "ping", "-n", "-q", "-M", "do", "-s", &size, "-c", "5", "-i", "0.02", "-w", "10", address,
        ];
        let output = lab.run(from.clone(), &argv).await.unwrap();
        assert!(output.success(), "{mtu}: {output:?}");
    }
    let crossed = crossed_since(&lab, &Counts::default()).await;
    assert_eq!(crossed.plaintext, 0, "{crossed:?}");

    // Agents of both kinds adopt what they find.
    let before = [lanes(&lab, "node1").await, lanes(&lab, "node2").await];
    let restart = async {
        for node in ["node1", "node2"] {
            lab.node_kill(node).await.unwrap();
            lab.node_start(node).await.unwrap();
        }
    };
    let ((sent, received), ()) = tokio::join!(ping(&lab, &from, &to[0], 300), restart);
    assert_eq!((sent, received), (300, 300));
    assert_eq!([lanes(&lab, "node1").await, lanes(&lab, "node2").await], before);
}

#[tokio::test]
#[ignore = "needs kernel WireGuard: hack/vm.sh"]
async fn a_kernel_that_has_gained_or_lost_wireguard_gets_devices_of_the_other_kind() {
    let Some(lab) = lab(one_of_each()).await else {
        return;
    };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    assert_eq!(ping(&lab, &from, &to[0], 1).await, (1, 1));
    let before = lab.counts().await.unwrap();
    for (node, other_kind) in [
        ("node1", "ip link del warren1 && warren-wg warren1"),
        (
            "node2",
            "kill -9 $(pgrep --ns $$ --nslist net --exact warren-wg) && \
             while ip link show warren1; do :; done && ip link add warren1 type wireguard",
        ),
    ] {
        lab.node_stop(node).await.unwrap();
        printed(&lab, &Place::Node(node.to_owned()), other_kind).await;
        let theirs = lanes(&lab, node).await;
        lab.node_start(node).await.unwrap();
        status_when(&lab, "the device that the node's agent is for", |status| {
            let own = usize::from(node == "node2");
            status["nodes"][own]["agent"]["lanes"][1]["up"] == true
        })
        .await;
        let argv = ["ping", "-n", "-q", "-c", "1", "-i", "0.2", "-w", "20", &to[0]];
        let again = lab.run(from.clone(), &argv).await.unwrap();
        assert!(again.success(), "{node}: {again:?}");
        let ours = lanes(&lab, node).await;
        assert!(
            ours.len() == 2 && !theirs.contains(&ours[1]),
            "{node}: {theirs:?}, then {ours:?}"
        );
    }
    assert_eq!(crossed_since(&lab, &before).await.plaintext, 0);
}

fn one_of_each() -> LabOptions {
    LabOptions {
        nodes: 2,
        wireguard: "kernel,userspace".to_owned(),
        ..LabOptions::default()
    }
}

/// The kind of device of each node's lanes.
fn kinds(status: &Value) -> Vec<&str> {
    let nodes = status["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let kinds = nodes.iter().map(|node| &node["agent"]["lanes"][1]["device"]);
    kinds.filter_map(Value::as_str).collect()
}

/// What a script prints in a place.
async fn printed(lab: &Lab, place: &Place, script: &str) -> String {
    let output = lab.run(place.clone(), &["bash", "-c", script]).await.unwrap();
    assert!(output.success(), "{output:?}");
    output.stdout.trim().to_owned()
}
