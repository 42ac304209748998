//! The mesh's keys are rotated while all pods send to each other, and not one packet is lost.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use warren_cluster::mesh_resource::Mesh;

use support::{ask_agent, crossed_since, lab, status, until};
use warren_lab::rotation::{self, Case, Keys, LAST, NamedCase};
use warren_lab::switch::{self, RATE};
use warren_lab::{Families, Lab, LabOptions, Place, PodOptions, Tally, tally_during};

/// Nodes with a pod each, and a Mesh.
async fn with_pods(options: LabOptions) -> Option<Lab> {
    let lab = lab(options).await?;
    for node in lab.facts().await.unwrap().nodes {
        let name = format!("on-{}", node.name);
        lab.pod_add(PodOptions::new(name.as_str(), &node.name))
            .await
            .unwrap();
    }
    switch::begin_with(&lab, &json!({})).await.unwrap();
    Some(lab)
}

fn nodes(nodes: u8) -> LabOptions {
    LabOptions {
        nodes,
        ..LabOptions::default()
    }
}

/// Does this while all pods send to each other; nothing may be lost, and nothing cross in the clear.
async fn nothing_is_lost<T>(lab: &Lab, what: &str, act: impl Future<Output = anyhow::Result<T>>) -> T {
    let before = lab.counts().await.unwrap();
    let (tally, done) = tally_during(lab, RATE, act).await.unwrap();
    let done = done.unwrap_or_else(|error| panic!("{what}: {error:#}"));
    assert_none_lost(lab, what, &tally).await;
    assert_eq!(crossed_since(lab, &before).await.plaintext, 0, "{what}");
    done
}

async fn assert_none_lost(lab: &Lab, what: &str, tally: &Tally) {
    eprintln!("{what}: {} of {} lost", tally.lost(), tally.sent());
    if tally.lost() > 0 {
        panic!(
            "{what}: {:#?} {:#}, {} had no room in a socket",
            tally.lossy(),
            status(lab).await,
            tally.overflowed
        );
    }
}

/// One case after the other, in one lab; in each nothing may be lost, and every node's old keys must be gone at its end.
async fn cases_lose_nothing(lab: &Lab, cases: Vec<NamedCase>) {
    for (what, case) in cases {
        let before = lab.counts().await.unwrap();
        let (tally, took) = rotation::during(lab, &case)
            .await
            .unwrap_or_else(|error| panic!("{what}: {error:#}"));
        eprintln!("{what}: {took:?}");
        assert_none_lost(lab, what, &tally).await;
        if case.is_encrypted() {
            assert_eq!(crossed_since(lab, &before).await.plaintext, 0, "{what}");
        }
        assert_old_keys_are_gone(lab).await;
    }
}

/// On the disk of each node there is the one key that it publishes.
async fn assert_old_keys_are_gone(lab: &Lab) {
    for (node, keys) in rotation::keys(lab).await.unwrap() {
        let epochs: Vec<_> = keys.keys().map(|epoch| format!("epoch-{epoch}.key")).collect();
        assert_eq!(epochs.len(), 1, "{node} lives in one epoch");
        assert_eq!(files(lab, &node).await, epochs, "{node}");
    }
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

/// What a node's agent says that a rotation waits for.
async fn waits_for(lab: &Lab, node: &str) -> Vec<String> {
    let status = ask_agent(lab, node, "/status").await.unwrap_or_default();
    let status: Value = serde_json::from_str(&status).unwrap_or_default();
    let waits = status["rotationWaitsFor"].as_array().into_iter().flatten();
    waits.filter_map(|it| it.as_str().map(str::to_owned)).collect()
}

/// Waits until each of these nodes says that its rotation waits for that node and for no other.
async fn all_wait_for(lab: &Lab, nodes: &[&str], last: &str) {
    for node in nodes {
        until(&format!("{node} to name {last}"), async || {
            let waits = waits_for(lab, node).await;
            !waits.is_empty() && waits.iter().all(|it| it.contains(last))
        })
        .await;
    }
}

#[tokio::test]
async fn all_keys_are_rotated_without_losing_a_packet() {
    let Some(lab) = with_pods(nodes(5)).await else {
        return;
    };
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
    let Some(lab) = with_pods(nodes(3)).await else {
        return;
    };
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
    let Some(lab) = with_pods(nodes(3)).await else {
        return;
    };
    cases_lose_nothing(&lab, vec![("three in a row", Case::Several(3))]).await;
    assert_eq!(files(&lab, "node1").await, ["epoch-4.key"]);
}

#[tokio::test]
async fn agents_are_killed_in_the_midst_of_a_rotation() {
    let Some(lab) = with_pods(nodes(5)).await else {
        return;
    };
    cases_lose_nothing(&lab, vec![("agents are killed", Case::Killed(6))]).await;
}

#[tokio::test]
async fn the_api_comes_and_goes_in_the_midst_of_a_rotation() {
    let Some(lab) = with_pods(nodes(5)).await else {
        return;
    };
    cases_lose_nothing(&lab, vec![("the API flaps", Case::ApiFlaps)]).await;
}

#[tokio::test]
async fn encryption_is_turned_off_and_on_in_the_midst_of_rotations() {
    let Some(lab) = with_pods(nodes(4)).await else {
        return;
    };
    cases_lose_nothing(&lab, rotation::cases_of_encryption()).await;
}

#[tokio::test]
async fn a_node_loses_and_gains_wireguard_in_the_midst_of_rotations() {
    let Some(lab) = with_pods(nodes(4)).await else {
        return;
    };
    cases_lose_nothing(&lab, rotation::cases_of_fallback()).await;
}

#[tokio::test]
async fn a_node_joins_in_the_midst_of_a_rotation_is_then_not_reached_in_one_and_leaves_in_another() {
    if warren_lab::obstacle().unwrap().is_some() {
        // Says why, or fails.
        lab(LabOptions::default()).await;
        return;
    }
    let lab = rotation::lab_for(true).await.unwrap();
    let others = ["node1", "node2", "node3", "node4"];
    for (what, case) in rotation::cases_of_the_last() {
        let named = async {
            if let Case::Unreachable = case {
                all_wait_for(&lab, &others, LAST).await;
            }
        };
        let (done, ()) = tokio::join!(rotation::during(&lab, &case), named);
        let (tally, took) = done.unwrap_or_else(|error| panic!("{what}: {error:#}"));
        eprintln!("{what}: {took:?}");
        assert_none_lost(&lab, what, &tally).await;
        assert_old_keys_are_gone(&lab).await;
        if let Case::Joins = case {
            // From now on its pod counts too, but it is not there to be cut off: for one rotation.
            let of_last = PodOptions::new("on-last", LAST);
            lab.pod_add(of_last).await.unwrap();
            nothing_is_lost(&lab, "with the node that joined", rotation::rotate(&lab, &[])).await;
            lab.pod_remove("on-last").await.unwrap();
        }
    }
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn a_rotation_that_cannot_finish_names_the_node_it_waits_for_and_ends_at_its_deadline_though_agents_restart()
 {
    const DEADLINE: Duration = Duration::from_secs(10);
    let environment = [(
        "WARREN_ROTATION_DEADLINE".to_owned(),
        DEADLINE.as_secs().to_string(),
    )];
    let options = LabOptions {
        environment: environment.into(),
        ..nodes(3)
    };
    let Some(lab) = with_pods(options).await else {
        return;
    };
    lab.pod_remove("on-node3").await.unwrap();
    // It is said to be ready, so it is not just left out.
    lab.node_cut("node3").await.unwrap();
    let act = async {
        let begun = Instant::now();
        let epoch = rotation::begin(&lab, 1, &[]).await?;
        all_wait_for(&lab, &["node1", "node2"], "node3").await;
        // If each start began the deadline anew, this would be far from the end of it.
        until("most of the deadline to pass", async || {
            begun.elapsed() > DEADLINE * 3 / 4
        })
        .await;
        for node in ["node1", "node2"] {
            lab.node_kill(node).await?;
            lab.node_start(node).await?;
        }
        rotation::finished_without(&lab, epoch, "node3").await?;
        Ok((epoch, begun.elapsed()))
    };
    let (epoch, took) = nothing_is_lost(&lab, "past its deadline", act).await;
    eprintln!("a rotation that could not finish ended after {took:?}");
    assert!(took >= DEADLINE, "{took:?}");
    // What follows the deadline is the drain, and both ends of a restart.
    assert!(
        took < DEADLINE * 3 / 4 + DEADLINE,
        "the restart began it anew: {took:?}"
    );

    lab.node_mend("node3").await.unwrap();
    rotation::finished(&lab, epoch).await.unwrap();
    assert_old_keys_are_gone(&lab).await;
    lab.pod_add(PodOptions::new("again", "node3")).await.unwrap();
    nothing_is_lost(&lab, "after it came back", rotation::rotate(&lab, &[])).await;
}

#[tokio::test]
#[ignore = "needs kernel WireGuard: hack/vm.sh"]
async fn kernel_devices_rotate_with_each_other_and_with_a_userspace_device() {
    /// Packets a second: an emulated machine carries no more without a rotation either.
    const SLOW: u32 = 20;
    let options = LabOptions {
        wireguard: "kernel,userspace,kernel".to_owned(),
        families: Families::V4,
        ..nodes(3)
    };
    let Some(lab) = with_pods(options).await else {
        return;
    };
    let rotation = rotation::rotate(&lab, &[]);
    let (tally, done) = tally_during(&lab, SLOW, rotation).await.unwrap();
    eprintln!("kernel and userspace: {:?}", done.unwrap().1);
    assert_none_lost(&lab, "kernel and userspace", &tally).await;
    assert_old_keys_are_gone(&lab).await;
    let kinds = status(&lab).await;
    let kinds = kinds["nodes"].as_array().unwrap().iter();
    // The lane of epoch 2.
    let kinds: Vec<&str> = kinds
        .filter_map(|node| node["agent"]["lanes"][0]["device"].as_str())
        .collect();
    assert_eq!(kinds, ["kernel", "userspace", "kernel"]);
}

/// The Mesh as the API has it.
async fn mesh(lab: &Lab) -> Value {
    let meshes: Api<Mesh> = Api::all(lab.client());
    serde_json::to_value(meshes.get("default").await.unwrap()).unwrap()
}

/// Makes it long ago that this epoch was first asked for, once that is written down.
async fn make_due(lab: &Lab, epoch: u64) {
    until("the beginning of the epoch to be written down", async || {
        let status = &mesh(lab).await["status"];
        status["epoch"] == epoch && status["epochSince"].is_string()
    })
    .await;
    let meshes: Api<Mesh> = Api::all(lab.client());
    let long_ago = json!({"status": {"epochSince": "2020-01-01T00:00:00Z"}});
    meshes
        .patch_status("default", &PatchParams::default(), &Patch::Merge(&long_ago))
        .await
        .unwrap();
}

/// The Events of the Mesh that give this reason.
async fn told(lab: &Lab, reason: &str) -> Vec<Event> {
    let events: Api<Event> = Api::namespaced(lab.client(), "default");
    let all = events.list(&ListParams::default()).await.unwrap();
    let is_it = |event: &Event| {
        event.reason.as_deref() == Some(reason) && event.involved_object.kind.as_deref() == Some("Mesh")
    };
    all.items.into_iter().filter(is_it).collect()
}

#[tokio::test]
async fn keys_are_rotated_by_schedule_one_rotation_after_the_other_and_the_spec_is_left_alone() {
    let Some(lab) = with_pods(nodes(3)).await else {
        return;
    };
    let meshes: Api<Mesh> = Api::all(lab.client());
    let hourly = json!({"spec": {"keys": {"rotationInterval": "1h"}}});
    meshes
        .patch("default", &PatchParams::default(), &Patch::Merge(&hourly))
        .await
        .unwrap();
    let act = async {
        make_due(&lab, 1).await;
        // Told as long as it is news, which the next line ends.
        until("the first rotation to be told", async || {
            !told(&lab, "RotationBegun").await.is_empty()
        })
        .await;
        // Due again while the first is under way: it waits for the end of that.
        make_due(&lab, 2).await;
        until("the second rotation to begin", async || {
            mesh(&lab).await["status"]["scheduledEpoch"] == 3
        })
        .await;
        let put_off = told(&lab, "RotationPutOff").await;
        rotation::finished(&lab, 3).await.map(|_| put_off)
    };
    let put_off = nothing_is_lost(&lab, "by schedule", act).await;
    let message = put_off[0].message.as_deref().unwrap();
    assert!(
        message.contains("has not finished the rotation before"),
        "{message}"
    );
    assert_old_keys_are_gone(&lab).await;
    until("both to be told", async || {
        told(&lab, "RotationBegun").await.len() == 2
    })
    .await;
    for event in told(&lab, "RotationBegun").await {
        assert_eq!(event.type_.as_deref(), Some("Normal"));
    }
    let spec = &mesh(&lab).await["spec"]["keys"];
    assert_eq!(
        (&spec["epoch"], &spec["rotationInterval"]),
        (&json!(1), &json!("1h"))
    );

    // The next is an hour away. An operator goes on from where the schedule is.
    let arguments = ["keys", "rotate", "--wait", "--timeout", "60", "--output", "json"];
    let kubeconfig = lab.kubeconfig_inside();
    let rotated = lab
        .warren(&[&arguments[..], &["--kubeconfig", &kubeconfig]].concat())
        .await
        .unwrap();
    let said: Value = serde_json::from_str(&rotated.stdout).unwrap();
    assert_eq!(
        (&said["epoch"], &said["finished"]),
        (&json!(4), &json!(true)),
        "{said}"
    );
    assert_eq!(mesh(&lab).await["status"]["scheduledEpoch"], 3);
}

#[tokio::test]
async fn warren_keys_rotates_and_shows_the_keys() {
    let Some(lab) = with_pods(nodes(2)).await else {
        return;
    };
    let kubeconfig = lab.kubeconfig_inside();
    let warren = async |arguments: &[&str]| {
        let argv = [&["warren", "keys"], arguments, &["--kubeconfig", &kubeconfig]].concat();
        lab.run(Place::Root, &argv).await.unwrap()
    };
    let before = rotation::keys(&lab).await.unwrap();
    // Somebody else is faster, twice: the agent that reports writes the Mesh as well.
    let faster = json!({"rules": [
        {"verb": "patch", "resource": "meshes", "count": 2, "fault": {"error": {"code": 409}}},
    ]});
    lab.set_faults(&faster).await.unwrap();
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
