//! GC, which came with version 1.1.0.
//!
//! cnitool cannot say which attachments are to stay: it asks for GC without a list. So what libcni sends for clients that
//! can (`CNIConfig.GCNetworkList` of 1.3) is sent by the test: the same environment, the plugin's configuration, and the list
//! under both names that it had in the specification's life.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use warren_lab::{Families, Lab, Output, PodOptions};

use crate::client::Client;
use crate::support::PATIENCE;
use crate::{NODE, here, lab_with_client, one_node, two_nodes};

/// "Invalid network config": nothing says what is to stay.
const INVALID_CONFIG: u64 = 7;

#[tokio::test]
async fn gc_detaches_what_is_not_listed_and_the_rest_does_not_notice_dual_stack() {
    listed_stay(Families::Dual).await;
}

#[tokio::test]
async fn gc_detaches_what_is_not_listed_and_the_rest_does_not_notice_with_ipv4_only() {
    listed_stay(Families::V4).await;
}

#[tokio::test]
async fn gc_detaches_what_is_not_listed_and_the_rest_does_not_notice_with_ipv6_only() {
    listed_stay(Families::V6).await;
}

async fn listed_stay(families: Families) {
    let Some((lab, cnitool)) = lab_with_client(two_nodes(families)).await else {
        return;
    };
    let far = lab.pod_add(PodOptions::new("far", "node2")).await.unwrap();
    let client = Client::new(&lab, &cnitool).await;
    let list = client.ours("1.1.0");
    client.configure(&list);
    let mut containers = BTreeMap::new();
    for name in ["first", "second", "third"] {
        let netns = client.namespace(name).await;
        client.succeed("add", &netns).await;
        containers.insert(name, client.asked().unwrap().container);
    }
    // Its attachments are none of the other network's.
    let mut other = list.clone();
    other["name"] = json!("other");
    client.configure(&other);
    let elsewhere = client.namespace("elsewhere").await;
    client.succeed("add", &elsewhere).await;
    assert_eq!(client.attached(), 4);

    let keep = [&containers["first"], &containers["third"]];
    let address = far.addresses.last().unwrap();
    client.ping("/run/netns/first", address).await;
    let traffic = format!("ping -n -q -c 50 -i 0.02 -W 3 {address}");
    let (answers, collected) = tokio::join!(
        client.inside("/run/netns/first", &traffic),
        gc(&lab, &client, &list, &keep)
    );
    assert!(
        collected.success() && collected.stdout.is_empty(),
        "{collected:?}"
    );
    assert!(answers.contains(" 0% packet loss"), "{answers}");
    assert_eq!(client.attached(), 3);
    for (netns, stays) in [
        ("first", true),
        ("second", false),
        ("third", true),
        ("elsewhere", true),
    ] {
        let links = client.links(Some(&format!("/run/netns/{netns}"))).await;
        assert_eq!(links.iter().any(|it| it["ifname"] == "eth0"), stays, "{netns}");
    }
    for netns in ["first", "third", "elsewhere"] {
        for address in &far.addresses {
            client.ping(&format!("/run/netns/{netns}"), address).await;
        }
    }

    // What is gone is gone, and DEL of it is no error.
    let again = gc(&lab, &client, &list, &keep).await;
    assert!(again.success(), "{again:?}");
    client.configure(&list);
    client.succeed("del", "/run/netns/second").await;
    let none = gc(&lab, &client, &other, &[]).await;
    assert!(none.success(), "{none:?}");
    assert_eq!(client.attached(), 2);
    let none = gc(&lab, &client, &list, &[]).await;
    assert!(none.success(), "{none:?}");
    assert_eq!((client.attached(), client.veths().await.len()), (0, 0));
}

#[tokio::test]
async fn gc_without_a_list_leaves_everybody_else_alone() {
    let Some((lab, cnitool)) = lab_with_client(one_node()).await else {
        return;
    };
    lab.pod_add(PodOptions::new("pod", NODE)).await.unwrap();
    let client = Client::new(&lab, &cnitool).await;
    client.configure(&client.ours("1.1.0"));
    let netns = client.namespace("known").await;
    client.succeed("add", &netns).await;
    assert_eq!(client.attached(), 2);
    // The client first sends DEL for all that it remembers, then GC that does not say what is to stay.
    let (code, msg) = client.refused("gc", &netns).await;
    assert_eq!(client.asked().unwrap().command, "GC");
    assert_eq!(code, INVALID_CONFIG, "{msg}");
    assert!(msg.contains("cni.dev/valid-attachments"), "{msg}");
    assert_eq!(client.attached(), 1, "the pod that another runtime attached");
    lab.pod_cni("pod", warren_lab::CniCommand::Check).await.unwrap();
}

/// GC for a network, as libcni asks for it.
async fn gc(lab: &Lab, client: &Client<'_>, list: &Value, keep: &[&String]) -> Output {
    let keep: Vec<Value> = keep
        .iter()
        .map(|container| json!({"containerID": container, "ifname": "eth0"}))
        .collect();
    let mut config = list["plugins"][0].clone();
    config["name"] = list["name"].clone();
    config["cniVersion"] = list["cniVersion"].clone();
    config["cni.dev/valid-attachments"] = json!(keep);
    config["cni.dev/attachments"] = json!(keep);
    let bin = client.node.disk.join("cni/bin");
    let program = bin.join("warren-cni");
    let env = [
        ("CNI_COMMAND", "GC"),
        ("CNI_CONTAINERID", ""),
        ("CNI_NETNS", ""),
        ("CNI_IFNAME", ""),
        ("CNI_ARGS", ""),
        ("CNI_PATH", bin.to_str().unwrap()),
    ];
    let argv = [program.to_str().unwrap()];
    lab.run_with(here(), &argv, &env, &config.to_string(), PATIENCE)
        .await
        .unwrap()
}
