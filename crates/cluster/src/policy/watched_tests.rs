#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::fake_api::{
    FakeApi, GLOBAL_POLICIES, KUBERNETES_POLICIES, NAMESPACES, NETWORK_SETS, PODS, status,
};
use crate::snapshot::Snapshot;
use crate::watch::Watches;

fn of_kind(kind: &str, mut object: Value) -> Value {
    object["apiVersion"] = json!("v1");
    object["kind"] = json!(kind);
    object
}

fn object(namespace: Option<&str>, name: &str, spec: Value, version: u32) -> Value {
    json!({
        "apiVersion": "v", "kind": "k",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{name}"),
            "resourceVersion": version.to_string(), "labels": {"app": name}},
        "spec": spec,
    })
}

async fn until<T>(seen: &mut watch::Receiver<Arc<T>>, condition: impl Fn(&T) -> bool) -> Arc<T> {
    let found = seen.wait_for(|it| condition(it));
    let found = tokio::time::timeout(Duration::from_secs(300), found).await;
    Arc::clone(&found.expect("it came within the deadline").unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_policies_are_made_of_is_followed_and_what_is_refused_is_told_to_who_reports() {
    let api = FakeApi::default();
    let pod = object(
        Some("shop"),
        "web",
        json!({"nodeName": "elsewhere", "containers": []}),
        1,
    );
    api.holds(PODS, &[of_kind("Pod", pod)]);
    let namespace = object(None, "shop", json!({}), 2);
    api.holds(NAMESPACES, &[of_kind("Namespace", namespace)]);
    api.holds(
        KUBERNETES_POLICIES,
        &[object(
            Some("shop"),
            "open",
            json!({"podSelector": {}, "ingress": [{}]}),
            3,
        )],
    );
    api.holds(
        GLOBAL_POLICIES,
        &[object(None, "bad", json!({"selector": "a =="}), 4)],
    );
    // A server that does not know a kind has no object of it.
    api.lists_answer(NETWORK_SETS, Some(status(404, "NotFound")));
    let watches = Watches::start(api.client(), &"me".parse().unwrap());
    let (mut policy, mut mesh) = (watches.subscribe_policy(), watches.subscribe());
    let snapshot = until(&mut policy, |it| it.synced).await;
    assert_eq!(snapshot.pods.len(), 1);
    assert_eq!(
        snapshot.pods[0].node.as_ref().map(ToString::to_string).as_deref(),
        Some("elsewhere")
    );
    let objects = &snapshot.objects;
    assert_eq!(
        (
            objects.policies.len(),
            objects.invalid.len(),
            objects.namespaces.len()
        ),
        (1, 1, 1)
    );
    let told = until(&mut mesh, |it: &Snapshot| !it.refusals.is_empty()).await;
    assert_eq!(told.refusals[0].object, "GlobalNetworkPolicy/bad");
    assert_eq!(told.policy_uids["GlobalNetworkPolicy/bad"], "uid-bad");

    // A pod that changes is news to who enforces policy and to nobody else.
    mesh.mark_unchanged();
    api.until_asked(2, |it| it.is_watch(PODS)).await;
    let mut changed = object(
        Some("shop"),
        "web",
        json!({"nodeName": "elsewhere", "containers": []}),
        9,
    );
    changed["metadata"]["labels"]["app"] = json!("other");
    changed["metadata"]["managedFields"] = json!([{"manager": "m"}]);
    api.event(PODS, "MODIFIED", &of_kind("Pod", changed));
    let after = until(&mut policy, |it| it.pods[0].labels.get("app") == Some("other")).await;
    assert!(
        Arc::ptr_eq(&after.objects, &snapshot.objects),
        "the rest is as it was"
    );

    api.until_asked(1, |it| it.is_watch(GLOBAL_POLICIES)).await;
    api.event(GLOBAL_POLICIES, "DELETED", &object(None, "bad", json!({}), 10));
    until(&mut mesh, |it: &Snapshot| it.refusals.is_empty()).await;
    assert!(
        until(&mut policy, |it| it.objects.invalid.is_empty())
            .await
            .synced
    );
}

#[tokio::test(start_paused = true)]
async fn policy_is_not_in_sync_before_each_kind_has_been_listed_and_the_mesh_does_not_wait_for_it() {
    let api = FakeApi::default();
    api.lists_answer(GLOBAL_POLICIES, Some(status(403, "Forbidden")));
    let watches = Watches::start(api.client(), &"me".parse().unwrap());
    let (mut policy, mut mesh) = (watches.subscribe_policy(), watches.subscribe());
    until(&mut mesh, Snapshot::is_synced).await;
    api.until_asked(4, |it| it.is_list(GLOBAL_POLICIES)).await;
    assert!(!policy.borrow().synced);
    api.lists_answer(GLOBAL_POLICIES, None);
    until(&mut policy, |it| it.synced).await;
}
