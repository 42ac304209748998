//! The configuration of the mesh, on an API that does not check all of it.

use std::collections::BTreeMap;

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use serde_json::{Value, json};
use warren_cluster::mesh_resource::Mesh;

use crate::support::{assert_all_reach_all, lab, status_when, two_pods_a_node};
use crate::{agents, refusals_counted, two_nodes};

#[tokio::test]
async fn a_wrong_mesh_changes_nothing_and_each_wrong_field_is_named() {
    let Some(lab) = lab(two_nodes()).await else { return };
    let facts = two_pods_a_node(&lab).await;
    let meshes = Api::<DynamicObject>::all_with(lab.client(), &ApiResource::erase::<Mesh>(&()));
    create(&meshes, "default", json!({"mtu": 1300})).await;
    let held = |agent: &Value, mtu: u64| agent["encryption"] == true && agent["podMtu"] == mtu;
    status_when(&lab, "the Mesh in force", |status| {
        agents(status).all(|it| held(it, 1300))
    })
    .await;

    // The embedded API knows a schema's types and bounds but not its rules in CEL: what it takes is refused by us.
    for (field, wrong) in [
        ("spec.mtu", json!({"mtu": 100})),
        (
            "spec.ports.wireguard",
            json!({"ports": {"wireguard": [7000, 7000]}}),
        ),
        ("spec.ports.vxlan", json!({"ports": {"vxlan": 51820}})),
        ("spec.keys.nodes", json!({"keys": {"nodes": ["No Node"]}})),
        (
            "spec.keys.rotationInterval",
            json!({"keys": {"rotationInterval": "59m"}}),
        ),
        ("spec.podNetworks", json!({"podNetworks": ["10.244.0.1/16"]})),
    ] {
        // With each comes a wish that would be fulfilled if only the wrong field were passed over.
        let mut spec = json!({"mtu": 1300, "encryption": "none"});
        spec.as_object_mut()
            .unwrap()
            .extend(wrong.as_object().unwrap().clone());
        let mut whole = mesh("default", spec);
        whole.metadata.resource_version = meshes.get("default").await.unwrap().metadata.resource_version;
        meshes
            .replace("default", &PostParams::default(), &whole)
            .await
            .unwrap();
        let status = status_when(&lab, field, |status| {
            agents(status).all(|agent| {
                let [refusal] = agent["refusals"].as_array().unwrap().as_slice() else {
                    return false;
                };
                let message = refusal["message"].as_str().unwrap();
                refusal["object"] == "Mesh/default"
                    && refusal["code"] == "invalid-mesh-field"
                    && message.starts_with(&format!("{field} "))
                    && message.contains(": ")
            })
        })
        .await;
        assert!(agents(&status).all(|it| held(it, 1300)), "{field}: {status:#}");
    }
    refusals_counted(
        &lab,
        "node1",
        &BTreeMap::from([("invalid-mesh-field".to_owned(), 1)]),
    )
    .await;

    meshes.delete("default", &DeleteParams::default()).await.unwrap();
    create(&meshes, "second", json!({"encryption": "none"})).await;
    let status = status_when(
        &lab,
        "the second Mesh refused and the defaults in force",
        |status| {
            agents(status).all(|agent| {
                let refusals = agent["refusals"].as_array().unwrap();
                refusals.len() == 1 && refusals[0]["object"] == "Mesh/second" && agent["podMtu"] != 1300
            })
        },
    )
    .await;
    for agent in agents(&status) {
        assert_eq!(agent["refusals"][0]["code"], "mesh-not-default");
        assert!(
            agent["refusals"][0]["message"]
                .as_str()
                .unwrap()
                .contains("delete this one")
        );
        assert_eq!(agent["encryption"], true);
    }
    assert_all_reach_all(&lab, &facts).await;
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);

    // Encryption can be turned off by the one that counts, so the above would have noticed.
    create(&meshes, "default", json!({"encryption": "none"})).await;
    status_when(&lab, "encryption off", |status| {
        agents(status).all(|it| it["encryption"] == false)
    })
    .await;
    let on = Patch::Merge(json!({"spec": {"encryption": "wireguard"}}));
    meshes
        .patch("default", &PatchParams::default(), &on)
        .await
        .unwrap();
    status_when(&lab, "encryption on", |status| {
        agents(status).all(|it| it["encryption"] == true)
    })
    .await;
}

fn mesh(name: &str, spec: Value) -> DynamicObject {
    let object = json!({
        "apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh", "metadata": {"name": name}, "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

async fn create(meshes: &Api<DynamicObject>, name: &str, spec: Value) {
    let object = mesh(name, spec);
    meshes.create(&PostParams::default(), &object).await.unwrap();
}
