//! Many pods at once, and more than there are addresses.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeSet;
use std::time::Instant;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use support::{lab, until};
use warren_lab::{Families, Lab, LabOptions, Place, PodFacts, PodOptions};

/// As many as a node with a /24 is made for, and then some.
const PODS: usize = 200;

/// How many a runtime attaches at once.
const AT_ONCE: usize = 24;

#[tokio::test]
async fn two_hundred_pods_come_and_go_side_by_side_and_nothing_of_them_stays() {
    let options = LabOptions {
        nodes: 1,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    let before = network(&lab).await;
    let started = Instant::now();
    let names: Vec<String> = (0..PODS).map(|nth| format!("pod{nth}")).collect();
    let pods: Vec<PodFacts> = stream::iter(&names)
        .map(|name| lab.pod_add(PodOptions::new(name.as_str(), "node1")))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
        .unwrap();
    let came = started.elapsed();
    let addresses: BTreeSet<&String> = pods.iter().flat_map(|pod| &pod.addresses).collect();
    assert_eq!(addresses.len(), 2 * PODS, "each address is one pod's alone");
    let links = network(&lab).await.0;
    assert_eq!(links.len(), before.0.len() + PODS);
    assert_eq!(held(&lab).await, PODS);
    // Of those that came last and first, through a guard that knows all of them.
    for address in pods[0].addresses.iter().chain(&pods[PODS - 1].addresses) {
        let ping = ["ping", "-n", "-q", "-c", "1", "-W", "5", address.as_str()];
        let answer = lab.run(Place::Pod("pod100".into()), &ping).await.unwrap();
        assert!(answer.success(), "{answer:?}");
    }

    let started = Instant::now();
    stream::iter(&names)
        .map(|name| lab.pod_remove(name.as_str()))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
        .unwrap();
    eprintln!(
        "{PODS} pods, {AT_ONCE} at once: came in {came:?}, went in {:?}",
        started.elapsed()
    );
    assert_eq!(held(&lab).await, 0);
    assert_eq!(network(&lab).await.0, before.0, "no veth outlives DEL");
    // The guard forgets them a moment later.
    until("nothing of the pods is left", async || {
        network(&lab).await == before
    })
    .await;
}

#[tokio::test]
async fn a_range_without_a_free_address_is_named_and_serves_again_when_a_pod_has_gone() {
    let options = LabOptions {
        nodes: 1,
        agents: false,
        families: Families::V4,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    // Eight addresses: the network's, the node's, the broadcast address, and five for pods.
    let small = json!({"spec": {"podCIDR": "10.244.1.0/29", "podCIDRs": ["10.244.1.0/29"]}});
    Api::<Node>::all(lab.client())
        .patch("node1", &PatchParams::default(), &Patch::Merge(&small))
        .await
        .unwrap();
    lab.node_start("node1").await.unwrap();

    let names: Vec<String> = (0..8).map(|nth| format!("pod{nth}")).collect();
    let outcomes: Vec<Result<PodFacts, String>> = stream::iter(&names)
        .map(async |name| {
            let added = lab.pod_add(PodOptions::new(name.as_str(), "node1")).await;
            added.map_err(|error| format!("{error:#}"))
        })
        .buffer_unordered(names.len())
        .collect()
        .await;
    let (pods, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    let pods: Vec<PodFacts> = pods.into_iter().map(Result::unwrap).collect();
    let given: BTreeSet<&String> = pods.iter().flat_map(|pod| &pod.addresses).collect();
    let all: Vec<String> = (2..=6).map(|last| format!("10.244.1.{last}")).collect();
    assert_eq!(given, all.iter().collect(), "{refused:?}");
    assert_eq!(refused.len(), 3);
    for error in refused.into_iter().map(Result::unwrap_err) {
        for part in [
            "code 102",
            "10.244.1.0/29 has 5 of 5 pod addresses in use",
            "remove pods",
            "larger pod CIDRs",
        ] {
            assert!(error.contains(part), "{part:?} is missing: {error}");
        }
    }
    assert_eq!(held(&lab).await, 5, "a refused pod holds nothing");

    let gone = &pods[2];
    lab.pod_remove(gone.key.clone()).await.unwrap();
    let again = lab.pod_add(PodOptions::new("again", "node1")).await.unwrap();
    assert_eq!(again.addresses, gone.addresses);
    until("no interface but those of five pods", async || {
        let (links, _) = network(&lab).await;
        links.iter().filter(|it| it.starts_with("wrn")).count() == 5
    })
    .await;
}

/// How many attachments the agent has on disk.
async fn held(lab: &Lab) -> usize {
    let facts = lab.facts().await.unwrap();
    let file = std::fs::read(facts.nodes[0].disk.join("state/attachments.json")).unwrap();
    let held: Value = serde_json::from_slice(&file).unwrap();
    let (attachments, allocations) = (&held["attachments"], &held["allocations"]);
    let count = attachments.as_array().unwrap().len();
    assert_eq!(allocations.as_array().unwrap().len(), count, "{held}");
    count
}

/// The node's links by name, and what else is there of ours.
async fn network(lab: &Lab) -> (Vec<String>, String) {
    let node = Place::Node("node1".to_owned());
    let script = "ls /sys/class/net; echo --; ip -4 route show proto 87; ip -6 route show proto 87; \
                  ip neigh show nud permanent; nft --stateless list table inet warren";
    let output = lab.run(node, &["sh", "-c", script]).await.unwrap();
    assert!(output.success(), "{output:?}");
    let (links, rest) = output.stdout.split_once("--\n").unwrap();
    (links.lines().map(str::to_owned).collect(), rest.to_owned())
}
