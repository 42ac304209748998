//! The mesh's keys are rotated while all pods send to each other, and not one packet is lost.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::fs;

use serde_json::{Value, json};

use support::{lab, status};
use warren_lab::rotation::{self, Keys};
use warren_lab::switch::{self, RATE};
use warren_lab::{Lab, LabOptions, Place, PodOptions, tally_during};

/// Nodes with a pod each, and a Mesh.
async fn with_pods(nodes: u8) -> Option<Lab> {
    let options = LabOptions {
        nodes,
        ..LabOptions::default()
    };
    let lab = lab(options).await?;
    for node in lab.facts().await.unwrap().nodes {
        let name = format!("on-{}", node.name);
        lab.pod_add(PodOptions::new(name.as_str(), &node.name))
            .await
            .unwrap();
    }
    switch::begin_with(&lab, &serde_json::json!({})).await.unwrap();
    Some(lab)
}

/// Does this while all pods send to each other; nothing may be lost, and nothing cross in the clear.
async fn nothing_is_lost<T>(lab: &Lab, what: &str, act: impl Future<Output = anyhow::Result<T>>) -> T {
    let (tally, done) = tally_during(lab, RATE, act).await.unwrap();
    let done = done.unwrap_or_else(|error| panic!("{what}: {error:#}"));
    eprintln!("{what}: {} of {} lost", tally.lost(), tally.sent());
    if tally.lost() > 0 {
        panic!("{what}: {:#?} {:#}", tally.lossy(), status(lab).await);
    }
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
    done
}

/// The key files on a node's disk.
async fn files(lab: &Lab, node: &str) -> Vec<String> {
    let facts = lab.facts().await.unwrap();
    let node = facts.nodes.iter().find(|it| it.name == node).unwrap();
    let files = fs::read_dir(node.disk.join("state/keys")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut keys: Vec<String> = names.filter(|name| name.starts_with("epoch-")).collect();
    keys.sort();
    keys
}

fn key_of<'a>(keys: &'a Keys, node: &str) -> &'a String {
    keys[node].values().next().unwrap()
}

#[tokio::test]
async fn all_keys_are_rotated_without_losing_a_packet() {
    let Some(lab) = with_pods(5).await else { return };
    let before = rotation::keys(&lab).await.unwrap();
    let (after, took) = nothing_is_lost(&lab, "rotate all", rotation::rotate(&lab, &[])).await;
    eprintln!("a rotation of 5 nodes took {took:?}");
    for node in before.keys() {
        assert_ne!(
            key_of(&before, node),
            key_of(&after, node),
            "{node} has a new key"
        );
        assert_eq!(
            files(&lab, node).await,
            ["epoch-2.key"],
            "{node} has destroyed the old one"
        );
    }
}

#[tokio::test]
async fn one_nodes_key_is_rotated_and_the_others_keep_theirs() {
    let Some(lab) = with_pods(3).await else { return };
    let before = rotation::keys(&lab).await.unwrap();
    let (after, _) = nothing_is_lost(&lab, "rotate one", rotation::rotate(&lab, &["node2"])).await;
    for node in ["node1", "node3"] {
        assert_eq!(
            key_of(&before, node),
            key_of(&after, node),
            "{node} keeps its key"
        );
    }
    assert_ne!(key_of(&before, "node2"), key_of(&after, "node2"));
}

#[tokio::test]
async fn three_rotations_in_a_row_wait_for_each_other() {
    let Some(lab) = with_pods(3).await else { return };
    let act = async {
        let epoch = rotation::begin(&lab, 3, &[]).await?;
        rotation::finished(&lab, epoch).await
    };
    let (_, took) = nothing_is_lost(&lab, "three rotations", act).await;
    eprintln!("three rotations of 3 nodes took {took:?}");
    assert_eq!(files(&lab, "node1").await, ["epoch-4.key"]);
}

#[tokio::test]
async fn agents_are_killed_in_the_midst_of_a_rotation() {
    let Some(lab) = with_pods(3).await else { return };
    let act = async {
        let epoch = rotation::begin(&lab, 1, &[]).await?;
        for node in ["node1", "node2", "node3", "node1"] {
            lab.node_kill(node).await?;
            lab.node_start(node).await?;
        }
        rotation::finished(&lab, epoch).await
    };
    nothing_is_lost(&lab, "rotate under kills", act).await;
}

#[tokio::test]
async fn warren_keys_rotates_and_shows_the_keys() {
    let Some(lab) = with_pods(2).await else { return };
    let kubeconfig = lab.kubeconfig_inside();
    let warren = async |arguments: &[&str]| {
        let argv = [&["warren", "keys"], arguments, &["--kubeconfig", &kubeconfig]].concat();
        lab.run(Place::Root, &argv).await.unwrap()
    };
    let before = rotation::keys(&lab).await.unwrap();
    let rotated = warren(&[
        "rotate",
        "--node",
        "node2",
        "--wait",
        "--timeout",
        "60",
        "--output",
        "json",
    ])
    .await;
    assert!(rotated.success(), "{rotated:?}");
    let told: Value = serde_json::from_str(&rotated.stdout).unwrap();
    assert_eq!(
        (&told["epoch"], &told["finished"]),
        (&json!(2), &json!(true)),
        "{told}"
    );
    let after = rotation::keys(&lab).await.unwrap();
    assert_eq!(key_of(&before, "node1"), key_of(&after, "node1"));
    assert_ne!(key_of(&before, "node2"), key_of(&after, "node2"));

    let listed = warren(&["list"]).await;
    assert!(listed.stdout.contains(key_of(&after, "node2")), "{listed:?}");
    assert!(
        listed.stdout.contains("epoch 2: 2 of 2 nodes have no other key"),
        "{listed:?}"
    );
    let unknown = warren(&["rotate", "--node", "nowhere"]).await;
    assert!(
        !unknown.success() && unknown.stderr.contains("there is no node nowhere"),
        "{unknown:?}"
    );
}
