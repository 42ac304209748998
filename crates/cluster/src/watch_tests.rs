#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use serde_json::{Value, json};
use tokio::time::Instant;
use warren_model::Encryption;

use super::*;
use crate::backoff::FIRST;
use crate::fake_api::{FakeApi, MESHES, NODES, PODS, status};
use crate::follower::ABSENCE;

fn node(name: &str, cidr: &str, version: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": name, "resourceVersion": version.to_string()},
        "spec": {"podCIDRs": [cidr]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
    })
}

fn pod(name: &str, version: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "ns", "name": name, "resourceVersion": version.to_string()},
        "spec": {"containers": []},
    })
}

fn mesh(name: &str, spec: Value, version: u32) -> Value {
    json!({
        "apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh",
        "metadata": {"name": name, "uid": name, "resourceVersion": version.to_string()},
        "spec": spec,
    })
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.nodes.keys().map(NodeName::as_str).collect()
}

/// The watches of a server, and what the tests wait with. The clock is paused: it jumps whenever all tasks wait.
struct Bench {
    api: FakeApi,
    watches: Watches,
    seen: watch::Receiver<Arc<Snapshot>>,
}

impl Bench {
    fn start(api: &FakeApi) -> Self {
        let watches = Watches::start(api.client(), &"me".parse().unwrap());
        Self {
            api: api.clone(),
            seen: watches.subscribe(),
            watches,
        }
    }

    async fn until(&mut self, condition: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let found = self.seen.wait_for(|snapshot| condition(snapshot));
        let found = tokio::time::timeout(Duration::from_secs(300), found).await;
        Arc::clone(&found.expect("the snapshot came within the deadline").unwrap())
    }

    async fn until_asked(&self, count: usize, sort: impl Fn(&crate::fake_api::Asked) -> bool) {
        let asked = self.api.until_asked(count, sort);
        tokio::time::timeout(Duration::from_secs(300), asked)
            .await
            .expect("the request came within the deadline");
    }

    fn now(&self) -> Arc<Snapshot> {
        Arc::clone(&self.seen.borrow())
    }

    fn health(&self, kind: WatchKind) -> WatchHealth {
        self.watches
            .health()
            .read()
            .into_iter()
            .find(|it| it.kind == kind)
            .unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn the_three_kinds_become_one_snapshot_and_events_change_it() {
    let api = FakeApi::default();
    api.holds(NODES, &[node("a", "10.0.1.0/24", 1), node("b", "nonsense", 2)]);
    api.holds(PODS, &[pod("p", 3)]);
    api.holds(MESHES, &[mesh("default", json!({"encryption": "none"}), 4)]);
    let mut bench = Bench::start(&api);
    let snapshot = bench.until(Snapshot::is_synced).await;
    assert_eq!(names(&snapshot), ["a", "b"]);
    assert_eq!(snapshot.pods.len(), 1);
    assert_eq!(snapshot.mesh.encryption, Encryption::None);
    assert_eq!(snapshot.mesh_object.as_ref().unwrap().uid, "default");
    let codes: Vec<_> = snapshot.refusals.iter().map(|it| it.code.as_str()).collect();
    assert_eq!(codes, ["invalid-pod-cidr"]);

    let lists: Vec<_> = api.log().into_iter().filter(|it| it.is_list(PODS)).collect();
    assert!(
        lists[0].query.contains("fieldSelector=spec.nodeName%3Dme"),
        "{}",
        lists[0].query
    );

    for path in [NODES, PODS, MESHES] {
        bench.until_asked(1, |it| it.is_watch(path)).await;
    }
    api.event(NODES, "MODIFIED", &node("b", "10.0.2.0/24", 10));
    api.event(NODES, "ADDED", &node("c", "10.0.3.0/24", 11));
    let snapshot = bench
        .until(|it| it.nodes.len() == 3 && it.refusals.is_empty())
        .await;
    assert_eq!(snapshot.nodes["b"].pod_cidrs.len(), 1);
    api.event(NODES, "DELETED", &node("a", "10.0.1.0/24", 12));
    api.event(PODS, "DELETED", &pod("p", 13));
    api.event(MESHES, "DELETED", &mesh("default", json!({}), 14));
    let snapshot = bench
        .until(|it| it.nodes.len() == 2 && it.pods.is_empty() && it.mesh_object.is_none())
        .await;
    assert_eq!(snapshot.mesh, warren_model::Mesh::default());
    let health = bench.health(WatchKind::Nodes);
    assert_eq!(
        (health.lists_total, health.events_total, health.errors_total),
        (1, 3, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_shown_of_a_kind_before_its_list_is_complete_and_a_relist_keeps_the_old() {
    let api = FakeApi::default();
    let gate = api.holds_pages(
        NODES,
        &[
            vec![node("a", "10.0.1.0/24", 1)],
            vec![node("b", "10.0.2.0/24", 2)],
        ],
    );
    let mut bench = Bench::start(&api);
    bench.until(|it| it.synced.pods && it.synced.mesh).await;
    bench.until_asked(1, |it| it.is_list(NODES)).await;
    assert!(!bench.now().is_synced());
    assert_eq!(names(&bench.now()), Vec::<&str>::new(), "half a list is no list");
    gate.notify_one();
    let snapshot = bench.until(Snapshot::is_synced).await;
    assert_eq!(names(&snapshot), ["a", "b"]);

    // 410 as an event: kube lists again, and in the middle of that the old nodes are still there.
    bench.until_asked(1, |it| it.is_watch(NODES)).await;
    let gate = api.holds_pages(
        NODES,
        &[
            vec![node("c", "10.0.3.0/24", 5)],
            vec![node("d", "10.0.4.0/24", 6)],
        ],
    );
    api.event(NODES, "ERROR", &status(410, "Expired").body);
    bench.until_asked(3, |it| it.is_list(NODES)).await;
    assert_eq!(names(&bench.now()), ["a", "b"]);
    assert!(bench.now().is_synced());
    gate.notify_one();
    let snapshot = bench.until(|it| it.nodes.contains_key("c")).await;
    assert_eq!(names(&snapshot), ["c", "d"]);
    assert_eq!(bench.health(WatchKind::Nodes).lists_total, 2);
}

#[tokio::test(start_paused = true)]
async fn gone_as_the_answer_to_a_watch_lists_again_too() {
    let api = FakeApi::default();
    api.holds(NODES, &[node("a", "10.0.1.0/24", 1)]);
    let mut bench = Bench::start(&api);
    bench.until(Snapshot::is_synced).await;
    bench.until_asked(1, |it| it.is_watch(NODES)).await;
    api.holds(NODES, &[node("b", "10.0.2.0/24", 1)]);
    api.next_watch_answers(NODES, status(410, "Expired"));
    api.cut(NODES);
    let snapshot = bench.until(|it| it.nodes.contains_key("b")).await;
    assert_eq!(names(&snapshot), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn one_kind_that_is_forbidden_stops_no_other_and_is_visible() {
    let api = FakeApi::default();
    api.holds(NODES, &[node("a", "10.0.1.0/24", 1)]);
    api.lists_answer(PODS, Some(status(403, "Forbidden")));
    let mut bench = Bench::start(&api);
    bench.until(|it| it.synced.nodes && it.synced.mesh).await;
    bench
        .until_asked(4, |it| it.is_list(PODS) && it.query.contains("fieldSelector"))
        .await;
    let snapshot = bench.now();
    assert!(!snapshot.synced.pods && !snapshot.is_synced());
    assert_eq!(names(&snapshot), ["a"]);
    let health = bench.health(WatchKind::Pods);
    assert!(
        health.errors_total >= 3 && health.failing_since.is_some(),
        "{health:?}"
    );
    assert_eq!(health.last_error.as_deref(), Some("403 Forbidden: scripted 403"));
    assert_eq!(bench.health(WatchKind::Nodes).errors_total, 0);

    api.lists_answer(PODS, None);
    bench.until(Snapshot::is_synced).await;
    assert_eq!(bench.health(WatchKind::Pods).failing_since, None);
}

#[tokio::test(start_paused = true)]
async fn a_server_without_the_mesh_kind_is_synced_with_the_defaults_until_it_has_it() {
    let api = FakeApi::default();
    api.lists_answer(MESHES, Some(status(404, "NotFound")));
    let mut bench = Bench::start(&api);
    let snapshot = bench.until(Snapshot::is_synced).await;
    assert_eq!(snapshot.mesh, warren_model::Mesh::default());
    assert_eq!(bench.health(WatchKind::Mesh).errors_total, 0);
    api.holds(MESHES, &[mesh("default", json!({"encryption": "none"}), 1)]);
    api.lists_answer(MESHES, None);
    let snapshot = bench.until(|it| it.mesh_object.is_some()).await;
    assert_eq!(snapshot.mesh.encryption, Encryption::None);
}

#[tokio::test(start_paused = true)]
async fn a_mesh_that_was_there_is_not_given_up_for_a_server_that_is_starting() {
    let api = FakeApi::default();
    api.holds(MESHES, &[mesh("default", json!({"encryption": "none"}), 1)]);
    let mut bench = Bench::start(&api);
    bench.until(Snapshot::is_synced).await;
    bench.until_asked(1, |it| it.is_watch(MESHES)).await;
    let before = Instant::now();
    api.lists_answer(MESHES, Some(status(404, "NotFound")));
    api.next_watch_answers(MESHES, status(404, "NotFound"));
    api.cut(MESHES);
    bench.until(|it| it.mesh_object.is_none()).await;
    assert!(
        before.elapsed() >= ABSENCE,
        "given up after {:?}",
        before.elapsed()
    );
    assert_eq!(bench.now().mesh.encryption, Encryption::Wireguard);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_cut_goes_on_from_where_it_was_without_a_new_list() {
    let api = FakeApi::default();
    api.holds(NODES, &[node("a", "10.0.1.0/24", 1)]);
    let mut bench = Bench::start(&api);
    bench.until(Snapshot::is_synced).await;
    bench.until_asked(1, |it| it.is_watch(NODES)).await;
    api.event(NODES, "ADDED", &node("b", "10.0.2.0/24", 117));
    bench.until(|it| it.nodes.len() == 2).await;
    api.cut(NODES);
    bench.until_asked(2, |it| it.is_watch(NODES)).await;
    let watches: Vec<_> = api.log().into_iter().filter(|it| it.is_watch(NODES)).collect();
    assert!(
        watches[1].query.contains("resourceVersion=117"),
        "{}",
        watches[1].query
    );
    assert!(
        watches[1].query.contains("timeoutSeconds=20"),
        "{}",
        watches[1].query
    );
    api.event(NODES, "ADDED", &node("c", "10.0.3.0/24", 118));
    bench.until(|it| it.nodes.len() == 3).await;
    assert_eq!(bench.health(WatchKind::Nodes).lists_total, 1);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_hangs_is_taken_up_anew_within_thirty_seconds() {
    let api = FakeApi::default();
    api.holds(NODES, &[node("a", "10.0.1.0/24", 1)]);
    let mut bench = Bench::start(&api);
    bench.until(Snapshot::is_synced).await;
    bench.until_asked(1, |it| it.is_watch(NODES)).await;
    let before = Instant::now();
    // The watch stays open and silent: the fake server does not keep to timeoutSeconds.
    bench.until_asked(2, |it| it.is_watch(NODES)).await;
    assert!(before.elapsed() >= WATCH_TIMEOUT && before.elapsed() <= Duration::from_secs(30));
    assert_eq!(names(&bench.now()), ["a"], "what was seen holds meanwhile");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_no_longer_fails_counts_as_well_even_when_nothing_happens() {
    let api = FakeApi::default();
    let mut bench = Bench::start(&api);
    bench.until(Snapshot::is_synced).await;
    bench.until_asked(1, |it| it.is_watch(NODES)).await;
    api.next_watch_answers(NODES, status(500, "InternalError"));
    api.cut(NODES);
    bench.until_asked(3, |it| it.is_watch(NODES)).await;
    assert!(bench.health(WatchKind::Nodes).failing_since.is_some());
    // Two more silent watches, 25 s each, are longer than RECOVERY.
    bench.until_asked(5, |it| it.is_watch(NODES)).await;
    assert_eq!(bench.health(WatchKind::Nodes).failing_since, None);
}

#[tokio::test(start_paused = true)]
async fn waits_grow_with_failures_and_are_short_again_after_a_quiet_recovery() {
    let api = FakeApi::default();
    let mut bench = Bench::start(&api);
    bench.until(Snapshot::is_synced).await;
    bench.until_asked(1, |it| it.is_watch(NODES)).await;
    for _ in 0..6 {
        api.next_watch_answers(NODES, status(500, "InternalError"));
    }
    let before = Instant::now();
    api.cut(NODES);
    bench.until_asked(8, |it| it.is_watch(NODES)).await;
    let growing: Duration = (0..6).map(|failures| FIRST / 2 * 2_u32.pow(failures)).sum();
    assert!(
        before.elapsed() >= growing,
        "{:?} is less than {growing:?}",
        before.elapsed()
    );

    bench.until_asked(10, |it| it.is_watch(NODES)).await;
    assert_eq!(bench.health(WatchKind::Nodes).failing_since, None);
    api.next_watch_answers(NODES, status(500, "InternalError"));
    let before = Instant::now();
    api.cut(NODES);
    bench.until_asked(12, |it| it.is_watch(NODES)).await;
    assert!(before.elapsed() <= FIRST, "waited {:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_forgets_at_once_what_it_listed_is_not_asked_for_all_of_it_without_end() {
    let api = FakeApi::default();
    for _ in 0..100 {
        api.next_watch_answers(NODES, status(410, "Expired"));
    }
    let bench = Bench::start(&api);
    let before = Instant::now();
    bench.until_asked(10, |it| it.is_list(NODES)).await;
    assert!(
        before.elapsed() >= Duration::from_secs(20),
        "ten lists within {:?}",
        before.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_broken_off_every_second_is_blind_for_a_moment_only() {
    let api = FakeApi::default();
    let mut bench = Bench::start(&api);
    bench.until(Snapshot::is_synced).await;
    let mut blind = Duration::ZERO;
    for nth in 1..=20 {
        let broken = Instant::now();
        bench.until_asked(nth, |it| it.is_watch(NODES)).await;
        blind = blind.max(broken.elapsed());
        tokio::time::sleep(Duration::from_secs(1)).await;
        api.reset(NODES);
    }
    assert!(blind <= FIRST * 2, "blind for {blind:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_to_be_left_alone_is() {
    let api = FakeApi::default();
    let mut busy = status(429, "TooManyRequests");
    busy.body["details"] = json!({"retryAfterSeconds": 40});
    api.lists_answer(NODES, Some(busy));
    let mut bench = Bench::start(&api);
    bench.until_asked(1, |it| it.is_list(NODES)).await;
    let before = Instant::now();
    api.lists_answer(NODES, None);
    bench.until(|it| it.synced.nodes).await;
    assert!(
        before.elapsed() >= Duration::from_secs(40),
        "came back after {:?}",
        before.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_shows_no_new_snapshot() {
    let api = FakeApi::default();
    api.holds(NODES, &[node("a", "10.0.1.0/24", 1)]);
    let mut bench = Bench::start(&api);
    bench.until(Snapshot::is_synced).await;
    bench.until_asked(1, |it| it.is_watch(NODES)).await;
    bench.seen.mark_unchanged();
    let mut heartbeat = node("a", "10.0.1.0/24", 2);
    heartbeat["status"]["conditions"] =
        json!([{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]);
    api.event(NODES, "MODIFIED", &heartbeat);
    api.cut(NODES);
    bench
        .until_asked(1, |it| {
            it.is_watch(NODES) && it.query.contains("resourceVersion=2")
        })
        .await;
    assert_eq!(bench.health(WatchKind::Nodes).events_total, 1);
    assert!(!bench.seen.has_changed().unwrap());
}
