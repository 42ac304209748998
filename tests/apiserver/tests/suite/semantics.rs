//! What writes do to objects, by direct calls.

use crate::common::{CONFIG_MAPS, CRDS, MESHES, NODES, PODS, mesh, mesh_crd, node, pod};
use serde_json::{Value, json};
use warren_testapi::{Api, Config, Gvr, PatchKind, WriteOptions};

fn api() -> Api {
    Api::new(Config {
        seed: 1,
        ..Config::default()
    })
}

fn manager(name: &str) -> WriteOptions {
    WriteOptions {
        manager: name.to_owned(),
        ..WriteOptions::default()
    }
}

fn merge(api: &Api, id: Gvr<'_>, name: &str, patch: Value) -> Value {
    api.patch(
        id,
        "default",
        name,
        false,
        (PatchKind::Merge, &patch),
        &manager("m"),
    )
    .unwrap()
}

#[test]
fn create_fills_in_what_the_server_owns() {
    let api = api();
    let made = api
        .create(
            NODES,
            "",
            json!({ "metadata": { "name": "n", "uid": "mine", "generation": 9 } }),
        )
        .unwrap();
    assert_eq!(
        (&made["kind"], &made["apiVersion"]),
        (&json!("Node"), &json!("v1"))
    );
    assert_ne!(made["metadata"]["uid"], "mine");
    assert!(made["metadata"]["creationTimestamp"].is_string());
    assert!(
        made["metadata"]["generation"].is_null(),
        "nodes have no generation"
    );
    let again = api.create(NODES, "", node("n")).unwrap_err();
    assert_eq!((again.code(), again.reason()), (409, "AlreadyExists"));
    assert_eq!(again.to_string(), "nodes \"n\" already exists");
}

#[test]
fn bad_creates_are_refused_with_the_right_code() {
    let api = api();
    let code = |id, namespace, object| api.create(id, namespace, object).unwrap_err().code();
    assert_eq!(code(NODES, "", node("Bad_Name")), 422);
    assert_eq!(
        code(NODES, "", json!({ "kind": "Pod", "metadata": { "name": "n" } })),
        400
    );
    assert_eq!(code(PODS, "absent", json!({ "metadata": { "name": "p" } })), 404);
    assert_eq!(code(PODS, "default", json!({ "metadata": { "name": "p" } })), 422);
    assert_eq!(code(Gvr::core("unicorns"), "", node("n")), 404);
    assert_eq!(
        code(
            NODES,
            "",
            json!({ "metadata": { "name": "n", "resourceVersion": "1" } })
        ),
        400
    );
}

#[test]
fn generate_name_makes_distinct_names() {
    let api = api();
    let make = || {
        let object = json!({ "metadata": { "generateName": "c-" } });
        api.create(CONFIG_MAPS, "default", object).unwrap()["metadata"]["name"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (first, second) = (make(), make());
    assert!(first.starts_with("c-") && first.len() == 7, "{first}");
    assert_ne!(first, second);
}

#[test]
fn a_stale_version_conflicts_and_an_unchanged_write_is_none() {
    let api = api();
    let first = api.create(NODES, "", node("n")).unwrap();
    let mut changed = first.clone();
    changed["metadata"]["labels"] = json!({ "a": "b" });
    let second = api.update(NODES, "", "n", changed.clone()).unwrap();
    assert_ne!(
        first["metadata"]["resourceVersion"],
        second["metadata"]["resourceVersion"]
    );
    let stale = api.update(NODES, "", "n", changed).unwrap_err();
    assert_eq!((stale.code(), stale.reason()), (409, "Conflict"));
    let before = api.version();
    assert_eq!(api.update(NODES, "", "n", second.clone()).unwrap(), second);
    assert_eq!(api.version(), before, "writing the same is no write");
}

#[test]
fn status_and_the_rest_are_written_by_their_own_paths_only() {
    let api = api();
    api.create(PODS, "default", pod("p")).unwrap();
    assert_eq!(
        api.get(PODS, "default", "p").unwrap()["status"]["phase"],
        "Pending"
    );
    let main = merge(
        &api,
        PODS,
        "p",
        json!({ "spec": { "nodeName": "n" }, "status": { "phase": "Failed" } }),
    );
    assert_eq!(
        (&main["spec"]["nodeName"], &main["status"]["phase"]),
        (&json!("n"), &json!("Pending"))
    );
    let mut next = main.clone();
    next["status"] = json!({ "phase": "Running" });
    next["spec"]["nodeName"] = json!("other");
    next["metadata"]["labels"] = json!({ "a": "b" });
    let status = api.update_status(PODS, "default", "p", next).unwrap();
    assert_eq!(
        (&status["spec"]["nodeName"], &status["status"]["phase"]),
        (&json!("n"), &json!("Running"))
    );
    assert!(status["metadata"]["labels"].is_null());
}

#[test]
fn generation_counts_spec_changes_only() {
    let api = api();
    api.create(CRDS, "", mesh_crd()).unwrap();
    let generation = |object: &Value| object["metadata"]["generation"].as_i64().unwrap();
    assert_eq!(generation(&api.create(MESHES, "", mesh()).unwrap()), 1);
    assert_eq!(
        generation(&merge(
            &api,
            MESHES,
            "default",
            json!({ "spec": { "mtu": 1400 } })
        )),
        2
    );
    assert_eq!(
        generation(&merge(
            &api,
            MESHES,
            "default",
            json!({ "metadata": { "labels": { "a": "b" } } })
        )),
        2
    );
    let status = json!({ "metadata": { "name": "default" }, "status": { "epoch": 3 } });
    assert_eq!(
        generation(&api.update_status(MESHES, "", "default", status).unwrap()),
        2
    );
}

#[test]
fn updates_take_ownership_and_apply_sees_it() {
    let api = api();
    api.create(NODES, "", node("n")).unwrap();
    merge(
        &api,
        NODES,
        "n",
        json!({ "metadata": { "annotations": { "a": "1" } } }),
    );
    let wanted = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n", "annotations": { "a": "2" } } });
    let apply =
        |options: &WriteOptions| api.patch(NODES, "", "n", false, (PatchKind::Apply, &wanted), options);
    let conflict = apply(&manager("agent")).unwrap_err();
    assert_eq!(
        conflict.status()["details"]["causes"][0]["message"],
        "conflict with \"m\""
    );
    assert_eq!(
        apply(&WriteOptions::default()).unwrap_err().code(),
        400,
        "a manager is required"
    );
    let forced = apply(&WriteOptions {
        force: true,
        ..manager("agent")
    })
    .unwrap();
    assert_eq!(forced["metadata"]["annotations"]["a"], "2");
    let version = api.version();
    assert_eq!(apply(&manager("agent")).unwrap(), forced);
    assert_eq!(
        api.version(),
        version,
        "the second apply changes nothing, not even a version"
    );
}

#[test]
fn apply_creates_what_is_absent_but_not_through_status() {
    let api = api();
    let wanted =
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n", "labels": { "a": "b" } } });
    let status = api.patch(
        NODES,
        "",
        "n",
        true,
        (PatchKind::Apply, &wanted),
        &manager("agent"),
    );
    assert_eq!(status.unwrap_err().code(), 404);
    let made = api
        .patch(
            NODES,
            "",
            "n",
            false,
            (PatchKind::Apply, &wanted),
            &manager("agent"),
        )
        .unwrap();
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!(
        (&entry["manager"], &entry["operation"]),
        (&json!("agent"), &json!("Apply"))
    );
    assert_eq!(
        entry["fieldsV1"],
        json!({ "f:metadata": { "f:labels": { "f:a": {} } } })
    );
}

#[test]
fn dry_runs_answer_and_store_nothing() {
    let api = api();
    let dry = WriteOptions {
        dry_run: true,
        ..manager("m")
    };
    api.create(NODES, "", node("n")).unwrap();
    let version = api.version();
    let patch = json!({ "metadata": { "labels": { "a": "b" } } });
    let answer = api
        .patch(NODES, "", "n", false, (PatchKind::Merge, &patch), &dry)
        .unwrap();
    assert_eq!(answer["metadata"]["labels"]["a"], "b");
    assert_eq!(api.version(), version);
    assert!(api.get(NODES, "", "n").unwrap()["metadata"]["labels"].is_null());
}

#[test]
fn events_of_both_apis_are_one_store() {
    let api = api();
    let event = json!({ "metadata": { "name": "e" }, "regarding": { "kind": "Node", "name": "n" }, "note": "hello",
        "reason": "R", "type": "Normal", "reportingController": "warren" });
    api.create(Gvr::new("events.k8s.io", "v1", "events"), "default", event)
        .unwrap();
    let core = api.get(Gvr::core("events"), "default", "e").unwrap();
    assert_eq!(
        (&core["apiVersion"], &core["message"]),
        (&json!("v1"), &json!("hello"))
    );
    assert_eq!(core["involvedObject"]["name"], "n");
    assert!(core["note"].is_null());
}

#[tokio::test]
async fn waiting_ends_with_the_condition_or_with_patience() {
    let api = api();
    let writer = api.clone();
    let wait = api.wait_until(crate::common::PATIENCE, |api| api.get(NODES, "", "n").is_ok());
    let (seen, _) = tokio::join!(wait, async { writer.create(NODES, "", node("n")).unwrap() });
    assert!(seen);
    assert!(
        !api.wait_until(std::time::Duration::from_millis(20), |_| false)
            .await
    );
}
