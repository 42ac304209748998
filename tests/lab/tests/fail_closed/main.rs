//! Whatever goes wrong, nothing that a pod sends or is sent is to be read on the underlay unless the Mesh allows it. In each
//! test a capture there has been running since before the first agent and goes on until after the last, and pods and nodes
//! send to each other's pods in both families, datagrams and echo requests, during each fault.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod scene;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use scene::{Scene, Sender};
use serde_json::{Value, json};
use support::{a_pod_on_each_of_two_nodes, emulated, lab, metric, ping, status_when, until};
use warren_cluster::mesh_resource::Mesh;
use warren_lab::{Counts, LabOptions, Place};

/// How long a guard that somebody has flushed may be away.
fn longest_away() -> Duration {
    Duration::from_secs(if emulated() { 10 } else { 1 })
}

/// Where a node publishes its key.
const ANNOTATION: &str = "warren-mesh.io/wireguard";

#[tokio::test]
async fn a_node_whose_agent_is_dead_and_whose_lanes_and_routes_are_taken_away_seals_itself() {
    let Some(scene) = scene().await else { return };
    scene.lab.node_kill("node1").await.unwrap();
    scene.assert_sealed("without an agent").await;
    for fault in [
        "ip link set warren0 down; ip link set warren1 down",
        "ip link del warren0; ip link del warren1",
    ] {
        let before = scene.drops("node1", "plaintext-out").await;
        scene.sh("node1", fault).await;
        scene.assert_sealed(fault).await;
        // With the interfaces the routes are gone: all of it took the default route and met the guard.
        scene.dropped_more("node1", "plaintext-out", before).await;
        scene.lab.node_start("node1").await.unwrap();
        scene.healed().await;
        scene.lab.node_kill("node1").await.unwrap();
    }
    let before = scene.drops("node1", "plaintext-out").await;
    scene.sh("node1", FLUSH_ROUTES).await;
    scene.assert_sealed("without routes").await;
    scene.dropped_more("node1", "plaintext-out", before).await;
    scene.lab.node_start("node1").await.unwrap();
    scene.healed().await;
    scene.end().await;
}

#[tokio::test]
async fn a_node_that_is_tampered_with_under_its_agents_eyes_leaks_nothing_and_heals() {
    let Some(scene) = scene().await else { return };
    for fault in ["ip link set warren1 down", "ip link del warren1", FLUSH_ROUTES] {
        scene.sh("node1", fault).await;
        scene.assert_sealed(fault).await;
        scene.healed().await;
    }
    // Somebody else's routes stay where they are: more exact than ours, and as exact and preferred.
    let before = scene.drops("node1", "plaintext-out").await;
    scene
        .sh(
            "node1",
            "ip route add 10.244.2.0/25 via 10.211.1.12; ip -6 route add fd00:10:244:2::/65 via fd00:211:1::c
             ip route add 10.244.2.0/24 via 10.211.1.12 metric 0; ip -6 route add fd00:10:244:2::/64 via fd00:211:1::c metric 1",
        )
        .await;
    scene.assert_sealed("with another program's routes").await;
    scene.dropped_more("node1", "plaintext-out", before).await;
    let counted = "warren_guard_dropped_packets{reason=\"plaintext-out\"}";
    until("the metric to tell", async || {
        metric(&scene.lab, "node1", counted).await > Some(before)
    })
    .await;
    scene.end().await;
}

const FLUSH_ROUTES: &str = "ip route flush proto 87; ip -6 route flush proto 87";

#[tokio::test]
async fn what_is_not_known_or_not_right_of_a_peer_opens_nothing() {
    let Some(scene) = scene().await else { return };
    // Its agent would put the annotation right again.
    scene.lab.node_kill("node2").await.unwrap();
    let published = annotation(&scene).await;
    let mut wrong_key = published.clone();
    wrong_key["keys"][0]["publicKey"] = json!("QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=");
    let mut cannot = published.clone();
    cannot["paths"] = json!(["vxlan"]);
    for (fault, annotation, path) in [
        ("a wrong key", wrong_key.to_string(), json!("wireguard")),
        (
            "a peer that cannot do WireGuard, without fallback",
            cannot.to_string(),
            Value::Null,
        ),
        ("an annotation of nonsense", "{".to_owned(), Value::Null),
    ] {
        annotate(&scene, json!(annotation)).await;
        peer_is(&scene, fault, &path, &annotation).await;
        scene.assert_sealed(fault).await;
    }
    annotate(&scene, Value::Null).await;
    peer_is(&scene, "no annotation", &Value::Null, "").await;
    scene.assert_sealed("no annotation").await;

    scene.lab.node_start("node2").await.unwrap();
    scene.healed().await;
    let nodes: Api<Node> = Api::all(scene.lab.client());
    nodes.delete("node2", &DeleteParams::default()).await.unwrap();
    status_when(&scene.lab, "node1 to know no peer", |status| {
        status["nodes"][0]["agent"]["peers"] == json!([])
    })
    .await;
    scene.assert_sealed("an unknown peer").await;
    // Nor does it by the default route.
    scene.lab.node_kill("node1").await.unwrap();
    let before = scene.drops("node1", "plaintext-out").await;
    scene.sh("node1", FLUSH_ROUTES).await;
    scene.assert_sealed("an unknown peer, and no routes").await;
    scene.dropped_more("node1", "plaintext-out", before).await;
    scene.lab.node_start("node1").await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn a_guard_that_somebody_flushes_or_alters_is_back_within_a_second_and_the_routes_hold_meanwhile() {
    let Some(scene) = scene().await else { return };
    for (fault, restored) in [
        (
            "nft flush ruleset",
            "nft list chain inet warren outgoing | grep -q plaintext-out",
        ),
        (
            "nft delete table inet warren",
            "nft list chain inet warren outgoing | grep -q plaintext-out",
        ),
        (
            "nft flush set inet warren pods4",
            "nft list set inet warren pods4 | grep -q elements",
        ),
        (
            // Nothing sees that by looking: the table has as many rules as before.
            "nft replace rule inet warren outgoing handle \
                 $(nft -a list chain inet warren outgoing | grep -m 1 plaintext-out | sed 's/.*handle //') accept",
            "[ \"$(nft list chain inet warren outgoing | grep -c plaintext-out)\" = 2 ]",
        ),
        (
            "nft insert rule inet warren incoming accept",
            "! nft list chain inet warren incoming | grep -q '^\t*accept'",
        ),
    ] {
        let timed = format!(
            "{fault}; began=${{EPOCHREALTIME/./}}
             until {{ {restored}; }} 2> /dev/null; do
                 [ $((${{EPOCHREALTIME/./}} - began)) -lt 20000000 ] || break
             done
             echo $((${{EPOCHREALTIME/./}} - began))"
        );
        let output = scene.sh("node1", &timed).await;
        let away = Duration::from_micros(output.stdout.trim().parse().unwrap());
        eprintln!("{fault}: put right after {away:?}");
        assert!(away < longest_away(), "{fault}: put right after {away:?}");
        scene.assert_sealed(fault).await;
    }
    // With nobody to put it right the routes alone keep all of it inside.
    scene.lab.node_kill("node1").await.unwrap();
    scene.sh("node1", "nft delete table inet warren").await;
    scene.assert_sealed("without agent and guard").await;
    scene.lab.node_start("node1").await.unwrap();
    scene
        .sh(
            "node1",
            "nft list chain inet warren outgoing | grep -q plaintext-out",
        )
        .await;
    scene.healed().await;
    scene.end().await;
}

#[tokio::test]
async fn packets_from_the_underlay_that_claim_to_be_a_pods_are_dropped_and_counted() {
    let Some(scene) = scene().await else { return };
    let metrics = async || {
        let of = |reason| format!("warren_guard_dropped_packets{{reason=\"{reason}\"}}");
        let [remote, own] = ["plaintext-in", "spoofed-local"].map(of);
        (
            metric(&scene.lab, "node1", &remote).await.unwrap(),
            metric(&scene.lab, "node1", &own).await.unwrap(),
        )
    };
    let before = metrics().await;
    // The router of the underlay claims addresses of node2's pods, and of node1's own.
    let routes =
        "ip route add 10.244.1.0/24 via 10.211.1.11; ip -6 route add fd00:10:244:1::/64 via fd00:211:1::b";
    root(&scene, routes).await;
    for (source, family, reason) in [
        ("10.244.2.99", 0, "plaintext-in"),
        ("fd00:10:244:2::99", 1, "plaintext-in"),
        ("10.244.1.99", 0, "spoofed-local"),
        ("fd00:10:244:1::99", 1, "spoofed-local"),
    ] {
        let dropped = scene.drops("node1", reason).await;
        root(&scene, &format!("ip addr add {source} dev lo nodad")).await;
        let to = scene.pods[0][family].as_str();
        let ping = [
            "ping", "-n", "-q", "-c", "5", "-i", "0.02", "-W", "1", "-I", source, to,
        ];
        let answer = scene.lab.run(Place::Root, &ping).await.unwrap();
        assert!(
            answer.stdout.contains("5 packets transmitted, 0 received"),
            "{source}: {answer:?}"
        );
        scene.dropped_more("node1", reason, dropped + 4).await;
    }
    // Nor was any answered: that would be seen.
    scene.assert_sealed("under spoofed packets").await;
    until("the metrics to tell", async || {
        let now = metrics().await;
        now.0 >= before.0 + 10 && now.1 >= before.1 + 10
    })
    .await;
    scene.end().await;
}

/// What makes the others worth something: without guard and routes, and with nobody to put them back, it does leak.
#[tokio::test]
async fn with_guard_and_routes_both_taken_away_the_capture_sees_plaintext() {
    let Some(scene) = scene().await else { return };
    scene.lab.node_kill("node1").await.unwrap();
    scene
        .sh("node1", &format!("nft delete table inet warren; {FLUSH_ROUTES}"))
        .await;
    scene.keep_sending().await;
    let crossed = support::crossed_since(&scene.lab, &Counts::default()).await;
    assert!(crossed.plaintext > 0, "{crossed:?}");
    scene.lab.node_start("node1").await.unwrap();
    scene.healed().await;
    let before = scene.lab.counts().await.unwrap();
    scene.keep_sending().await;
    assert_eq!(
        support::crossed_since(&scene.lab, &before).await.plaintext,
        0,
        "it heals"
    );
}

/// The same the other way round: where the Mesh allows it, the capture sees just this traffic.
#[tokio::test]
async fn without_encryption_the_capture_sees_what_each_sender_sends_in_each_family() {
    let Some(lab) = lab(LabOptions {
        nodes: 2,
        agents: false,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    let mesh: Mesh = serde_json::from_value(json!({
        "apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh", "metadata": {"name": "default"},
        "spec": {"encryption": "none"},
    }))
    .unwrap();
    let meshes: Api<Mesh> = Api::all(lab.client());
    meshes.create(&PostParams::default(), &mesh).await.unwrap();
    for node in ["node1", "node2"] {
        lab.node_start(node).await.unwrap();
    }
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    until("the pods to reach each other", async || {
        ping(&lab, &from, &to[0], 1).await == (1, 1) && ping(&lab, &from, &to[1], 1).await == (1, 1)
    })
    .await;
    // And whoever asks is told what it is that can be read there, and why.
    let status = support::status(&lab).await;
    assert_eq!(
        status["inTheClear"],
        json!([{
            "path": "vxlan",
            "reason": "encryption is off and spec.overlay.mode is vxlan",
            "pairs": [{"from": "node1", "to": "node2"}, {"from": "node2", "to": "node1"}],
        }])
    );
    let said = lab
        .warren(&["status", "--kubeconfig", &lab.kubeconfig_inside()])
        .await
        .unwrap();
    let wanted = "In the clear by configuration:\n  vxlan, because encryption is off and spec.overlay.mode is vxlan: \
                  node1 to node2, node2 to node1\n";
    assert!(said.stdout.contains(wanted), "{}", said.stdout);
    for from in [from, Place::Node("node1".to_owned())] {
        for address in &to {
            let before = lab.counts().await.unwrap();
            let sender = Sender::start(&lab, from.clone(), std::slice::from_ref(address)).await;
            sender.keeps_sending(20).await;
            sender.stop();
            let crossed = support::crossed_since(&lab, &before).await;
            assert!(crossed.plaintext >= 20, "{from:?} to {address}: {crossed:?}");
        }
    }
}

async fn scene() -> Option<Scene> {
    let options = LabOptions {
        nodes: 2,
        ..LabOptions::default()
    };
    Some(Scene::new(lab(options).await?).await)
}

/// Waits until node1 has drawn its conclusions from what is said of node2.
async fn peer_is(scene: &Scene, what: &str, path: &Value, annotation: &str) {
    let key: Value = serde_json::from_str(annotation).unwrap_or_default();
    let key = &key["keys"][0]["publicKey"];
    status_when(&scene.lab, what, |status| {
        let peer = &status["nodes"][0]["agent"]["peers"][0];
        peer["path"] == *path && (path.is_null() || peer["publicKey"] == *key)
    })
    .await;
}

async fn annotation(scene: &Scene) -> Value {
    let node = Api::<Node>::all(scene.lab.client()).get("node2").await.unwrap();
    serde_json::from_str(&node.metadata.annotations.unwrap()[ANNOTATION]).unwrap()
}

async fn annotate(scene: &Scene, value: Value) {
    let patch = json!({"metadata": {"annotations": {ANNOTATION: value}}});
    Api::<Node>::all(scene.lab.client())
        .patch("node2", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

async fn root(scene: &Scene, script: &str) {
    let output = scene.lab.run(Place::Root, &["bash", "-c", script]).await.unwrap();
    assert!(output.success(), "{script}: {output:?}");
}
