//! Keys that were forged, stolen or lost: who is believed, and what becomes of the traffic.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use k8s_openapi::api::core::v1::{Event, Node};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use support::{ask_agent, assert_all_reach_all, lab, metric, ping, status, status_when, until};
use warren_cluster::mesh_resource::Mesh;
use warren_lab::switch::{self, RATE};
use warren_lab::{Lab, LabOptions, Output, Place, PodOptions, rotation, tally_during};
use warren_model::announcement::ANNOTATION;

/// A key that nobody in a lab has the private half of.
const FORGED: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

#[tokio::test]
async fn a_forged_annotation_does_not_move_traffic_where_keys_are_pinned() {
    let Some(lab) = with_pods(2, json!({"keys": {"pinning": "strict"}})).await else {
        return;
    };
    let before = rotation::keys(&lab).await.unwrap()["node2"][&1].clone();
    verified_when(&lab, "all is as published", 0).await;
    // Nobody puts right what is forged.
    lab.node_stop("node2").await.unwrap();
    let act = async {
        forge(&lab, "node2", FORGED).await;
        status_when(&lab, "the key to be held back", |status| {
            refusals_of(status, "node1").contains(&"key-not-accepted".to_owned())
        })
        .await;
        until("an Event", async || {
            !events(&lab, "KeyNotAccepted").await.is_empty()
        })
        .await;
    };
    let (tally, ()) = tally_during(&lab, RATE, act).await.unwrap();
    assert!(tally.sent() > 0);
    assert_eq!(tally.lost(), 0, "{:?}", tally.lossy());
    assert_eq!(held_by_node1(&lab).await, [before.as_str()]);
    let held = "warren_keys_changed_outside_rotation_total{outcome=\"held\"}";
    assert_eq!(metric(&lab, "node1", held).await, Some(1));

    // It stays so when the agent that knew the key is started anew.
    lab.node_kill("node1").await.unwrap();
    lab.node_start("node1").await.unwrap();
    until("the restarted agent", async || {
        held_by_node1(&lab).await == [before.as_str()]
    })
    .await;
    let (sent, answered) = ping_node2(&lab).await;
    assert_eq!((sent, answered), (25, 25));

    // And operators are told how it stands.
    let status = keys(&lab, &["status", "--output", "json"]).await;
    assert_eq!(status.code, 1, "{status:?}");
    let told: Value = serde_json::from_str(&status.stdout).unwrap();
    let change = &told["changes"][0];
    assert_eq!(
        (
            &change["node"],
            &change["before"],
            &change["now"],
            &change["inForce"]
        ),
        (&json!("node2"), &json!(before), &json!(FORGED), &json!(false))
    );
    let verify = keys(&lab, &["verify", "--output", "json"]).await;
    assert_eq!(verify.code, 1, "{verify:?}");
    let told: Value = serde_json::from_str(&verify.stdout).unwrap();
    let difference = &told["differences"][0];
    assert_eq!(
        (
            &difference["agent"],
            &difference["node"],
            &difference["published"],
            &difference["held"]
        ),
        (&json!("node1"), &json!("node2"), &json!(FORGED), &json!(before))
    );

    // Until an operator accepts it.
    let accepted = keys(&lab, &["accept", "node2"]).await;
    assert!(
        accepted.success() && accepted.stdout.contains(FORGED),
        "{accepted:?}"
    );
    until("the accepted key", async || held_by_node1(&lab).await == [FORGED]).await;
}

#[tokio::test]
async fn without_pinning_a_forged_key_is_taken_and_reported() {
    let Some(lab) = with_pods(2, json!({})).await else {
        return;
    };
    assert_eq!(ping_node2(&lab).await, (25, 25));
    lab.node_stop("node2").await.unwrap();
    forge(&lab, "node2", FORGED).await;
    until("the forged key", async || held_by_node1(&lab).await == [FORGED]).await;
    // What pinning keeps from happening.
    assert_eq!(ping_node2(&lab).await.1, 0);
    until("an Event", async || !events(&lab, "KeyChanged").await.is_empty()).await;
    let taken = "warren_keys_changed_outside_rotation_total{outcome=\"taken\"}";
    assert_eq!(metric(&lab, "node1", taken).await, Some(1));
    let said: Value = serde_json::from_str(&ask_agent(&lab, "node1", "/status").await.unwrap()).unwrap();
    assert_eq!(
        (&said["keyChanges"][0]["now"], &said["keyChanges"][0]["inForce"]),
        (&json!(FORGED), &json!(true))
    );
    // The node's agent publishes its own again as soon as it runs.
    lab.node_start("node2").await.unwrap();
    until("the node's own key", async || {
        held_by_node1(&lab).await != [FORGED]
    })
    .await;
    until("the way", async || ping_node2(&lab).await == (25, 25)).await;
}

#[tokio::test]
async fn a_revoked_key_is_distrusted_everywhere_and_its_node_makes_another() {
    for pinning in ["none", "strict"] {
        let Some(lab) = with_pods(3, json!({"keys": {"pinning": pinning}})).await else {
            return;
        };
        let before = rotation::keys(&lab).await.unwrap();
        let stolen = before["node2"][&1].clone();
        let revoked = keys(&lab, &["revoke", "node2", "--output", "json"]).await;
        assert!(revoked.success(), "{revoked:?}");
        let told: Value = serde_json::from_str(&revoked.stdout).unwrap();
        assert_eq!(told, json!({"node": "node2", "keys": [stolen]}));
        until("another key", async || {
            let now = rotation::keys(&lab).await.unwrap();
            now["node2"].get(&1).is_some_and(|key| *key != stolen)
        })
        .await;
        verified_when(&lab, "everybody to have the new key and nobody the old one", 0).await;
        let after = rotation::keys(&lab).await.unwrap();
        for other in ["node1", "node3"] {
            assert_eq!(before[other], after[other], "{other} keeps its key");
        }
        let facts = lab.facts().await.unwrap();
        assert_all_reach_all(&lab, &facts).await;

        // Whoever has stolen it and may write a Node gets nothing by it.
        lab.node_stop("node3").await.unwrap();
        forge(&lab, "node3", &stolen).await;
        status_when(&lab, "the revoked key to be refused", |status| {
            refusals_of(status, "node1").contains(&"revoked-key".to_owned())
        })
        .await;
    }
}

#[tokio::test]
async fn keys_in_memory_are_never_on_the_disk_and_survive_a_restart_of_the_agent_but_not_of_the_node() {
    let options = LabOptions {
        environment: [("WARREN_KEY_STORE".to_owned(), "memory".to_owned())].into(),
        ..LabOptions::default()
    };
    let Some(lab) = with_pods_of(options, json!({"keys": {"pinning": "strict"}})).await else {
        return;
    };
    let before = rotation::keys(&lab).await.unwrap();
    let restart = async {
        for node in ["node2", "node3"] {
            lab.node_kill(node).await.unwrap();
            lab.node_start(node).await.unwrap();
        }
        verified_when(&lab, "everybody to agree", 0).await;
    };
    loses_nothing(&lab, restart).await;
    assert_eq!(rotation::keys(&lab).await.unwrap(), before);

    // Also in the midst of a rotation, where there is one in each lane.
    let rotate = async {
        let epoch = rotation::begin(&lab, 1, &[]).await.unwrap();
        until("a second key", async || {
            rotation::keys(&lab).await.unwrap()["node2"].len() == 2
        })
        .await;
        lab.node_kill("node2").await.unwrap();
        lab.node_start("node2").await.unwrap();
        rotation::finished(&lab, epoch).await.unwrap().0
    };
    let rotated = loses_nothing(&lab, rotate).await;
    assert!(rotated.iter().all(|(node, keys)| keys[&2] != before[node][&1]));
    let refused = status(&lab).await["nodes"].to_string();
    assert!(!refused.contains("key-not-accepted"), "{refused}");

    // What a reboot takes with it is made anew, which an operator has to accept here.
    lab.node_reboot("node3").await.unwrap();
    let accepted = "another key of the node that was rebooted to be accepted";
    until(accepted, async || {
        let now = rotation::keys(&lab).await.unwrap();
        now["node3"]
            .get(&2)
            .is_some_and(|key| *key != rotated["node3"][&2])
            && keys(&lab, &["accept", "node3"]).await.success()
    })
    .await;
    verified_when(&lab, "everybody to have it", 0).await;
    for node in lab.facts().await.unwrap().nodes {
        let folder = node.disk.join("state/keys");
        assert!(!folder.exists(), "{}", folder.display());
    }
}

#[tokio::test]
async fn an_agent_that_is_told_to_keep_keys_in_memory_takes_them_off_the_disk() {
    let options = LabOptions {
        nodes: 1,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    let disk = lab.facts().await.unwrap().nodes[0].disk.clone();
    let file = disk.join("state/keys/epoch-1.key");
    assert!(file.exists());
    lab.node_stop("node1").await.unwrap();
    // By hand, as another start than the lab's own.
    let script = "warren-agent --key-store memory --admin-addr 127.0.0.1:1986 >/dev/null 2>&1 & agent=$!; \
                  for try in $(seq 200); do [ -e $WARREN_STATE_DIR/keys/epoch-1.key ] || break; sleep 0.1; done; \
                  kill $agent; wait $agent; ls -A $WARREN_STATE_DIR/keys";
    let output = lab
        .run(Place::Node("node1".to_owned()), &["sh", "-c", script])
        .await
        .unwrap();
    assert!(output.success() && output.stdout.is_empty(), "{output:?}");
}

/// Does this while all pods send to each other, and nothing may be lost.
async fn loses_nothing<T>(lab: &Lab, act: impl Future<Output = T>) -> T {
    let (tally, done) = tally_during(lab, RATE, act).await.unwrap();
    eprintln!("{} of {} lost", tally.lost(), tally.sent());
    assert!(tally.sent() > 0);
    assert_eq!(tally.lost(), 0, "{tally:?}");
    done
}

/// So many nodes with a pod each, and a Mesh.
async fn with_pods(nodes: u8, spec: Value) -> Option<Lab> {
    let options = LabOptions {
        nodes,
        ..LabOptions::default()
    };
    with_pods_of(options, spec).await
}

async fn with_pods_of(options: LabOptions, spec: Value) -> Option<Lab> {
    let lab = lab(options).await?;
    for node in lab.facts().await.unwrap().nodes {
        let name = format!("on-{}", node.name);
        lab.pod_add(PodOptions::new(name.as_str(), &node.name))
            .await
            .unwrap();
    }
    switch::begin_with(&lab, &spec).await.unwrap();
    let status = |mesh: &Mesh| mesh.status.as_ref().map(|status| status.ready);
    let meshes: Api<Mesh> = Api::all(lab.client());
    until("a steward", async || {
        status(&meshes.get("default").await.unwrap()).is_some()
    })
    .await;
    Some(lab)
}

/// Runs `warren keys`, with nothing but a kubeconfig.
async fn keys(lab: &Lab, arguments: &[&str]) -> Output {
    let kubeconfig = lab.kubeconfig_inside();
    lab.warren(&[&["keys"], arguments, &["--kubeconfig", &kubeconfig]].concat())
        .await
        .unwrap()
}

/// Waits until `warren keys verify` ends so.
async fn verified_when(lab: &Lab, what: &str, code: i32) {
    until(what, async || keys(lab, &["verify"]).await.code == code).await;
}

/// As somebody who may write any Node.
async fn forge(lab: &Lab, node: &str, key: &str) {
    let nodes: Api<Node> = Api::all(lab.client());
    let found = nodes.get(node).await.unwrap();
    let mut says: Value = serde_json::from_str(&found.metadata.annotations.unwrap()[ANNOTATION]).unwrap();
    says["keys"][0]["publicKey"] = json!(key);
    let forged = json!({"metadata": {"annotations": {ANNOTATION: says.to_string()}}});
    nodes
        .patch(node, &PatchParams::default(), &Patch::Merge(forged))
        .await
        .unwrap();
}

/// The keys by which node1's devices send to node2.
async fn held_by_node1(lab: &Lab) -> Vec<String> {
    let Some(said) = ask_agent(lab, "node1", "/status").await else {
        return Vec::new();
    };
    let Ok(said) = serde_json::from_str::<Value>(&said) else {
        return Vec::new();
    };
    let peers = said["peers"].as_array().into_iter().flatten();
    peers
        .filter(|peer| peer["node"] == "node2")
        .flat_map(|peer| peer["keys"].as_array().cloned().unwrap_or_default())
        .map(|key| key["publicKey"].as_str().unwrap().to_owned())
        .collect()
}

/// Half a second of echo requests from node1's pod to node2's: sent and answered.
async fn ping_node2(lab: &Lab) -> (u32, u32) {
    let facts = lab.facts().await.unwrap();
    let to = facts.pods.iter().find(|pod| pod.node == "node2").unwrap();
    ping(lab, &Place::Pod("on-node1".into()), &to.addresses[0], 25).await
}

/// The codes of what an agent refuses.
fn refusals_of(status: &Value, node: &str) -> Vec<String> {
    let nodes = status["nodes"].as_array().unwrap();
    let agent = nodes.iter().find(|it| it["node"] == node).unwrap();
    let refusals = agent["agent"]["refusals"].as_array().into_iter().flatten();
    refusals
        .map(|it| it["code"].as_str().unwrap().to_owned())
        .collect()
}

/// Events about node2, as `kubectl describe` asks for them.
async fn events(lab: &Lab, reason: &str) -> Vec<Event> {
    let events: Api<Event> = Api::all(lab.client());
    let about = "involvedObject.kind=Node,involvedObject.name=node2";
    let found = events.list(&ListParams::default().fields(about)).await.unwrap();
    found
        .items
        .into_iter()
        .filter(|it| it.reason.as_deref() == Some(reason))
        .collect()
}
