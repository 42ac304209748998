//! Pods on all nodes reach each other, and nobody on the wire can read it.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use support::{
    a_pod_on_each_of_two_nodes, assert_all_reach_all, crossed_since, devices, lab, lanes, peers, ping,
    status_when, two_pods_a_node,
};
use warren_cluster::mesh_resource::Mesh;
use warren_lab::{ApiKind, Counts, Families, LabOptions, Place, PodOptions};

#[tokio::test]
async fn pods_on_three_nodes_reach_each_other_through_wireguard_alone() {
    on_three_nodes(LabOptions::default()).await;
}

#[tokio::test]
async fn pods_on_three_nodes_reach_each_other_on_a_real_api_server() {
    on_three_nodes(LabOptions {
        api: ApiKind::Real,
        ..LabOptions::default()
    })
    .await;
}

#[tokio::test]
async fn pods_reach_each_other_across_subnets() {
    on_three_nodes(LabOptions {
        subnets: 2,
        ..LabOptions::default()
    })
    .await;
}

#[tokio::test]
async fn pods_reach_each_other_in_a_cluster_of_ipv4_alone() {
    on_three_nodes(LabOptions {
        families: Families::V4,
        ..LabOptions::default()
    })
    .await;
}

#[tokio::test]
async fn pods_reach_each_other_in_a_cluster_of_ipv6_alone() {
    on_three_nodes(LabOptions {
        families: Families::V6,
        ..LabOptions::default()
    })
    .await;
}

async fn on_three_nodes(options: LabOptions) {
    let Some(lab) = lab(options).await else { return };
    let facts = two_pods_a_node(&lab).await;
    assert_eq!((facts.nodes.len(), facts.pods.len()), (3, 6));
    assert_all_reach_all(&lab, &facts).await;

    let crossed = crossed_since(&lab, &Counts::default()).await;
    assert_eq!(crossed.plaintext, 0, "{crossed:?}");
    assert!(
        crossed.wireguard_data > 0 && crossed.wireguard_handshake > 0,
        "{crossed:?}"
    );
    let status = status_when(&lab, "a handshake with every peer", |status| {
        peers(status).iter().all(|it| it["handshakeAgeSeconds"].is_u64())
    })
    .await;
    assert_eq!(peers(&status).len(), 6, "{status:#}");
    assert!(
        peers(&status).iter().all(|it| it["path"] == "wireguard"),
        "{status:#}"
    );
}

#[tokio::test]
async fn the_agent_restarts_under_traffic_without_losing_a_packet() {
    let Some(lab) = lab(LabOptions {
        nodes: 2,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    assert_eq!(ping(&lab, &from, &to[0], 1).await, (1, 1));
    let devices_before = lanes(&lab, "node1").await;
    assert_eq!(devices_before.len(), 2, "a device for each lane");

    let restart = async {
        lab.node_stop("node1").await.unwrap();
        lab.node_start("node1").await.unwrap();
        // Without a word to the agent, too.
        lab.node_kill("node2").await.unwrap();
        lab.node_start("node2").await.unwrap();
    };
    let ((v4, v6), ()) = tokio::join!(
        async { tokio::join!(ping(&lab, &from, &to[0], 300), ping(&lab, &from, &to[1], 300)) },
        restart
    );
    assert_eq!((v4, v6), ((300, 300), (300, 300)), "sent and received");
    assert_eq!(
        lanes(&lab, "node1").await,
        devices_before,
        "the devices outlive the agent"
    );
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn pods_talk_while_no_agent_runs_and_still_encrypted() {
    let Some(lab) = lab(LabOptions {
        nodes: 2,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    lab.node_kill("node1").await.unwrap();
    lab.node_stop("node2").await.unwrap();
    let before = lab.counts().await.unwrap();
    for address in &to {
        assert_eq!(ping(&lab, &from, address, 10).await, (10, 10));
    }
    let crossed = crossed_since(&lab, &before).await;
    assert_eq!(crossed.plaintext, 0);
    assert!(crossed.wireguard_data >= 40, "{crossed:?}");
}

#[tokio::test]
async fn encryption_is_turned_on_in_a_live_cluster_and_from_then_on_nothing_is_in_the_clear() {
    let Some(lab) = lab(LabOptions {
        nodes: 2,
        agents: false,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    let mesh: Api<Mesh> = Api::all(lab.client());
    let open: Mesh = serde_json::from_value(json!({
        "apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh", "metadata": {"name": "default"},
        "spec": {"encryption": "none"},
    }))
    .unwrap();
    mesh.create(&PostParams::default(), &open).await.unwrap();
    for node in ["node1", "node2"] {
        lab.node_start(node).await.unwrap();
    }
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    assert_eq!(ping(&lab, &from, &to[0], 1).await, (1, 1));
    assert_eq!(ping(&lab, &from, &to[1], 1).await, (1, 1));
    let open = lab.counts().await.unwrap();
    assert!(
        open.plaintext >= 4,
        "encryption is off and this is how it looks: {open:?}"
    );

    let switch = async {
        let spec = json!({"spec": {"encryption": "wireguard"}});
        mesh.patch("default", &PatchParams::default(), &Patch::Merge(&spec))
            .await
            .unwrap();
        status_when(&lab, "WireGuard to every peer", |status| {
            let peers = peers(status);
            peers.len() == 2
                && peers
                    .iter()
                    .all(|it| it["path"] == "wireguard" && it["handshakeAgeSeconds"].is_u64())
        })
        .await;
    };
    let (v4, v6, ()) = tokio::join!(
        ping(&lab, &from, &to[0], 400),
        ping(&lab, &from, &to[1], 400),
        switch
    );
    assert_eq!((v4, v6), ((400, 400), (400, 400)), "sent and received");

    let before = lab.counts().await.unwrap();
    assert_eq!(ping(&lab, &from, &to[0], 5).await, (5, 5));
    assert_eq!(ping(&lab, &from, &to[1], 5).await, (5, 5));
    let crossed = crossed_since(&lab, &before).await;
    assert_eq!(crossed.plaintext, 0, "{crossed:?}");
    assert!(crossed.wireguard_data >= 20, "{crossed:?}");
}

#[tokio::test]
async fn a_node_that_was_cut_off_is_reached_again() {
    let Some(lab) = lab(LabOptions {
        nodes: 2,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    assert_eq!(ping(&lab, &from, &to[0], 1).await, (1, 1));
    lab.node_cut("node2").await.unwrap();
    assert_eq!(
        ping(&lab, &from, &to[0], 3).await.1,
        0,
        "a cut link carries nothing"
    );
    lab.node_mend("node2").await.unwrap();
    let ping = [
        "ping",
        "-n",
        "-q",
        "-c",
        "1",
        "-i",
        "0.2",
        "-w",
        "20",
        to[0].as_str(),
    ];
    let again = lab.run(from, &ping).await.unwrap();
    assert!(again.success(), "{again:?}");
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn a_device_that_dies_is_made_anew_and_its_peers_are_heard_again_within_two_seconds() {
    let options = LabOptions {
        nodes: 2,
        wireguard: "userspace".to_owned(),
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    assert_eq!(ping(&lab, &from, &to[0], 1).await, (1, 1));
    // The traffic comes from the other node: it goes on sending in a session that the new device knows nothing of.
    let killed = async {
        let kill = "kill -9 $(pgrep --ns $$ --nslist net --exact warren-wg)";
        let output = lab
            .run(Place::Node("node2".into()), &["sh", "-c", kill])
            .await
            .unwrap();
        assert!(output.success(), "{output:?}");
    };
    let ((sent, received), ()) = tokio::join!(ping(&lab, &from, &to[0], 300), killed);
    assert!(received < sent, "the device was not killed");
    assert!(
        received + 100 >= sent,
        "{received} of {sent} received: more than 2 s of 50 a second are missing"
    );
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn a_device_that_hangs_is_made_anew_and_nothing_leaves_in_the_clear_meanwhile() {
    let options = LabOptions {
        nodes: 2,
        wireguard: "userspace".to_owned(),
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    assert_eq!(ping(&lab, &from, &to[0], 1).await, (1, 1));
    let before = devices(&lab, "node1").await;
    assert_eq!(before.len(), 2, "{before:?}");
    let stop = format!("kill -STOP {}", before.join(" "));
    let output = lab
        .run(Place::Node("node1".into()), &["sh", "-c", &stop])
        .await
        .unwrap();
    assert!(output.success(), "{output:?}");
    let stopped = Instant::now();
    // It has been asked twice, for 5 s each time, at the latest when the next pass is due; and has 2 s to end.
    let argv = [
        "ping",
        "-n",
        "-q",
        "-c",
        "1",
        "-i",
        "0.2",
        "-w",
        "40",
        to[0].as_str(),
    ];
    let again = lab.run_for(from, &argv, Duration::from_secs(60)).await.unwrap();
    assert!(again.success(), "{again:?}");
    let after = stopped.elapsed();
    eprintln!("heard again after {after:?}");
    assert!(
        after > Duration::from_secs(5) && after < Duration::from_secs(26),
        "heard again after {after:?}"
    );
    let now = devices(&lab, "node1").await;
    assert!(
        now.len() == 2 && now.iter().all(|device| !before.contains(device)),
        "{before:?}, then {now:?}"
    );
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn nothing_for_the_pods_of_a_deleted_node_leaves_in_the_clear() {
    let options = LabOptions {
        nodes: 2,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    assert_eq!(ping(&lab, &from, &to[0], 1).await, (1, 1));
    Api::<Node>::all(lab.client())
        .delete("node2", &DeleteParams::default())
        .await
        .unwrap();
    status_when(&lab, "node1 to know no peer", |status| {
        status["nodes"][0]["agent"]["peers"] == json!([])
    })
    .await;
    let before = lab.counts().await.unwrap();
    let node = Place::Node("node1".to_owned());
    // What has no peer has a route to nowhere; with that out of the way for a moment, the guard is what is left.
    let routes = ["ip route del 10.244.2.0/24", "ip -6 route del fd00:10:244:2::/64"];
    lab.node_kill("node1").await.unwrap();
    for without in ["true", &routes.join(" && ")] {
        let output = lab.run(node.clone(), &["sh", "-c", without]).await.unwrap();
        assert!(output.success(), "{output:?}");
        assert_eq!(ping(&lab, &from, &to[0], 5).await.1, 0);
        assert_eq!(ping(&lab, &from, &to[1], 5).await.1, 0);
    }
    let crossed = crossed_since(&lab, &before).await;
    assert_eq!(crossed.plaintext, 0, "{crossed:?}");
    lab.node_start("node1").await.unwrap();
    let status = support::status(&lab).await;
    let drops = status["nodes"][0]["agent"]["drops"].as_array().unwrap();
    let sealed = drops.iter().find(|it| it["reason"] == "plaintext-out").unwrap();
    assert!(sealed["packets"].as_u64().unwrap() >= 5, "{sealed}");
}

#[tokio::test]
async fn a_rebooted_node_keeps_its_key_and_takes_pods_again() {
    let Some(lab) = lab(LabOptions {
        nodes: 2,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    let (from, _) = a_pod_on_each_of_two_nodes(&lab).await;
    let key = |status: &Value| status["nodes"][1]["announcement"]["keys"].clone();
    let before = key(&support::status(&lab).await);
    assert!(before[0]["publicKey"].is_string(), "{before}");
    lab.node_reboot("node2").await.unwrap();
    let again = lab.pod_add(PodOptions::new("again", "node2")).await.unwrap();
    for address in &again.addresses {
        let ping = [
            "ping",
            "-n",
            "-q",
            "-c",
            "1",
            "-i",
            "0.2",
            "-w",
            "20",
            address.as_str(),
        ];
        let answer = lab.run(from.clone(), &ping).await.unwrap();
        assert!(answer.success(), "{answer:?}");
    }
    assert_eq!(key(&support::status(&lab).await), before);
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn the_mesh_forms_although_the_api_loses_answers_and_forgets_its_history() {
    let options = LabOptions {
        agents: false,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    let every_agent_call = json!({"rules": [
        {"verb": "list", "count": 4, "fault": {"error": {"code": 500}}},
        {"verb": "watch", "resource": "nodes", "count": 4, "fault": {"error": {"code": 410}}},
        {"verb": "watch", "resource": "pods", "count": 2, "fault": "drop"},
        {"verb": "patch", "resource": "nodes", "count": 2, "fault": "dropAnswer"},
        {"verb": "patch", "resource": "nodes", "count": 2, "fault": {"error": {"code": 409}}},
    ], "cutWatchesEveryMs": 700, "jitterMs": 50});
    lab.set_faults(&every_agent_call).await.unwrap();
    let nodes = ["node1", "node2", "node3"];
    futures::future::try_join_all(nodes.map(|it| lab.node_start(it)))
        .await
        .unwrap();
    let facts = two_pods_a_node(&lab).await;
    assert_all_reach_all(&lab, &facts).await;
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
    let plan = lab.faults().await.unwrap();
    let hits = plan["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["hits"].as_u64().unwrap());
    assert!(hits.clone().all(|it| it > 0), "every fault happened: {plan}");
}
