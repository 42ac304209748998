//! How nodes reach each other is changed in a live cluster, and not one packet is lost.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use support::{emulated, lab, peers, status, status_when};
use warren_lab::switch::{self, Named};
use warren_lab::{Families, Lab, LabOptions, Place, PodOptions};

/// As much as the machine can do without losing packets for that alone.
#[derive(Debug, Clone, Copy)]
struct Load {
    nodes: u8,
    /// The last of them.
    last: &'static str,
    /// Packets a second from each pod to each address of each other.
    rate: u32,
}

fn load() -> Load {
    if emulated() {
        Load {
            nodes: 2,
            last: "node2",
            rate: 20,
        }
    } else {
        Load {
            nodes: 4,
            last: "node4",
            rate: switch::RATE,
        }
    }
}

/// Nodes with a pod each.
async fn nodes(options: LabOptions) -> Option<Lab> {
    let Load { nodes, .. } = load();
    let lab = lab(LabOptions { nodes, ..options }).await?;
    for node in lab.facts().await.unwrap().nodes {
        let name = format!("on-{}", node.name);
        lab.pod_add(PodOptions::new(name.as_str(), &node.name))
            .await
            .unwrap();
    }
    Some(lab)
}

async fn nothing_is_lost(lab: &Lab, changes: Vec<Named>) {
    for (name, change) in changes {
        let tally = switch::during(lab, load().rate, &change)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        eprintln!("{name}: {} of {} lost", tally.lost(), tally.sent());
        if tally.lost() > 0 {
            panic!("{name}: {:#?} {:#}", tally.lossy(), status(lab).await);
        }
    }
}

#[tokio::test]
async fn encryption_is_turned_on_and_off_without_losing_a_packet() {
    let Some(lab) = nodes(LabOptions::default()).await else {
        return;
    };
    switch::begin_with(&lab, &switch::in_the_clear()).await.unwrap();
    nothing_is_lost(&lab, switch::encryption()).await;
}

#[tokio::test]
async fn the_overlay_is_changed_without_losing_a_packet() {
    let Some(lab) = nodes(LabOptions::default()).await else {
        return;
    };
    switch::begin_with(&lab, &switch::in_the_clear()).await.unwrap();
    nothing_is_lost(&lab, switch::overlay()).await;
}

#[tokio::test]
async fn ipip_is_taken_up_and_left_without_losing_a_packet_or_is_none_where_the_kernel_has_none() {
    let options = LabOptions {
        families: Families::V4,
        ..LabOptions::default()
    };
    let Some(lab) = nodes(options).await else {
        return;
    };
    switch::begin_with(&lab, &switch::in_the_clear()).await.unwrap();
    let can = |node: &serde_json::Value| {
        let paths = node["announcement"]["paths"].as_array().unwrap();
        paths.contains(&serde_json::json!("ipip"))
    };
    let nodes = status(&lab).await["nodes"].as_array().unwrap().clone();
    if nodes.iter().all(can) {
        return nothing_is_lost(&lab, switch::ipip()).await;
    }
    assert!(!nodes.iter().any(can), "one kernel: {nodes:#?}");
    let mesh: kube::Api<warren_cluster::mesh_resource::Mesh> = kube::Api::all(lab.client());
    let spec = serde_json::json!({"spec": {"overlay": {"mode": "ipip"}}});
    mesh.patch("default", &Default::default(), &kube::api::Patch::Merge(&spec))
        .await
        .unwrap();
    status_when(&lab, "no path, and why", |status| {
        let refused = |peer: &&serde_json::Value| {
            peer["path"].is_null() && peer["reason"] == "not both ends can do ipip"
        };
        peers(status).len() == nodes.len() * (nodes.len() - 1) && peers(status).iter().all(refused)
    })
    .await;
}

#[tokio::test]
async fn subnets_are_spared_encapsulation_and_not_without_losing_a_packet() {
    let options = LabOptions {
        subnets: 2,
        ..LabOptions::default()
    };
    let Some(lab) = nodes(options).await else { return };
    switch::begin_with(&lab, &switch::in_the_clear()).await.unwrap();
    nothing_is_lost(&lab, switch::cross_subnet()).await;
}

#[tokio::test]
async fn a_node_loses_and_gains_wireguard_without_losing_a_packet() {
    let Some(lab) = nodes(LabOptions::default()).await else {
        return;
    };
    switch::begin_with(&lab, &serde_json::json!({})).await.unwrap();
    nothing_is_lost(&lab, switch::fallback(load().last)).await;
    assert!(
        lab.counts().await.unwrap().plaintext > 0,
        "a node was reached by the fallback"
    );
}

#[tokio::test]
async fn a_node_loses_wireguard_and_has_it_back_before_all_have_followed_without_losing_a_packet() {
    let Some(lab) = nodes(LabOptions::default()).await else {
        return;
    };
    switch::begin_with(&lab, &serde_json::json!({"fallback": "vxlan"}))
        .await
        .unwrap();
    nothing_is_lost(&lab, switch::there_and_back(load().last)).await;
}

#[tokio::test]
#[ignore = "needs kernel WireGuard: hack/vm.sh"]
async fn nodes_with_kernel_and_with_userspace_devices_are_changed_without_losing_a_packet() {
    let options = LabOptions {
        wireguard: "kernel,userspace".to_owned(),
        ..LabOptions::default()
    };
    let Some(lab) = nodes(options).await else {
        return;
    };
    switch::begin_with(&lab, &serde_json::json!({"fallback": "vxlan"}))
        .await
        .unwrap();
    nothing_is_lost(&lab, switch::loss_and_gain("node2", "userspace")).await;
}

#[tokio::test]
async fn the_mtu_is_changed_without_losing_a_packet() {
    let Some(lab) = nodes(LabOptions::default()).await else {
        return;
    };
    switch::begin_with(&lab, &serde_json::json!({})).await.unwrap();
    nothing_is_lost(&lab, switch::mtu()).await;
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn the_port_of_vxlan_is_changed_by_way_of_encryption_without_losing_a_packet() {
    let Some(lab) = nodes(LabOptions::default()).await else {
        return;
    };
    switch::begin_with(&lab, &switch::in_the_clear()).await.unwrap();
    nothing_is_lost(&lab, switch::vxlan_port()).await;
    let argv = ["ip", "-details", "link", "show", "warren-vx"];
    for node in lab.facts().await.unwrap().nodes {
        let shown = lab.run(Place::Node(node.name), &argv).await.unwrap().stdout;
        assert!(shown.contains("dstport 4790"), "{shown}");
    }
}

#[tokio::test]
async fn the_lanes_ports_are_changed_by_way_of_a_rotation_without_losing_a_packet() {
    let Some(lab) = nodes(LabOptions::default()).await else {
        return;
    };
    switch::begin_with(&lab, &serde_json::json!({})).await.unwrap();
    nothing_is_lost(&lab, switch::ports()).await;
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}
