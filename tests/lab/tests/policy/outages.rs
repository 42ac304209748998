//! Agents and API servers that are gone: what was in force stays so.

use std::time::Duration;

use serde_json::json;
use warren_lab::knock::{knock, storm};
use warren_lab::{Lab, Place};

use crate::scene::{Object, door, place, scene};
use crate::support::{ask_agent, metric, ping, until};

const GLANCE: Duration = Duration::from_millis(400);

/// A pod that may be spoken to and one that may not, on the node that this is about.
async fn guarded() -> Option<Lab> {
    let pods = [
        ("shop", "web", "node1", json!({"app": "web"})),
        ("shop", "open", "node2", json!({"app": "open"})),
        ("shop", "shut", "node2", json!({"app": "shut"})),
    ];
    let lab = scene(2, &pods).await?;
    shut().apply(&lab).await;
    until("the policy to be in force", async || as_told(&lab).await).await;
    Some(lab)
}

fn shut() -> Object {
    Object::kubernetes(
        "shop",
        "shut",
        json!({"podSelector": {"matchLabels": {"app": "shut"}}}),
    )
}

/// Whether the one is open and the other is not, over both families.
async fn as_told(lab: &Lab) -> bool {
    let facts = lab.facts().await.unwrap();
    let doors: Vec<_> = ["open", "shut"]
        .iter()
        .flat_map(|pod| [0, 1].map(|family| door(&facts, "shop", pod, family, "udp:53")))
        .collect();
    let found = knock(lab, &place("shop", "web"), &doors, GLANCE).await.unwrap();
    found == [true, true, false, false]
}

#[tokio::test]
async fn policy_is_in_force_while_no_agent_runs_and_across_its_restarts() {
    let Some(lab) = guarded().await else { return };
    lab.node_kill("node2").await.unwrap();
    assert!(as_told(&lab).await, "without an agent");
    // Nobody takes note of it there.
    shut().delete(&lab).await;
    assert!(as_told(&lab).await, "without an agent");
    shut().apply(&lab).await;
    lab.node_start("node2").await.unwrap();
    assert!(as_told(&lab).await, "the agent is back");

    let facts = lab.facts().await.unwrap();
    let (from, closed) = (place("shop", "web"), door(&facts, "shop", "shut", 0, "udp:53"));
    let open = door(&facts, "shop", "open", 1, "udp:53").address.to_string();
    let lasting = Duration::from_secs(6);
    let restarts = async {
        for _ in 0..2 {
            lab.node_kill("node2").await.unwrap();
            lab.node_start("node2").await.unwrap();
            lab.node_stop("node2").await.unwrap();
            lab.node_start("node2").await.unwrap();
        }
    };
    let (through, answered, ()) = tokio::join!(
        storm(&lab, &from, closed, Duration::from_millis(1), lasting),
        ping(&lab, &from, &open, 250),
        restarts
    );
    assert_eq!(through.unwrap(), 0, "of what is denied nothing came through");
    assert_eq!(answered, (250, 250), "of what is allowed nothing was lost");
    assert!(as_told(&lab).await);
}

#[tokio::test]
async fn policy_is_kept_while_the_api_server_cannot_be_reached() {
    let Some(lab) = guarded().await else { return };
    lab.set_faults(&json!({"rules": [{"fault": "drop"}], "cutWatchesEveryMs": 100}))
        .await
        .unwrap();
    until("the loss of the API to show", async || {
        let failing = "warren_watch_failing{kind=\"networkpolicies.networking.k8s.io\"}";
        metric(&lab, "node2", failing).await == Some(1)
    })
    .await;
    assert!(as_told(&lab).await, "without the API");
    lab.node_kill("node2").await.unwrap();
    let restart = lab.node_start("node2");
    let gone = async {
        until("the agent to wait for the API", async || {
            let unready = ask_agent(&lab, "node2", "/readyz").await.unwrap_or_default();
            unready.contains("policy-in-force")
        })
        .await;
        assert!(
            as_told(&lab).await,
            "an agent that has read nothing takes nothing away"
        );
        lab.clear_faults().await.unwrap();
    };
    let (started, ()) = tokio::join!(restart, gone);
    started.unwrap();
    assert!(as_told(&lab).await, "the API is back");
}

#[tokio::test]
async fn a_table_that_somebody_else_has_changed_is_written_anew() {
    let Some(lab) = guarded().await else { return };
    let node = Place::Node("node2".to_owned());
    for script in [
        "flush table inet warren-policy",
        "delete table inet warren-policy",
        "insert rule inet warren-policy to-pods accept",
    ] {
        let changed = lab.run(node.clone(), &["nft", script]).await.unwrap();
        assert!(changed.success(), "{changed:?}");
        until("the policy to be in force again", async || as_told(&lab).await).await;
    }
}

#[tokio::test]
async fn uninstalling_a_node_takes_its_policy_away() {
    let Some(lab) = guarded().await else { return };
    for pod in ["open", "shut"] {
        lab.pod_remove(warren_lab::PodKey::new("shop", pod))
            .await
            .unwrap();
    }
    lab.node_stop("node2").await.unwrap();
    let node = Place::Node("node2".to_owned());
    let tables = async || lab.run(node.clone(), &["nft", "list", "tables"]).await.unwrap();
    assert!(tables().await.stdout.contains("inet warren-policy"));
    let uninstall = lab
        .run(node.clone(), &["warren", "uninstall-node"])
        .await
        .unwrap();
    assert!(uninstall.success(), "{uninstall:?}");
    assert!(!tables().await.stdout.contains("warren"), "{:?}", tables().await);
}
