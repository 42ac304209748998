//! The wall clock of a node is set a year forward and back while it runs.
//!
//! The kernel has one wall clock for all namespaces, so agents and devices are shown another by Debian's libfaketime, which
//! leaves the monotonic clock alone and reads the offset anew at each question. Each node has an offset of its own.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::path::Path;
use std::time::Duration;

use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use support::{a_pod_on_each_of_two_nodes, lab, ping, skip, until};
use warren_cluster::mesh_resource::Mesh;
use warren_lab::{Lab, LabOptions, Place};

/// The node whose clock is set.
const NODE: &str = "node2";

/// Where that node's offset is; every node has a `/run` of its own.
const OFFSET: &str = "/run/clock-offset";

#[tokio::test]
async fn a_clock_that_is_set_costs_no_packet_and_causes_no_step_and_no_write() {
    let Some(lab) = lab_with_clocks().await else {
        return;
    };
    let mesh = json!({"apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh", "metadata": {"name": "default"}, "spec": {}});
    let mesh: Mesh = serde_json::from_value(mesh).unwrap();
    let meshes: Api<Mesh> = Api::all(lab.client());
    meshes.create(&PostParams::default(), &mesh).await.unwrap();
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    for address in &to {
        assert_eq!(ping(&lab, &from, address, 1).await, (1, 1));
    }
    until("the status of the mesh", async || {
        let mesh = meshes.get("default").await.unwrap();
        serde_json::to_value(mesh).unwrap()["status"]["conditions"].is_array()
    })
    .await;
    for node in ["node1", NODE] {
        wait_until_it_plans_nothing(&lab, node).await;
    }
    let logs = || async { [log_of(&lab, "node1").await, log_of(&lab, NODE).await] };
    let before = logs().await;
    // Counts, and changes nothing.
    let count = |verb| json!({"verb": verb, "fault": {"delay": {"ms": 0}}});
    let writes = json!({"rules": [count("patch"), count("update"), count("create")]});
    lab.set_faults(&writes).await.unwrap();
    let jumps = async {
        for offset in ["+1d", "+366d", "-366d", "-1d", "+0"] {
            set_clock(&lab, offset).await;
            for node in ["node1", NODE] {
                // That takes a look with the clock as it is now.
                wait_until_it_plans_nothing(&lab, node).await;
            }
            let argv = ["warren", "status", "--local", "--output", "json"];
            let status = lab.run(Place::Node(NODE.into()), &argv).await.unwrap();
            let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
            for peer in status["nodes"][0]["agent"]["peers"].as_array().unwrap() {
                let age = peer["handshakeAgeSeconds"].as_u64();
                assert!(age.is_some_and(|age| age < 120), "{offset}: {peer}");
            }
        }
    };
    let (one, other, ()) = tokio::join!(
        ping(&lab, &from, &to[0], 250),
        ping(&lab, &from, &to[1], 250),
        jumps
    );
    assert_eq!((one, other), ((250, 250), (250, 250)), "sent and received");
    let faults = lab.faults().await.unwrap();
    for rule in faults["rules"].as_array().unwrap() {
        assert_eq!(rule["hits"], 0, "somebody wrote: {rule}");
    }
    for (before, after) in before.iter().zip(logs().await) {
        let new = &after[before.len()..];
        assert!(!new.contains("applied") && !new.contains("published"), "{new}");
    }
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn a_device_that_is_made_anew_after_the_clock_was_set_back_is_heard_by_its_peers() {
    let Some(lab) = lab_with_clocks().await else {
        return;
    };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    assert_eq!(ping(&lab, &from, &to[0], 1).await, (1, 1));
    set_clock(&lab, "-366d").await;
    let old = support::devices(&lab, NODE).await;
    on_node(&lab, &format!("kill -9 {}", old.join(" "))).await;
    until("the devices to be made anew", async || {
        let now = support::devices(&lab, NODE).await;
        now.len() == 2 && now.iter().all(|device| !old.contains(device))
    })
    .await;
    // All that is sent is sent by the node whose handshakes are refused for their time.
    let facts = lab.facts().await.unwrap();
    let here = facts.pods.iter().find(|pod| pod.key.name == "from").unwrap();
    let argv = [
        "ping",
        "-n",
        "-q",
        "-c",
        "1",
        "-i",
        "0.2",
        "-w",
        "12",
        &here.addresses[0],
    ];
    let limit = Duration::from_secs(20);
    let answer = lab.run_for(Place::Pod("to".into()), &argv, limit).await.unwrap();
    assert!(answer.success(), "{answer:?}");
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

/// Two nodes whose agents and devices have clocks that can be set.
async fn lab_with_clocks() -> Option<Lab> {
    let library = format!(
        "/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1",
        std::env::consts::ARCH
    );
    if !Path::new(&library).exists() {
        return skip(&format!("{library} is not there: install libfaketime"));
    }
    let environment = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", OFFSET),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    lab(LabOptions {
        nodes: 2,
        wireguard: "userspace".to_owned(),
        environment: environment
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..LabOptions::default()
    })
    .await
}

/// Sets the node's clock, and makes sure that it is.
async fn set_clock(lab: &Lab, offset: &str) {
    let library = format!(
        "/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1",
        std::env::consts::ARCH
    );
    let shown = on_node(
        lab,
        &format!(
            "echo '{offset}' > {OFFSET}.new && mv {OFFSET}.new {OFFSET} && date +%s && \
             LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={OFFSET} FAKETIME_NO_CACHE=1 date +%s"
        ),
    )
    .await;
    let mut times = shown.lines().map(|line| line.parse::<i64>().unwrap());
    let days = (times.next().unwrap() - times.next().unwrap()) / -86_400;
    let wanted: i64 = offset.trim_end_matches('d').parse().unwrap();
    assert!((days - wanted).abs() <= 1, "{offset}: {shown}");
}

async fn wait_until_it_plans_nothing(lab: &Lab, node: &str) {
    until(&format!("{node} to have nothing to do"), async || {
        let argv = ["warren", "plan", "--local"];
        let plan = lab.run(Place::Node(node.to_owned()), &argv).await.unwrap();
        plan.success() && plan.stdout.contains("nothing to do")
    })
    .await;
}

async fn log_of(lab: &Lab, node: &str) -> String {
    let facts = lab.facts().await.unwrap();
    let node = facts.nodes.iter().find(|it| it.name == node).unwrap();
    std::fs::read_to_string(&node.log).unwrap()
}

/// Runs a script on the node whose clock is set.
async fn on_node(lab: &Lab, script: &str) -> String {
    let output = lab
        .run(Place::Node(NODE.to_owned()), &["sh", "-c", script])
        .await
        .unwrap();
    assert!(output.success(), "{script}: {output:?}");
    output.stdout
}
