//! Deleting: finalizers, namespaces and pods that stop gracefully.

use serde_json::{Value, json};
use warren_testapi::{Api, Config, Deleted, Gvr, PatchKind, WriteOptions};

use crate::common::{CONFIG_MAPS, NODES, PODS, node, pod};

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
fn finalizers_hold_an_object_until_the_last_is_gone() {
    let api = api();
    let mut held = node("n");
    held["metadata"]["finalizers"] = json!(["a/b"]);
    api.create(NODES, "", held).unwrap();
    let Deleted::Marked(marked) = api.delete(NODES, "", "n").unwrap() else {
        panic!("it had a finalizer")
    };
    let at = marked["metadata"]["deletionTimestamp"].clone();
    assert!(at.is_string());
    let version = api.version();
    assert!(matches!(api.delete(NODES, "", "n").unwrap(), Deleted::Marked(_)));
    assert_eq!(api.version(), version, "deleting twice marks once");
    merge(&api, NODES, "n", json!({ "metadata": { "finalizers": null } }));
    assert_eq!(api.get(NODES, "", "n").unwrap_err().code(), 404);
}

#[test]
fn a_namespace_goes_with_its_contents_and_waits_for_their_finalizers() {
    let api = api();
    let namespaces = Gvr::core("namespaces");
    api.create(namespaces, "", json!({ "metadata": { "name": "x" } }))
        .unwrap();
    let map =
        |name: &str, finalizers: Value| json!({ "metadata": { "name": name, "finalizers": finalizers } });
    api.create(CONFIG_MAPS, "x", map("free", json!([]))).unwrap();
    api.create(CONFIG_MAPS, "x", map("held", json!(["a/b"]))).unwrap();
    assert!(matches!(
        api.delete(namespaces, "", "x").unwrap(),
        Deleted::Marked(_)
    ));
    assert_eq!(
        api.get(namespaces, "", "x").unwrap()["status"]["phase"],
        "Terminating"
    );
    assert_eq!(api.get(CONFIG_MAPS, "x", "free").unwrap_err().code(), 404);
    assert_eq!(
        api.create(CONFIG_MAPS, "x", map("late", json!([])))
            .unwrap_err()
            .code(),
        403
    );
    let free = json!({ "metadata": { "finalizers": [] } });
    api.patch(
        CONFIG_MAPS,
        "x",
        "held",
        false,
        (PatchKind::Merge, &free),
        &manager("m"),
    )
    .unwrap();
    assert_eq!(api.get(namespaces, "", "x").unwrap_err().code(), 404);
}

#[test]
fn bound_pods_stop_gracefully_when_asked_to() {
    let api = Api::new(Config {
        graceful_pods: true,
        ..Config::default()
    });
    api.create(PODS, "default", pod("loose")).unwrap();
    assert!(matches!(
        api.delete(PODS, "default", "loose").unwrap(),
        Deleted::Gone(_)
    ));
    let mut bound = pod("bound");
    bound["spec"]["nodeName"] = json!("n");
    api.create(PODS, "default", bound).unwrap();
    assert!(matches!(
        api.delete(PODS, "default", "bound").unwrap(),
        Deleted::Marked(_)
    ));
    merge(
        &api,
        PODS,
        "bound",
        json!({ "metadata": { "labels": { "a": "b" } } }),
    );
    assert!(
        api.get(PODS, "default", "bound").is_ok(),
        "only the kubelet's delete removes it"
    );
}
