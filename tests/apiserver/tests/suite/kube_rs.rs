//! kube-rs against a served API: watchers, also through failures, and server-side apply.

use std::collections::BTreeSet;

use crate::common::{NODES, PATIENCE, Served, node, serve};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::json;
use warren_testapi::{Config, Fault, FaultPlan, Rule};

async fn open() -> Served {
    serve(Config::default()).await
}

/// Follows a watcher, through its errors, until the set of names it has told of is `wanted`.
async fn converge(
    events: &mut (impl Stream<Item = Result<Event<Node>, watcher::Error>> + Unpin),
    seen: &mut BTreeSet<String>,
    wanted: &[&str],
) -> Vec<watcher::Error> {
    let wanted: BTreeSet<String> = wanted.iter().map(|&name| name.to_owned()).collect();
    let mut errors = Vec::new();
    let mut listing = BTreeSet::new();
    let follow = async {
        while *seen != wanted {
            match events.next().await.expect("a watcher never ends") {
                Ok(Event::Init) => listing.clear(),
                Ok(Event::InitApply(node)) => drop(listing.insert(node.name_any())),
                Ok(Event::InitDone) => *seen = std::mem::take(&mut listing),
                Ok(Event::Apply(node)) => drop(seen.insert(node.name_any())),
                Ok(Event::Delete(node)) => drop(seen.remove(&node.name_any())),
                Err(error) => errors.push(error),
            }
        }
    };
    tokio::time::timeout(PATIENCE, follow)
        .await
        .unwrap_or_else(|_| panic!("stuck at {seen:?}, wanted {wanted:?}"));
    errors
}

#[tokio::test]
async fn a_watcher_follows_lists_and_streams_alike() {
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let served = open().await;
        served.api.create(NODES, "", node("a")).unwrap();
        let mut events = Box::pin(watcher(Api::<Node>::all(served.client()), config));
        let mut seen = BTreeSet::new();
        converge(&mut events, &mut seen, &["a"]).await;
        served.api.create(NODES, "", node("b")).unwrap();
        converge(&mut events, &mut seen, &["a", "b"]).await;
        served.api.delete(NODES, "", "a").unwrap();
        assert!(converge(&mut events, &mut seen, &["b"]).await.is_empty());
    }
}

#[tokio::test]
async fn a_watcher_survives_every_way_of_losing_its_watch() {
    let served = open().await;
    served.api.create(NODES, "", node("a")).unwrap();
    let mut events = Box::pin(watcher(
        Api::<Node>::all(served.client()),
        watcher::Config::default(),
    ));
    let mut seen = BTreeSet::new();
    converge(&mut events, &mut seen, &["a"]).await;

    served.api.faults().close_watches();
    served.api.create(NODES, "", node("b")).unwrap();
    converge(&mut events, &mut seen, &["a", "b"]).await;

    served.api.faults().cut_watches();
    served.api.create(NODES, "", node("c")).unwrap();
    converge(&mut events, &mut seen, &["a", "b", "c"]).await;

    // History gone while the watch is down: only a new list can tell that `a` is deleted.
    served.api.set_faults(FaultPlan {
        rules: vec![
            Rule::on(
                "watch",
                "nodes",
                Fault::Error {
                    code: 500,
                    retry_after: None,
                },
            )
            .times(1),
        ],
        ..FaultPlan::default()
    });
    served.api.faults().close_watches();
    served.api.delete(NODES, "", "a").unwrap();
    served.api.expire_history();
    converge(&mut events, &mut seen, &["b", "c"]).await;
}

#[tokio::test]
async fn many_writers_and_constant_cuts_lose_no_event() {
    let served = open().await;
    served.api.set_faults(FaultPlan {
        cut_watches_every_ms: Some(5),
        seed: 3,
        ..FaultPlan::default()
    });
    let mut events = Box::pin(watcher(
        Api::<Node>::all(served.client()),
        watcher::Config::default(),
    ));
    let names: Vec<String> = (0..200).map(|n| format!("n{n}")).collect();
    let api = served.api.clone();
    let writer = {
        let names = names.clone();
        tokio::spawn(async move {
            for name in names {
                api.create(NODES, "", node(&name)).unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
    converge(&mut events, &mut BTreeSet::new(), &wanted).await;
    writer.await.unwrap();
}

#[tokio::test]
async fn server_side_apply_owns_conflicts_forces_and_is_idempotent() {
    let served = open().await;
    served.api.create(NODES, "", node("a")).unwrap();
    let nodes: Api<Node> = Api::all(served.client());
    let wanted = |value: &str| {
        Patch::Apply(
            json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "annotations": { "warren-mesh.io/wireguard": value } } }),
        )
    };
    let agent = PatchParams::apply("warren-agent");
    let first = nodes.patch("a", &agent, &wanted("1")).await.unwrap();
    assert_eq!(first.annotations()["warren-mesh.io/wireguard"], "1");
    let again = nodes.patch("a", &agent, &wanted("1")).await.unwrap();
    assert_eq!(
        first.resource_version(),
        again.resource_version(),
        "no change, no write"
    );
    let other = PatchParams::apply("other");
    let refused = nodes.patch("a", &other, &wanted("2")).await.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 409),
        "{refused}"
    );
    let forced = nodes.patch("a", &other.force(), &wanted("2")).await.unwrap();
    assert_eq!(forced.annotations()["warren-mesh.io/wireguard"], "2");
    let owner = |node: &Node| {
        let entries = node.metadata.managed_fields.clone().unwrap_or_default();
        entries
            .into_iter()
            .filter(|e| e.operation.as_deref() == Some("Apply"))
            .filter_map(|e| e.manager)
            .collect::<Vec<_>>()
    };
    assert_eq!(owner(&forced), ["other"]);
}

#[tokio::test]
async fn typed_requests_round_trip() {
    let served = open().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(served.client());
    let mut map = ConfigMap::default();
    map.metadata.name = Some("m".to_owned());
    let made = maps.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);
    assert_eq!(
        maps.list_metadata(&ListParams::default()).await.unwrap().items[0].name_any(),
        "m"
    );
    let stale = made.clone();
    let mut next = made;
    next.data = Some([("k".to_owned(), "v".to_owned())].into());
    maps.replace("m", &PostParams::default(), &next).await.unwrap();
    let conflict = maps
        .replace("m", &PostParams::default(), &stale)
        .await
        .unwrap_err();
    assert!(
        matches!(&conflict, kube::Error::Api(status) if status.code == 409),
        "{conflict}"
    );
    maps.delete("m", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("m").await.unwrap().is_none());
    let lines: Vec<_> = maps
        .watch(&kube::api::WatchParams::default().timeout(1), "1")
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(lines.len(), 3, "added, modified, deleted");
}
