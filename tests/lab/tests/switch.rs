//! How nodes reach each other is changed in a live cluster, and not one packet is lost.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use support::{lab, status};
use warren_lab::switch::{self, Named};
use warren_lab::{Lab, LabOptions, PodOptions};

/// Four nodes with a pod each.
async fn four_nodes(subnets: u8) -> Option<Lab> {
    let options = LabOptions {
        nodes: 4,
        subnets,
        ..LabOptions::default()
    };
    let lab = lab(options).await?;
    for node in lab.facts().await.unwrap().nodes {
        let name = format!("on-{}", node.name);
        lab.pod_add(PodOptions::new(name.as_str(), &node.name))
            .await
            .unwrap();
    }
    Some(lab)
}

async fn nothing_is_lost(lab: &Lab, changes: Vec<Named>) {
    for (name, change) in changes {
        let tally = switch::during(lab, &change)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        eprintln!("{name}: {} of {} lost", tally.lost(), tally.sent());
        if tally.lost() > 0 {
            panic!("{name}: {:#?} {:#}", tally.lossy(), status(lab).await);
        }
    }
}

#[tokio::test]
async fn encryption_is_turned_on_and_off_without_losing_a_packet() {
    let Some(lab) = four_nodes(1).await else { return };
    switch::begin_with(&lab, &switch::in_the_clear()).await.unwrap();
    nothing_is_lost(&lab, switch::encryption()).await;
}

#[tokio::test]
async fn the_overlay_is_changed_without_losing_a_packet() {
    let Some(lab) = four_nodes(1).await else { return };
    switch::begin_with(&lab, &switch::in_the_clear()).await.unwrap();
    nothing_is_lost(&lab, switch::overlay()).await;
}

#[tokio::test]
async fn subnets_are_spared_encapsulation_and_not_without_losing_a_packet() {
    let Some(lab) = four_nodes(2).await else { return };
    switch::begin_with(&lab, &switch::in_the_clear()).await.unwrap();
    nothing_is_lost(&lab, switch::cross_subnet()).await;
}

#[tokio::test]
async fn a_node_loses_and_gains_wireguard_without_losing_a_packet() {
    let Some(lab) = four_nodes(1).await else { return };
    switch::begin_with(&lab, &serde_json::json!({})).await.unwrap();
    nothing_is_lost(&lab, switch::fallback()).await;
    assert!(
        lab.counts().await.unwrap().plaintext > 0,
        "node4 was reached by the fallback"
    );
}

#[tokio::test]
async fn the_mtu_is_changed_without_losing_a_packet() {
    let Some(lab) = four_nodes(1).await else { return };
    switch::begin_with(&lab, &serde_json::json!({})).await.unwrap();
    nothing_is_lost(&lab, switch::mtu()).await;
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}
