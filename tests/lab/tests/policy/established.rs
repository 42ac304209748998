//! Connections that are in use while policy changes: cut, or kept.

use std::time::Duration;

use serde_json::json;
use warren_lab::Lab;
use warren_lab::knock::{now, talk};

use crate::changes::{only_from, settled, shop};
use crate::scene::{Object, PORTS, door, place};
use crate::support::{metric, until};
use crate::written::mesh;

/// A connection in use, and what is done once it is established.
async fn while_talking(lab: &Lab, lasting: Duration, act: impl AsyncFnOnce()) -> Duration {
    let facts = lab.facts().await.unwrap();
    let db = door(&facts, "shop", "db", 0, PORTS[0]);
    let from = place("shop", "web");
    let talking = talk(lab, &from, db, Duration::from_secs(2), lasting);
    let acting = async {
        until("the connection to be there", async || {
            let argv = ["ss", "-Htn", "state", "established"];
            let sockets = lab.run(place("shop", "db"), &argv).await.unwrap();
            sockets.stdout.contains(":80 ")
        })
        .await;
        act().await;
        now()
    };
    let (talk, acted) = tokio::join!(talking, acting);
    let talk = talk.unwrap();
    assert!(talk.answers > 0);
    talk.last.saturating_sub(acted)
}

#[tokio::test]
async fn a_connection_that_a_new_policy_forbids_is_cut_within_a_second_unless_it_is_to_be_kept() {
    let Some(lab) = shop().await else { return };
    let nobody = only_from(json!({"podSelector": {"matchLabels": {"app": "nobody"}}}));
    let longer = while_talking(&lab, Duration::from_secs(20), async || nobody.apply(&lab).await).await;
    eprintln!("the last answer came {longer:?} after the policy");
    assert!(longer < Duration::from_secs(1), "{longer:?}");
    until("that to be counted", async || {
        metric(&lab, "node2", "warren_policy_connections_cut_total")
            .await
            .unwrap_or_default()
            > 0
    })
    .await;
    nobody.delete(&lab).await;

    // The other end's policy, which forbids it to speak.
    let facts = lab.facts().await.unwrap();
    let (from, udp) = (place("shop", "web"), door(&facts, "shop", "db", 0, "udp:53"));
    settled(&lab, &from, udp, true).await;
    let silent = Object::global(
        "silent",
        json!({"selector": "app == 'web'", "types": ["Egress"], "egress": [{"action": "Deny"}]}),
    );
    let longer = while_talking(&lab, Duration::from_secs(20), async || silent.apply(&lab).await).await;
    assert!(longer < Duration::from_secs(1), "{longer:?}");
    silent.delete(&lab).await;
    settled(&lab, &from, udp, true).await;

    mesh(&lab, json!({"established": "keep"})).await;
    let kept = while_talking(&lab, Duration::from_secs(6), async || {
        settled(&lab, &from, udp, true).await;
        nobody.apply(&lab).await;
        settled(&lab, &from, udp, false).await;
    })
    .await;
    assert!(
        kept > Duration::from_secs(2),
        "it ended {kept:?} after the policy was in force"
    );
}
