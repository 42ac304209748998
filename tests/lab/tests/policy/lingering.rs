//! Objects of pods that are gone: the address in them is another pod's by now, and only that one's labels count.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use warren_lab::PodKey;
use warren_lab::knock::{knock, now};

use crate::changes::{only_from, settled};
use crate::scene::{add, all_attempts, assert_as_judged, door, label, place, scene};
use crate::support::until;

const GLANCE: Duration = Duration::from_millis(400);

#[tokio::test]
async fn a_pod_with_the_address_of_one_whose_object_lingers_is_judged_for_itself() {
    let pods = [
        ("shop", "db", "node2", json!({"app": "db"})),
        ("shop", "marker", "node1", json!({"app": "marker"})),
    ];
    let Some(lab) = scene(2, &pods).await else { return };
    only_from(json!({"podSelector": {"matchLabels": {"app": "web"}}}))
        .apply(&lab)
        .await;
    let pods: Api<Pod> = Api::namespaced(lab.client(), "shop");
    let gone: Pod = serde_json::from_value(json!({
        "metadata": {"name": "gone", "labels": {"app": "web"}},
        "spec": {"nodeName": "node1", "containers": [{"name": "main", "image": "none"}]},
    }))
    .unwrap();
    pods.create(&PostParams::default(), &gone).await.unwrap();
    // Objects are as old as the second says.
    let created = now().as_secs();
    until("another second", async || now().as_secs() > created + 1).await;
    add(&lab, "shop", "guest", "node1", &json!({"app": "guest"})).await;
    let facts = lab.facts().await.unwrap();
    let guest = PodKey::new("shop", "guest");
    let guest = facts.pods.iter().find(|pod| pod.key == guest).unwrap();
    let addresses: Vec<_> = guest.addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let status = json!({"status": {"phase": "Running", "podIPs": addresses}});
    pods.patch_status("gone", &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();

    // What comes later by the same watch is in force, so that is too.
    let doors = [0, 1].map(|family| door(&facts, "shop", "db", family, "udp:53"));
    settled(&lab, &place("shop", "marker"), doors[0], false).await;
    label(&lab, "shop", Some("marker"), json!({"app": "web"})).await;
    settled(&lab, &place("shop", "marker"), doors[0], true).await;
    let answered = knock(&lab, &place("shop", "guest"), &doors, GLANCE)
        .await
        .unwrap();
    assert_eq!(answered, [false; 2], "the guest is taken for one that is gone");
    assert_as_judged(&lab, &all_attempts(&facts)).await;

    // By its own labels it may.
    label(&lab, "shop", Some("guest"), json!({"app": "web"})).await;
    settled(&lab, &place("shop", "guest"), doors[1], true).await;
    assert_as_judged(&lab, &all_attempts(&facts)).await;
}
