//! STATUS, which came with version 1.1.0.

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use warren_lab::{Families, LabOptions, PodOptions};

use crate::client::Client;
use crate::support::{devices, until};
use crate::{NODE, lab_with_client, one_node};

/// ADD cannot be served.
const NOT_AVAILABLE: u64 = 50;

/// Nor are the pods that are there reached from everywhere.
const LIMITED_CONNECTIVITY: u64 = 51;

#[tokio::test]
async fn status_is_good_while_there_is_an_agent_with_an_address_to_give() {
    let options = LabOptions {
        nodes: 1,
        agents: false,
        families: Families::V4,
        ..LabOptions::default()
    };
    let Some((lab, cnitool)) = lab_with_client(options).await else {
        return;
    };
    // Four addresses: the network's, the node's, the broadcast address, and one for a pod.
    let small = json!({"spec": {"podCIDR": "10.244.1.0/30", "podCIDRs": ["10.244.1.0/30"]}});
    Api::<Node>::all(lab.client())
        .patch(NODE, &PatchParams::default(), &Patch::Merge(&small))
        .await
        .unwrap();
    lab.node_start(NODE).await.unwrap();
    let client = Client::new(&lab, &cnitool).await;
    client.configure(&client.ours("1.1.0"));
    // The client wants one with every command, and keeps it to itself.
    let netns = client.namespace("none").await;
    assert_eq!(client.succeed("status", &netns).await, "");
    assert_eq!(client.asked().unwrap().command, "STATUS");

    lab.pod_add(PodOptions::new("last", NODE)).await.unwrap();
    let (code, msg) = client.refused("status", &netns).await;
    assert_eq!(code, NOT_AVAILABLE, "{msg}");
    assert!(msg.contains("10.244.1.0/30 has 1 of 1"), "{msg}");
    lab.pod_remove("last").await.unwrap();
    assert_eq!(client.succeed("status", &netns).await, "");

    lab.node_stop(NODE).await.unwrap();
    let (code, msg) = client.refused("status", &netns).await;
    assert_eq!(code, NOT_AVAILABLE, "{msg}");
    assert!(msg.contains("warren-agent"), "{msg}");
    lab.node_start(NODE).await.unwrap();
    assert_eq!(client.succeed("status", &netns).await, "");
}

#[tokio::test]
async fn status_says_when_pods_that_are_there_are_cut_off_as_well() {
    let options = LabOptions {
        wireguard: "userspace".to_owned(),
        ..one_node()
    };
    let Some((lab, cnitool)) = lab_with_client(options).await else {
        return;
    };
    let client = Client::new(&lab, &cnitool).await;
    client.configure(&client.ours("1.1.0"));
    let netns = client.namespace("none").await;
    assert_eq!(client.succeed("status", &netns).await, "");

    // No device can be made while this is no TUN.
    client.shell("mount --bind /dev/null /dev/net/tun").await;
    let processes = devices(&lab, NODE).await;
    client.shell(&format!("kill -9 {}", processes.join(" "))).await;
    until("STATUS says so", async || {
        !client.call("status", &netns).await.success()
    })
    .await;
    let (code, msg) = client.refused("status", &netns).await;
    assert_eq!(code, LIMITED_CONNECTIVITY, "{msg}");
    assert!(msg.contains("do not reach other nodes"), "{msg}");

    client.shell("umount /dev/net/tun").await;
    until("STATUS is good again", async || {
        client.call("status", &netns).await.success()
    })
    .await;
}
