//! What a userspace device drops is told with its reason.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use support::{a_pod_on_each_of_two_nodes, lab, metric, ping, status, until};
use warren_lab::{LabOptions, Place};

#[tokio::test]
async fn what_a_device_drops_is_told_by_status_and_metric() {
    let options = LabOptions {
        nodes: 2,
        wireguard: "userspace".to_owned(),
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    assert_eq!(ping(&lab, &from, &to[0], 1).await, (1, 1));
    let dropped = async || {
        let series =
            "warren_device_dropped_packets{interface=\"warren1\",reason=\"no_peer_for_destination\"}";
        let metric = metric(&lab, "node1", series).await.unwrap_or_default();
        let status = status(&lab).await;
        let lanes = status["nodes"][0]["agent"]["lanes"].as_array().unwrap().clone();
        // A device that is slow to answer is left out, once.
        let lane = lanes.iter().find(|lane| lane["interface"] == "warren1");
        let told = lane.and_then(|lane| lane["drops"]["no_peer_for_destination"].as_u64());
        (metric, told.unwrap_or_default())
    };
    let before = dropped().await;
    // Somebody routes to the lane what belongs to no peer.
    let node = Place::Node("node1".to_owned());
    let route = ["ip", "route", "add", "10.99.0.0/24", "dev", "warren1"];
    let routed = lab.run(node.clone(), &route).await.unwrap();
    assert!(routed.success(), "{routed:?}");
    assert_eq!(ping(&lab, &node, "10.99.0.1", 7).await.1, 0);
    until("both to tell of seven packets more", async || {
        let now = dropped().await;
        now.0 >= before.0 + 7 && now.1 >= before.1 + 7
    })
    .await;
    let told = lab.run(node, &["warren", "status"]).await.unwrap();
    assert!(told.stdout.contains("no_peer_for_destination"), "{told:?}");
}
