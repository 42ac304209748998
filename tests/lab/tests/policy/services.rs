//! Services, as kube-proxy makes them: another address, translated on the node that the packet comes from.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;
use warren_lab::Place;
use warren_lab::knock::{Door, knock};

use crate::scene::{Object, door, place, scene};
use crate::support::until;

const GLANCE: Duration = Duration::from_millis(400);

#[tokio::test]
async fn a_services_packets_are_judged_by_the_pod_they_go_to() {
    let pods = [
        ("shop", "web", "node1", json!({"app": "web"})),
        ("shop", "other", "node1", json!({"app": "other"})),
        ("shop", "db", "node2", json!({"app": "db"})),
        ("shop", "near", "node1", json!({"app": "db"})),
    ];
    let Some(lab) = scene(2, &pods).await else { return };
    let facts = lab.facts().await.unwrap();
    // Services listen on other ports than their pods.
    let services: [(&str, IpAddr); 2] = [
        ("db", "10.96.0.10".parse().unwrap()),
        ("near", "10.96.0.11".parse().unwrap()),
    ];
    let mut text = String::from(
        "add table ip services; add chain ip services pre { type nat hook prerouting priority -100; };",
    );
    for (pod, address) in services {
        let to = door(&facts, "shop", pod, 0, "tcp:6379");
        text += &format!(
            " add rule ip services pre ip daddr {address} tcp dport 7000 dnat to {}:6379;",
            to.address
        );
    }
    let node = Place::Node("node1".to_owned());
    let made = lab.run(node, &["nft", &text]).await.unwrap();
    assert!(made.success(), "{made:?}");
    let doors = services.map(|(_, address)| Door {
        protocol: warren_lab::Protocol::Tcp,
        address,
        port: 7000,
    });
    let found = async |pod: &str| knock(&lab, &place("shop", pod), &doors, GLANCE).await.unwrap();
    until("the Services to work", async || found("web").await == [true; 2]).await;

    Object::kubernetes(
        "shop",
        "db",
        json!({"podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "redis"}]}]}),
    )
    .apply(&lab)
    .await;
    until("who may not to be kept out", async || {
        found("other").await == [false; 2]
    })
    .await;
    assert_eq!(found("web").await, [true; 2]);

    // Egress speaks of the pod's address and port, too, and not of the Service's.
    let egress = |port: u16| {
        Object::global(
            "web",
            json!({"selector": "app == 'web'", "egress": [
                {"action": "Allow", "protocol": "TCP",
                    "destination": {"selector": "app == 'db'", "ports": [port]}}
            ]}),
        )
    };
    egress(7000).apply(&lab).await;
    until("the Service's port not to count", async || {
        found("web").await == [false; 2]
    })
    .await;
    egress(6379).apply(&lab).await;
    until("the pod's port to count", async || {
        found("web").await == [true; 2]
    })
    .await;
}
