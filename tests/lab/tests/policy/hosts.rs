//! Host endpoints: what a node itself takes and sends.

use serde_json::json;
use warren_lab::{Lab, Place};

use crate::scene::{Kind, Object, scene};
use crate::support::{ping, until};

/// What becomes of a connection to a port of a node where nobody listens, from outside: `refused` by the node, or nothing is heard.
async fn tried(lab: &Lab, address: &str, port: u16) -> &'static str {
    let script = format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{address}/{port}'");
    let output = lab.run(Place::Root, &["bash", "-c", &script]).await.unwrap();
    match (output.success(), output.stderr.contains("refused")) {
        (true, _) => "open",
        (false, true) => "refused",
        (false, false) => "silence",
    }
}

#[tokio::test]
async fn a_host_endpoint_leaves_open_what_the_mesh_and_its_operator_need() {
    let pods = [
        ("shop", "near", "node1", json!({})),
        ("shop", "far", "node2", json!({})),
    ];
    let Some(lab) = scene(2, &pods).await else { return };
    let facts = lab.facts().await.unwrap();
    let address = facts.nodes[0].addresses[0].addr().to_string();
    let far = facts.pods.iter().find(|it| it.key.name == "far").unwrap();
    let near = facts.pods.iter().find(|it| it.key.name == "near").unwrap();
    assert_eq!(tried(&lab, &address, 9586).await, "open", "the agent's own port");
    assert_eq!(tried(&lab, &address, 2222).await, "refused");

    let endpoint = Object {
        kind: Kind::HostEndpoint,
        namespace: None,
        name: "node1".to_owned(),
        labels: json!({"host": "node1"}),
        spec: json!({"node": "node1", "interfaceName": "*"}),
    };
    endpoint.apply(&lab).await;
    until("the node to be closed", async || {
        tried(&lab, &address, 9586).await == "silence"
    })
    .await;
    assert_eq!(tried(&lab, &address, 2222).await, "silence");
    for failsafe in [22, 6443] {
        assert_eq!(tried(&lab, &address, failsafe).await, "refused", "{failsafe}");
    }
    // The mesh goes on, with a new handshake too, and the agent still hears from the API server.
    for device in ["warren0", "warren1"] {
        let down = format!("ip link set {device} down; ip link set {device} up");
        let node = Place::Node("node2".to_owned());
        assert!(lab.run(node, &["sh", "-c", &down]).await.unwrap().success());
    }
    let from_near = Place::Pod(near.key.clone());
    for to in &far.addresses {
        until("the mesh to carry packets", async || {
            ping(&lab, &from_near, to, 1).await == (1, 1)
        })
        .await;
    }
    let node = Place::Node("node1".to_owned());
    for to in &near.addresses {
        assert_eq!(
            ping(&lab, &node, to, 1).await,
            (1, 1),
            "the node reaches its own pods"
        );
    }

    let open = |port: u16| {
        Object::global(
            "agents",
            json!({"selector": "has(host)", "types": ["Ingress"], "ingress": [
                {"action": "Allow", "protocol": "TCP", "destination": {"ports": [port]}}
            ]}),
        )
    };
    open(9586).apply(&lab).await;
    until("what is allowed to be open", async || {
        tried(&lab, &address, 9586).await == "open"
    })
    .await;
    assert_eq!(tried(&lab, &address, 2222).await, "silence");
    open(2222).apply(&lab).await;
    until("that to be taken back", async || {
        tried(&lab, &address, 9586).await == "silence"
    })
    .await;
    assert_eq!(tried(&lab, &address, 2222).await, "refused");

    endpoint.delete(&lab).await;
    until("the node to be open again", async || {
        tried(&lab, &address, 9586).await == "open"
    })
    .await;
}
