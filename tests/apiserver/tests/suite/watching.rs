//! Watches over the wire: replay, selectors, bookmarks and lost history.

use std::time::Duration;

use serde_json::{Value, json};
use warren_testapi::Config;

use crate::common::{NODES, PATIENCE, Served, node, serve};

async fn open() -> Served {
    serve(Config::default()).await
}

fn summary(lines: &[Value]) -> Vec<String> {
    lines
        .iter()
        .map(|line| {
            let name = line["object"]["metadata"]["name"].as_str().unwrap_or("-");
            format!("{} {name}", line["type"].as_str().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn a_watch_replays_from_its_version_and_sees_what_enters_and_leaves_its_selector() {
    let served = open().await;
    let from = served.api.version();
    served.api.create(NODES, "", node("a")).unwrap();
    served.api.create(NODES, "", node("b")).unwrap();
    let label = |name: &'static str, value: Value| {
        let served = &served;
        async move {
            let patch = json!({ "metadata": { "labels": { "in": value } } });
            let path = format!("/api/v1/nodes/{name}");
            assert_eq!(
                served
                    .send("PATCH", &path, "application/merge-patch+json", &patch)
                    .await
                    .code,
                200
            );
        }
    };
    label("a", json!("yes")).await;
    label("a", json!("no")).await;
    label("b", json!("yes")).await;
    served.api.delete(NODES, "", "b").unwrap();
    let watch = |rest: String| async move { rest };
    let all = served
        .watch_lines(
            &watch(format!(
                "/api/v1/nodes?watch=1&timeoutSeconds=1&resourceVersion={from}"
            ))
            .await,
        )
        .await;
    assert_eq!(
        summary(&all),
        [
            "ADDED a",
            "ADDED b",
            "MODIFIED a",
            "MODIFIED a",
            "MODIFIED b",
            "DELETED b"
        ]
    );
    let path =
        format!("/api/v1/nodes?watch=1&timeoutSeconds=1&resourceVersion={from}&labelSelector=in%3Dyes");
    let some = served.watch_lines(&path).await;
    assert_eq!(summary(&some), ["ADDED a", "DELETED a", "ADDED b", "DELETED b"]);
    let version = |line: &Value| {
        line["object"]["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    assert!(
        all.windows(2).all(|pair| version(&pair[0]) < version(&pair[1])),
        "versions only grow, deletions too"
    );
}

#[tokio::test]
async fn watches_without_a_version_start_with_what_there_is() {
    let served = open().await;
    served.api.create(NODES, "", node("a")).unwrap();
    for version in ["", "&resourceVersion=0"] {
        let lines = served
            .watch_lines(&format!("/api/v1/nodes?watch=1&timeoutSeconds=1{version}"))
            .await;
        assert_eq!(summary(&lines), ["ADDED a"]);
    }
    let path = "/api/v1/nodes?watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let lines = served.watch_lines(path).await;
    assert_eq!(summary(&lines)[..2], ["ADDED a", "BOOKMARK -"]);
    assert_eq!(
        lines[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    let bad = served.get("/api/v1/nodes?watch=1&sendInitialEvents=true").await;
    assert_eq!(bad.code, 400);
}

#[tokio::test]
async fn bookmarks_come_to_those_who_ask_and_carry_the_version() {
    let config = Config {
        bookmarks_every: Duration::from_millis(50),
        ..Config::default()
    };
    let served = serve(config).await;
    let version = served.api.version();
    let base = format!("/api/v1/nodes?watch=1&timeoutSeconds=1&resourceVersion={version}");
    assert_eq!(served.watch_lines(&base).await, Vec::<Value>::new());
    let lines = served
        .watch_lines(&format!("{base}&allowWatchBookmarks=true"))
        .await;
    assert!(lines.len() > 3, "{} bookmarks in a second", lines.len());
    assert!(lines.iter().all(|l| l["type"] == "BOOKMARK"));
    assert_eq!(
        lines[0]["object"]["metadata"]["resourceVersion"],
        version.to_string()
    );
}

#[tokio::test]
async fn a_watch_from_before_the_history_gets_410_and_a_new_list_helps() {
    let served = serve(Config {
        history: 2,
        ..Config::default()
    })
    .await;
    let old = served.api.version();
    for name in ["a", "b", "c"] {
        served.api.create(NODES, "", node(name)).unwrap();
    }
    let listed = || async {
        let list = served.get("/api/v1/nodes?limit=1").await.json();
        list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
    };
    let watched = |version: String| {
        let path = format!("/api/v1/nodes?watch=1&timeoutSeconds=1&resourceVersion={version}");
        let served = &served;
        async move { served.watch_lines(&path).await }
    };
    let current = listed().await;
    served.api.expire_history();
    // Too old, forgotten, and of a former server: an event each, in a watch that is answered with 200.
    for version in [old.to_string(), current, "99999".to_owned()] {
        let lines = watched(version).await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(
            (&lines[0]["type"], &lines[0]["object"]["code"]),
            (&json!("ERROR"), &json!(410))
        );
        assert_eq!(lines[0]["object"]["reason"], "Expired");
    }
    assert_eq!(watched(listed().await).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_running_watch_that_history_overtakes_ends_with_an_error_event() {
    let served = open().await;
    let version = served.api.version();
    served.api.create(NODES, "", node("a")).unwrap();
    let base = format!("/api/v1/nodes?watch=1&timeoutSeconds=30&resourceVersion={version}");
    let watch = served.watch_lines(&base);
    let expire = async {
        let watching = async {
            // The watch is in the call log as soon as it is answered.
            while !served
                .api
                .calls()
                .iter()
                .any(|(call, code)| call.verb == "watch" && *code == 200)
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, watching).await.unwrap();
        served.api.expire_history();
    };
    let (lines, ()) = tokio::join!(watch, expire);
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["type"], &last["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
}
