//! Bad behaviour, as a client sees it.

use std::time::Duration;

use serde_json::json;
use warren_testapi::{Config, Fault, FaultPlan, Rule};

use crate::common::{NODES, Served, node, serve};

async fn open() -> Served {
    serve(Config::default()).await
}

#[tokio::test]
async fn faults_are_set_seen_and_cleared_over_http() {
    let served = open().await;
    let plan = json!({ "rules": [{ "verb": "list", "resource": "nodes", "count": 1, "fault": { "error": { "code": 429, "retryAfter": 7 } } }] });
    assert_eq!(
        served
            .send("PUT", "/warren-faults", "application/json", &plan)
            .await
            .code,
        200
    );
    let refused = served.get("/api/v1/nodes").await;
    assert_eq!(
        (
            refused.code,
            refused.json()["details"]["retryAfterSeconds"].as_i64()
        ),
        (429, Some(7))
    );
    assert!(refused.head.contains("retry-after: 7"), "{}", refused.head);
    assert_eq!(served.get("/api/v1/nodes").await.code, 200);
    let shown = served.get("/warren-faults").await.json();
    assert_eq!(
        (&shown["rules"][0]["hits"], &shown["rules"][0]["count"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(
        served
            .raw("DELETE", "/warren-faults", &[], "")
            .await
            .unwrap()
            .json()["rules"],
        json!([])
    );
    assert_eq!(
        served
            .send("PUT", "/warren-faults", "application/json", &json!({ "x": 1 }))
            .await
            .code,
        400
    );
}

#[tokio::test]
async fn each_fault_does_what_its_name_says() {
    let served = open().await;
    let set = |fault: Fault| {
        served.api.set_faults(FaultPlan {
            rules: vec![Rule::all(fault).times(1)],
            ..FaultPlan::default()
        })
    };
    for code in [403, 409, 410, 429, 500, 503] {
        set(Fault::Error {
            code,
            retry_after: None,
        });
        let reply = served.get("/api/v1/nodes").await;
        assert_eq!(
            (reply.code, reply.json()["kind"].as_str()),
            (code, Some("Status"))
        );
    }
    set(Fault::Drop);
    assert!(
        served
            .raw("POST", "/api/v1/nodes", &[], &node("dropped").to_string())
            .await
            .is_err()
    );
    assert!(
        served.api.get(NODES, "", "dropped").is_err(),
        "the request was not carried out"
    );
    set(Fault::DropAnswer);
    assert!(
        served
            .raw("POST", "/api/v1/nodes", &[], &node("made").to_string())
            .await
            .is_err()
    );
    assert!(
        served.api.get(NODES, "", "made").is_ok(),
        "the request was carried out"
    );
    set(Fault::Delay { ms: 120 });
    let start = std::time::Instant::now();
    assert_eq!(served.get("/api/v1/nodes").await.code, 200);
    assert!(start.elapsed() >= Duration::from_millis(120));
    set(Fault::Hang);
    let hung = tokio::time::timeout(Duration::from_millis(150), served.get("/api/v1/nodes")).await;
    assert!(hung.is_err(), "no answer");
    served.api.set_faults(FaultPlan {
        cut_watches_every_ms: Some(30),
        ..FaultPlan::default()
    });
    let cut = served.get("/api/v1/nodes?watch=1&timeoutSeconds=30").await;
    assert!(
        !cut.body.ends_with("0\r\n\r\n"),
        "the body has no end: {:?}",
        cut.body
    );
    served.api.faults().clear();
    let ended = served.get("/api/v1/nodes?watch=1&timeoutSeconds=1").await;
    assert!(
        ended.body.ends_with("0\r\n\r\n"),
        "the body ends properly: {:?}",
        ended.body
    );
}
