#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;

use serde_json::{Value, json};
use warren_model::mesh::MESH_NAME;

use super::*;
use crate::mesh_decode::decode_spec;

fn schema() -> Value {
    let crd = serde_json::to_value(mesh_crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// What the API server does to an object before it validates and stores it (structural defaulting).
fn fill(schema: &Value, value: &mut Value) {
    let (Some(properties), Some(object)) = (schema["properties"].as_object(), value.as_object_mut()) else {
        return;
    };
    for (name, property) in properties {
        if let Some(default) = property.get("default") {
            object.entry(name.clone()).or_insert_with(|| default.clone());
        }
        if let Some(value) = object.get_mut(name) {
            fill(property, value);
        }
    }
}

/// Fills only below `spec`: an object as it is created has no status.
fn filled(mut object: Value) -> Value {
    fill(&schema(), &mut object);
    object["spec"].take()
}

#[test]
fn an_object_that_the_server_has_filled_is_the_default_mesh() {
    for object in [
        json!({}),
        json!({"spec": {}}),
        json!({"spec": {"ports": {}, "keys": {}, "overlay": {}}}),
        json!({"spec": {"ports": {"vxlan": 4789}, "keys": {"nodes": []}}}),
    ] {
        let spec = filled(object.clone());
        assert_eq!(decode_spec(&spec), Ok(warren_model::Mesh::default()), "{object}");
        assert_eq!(
            serde_json::from_value::<MeshSpec>(spec).unwrap(),
            MeshSpec::default(),
            "{object}"
        );
    }
}

#[test]
fn every_field_of_the_spec_has_a_description_and_all_but_one_a_default() {
    fn walk(path: &str, schema: &Value) {
        let has_default = schema.get("default").is_some();
        assert_eq!(
            has_default,
            path != "spec.keys.rotationInterval",
            "the default of {path}"
        );
        let description = schema["description"].as_str().unwrap_or_default();
        assert!(!description.is_empty(), "{path} has no description");
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), property);
        }
    }
    walk("spec", &schema()["properties"]["spec"]);
}

#[test]
fn the_schema_and_the_decoder_draw_the_same_lines() {
    let spec = &schema()["properties"]["spec"]["properties"];
    let at = |pointer: &str| spec.pointer(pointer).cloned().unwrap();
    assert_eq!(at("/mtu/maximum"), json!(f64::from(MAX_MTU)));
    assert_eq!(at("/podNetworks/maxItems"), json!(MAX_POD_NETWORKS));
    assert!(MTU_RULE.rule.contains(&MIN_MTU.to_string()));
    for (pointer, words) in [
        ("/encryption/enum", json!(["wireguard", "none"])),
        ("/fallback/enum", json!(["none", "vxlan", "ipip"])),
        ("/overlay/properties/mode/enum", json!(["vxlan", "ipip", "none"])),
    ] {
        assert_eq!(at(pointer), words, "{pointer}");
    }
    let vxlan = |port: Value| json!({"ports": {"vxlan": port}});
    let epoch = |number: Value| json!({"keys": {"epoch": number}});
    let fields: [(&str, &dyn Fn(Value) -> Value); 2] = [
        ("/ports/properties/vxlan", &vxlan),
        ("/keys/properties/epoch", &epoch),
    ];
    for (pointer, with) in fields {
        let limit = |which: &str| at(&format!("{pointer}/{which}")).as_f64().unwrap();
        let taken = |number: f64| decode_spec(&with(format!("{number:.0}").parse().unwrap())).is_ok();
        let (low, high) = (limit("minimum"), limit("maximum"));
        assert!(taken(low) && taken(high), "{pointer}");
        assert!(!taken(low - 1.0) && !taken(high + 1.0), "{pointer}");
    }
}

#[test]
fn the_definition_says_what_the_server_needs_to_know() {
    let crd = mesh_crd();
    assert_eq!(crd.metadata.name.as_deref(), Some("meshes.warren-mesh.io"));
    assert_eq!(crd.spec.scope, "Cluster");
    assert_eq!(crd.spec.group, GROUP);
    let version = &crd.spec.versions[0];
    assert_eq!(version.name, VERSION);
    assert!(version.subresources.as_ref().unwrap().status.is_some());
    let columns = version.additional_printer_columns.as_ref().unwrap();
    let headings: Vec<_> = columns.iter().map(|it| it.name.to_uppercase()).collect();
    let expected = [
        "ENCRYPTION",
        "FALLBACK",
        "EPOCH",
        "SETTLED",
        "NODES",
        "READY",
        "AGE",
    ];
    assert_eq!(headings, expected);
    let text = serde_json::to_string(&schema()).unwrap();
    assert!(NAME_RULE.rule.ends_with(&format!("'{MESH_NAME}'")));
    for rule in [NAME_RULE, MTU_RULE, PORTS_RULE, EPOCH_RULE, INTERVAL_RULE] {
        assert!(
            text.contains(&serde_json::to_string(rule.rule).unwrap()),
            "{}",
            rule.rule
        );
    }
    assert!(
        !text.contains("$ref") && !text.contains("anyOf"),
        "a structural schema has neither: {text}"
    );
}

#[test]
fn the_manifest_is_the_definition() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/base/crds/mesh.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let manifest: Value = serde_saphyr::from_str(&text).unwrap();
    let manifest: CustomResourceDefinition = serde_json::from_value(manifest).unwrap();
    assert_eq!(manifest, mesh_crd(), "out of date: run `cargo xtask generate`");
}
