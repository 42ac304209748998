//! What changes: how soon packets meet it, counted from the API's answer to the write.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use warren_lab::knock::{Door, knock, now};
use warren_lab::turns::{Turns, watching};
use warren_lab::{ApiKind, Lab, Place};

use crate::scene::{Object, door, label, place, scene_on};
use crate::support::{PATIENCE, metric, until};

/// Within this a change is to be in force, 99 of 100 times.
const SOON: Duration = Duration::from_millis(500);
/// How often each change is made and undone.
const TURNS: usize = 25;
/// How often that is tried, where the machine stood still.
const ROUNDS: usize = 3;
/// How long one answer is waited for.
const GLANCE: Duration = Duration::from_millis(400);
/// A machine that does nothing for so long may leave knocks unanswered.
const STALL: Duration = Duration::from_millis(100);
/// How often the control wants to be woken.
const TICK: Duration = Duration::from_millis(10);

/// What became of one change.
#[derive(Debug)]
struct Change {
    /// To open the door, or to close it.
    opens: bool,
    /// From the API's answer until the first packet was sent that met it.
    took: Duration,
    /// For how long of that, at most, nothing ran that was to run.
    stalled: Duration,
}

/// Makes a change that opens or closes a door and undoes it, again and again, and holds each to half a second. What takes longer is
/// forgiven, and measured anew, only for as long as the machine stood still meanwhile.
async fn assert_soon(lab: &Lab, what: &str, from: &Place, door: Door, mut write: impl AsyncFnMut(bool)) {
    for round in 1..=ROUNDS {
        let Some(changes) = measured(lab, from, door, &mut write).await else {
            eprintln!("{what}: measured again, for the machine stood still and a door turned by itself");
            continue;
        };
        let mut last = Duration::ZERO;
        for opens in [true, false] {
            let changes = changes.iter().filter(|it| it.opens == opens);
            let mut times: Vec<Duration> = changes.map(|it| it.took).collect();
            times.sort();
            // Rounded up, so of as few as these the greatest is the 99th percentile.
            let at = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
            let turn = if opens { "opened" } else { "closed" };
            eprintln!(
                "{what}, {turn} {} times: p50 {:?}, p99 {:?}, max {:?}",
                times.len(),
                at(50),
                at(99),
                at(100)
            );
            last = last.max(at(99));
        }
        let stalled = changes.iter().map(|it| it.stalled).max().unwrap();
        eprintln!("{what}: the machine stood still for {stalled:?} at most");
        if last < SOON {
            return;
        }
        let slow: Vec<&Change> = changes.iter().filter(|it| it.took >= SOON).collect();
        let excused = slow.iter().all(|it| it.took.saturating_sub(it.stalled) < SOON);
        assert!(excused && round < ROUNDS, "{what}: {slow:?}");
        eprintln!("{what}: measured again, for the machine stood still: {slow:?}");
    }
    panic!("{what}: nothing is known, for the machine stood still each time");
}

/// What became of each change; `None`: the machine stood still, and with it the end that answers.
async fn measured(
    lab: &Lab,
    from: &Place,
    door: Door,
    write: &mut impl AsyncFnMut(bool),
) -> Option<Vec<Change>> {
    watching(lab, from, door, async |turns: &mut Turns| {
        let control = Control::start();
        let mut is_open = turns.next(PATIENCE).await.unwrap().expect("a door").is_open;
        let mut changes = Vec::new();
        while changes.len() < 2 * TURNS {
            is_open = !is_open;
            control.take();
            write(is_open).await;
            let answered = now();
            let turn = turns.next(PATIENCE).await.unwrap();
            let turn = turn.unwrap_or_else(|| panic!("{door:?} is not open={is_open} by now"));
            let stalled = control.take().max(turn.longest_pause);
            if turn.is_open != is_open {
                // It let a packet through that is forbidden, or lost some for a while that are not.
                assert!(stalled >= STALL, "{door:?} turned by itself: {turn:?}");
                return None;
            }
            changes.push(Change {
                opens: is_open,
                took: turn.at.saturating_sub(answered),
                stalled,
            });
        }
        Some(changes)
    })
    .await
    .unwrap()
}

/// A thread that wants to be woken every ten milliseconds, and how late it was.
struct Control {
    late: Receiver<Duration>,
    _running: Sender<()>,
}

impl Control {
    fn start() -> Self {
        let (running, ended) = channel::<()>();
        let (tell, late) = channel();
        thread::spawn(move || {
            loop {
                let slept = Instant::now();
                if ended.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                if tell.send(slept.elapsed().saturating_sub(TICK)).is_err() {
                    return;
                }
            }
        });
        Self {
            late,
            _running: running,
        }
    }

    /// The latest it was since this was last asked.
    fn take(&self) -> Duration {
        self.late.try_iter().max().unwrap_or_default()
    }
}

/// Waits until a door is open, or closed.
pub(crate) async fn settled(lab: &Lab, from: &Place, door: Door, open: bool) {
    until("a door to be as policy says", async || {
        knock(lab, from, &[door], GLANCE).await.unwrap() == [open]
    })
    .await;
}

pub(crate) async fn shop() -> Option<Lab> {
    shop_on(ApiKind::Embedded).await
}

async fn shop_on(api: ApiKind) -> Option<Lab> {
    let pods = [
        ("shop", "web", "node1", json!({"app": "web"})),
        ("shop", "db", "node2", json!({"app": "db"})),
        ("other", "guest", "node1", json!({"app": "guest"})),
    ];
    scene_on(api, 2, &pods).await
}

pub(crate) fn only_from(peer: Value) -> Object {
    Object::kubernetes(
        "shop",
        "db",
        json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [peer]}]}),
    )
}

#[tokio::test]
async fn a_label_that_a_rule_asks_for_is_in_force_within_half_a_second() {
    let Some(lab) = shop().await else { return };
    change_a_label_of_a_rule(&lab).await;
}

#[tokio::test]
async fn changes_are_in_force_within_half_a_second_of_a_real_api_servers_answer() {
    let Some(lab) = shop_on(ApiKind::Real).await else {
        return;
    };
    change_a_label_of_a_rule(&lab).await;
    change_a_policy(&lab).await;
}

async fn change_a_label_of_a_rule(lab: &Lab) {
    let facts = lab.facts().await.unwrap();
    let (from, db) = (place("shop", "web"), door(&facts, "shop", "db", 0, "udp:53"));
    only_from(json!({"podSelector": {"matchLabels": {"may": "yes"}}}))
        .apply(lab)
        .await;
    settled(lab, &from, db, false).await;
    let write = async |open: bool| {
        let may = if open { "yes" } else { "no" };
        label(lab, "shop", Some("web"), json!({"may": may})).await;
    };
    assert_soon(lab, "a label that a rule asks for", &from, db, write).await;
}

#[tokio::test]
async fn a_label_by_which_a_policy_selects_is_in_force_within_half_a_second() {
    let Some(lab) = shop().await else { return };
    let facts = lab.facts().await.unwrap();
    let (from, db) = (place("shop", "web"), door(&facts, "shop", "db", 1, "udp:53"));
    Object::kubernetes(
        "shop",
        "guarded",
        json!({"podSelector": {"matchLabels": {"guarded": "yes"}}}),
    )
    .apply(&lab)
    .await;
    settled(&lab, &from, db, true).await;
    let write = async |open: bool| {
        let guarded = if open { "no" } else { "yes" };
        label(&lab, "shop", Some("db"), json!({"guarded": guarded})).await;
    };
    assert_soon(&lab, "a label by which a policy selects", &from, db, write).await;
}

#[tokio::test]
async fn a_namespace_that_is_relabelled_is_in_force_within_half_a_second() {
    let Some(lab) = shop().await else { return };
    let facts = lab.facts().await.unwrap();
    let (from, db) = (place("other", "guest"), door(&facts, "shop", "db", 1, "udp:53"));
    only_from(json!({"namespaceSelector": {"matchLabels": {"team": "friends"}}}))
        .apply(&lab)
        .await;
    settled(&lab, &from, db, false).await;
    let write = async |open: bool| {
        let team = if open { "friends" } else { "strangers" };
        label(&lab, "other", None, json!({"team": team})).await;
    };
    assert_soon(&lab, "a namespace's label", &from, db, write).await;
}

#[tokio::test]
async fn a_policy_that_changes_is_in_force_within_half_a_second() {
    let Some(lab) = shop().await else { return };
    change_a_policy(&lab).await;
}

async fn change_a_policy(lab: &Lab) {
    let facts = lab.facts().await.unwrap();
    let (from, db) = (place("shop", "web"), door(&facts, "shop", "db", 1, "udp:53"));
    let write = async |open: bool| {
        let app = if open { "web" } else { "nobody" };
        only_from(json!({"podSelector": {"matchLabels": {"app": app}}}))
            .apply(lab)
            .await;
    };
    write(true).await;
    settled(lab, &from, db, true).await;
    assert_soon(lab, "a policy", &from, db, write).await;
    until("writes of what differs", async || {
        let writes = metric(lab, "node2", "warren_policy_writes_total{how=\"difference\"}").await;
        writes.unwrap_or_default() > 2 * TURNS as u64
    })
    .await;
    let whole = metric(lab, "node2", "warren_policy_writes_total{how=\"whole\"}").await;
    assert_eq!(whole, Some(1), "all of it is written once, at the start");
}

#[tokio::test]
async fn a_pod_in_anothers_place_and_with_its_address_is_judged_for_itself() {
    let Some(lab) = shop().await else { return };
    let facts = lab.facts().await.unwrap();
    let (from, db) = (place("shop", "web"), door(&facts, "shop", "db", 0, "udp:53"));
    only_from(json!({"podSelector": {"matchLabels": {"app": "web"}}}))
        .apply(&lab)
        .await;
    settled(&lab, &from, db, true).await;
    let pods: Api<Pod> = Api::namespaced(lab.client(), "shop");
    let write = async |open: bool| replace(&pods, "web", if open { "web" } else { "impostor" }).await;
    assert_soon(&lab, "another pod with the same address", &from, db, write).await;
}

/// Deletes a pod's object and makes another of its name, with its addresses.
async fn replace(pods: &Api<Pod>, name: &str, app: &str) {
    let old = pods.get(name).await.unwrap();
    pods.delete(name, &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    let mut new = Pod {
        spec: old.spec,
        ..Pod::default()
    };
    new.metadata.name = Some(name.to_owned());
    new.metadata.labels = Some([("app".to_owned(), app.to_owned())].into());
    pods.create(&PostParams::default(), &new).await.unwrap();
    let status = json!({"status": old.status});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
}
