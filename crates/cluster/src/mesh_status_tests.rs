#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;

use serde_json::Value;
use warren_model::{AnnouncedKey, Announcement, AnnouncementError, Refusal};

use super::*;
use crate::fake_api::{Answer, FakeApi};
use crate::snapshot::Synced;

fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

fn announcement(keys: &[u32], settled: u32) -> Announcement {
    let key = |number: &u32| AnnouncedKey {
        epoch: epoch(*number),
        public_key: "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=".parse().unwrap(),
        port: 1,
    };
    Announcement::new(keys.iter().map(key).collect(), epoch(settled), BTreeSet::new()).unwrap()
}

fn node(name: &str, created: i64, announcement: Option<Announcement>) -> Node {
    Node {
        name: name.parse().unwrap(),
        uid: format!("uid-{name}"),
        created,
        pod_cidrs: vec!["10.0.1.0/24".parse().unwrap()],
        internal_ips: Vec::new(),
        announcement: announcement.map(Ok),
        ready: true,
    }
}

fn snapshot(nodes: Vec<Node>, mesh_epoch: u32) -> Snapshot {
    let mut snapshot = Snapshot {
        nodes: nodes.into_iter().map(|node| (node.name.clone(), node)).collect(),
        mesh_object: Some(ObservedMesh {
            uid: "m".into(),
            version: "17".into(),
            generation: 3,
            problems: Vec::new(),
            status: None,
        }),
        synced: Synced {
            nodes: true,
            pods: true,
            mesh: true,
        },
        ..Snapshot::default()
    };
    snapshot.mesh.keys.epoch = epoch(mesh_epoch);
    snapshot
}

fn condition<'a>(status: &'a MeshStatus, kind: &str) -> &'a Condition {
    status.conditions.iter().find(|it| it.type_ == kind).unwrap()
}

#[test]
fn the_place_of_an_agent_is_how_many_able_ones_are_older() {
    let published = || Some(announcement(&[1], 1));
    let mut unready = node("a", 1, published());
    unready.ready = false;
    let silent = node("b", 2, None);
    let mut garbled = node("c", 3, None);
    garbled.announcement = Some(Err(AnnouncementError::NoKeys));
    let able = ["z", "y", "x"].map(|name| node(name, if name == "z" { 4 } else { 5 }, published()));
    let view = snapshot([vec![unready, silent, garbled], able.to_vec()].concat(), 1);
    let place = |name: &str| place(&view, &name.parse().unwrap());
    assert_eq!(
        ["z", "x", "y"].map(place),
        [0, 1, 2],
        "of two as old the uid decides"
    );
    assert_eq!(["a", "b", "c", "unknown"].map(place), [usize::MAX; 4]);
}

#[test]
fn numbers_and_conditions_follow_the_nodes() {
    let mut without_cidr = node("w", 1, None);
    without_cidr.pod_cidrs.clear();
    let mut gone = node("g", 1, Some(announcement(&[1], 1)));
    gone.ready = false;
    let rotating = vec![
        node("a", 1, Some(announcement(&[2, 3], 2))),
        node("b", 1, Some(announcement(&[3], 3))),
        node("c", 1, Some(announcement(&[2], 2))),
        without_cidr,
        gone,
    ];
    let status = mesh_status(&snapshot(rotating, 3), &[], 1000);
    assert_eq!(
        (status.nodes, status.ready, status.epoch, status.settled),
        (4, 2, 3, Some(2))
    );
    let ready = condition(&status, "Ready");
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", "NodesNotReady")
    );
    assert!(ready.message.ends_with(": c, g"), "{}", ready.message);
    let settled = condition(&status, "Settled");
    assert_eq!(
        (settled.status.as_str(), settled.reason.as_str()),
        ("False", "NodesBehind")
    );
    assert!(
        settled.message.ends_with(": a, c"),
        "a node that is gone does not count: {}",
        settled.message
    );
    assert_eq!(settled.observed_generation, Some(3));

    let done = vec![
        node("a", 1, Some(announcement(&[3], 3))),
        node("b", 1, Some(announcement(&[3], 3))),
    ];
    let status = mesh_status(&snapshot(done, 3), &[], 1000);
    assert_eq!((status.nodes, status.ready, status.settled), (2, 2, Some(3)));
    for kind in ["Accepted", "Ready", "Settled"] {
        assert_eq!(condition(&status, kind).status, "True", "{kind}");
    }
}

#[test]
fn a_node_that_has_published_nothing_keeps_the_epoch_from_being_settled() {
    let nodes = vec![node("a", 1, Some(announcement(&[1], 1))), node("b", 1, None)];
    let status = mesh_status(&snapshot(nodes, 1), &[], 0);
    assert_eq!(status.settled, Some(1), "the lowest of those that report");
    assert_eq!(condition(&status, "Settled").status, "False");
}

#[test]
fn without_nodes_nothing_is_ready_or_settled() {
    let status = mesh_status(&snapshot(Vec::new(), 1), &[], 0);
    assert_eq!((status.nodes, status.ready, status.settled), (0, 0, None));
    assert_eq!(condition(&status, "Ready").reason, "NoNodes");
    assert_eq!(condition(&status, "Settled").reason, "NoNodes");
}

#[test]
fn a_spec_that_is_not_in_force_shows_in_the_condition_accepted() {
    let mut view = snapshot(Vec::new(), 1);
    view.mesh_object.as_mut().unwrap().problems = vec!["spec.mtu is 1".to_owned()];
    let status = mesh_status(&view, &[], 0);
    let accepted = condition(&status, "Accepted");
    assert_eq!(accepted.status, "False");
    assert!(
        accepted.message.starts_with("spec.mtu is 1; "),
        "{}",
        accepted.message
    );
}

#[test]
fn refused_nodes_show_in_a_condition_however_they_are_worded() {
    let refusal = |text: &str| Refusal::new("Node/b", "no-pod-cidr", text);
    let view = snapshot(Vec::new(), 1);
    let status = mesh_status(&view, &[refusal("one way"), refusal("another")], 0);
    let accepted = condition(&status, "NodesAccepted");
    assert_eq!(
        (
            accepted.status.as_str(),
            accepted.reason.as_str(),
            accepted.message.as_str()
        ),
        ("False", "NodesRefused", "refused: Node/b (no-pod-cidr)")
    );
    let status = mesh_status(&view, &[], 0);
    assert_eq!(condition(&status, "NodesAccepted").status, "True");
}

#[test]
fn refused_policies_show_in_a_condition_with_what_becomes_of_their_pods() {
    let refused = [Refusal::new("NetworkPolicy/shop/p", "policy-value", "text")];
    let mut view = snapshot(Vec::new(), 1);
    let status = mesh_status(&view, &refused, 0);
    assert_eq!(condition(&status, "NodesAccepted").status, "True");
    let accepted = condition(&status, "PoliciesAccepted");
    assert_eq!(
        (accepted.status.as_str(), accepted.message.as_str()),
        (
            "False",
            "the pods that refused policies select fail closed; refused: NetworkPolicy/shop/p (policy-value)"
        )
    );
    view.mesh.policy.on_invalid = warren_model::mesh::OnInvalid::Open;
    let status = mesh_status(&view, &refused, 0);
    assert!(
        condition(&status, "PoliciesAccepted")
            .message
            .starts_with("refused policies do not count")
    );
    let status = mesh_status(&view, &[], 0);
    assert_eq!(condition(&status, "PoliciesAccepted").status, "True");
}

#[test]
fn times_change_only_with_the_status_and_an_equal_status_is_not_written() {
    let good = || Some(announcement(&[1], 1));
    let mut view = snapshot(vec![node("a", 1, good())], 1);
    let first = mesh_status(&view, &[], 1000);
    assert!(needs_write(view.mesh_object.as_ref().unwrap(), &first));
    // Through JSON, as the server gives it back.
    let read = serde_json::from_value(serde_json::to_value(&first).unwrap()).unwrap();
    view.mesh_object.as_mut().unwrap().status = Some(read);
    let again = mesh_status(&view, &[], 2000);
    assert_eq!(again, first);
    assert!(!needs_write(view.mesh_object.as_ref().unwrap(), &again));

    view.nodes.insert("b".parse().unwrap(), node("b", 2, None));
    let changed = mesh_status(&view, &[], 3000);
    assert!(needs_write(view.mesh_object.as_ref().unwrap(), &changed));
    assert_eq!(
        condition(&changed, "Ready").last_transition_time.0.as_second(),
        3000
    );
    assert_eq!(
        condition(&changed, "Accepted").last_transition_time.0.as_second(),
        1000
    );
}

#[test]
fn a_message_names_a_few_nodes_only() {
    let nodes = (0..9).map(|it| node(&format!("n{it}"), 1, None)).collect();
    let status = mesh_status(&snapshot(nodes, 1), &[], 0);
    let message = &condition(&status, "Ready").message;
    assert!(message.ends_with(": n0, n1, n2, n3, n4 and 4 more"), "{message}");
}

#[tokio::test]
async fn the_status_is_applied_to_the_subresource_of_that_object_at_that_version() {
    let api = FakeApi::default();
    let body =
        json!({"apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh", "metadata": {"name": "default"}});
    api.next_write_answers(Answer { code: 200, body });
    let view = snapshot(Vec::new(), 1);
    let desired = mesh_status(&view, &[], 0);
    write_status(&api.client(), view.mesh_object.as_ref().unwrap(), &desired)
        .await
        .unwrap();
    let asked = api.log().pop().unwrap();
    assert_eq!(asked.path, "/apis/warren-mesh.io/v1alpha1/meshes/default/status");
    assert_eq!(asked.content_type, "application/apply-patch+yaml");
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(
        body["metadata"],
        json!({"name": "default", "uid": "m", "resourceVersion": "17"})
    );
    assert_eq!(body["status"], serde_json::to_value(&desired).unwrap());
}
