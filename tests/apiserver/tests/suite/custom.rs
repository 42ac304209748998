//! Custom resources: served, defaulted, validated, pruned and dropped.

use serde_json::{Value, json};
use warren_testapi::{Api, Config, PatchKind, WriteOptions};

use crate::common::{CRDS, MESHES, mesh, mesh_crd};

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

#[test]
fn a_definition_is_served_established_defaulted_validated_and_dropped() {
    let api = api();
    assert_eq!(api.create(MESHES, "", mesh()).unwrap_err().code(), 404);
    let crd = api.create(CRDS, "", mesh_crd()).unwrap();
    let conditions = crd["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|c| c["type"] == "Established" && c["status"] == "True")
    );
    assert!(
        conditions
            .iter()
            .any(|c| c["type"] == "NamesAccepted" && c["status"] == "True")
    );

    let mut odd = mesh();
    odd["spec"] = json!({ "colour": "red" });
    let made = api.create(MESHES, "", odd.clone()).unwrap();
    assert_eq!(
        made["spec"],
        json!({ "encryption": "wireguard" }),
        "defaulted and pruned"
    );
    let strict = WriteOptions {
        strict: true,
        ..manager("m")
    };
    let refused = api
        .patch(MESHES, "", "default", false, (PatchKind::Merge, &odd), &strict)
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "strict decoding error: unknown field \"spec.colour\""
    );
    let bad = json!({ "spec": { "mtu": 9001, "encryption": "rot13" } });
    let invalid = api
        .patch(
            MESHES,
            "",
            "default",
            false,
            (PatchKind::Merge, &bad),
            &manager("m"),
        )
        .unwrap_err();
    assert_eq!(invalid.code(), 422);
    assert_eq!(invalid.status()["details"]["causes"].as_array().unwrap().len(), 2);
    assert_eq!(
        api.patch(
            MESHES,
            "",
            "default",
            false,
            (PatchKind::Strategic, &bad),
            &manager("m")
        )
        .unwrap_err()
        .code(),
        415
    );

    // A default that comes later shows in what is read.
    let mut crd = api.get(CRDS, "", "meshes.warren-mesh.io").unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["mtu"]["default"] =
        json!(1);
    api.update(CRDS, "", "meshes.warren-mesh.io", crd).unwrap();
    assert_eq!(api.get(MESHES, "", "default").unwrap()["spec"]["mtu"], 1);

    api.delete(CRDS, "", "meshes.warren-mesh.io").unwrap();
    assert_eq!(api.list(MESHES, "").unwrap_err().code(), 404);
    api.create(CRDS, "", mesh_crd()).unwrap();
    assert_eq!(
        api.list(MESHES, "").unwrap(),
        Vec::<Value>::new(),
        "its objects went with it"
    );
}

#[test]
fn a_bad_definition_is_refused() {
    let mut crd = mesh_crd();
    crd["metadata"]["name"] = json!("other.warren-mesh.io");
    crd["spec"]["scope"] = json!("Galaxy");
    crd["spec"]["versions"][0]["storage"] = json!(false);
    let causes = api().create(CRDS, "", crd).unwrap_err().status()["details"]["causes"].clone();
    let fields: Vec<&str> = causes
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["field"].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["metadata.name", "spec.scope", "spec.versions"]);
}

#[test]
fn managers_share_a_status_condition_by_condition() {
    let api = api();
    api.create(CRDS, "", mesh_crd()).unwrap();
    api.create(MESHES, "", mesh()).unwrap();
    let apply = |by: &str, status: Value| {
        let wanted = json!({ "apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh", "status": status });
        api.patch(
            MESHES,
            "",
            "default",
            true,
            (PatchKind::Apply, &wanted),
            &manager(by),
        )
        .unwrap()
    };
    apply(
        "a",
        json!({ "epoch": 1, "conditions": [{ "type": "Ready", "status": "True" }] }),
    );
    apply(
        "b",
        json!({ "conditions": [{ "type": "Settled", "status": "False" }] }),
    );
    let both = apply(
        "b",
        json!({ "conditions": [{ "type": "Settled", "status": "True" }] }),
    );
    let conditions = json!([{ "type": "Ready", "status": "True" }, { "type": "Settled", "status": "True" }]);
    assert_eq!(both["status"], json!({ "epoch": 1, "conditions": conditions }));
    let less = apply("a", json!({ "epoch": 1 }));
    assert_eq!(
        less["status"]["conditions"],
        json!([{ "type": "Settled", "status": "True" }])
    );
    let entries = less["metadata"]["managedFields"].as_array().unwrap();
    let of_status = entries.iter().filter(|entry| entry["subresource"] == "status");
    assert_eq!(
        of_status
            .map(|entry| entry["manager"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(
        less["spec"],
        json!({ "encryption": "wireguard" }),
        "status writes leave the spec alone"
    );
}
