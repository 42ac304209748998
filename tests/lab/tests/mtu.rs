//! What packets of pods may have, on underlays that take more, less, and less than they say.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use support::{a_pod_on_each_of_two_nodes, lab, metric, status_when, until};
use warren_cluster::mesh_resource::Mesh;
use warren_lab::{Families, Lab, LabOptions, Place, PodOptions};

#[tokio::test]
async fn jumbo_frames_are_used_where_the_underlay_has_them_and_the_narrowest_way_decides() {
    let Some(lab) = lab(LabOptions::default()).await else {
        return;
    };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    assert_eq!(interface_mtu(&lab, &from).await, 1440);
    // Of all nodes and of the switch between them.
    sh(
        &lab,
        Place::Root,
        "for link in under1 n1 n2 n3; do ip link set $link mtu 9000; done",
    )
    .await;
    for node in ["node1", "node2", "node3"] {
        sh(&lab, Place::Node(node.to_owned()), "ip link set eth0 mtu 9000").await;
    }
    status_when(&lab, "pods with jumbo frames", |status| {
        agents(status).iter().all(|agent| agent["podMtu"] == 8940)
    })
    .await;
    // The pods were there before.
    until("a pod with jumbo frames", async || {
        interface_mtu(&lab, &from).await == 8940
    })
    .await;
    for (address, header) in [(&to[0], 28), (&to[1], 48)] {
        let whole = (8940 - header).to_string();
        let ping = [
            "ping", "-n", "-M", "do", "-c", "3", "-i", "0.1", "-W", "2", "-s", &whole, address,
        ];
        let answer = lab.run(from.clone(), &ping).await.unwrap();
        assert!(answer.success(), "{answer:?}");
    }

    // The way from node1 to node3 is narrow. The peer says so, and the smallest decides for the pods of node1 alone.
    let narrow = "ip route add 10.211.1.13 dev eth0 mtu 1400";
    sh(&lab, Place::Node("node1".to_owned()), narrow).await;
    let status = status_when(&lab, "pods that fit through the narrow way", |status| {
        agents(status)[0]["podMtu"] == 1340
    })
    .await;
    let of_peers = |agent: &Value| json!([agent["peers"][0]["mtu"], agent["peers"][1]["mtu"]]);
    assert_eq!(of_peers(agents(&status)[0]), json!([8940, 1340]), "{status:#}");
    assert_eq!(agents(&status)[1]["podMtu"], 8940);
    // Others' routes come and go without a word to the agent, which looks every ten seconds.
    until("a pod with the small MTU", async || {
        interface_mtu(&lab, &from).await == 1340
    })
    .await;
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn pods_get_what_each_kind_of_path_leaves_of_an_underlay_of_either_family() {
    for (families, by_wireguard, by_vxlan) in [(Families::V4, 1440, 1450), (Families::V6, 1420, 1430)] {
        let options = LabOptions {
            nodes: 2,
            families,
            ..LabOptions::default()
        };
        let Some(lab) = lab(options).await else { return };
        let from = Place::Pod("from".into());
        lab.pod_add(PodOptions::new("from", "node1")).await.unwrap();
        let to = lab.pod_add(PodOptions::new("to", "node2")).await.unwrap();
        let to = &to.addresses[0];
        assert_eq!(interface_mtu(&lab, &from).await, by_wireguard);
        assert!(whole_comes_through(&lab, &from, to, by_wireguard).await);
        make_mesh(&lab, json!({"encryption": "none"})).await;
        // The pods were there before.
        for pod in [&from, &Place::Pod("to".into())] {
            until("a pod with what VXLAN leaves", async || {
                interface_mtu(&lab, pod).await == by_vxlan
            })
            .await;
        }
        assert!(whole_comes_through(&lab, &from, to, by_vxlan).await);
    }
}

#[tokio::test]
async fn a_pod_whose_interface_has_more_than_the_lane_gets_segments_that_fit() {
    let options = LabOptions {
        nodes: 2,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    let from = Place::Pod("from".into());
    let server = Place::Pod("server".into());
    lab.pod_add(PodOptions::new("from", "node1")).await.unwrap();
    let mut listening = PodOptions::new("server", "node2");
    listening.ports = vec!["tcp:80".parse().unwrap()];
    let to = lab.pod_add(listening).await.unwrap().addresses;
    // The agent would put it right.
    lab.node_kill("node1").await.unwrap();
    let node1 = Place::Node("node1".to_owned());
    sh(
        &lab,
        node1,
        "ip link set warren0 mtu 1300; ip link set warren1 mtu 1300",
    )
    .await;
    // 1300 less the headers of IP and TCP, and 12 for time stamps.
    for (address, segment) in to.iter().zip([1248, 1228]) {
        let open =
            format!("{{ exec 3<> /dev/tcp/{address}/80; read -rt 30 -u 3; }} > /dev/null 2>&1 < /dev/null &");
        sh(&lab, from.clone(), &open).await;
        let heard = format!("mss:{segment} ");
        until(&format!("{address} to hear of {heard}"), async || {
            sh(&lab, server.clone(), "ss -Htin state established")
                .await
                .contains(&heard)
        })
        .await;
    }
}

#[tokio::test]
async fn a_black_hole_is_found_and_named_and_lowers_the_pods_mtu_where_the_mesh_wants_that() {
    let options = LabOptions {
        nodes: 2,
        agents: false,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    // Datagrams one at a time, or several leave as one that is longer than any of them.
    let node = |name: &str| Place::Node(name.to_owned());
    sh(&lab, node("node1"), "ip link set eth0 gso_max_segs 1").await;
    // 1400 are left for the lane's packets: 1340 for those of pods.
    let hole =
        "nft add table inet hole; nft add chain inet hole in '{ type filter hook prerouting priority -500; }'
                nft add rule inet hole in udp dport { 51820, 51821 } meta length '>' 1400 drop";
    sh(&lab, node("node2"), hole).await;
    for name in ["node1", "node2"] {
        lab.node_start(name).await.unwrap();
    }
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    let found = json!({"lost": 1440, "passes": 1328});
    let status = status_when(&lab, "the black hole to be named", |status| {
        agents(status)[0]["peers"][0]["mtuHole"] == found
    })
    .await;
    assert_eq!(
        agents(&status)[0]["podMtu"],
        1440,
        "reported, and no more than that"
    );
    let said = lab
        .warren(&["status", "--kubeconfig", &lab.kubeconfig_inside()])
        .await
        .unwrap();
    let line = "node1 to node2: packets of 1440 bytes are lost, those of 1328 come through; pods have 1440";
    assert!(said.stdout.contains(line), "{}", said.stdout);
    let series = "warren_peer_mtu_black_hole_bytes{peer=\"node2\"}";
    until("the metric to tell", async || {
        metric(&lab, "node1", series).await == Some(1328)
    })
    .await;
    assert!(
        !whole_comes_through(&lab, &from, &to[0], 1440).await,
        "it is a hole"
    );

    make_mesh(&lab, json!({"mtuProbe": "lower"})).await;
    until("a pod with what comes through", async || {
        interface_mtu(&lab, &from).await == 1328
    })
    .await;
    assert!(whole_comes_through(&lab, &from, &to[0], 1328).await);
    // What the node itself sends to the pod comes in pieces that fit, and whoever is not to have it in pieces is told.
    let whole = ["ping", "-n", "-c", "1", "-w", "2", "-s", "1412", &to[0]];
    let answer = lab.run(node("node1"), &whole).await.unwrap();
    assert!(answer.success(), "{answer:?}");
    let unbroken = [&whole[..8], &["-M", "do", &to[0]]].concat();
    let told = lab.run(node("node1"), &unbroken).await.unwrap();
    assert!(format!("{told:?}").contains("mtu=1328"), "{told:?}");

    sh(&lab, node("node2"), "nft delete table inet hole").await;
    // Both nodes may have found the hole, for an answer is as long as the question, and each looks again by itself.
    for pod in [&from, &Place::Pod("to".into())] {
        until("a pod with all again", async || {
            interface_mtu(&lab, pod).await == 1440
        })
        .await;
    }
    assert!(whole_comes_through(&lab, &from, &to[0], 1440).await);
    until("the metric to be gone", async || {
        metric(&lab, "node1", series).await.is_none()
    })
    .await;
}

async fn make_mesh(lab: &Lab, spec: Value) {
    let mesh: Mesh = serde_json::from_value(json!({
        "apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh", "metadata": {"name": "default"}, "spec": spec,
    }))
    .unwrap();
    let meshes: Api<Mesh> = Api::all(lab.client());
    meshes.create(&PostParams::default(), &mesh).await.unwrap();
}

/// Whether packets of so many bytes are answered.
async fn whole_comes_through(lab: &Lab, from: &Place, to: &str, bytes: u32) -> bool {
    let header = if to.contains(':') { 48 } else { 28 };
    let data = (bytes - header).to_string();
    let ping = [
        "ping", "-n", "-M", "do", "-c", "1", "-i", "0.2", "-w", "2", "-s", &data, to,
    ];
    lab.run(from.clone(), &ping).await.unwrap().success()
}

fn agents(status: &Value) -> Vec<&Value> {
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().map(|node| &node["agent"]).collect()
}

/// Inside a pod, where whoever sends sees it.
async fn interface_mtu(lab: &Lab, pod: &Place) -> u32 {
    let said = sh(
        lab,
        pod.clone(),
        "ip -o link show eth0 | sed 's/.*mtu //; s/ .*//'",
    )
    .await;
    said.trim().parse().unwrap()
}

async fn sh(lab: &Lab, place: Place, script: &str) -> String {
    let output = lab.run(place, &["bash", "-c", script]).await.unwrap();
    assert!(output.success(), "{script}: {output:?}");
    output.stdout
}
