//! One agent reports for the mesh: the Mesh's status and Events for refusals, once for each change, and another does when
//! it dies.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use support::{ask_agent, lab, metric, status_when, until};
use tokio::task::JoinHandle;
use warren_cluster::mesh_resource::Mesh;
use warren_lab::{ApiKind, Lab, LabOptions, Place};

const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// How long another agent may take to report what a dead one did not.
const TAKEOVER: Duration = Duration::from_secs(15);

/// How long a mesh in which nothing changes is looked at: in that time another agent would take the Lease if it thought that
/// something is amiss.
const QUIET: Duration = Duration::from_secs(12);

/// In that time an agent that finds something to write has written it, if it may at once.
const SHORT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_change_is_written_once_and_when_the_steward_is_dead_another_writes_it_in_time() {
    let Some(mesh) = Reported::up(ApiKind::Embedded).await else {
        return;
    };
    each_change_is_written_once(&mesh).await;
}

#[tokio::test]
async fn a_change_is_written_once_and_when_the_steward_is_dead_another_writes_it_in_time_on_the_real_api() {
    let Some(mesh) = Reported::up(ApiKind::Real).await else {
        return;
    };
    each_change_is_written_once(&mesh).await;
}

async fn each_change_is_written_once(mesh: &Reported) {
    // While the steward lives.
    let (writes, signatures) = mesh.writes();
    let began = Instant::now();
    mesh.refuse_node("bad-one").await;
    mesh.until_status_names("bad-one").await;
    mesh.until_event("bad-one", "NoPodCidr").await;
    assert!(began.elapsed() < TAKEOVER, "{:?}", began.elapsed());
    let steward = mesh.steward().await;
    let terms = mesh.terms().await;
    mesh.assert_written_once(writes, signatures, 1).await;

    // And when it is dead.
    mesh.lab.node_kill(&steward).await.unwrap();
    let (writes, signatures) = mesh.writes();
    let began = Instant::now();
    mesh.refuse_node("bad-two").await;
    mesh.until_status_names("bad-two").await;
    mesh.until_event("bad-two", "NoPodCidr").await;
    assert!(began.elapsed() < TAKEOVER, "{:?}", began.elapsed());
    let successor = mesh.steward().await;
    assert_ne!(successor, steward);
    assert_eq!(mesh.terms().await, terms + 1);
    mesh.assert_written_once(writes, signatures, 1).await;

    // What the former one told is not told again, not even by the former one when it is started anew.
    mesh.lab.node_start(&steward).await.unwrap();
    let said = status_when(&mesh.lab, "the steward to be known", |status| {
        status["steward"]["node"] == successor.as_str()
    })
    .await;
    assert_eq!(said["steward"]["term"], terms + 1, "{said}");
    assert_eq!(mesh.events("bad-one", "NoPodCidr").await.len(), 1);
    assert_eq!(mesh.events("bad-two", "NoPodCidr").await.len(), 1);
}

#[tokio::test]
async fn a_steward_that_was_stopped_for_a_while_does_not_write_what_another_has_written() {
    let Some(mesh) = Reported::up(ApiKind::Embedded).await else {
        return;
    };
    // So that it holds the Lease freshly when it is stopped.
    mesh.refuse_node("bad-one").await;
    mesh.until_status_names("bad-one").await;
    let steward = mesh.steward().await;
    signal(&mesh.lab, &steward, "STOP").await;
    let (writes, signatures) = mesh.writes();
    mesh.refuse_node("bad-two").await;
    mesh.until_status_names("bad-two").await;
    assert_ne!(mesh.steward().await, steward);
    signal(&mesh.lab, &steward, "CONT").await;
    until("the former steward to come to itself", async || {
        ask_agent(&mesh.lab, &steward, "/status")
            .await
            .is_some_and(|it| it.contains("bad-two"))
    })
    .await;
    mesh.assert_written_once(writes, signatures, 1).await;
    assert_eq!(mesh.events("bad-two", "NoPodCidr").await.len(), 1);
}

#[tokio::test]
async fn a_mesh_in_which_nothing_changes_is_not_written_and_a_node_that_is_well_again_is_a_change() {
    let Some(mesh) = Reported::up(ApiKind::Embedded).await else {
        return;
    };
    mesh.refuse_node("bad").await;
    mesh.until_status_names("bad").await;
    mesh.until_event("bad", "NoPodCidr").await;
    mesh.settle().await;
    let rules = ["create", "update", "patch", "delete"]
        .map(|verb| json!({"verb": verb, "fault": {"delay": {"ms": 0}}}));
    mesh.lab.set_faults(&json!({ "rules": rules })).await.unwrap();
    tokio::time::sleep(QUIET).await;
    let plan = mesh.lab.faults().await.unwrap();
    let hits: Vec<_> = plan["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["hits"].as_u64())
        .collect();
    assert_eq!(hits, [Some(0); 4], "something was written: {plan}");
    mesh.lab.clear_faults().await.unwrap();

    let (writes, signatures) = mesh.writes();
    let nodes: Api<Node> = Api::all(mesh.lab.client());
    nodes.delete("bad", &DeleteParams::default()).await.unwrap();
    until("the condition to hold again", async || {
        mesh.refused().await.is_empty()
    })
    .await;
    mesh.assert_written_once(writes, signatures, 1).await;
}

#[tokio::test]
async fn without_the_lease_nobody_reports_and_all_else_works_until_it_is_there_again() {
    let Some(lab) = lab(LabOptions {
        agents: false,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    let leases: Api<Lease> = Api::namespaced(lab.client(), "warren-system");
    let lease = leases.get("warren-steward").await.unwrap();
    leases
        .delete("warren-steward", &DeleteParams::default())
        .await
        .unwrap();
    create_mesh(&lab).await;
    for node in NODES {
        lab.node_start(node).await.unwrap();
    }
    for node in NODES {
        until("the missing Lease to show", async || {
            metric(&lab, node, "warren_steward_lease_unusable").await == Some(1)
        })
        .await;
    }
    let facts = support::two_pods_a_node(&lab).await;
    support::assert_all_reach_all(&lab, &facts).await;
    let meshes: Api<Mesh> = Api::all(lab.client());
    assert!(meshes.get("default").await.unwrap().status.is_none());
    let logs = std::fs::read_to_string(lab.dir().join("nodes/node1/agent.log")).unwrap();
    let said = logs
        .lines()
        .filter(|line| line.contains("there is no Lease warren-system/warren-steward"));
    assert_eq!(said.count(), 1, "{logs}");

    let again = Lease {
        metadata: kube::core::ObjectMeta {
            name: lease.metadata.name,
            labels: lease.metadata.labels,
            ..kube::core::ObjectMeta::default()
        },
        spec: None,
    };
    leases.create(&PostParams::default(), &again).await.unwrap();
    // An agent looks for it at most half a minute after it missed it first, or when it is restarted.
    lab.node_kill("node3").await.unwrap();
    lab.node_start("node3").await.unwrap();
    until("the status", async || {
        meshes.get("default").await.unwrap().status.is_some()
    })
    .await;
}

/// A lab with a Mesh whose status is as it should be, and counters of the writes to it and to the Lease.
struct Reported {
    lab: Lab,
    mesh_writes: Counter,
    lease_writes: Counter,
}

impl Reported {
    async fn up(api: ApiKind) -> Option<Self> {
        let lab = lab(LabOptions {
            api,
            ..LabOptions::default()
        })
        .await?;
        create_mesh(&lab).await;
        let meshes: Api<Mesh> = Api::all(lab.client());
        until("a status of three ready nodes", async || {
            let mesh = meshes.get("default").await.unwrap();
            mesh.status
                .is_some_and(|status| (status.nodes, status.ready) == (3, 3))
        })
        .await;
        let leases: Api<Lease> = Api::namespaced(lab.client(), "warren-system");
        let mesh = Self {
            mesh_writes: Counter::of(meshes).await,
            lease_writes: Counter::of(leases).await,
            lab,
        };
        mesh.settle().await;
        Some(mesh)
    }

    /// How often the Mesh and the Lease were written so far.
    fn writes(&self) -> (usize, usize) {
        (self.mesh_writes.seen(), self.lease_writes.seen())
    }

    /// Waits until nothing has been written for a while.
    async fn settle(&self) {
        let last = std::cell::Cell::new((Instant::now(), self.writes()));
        until("the mesh to be quiet", async || {
            let writes = self.writes();
            if writes != last.get().1 {
                last.set((Instant::now(), writes));
            }
            last.get().0.elapsed() > SHORT
        })
        .await;
    }

    /// Fails unless there is one write of the status, and no second one soon after.
    async fn assert_written_once(&self, writes: usize, signatures: usize, most_signatures: usize) {
        until("the write to show", async || self.writes().0 > writes).await;
        let end = Instant::now() + SHORT;
        while Instant::now() < end {
            let (now, signed) = self.writes();
            assert_eq!(now - writes, 1, "the status was written more than once");
            assert!(
                signed - signatures <= most_signatures,
                "the Lease was written {} times",
                signed - signatures
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Adds a node that cannot be used; it is one change.
    async fn refuse_node(&self, name: &str) {
        let nodes: Api<Node> = Api::all(self.lab.client());
        let node = json!({
            "metadata": {"name": name},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.211.1.99"}]},
        });
        nodes
            .create(&PostParams::default(), &serde_json::from_value(node).unwrap())
            .await
            .unwrap();
    }

    /// What the status says of refused nodes; empty: nothing is refused.
    async fn refused(&self) -> String {
        let meshes: Api<Mesh> = Api::all(self.lab.client());
        let status = meshes.get("default").await.unwrap().status.unwrap();
        let condition = status
            .conditions
            .iter()
            .find(|it| it.type_ == "NodesAccepted")
            .unwrap();
        if condition.status == "True" {
            String::new()
        } else {
            condition.message.clone()
        }
    }

    async fn until_status_names(&self, node: &str) {
        until(&format!("a status that names {node}"), async || {
            self.refused().await.contains(node)
        })
        .await;
    }

    async fn until_event(&self, node: &str, reason: &str) {
        until(&format!("an Event of {node}"), async || {
            !self.events(node, reason).await.is_empty()
        })
        .await;
    }

    /// As `kubectl describe node` asks for them.
    async fn events(&self, node: &str, reason: &str) -> Vec<Event> {
        let events: Api<Event> = Api::all(self.lab.client());
        let about = format!("involvedObject.kind=Node,involvedObject.name={node},involvedObject.uid={node}");
        let found = events.list(&ListParams::default().fields(&about)).await.unwrap();
        found
            .items
            .into_iter()
            .filter(|it| it.reason.as_deref() == Some(reason))
            .collect()
    }

    async fn lease(&self) -> Lease {
        let leases: Api<Lease> = Api::namespaced(self.lab.client(), "warren-system");
        leases.get("warren-steward").await.unwrap()
    }

    async fn steward(&self) -> String {
        self.lease().await.spec.unwrap().holder_identity.unwrap()
    }

    async fn terms(&self) -> i32 {
        self.lease().await.spec.unwrap().lease_transitions.unwrap()
    }
}

/// Counts the changes of the objects of a kind.
struct Counter {
    seen: Arc<AtomicUsize>,
    watch: JoinHandle<()>,
}

impl Counter {
    async fn of<K>(api: Api<K>) -> Self
    where
        K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
    {
        let seen = Arc::new(AtomicUsize::new(0));
        let (counted, (ready, listed)) = (Arc::clone(&seen), tokio::sync::oneshot::channel());
        let watch = tokio::spawn(async move {
            let mut ready = Some(ready);
            let events = watcher(api, watcher::Config::default()).default_backoff();
            pin_mut!(events);
            while let Some(event) = events.next().await {
                match event.unwrap() {
                    watcher::Event::Apply(_) | watcher::Event::Delete(_) => {
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                    watcher::Event::InitDone => {
                        ready.take().map(|it| it.send(()));
                    }
                    watcher::Event::Init | watcher::Event::InitApply(_) => {}
                }
            }
        });
        listed.await.unwrap();
        Self { seen, watch }
    }

    fn seen(&self) -> usize {
        assert!(!self.watch.is_finished(), "the watch that counts has failed");
        self.seen.load(Ordering::SeqCst)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

async fn create_mesh(lab: &Lab) {
    let mesh: Mesh = serde_json::from_value(json!({
        "apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh", "metadata": {"name": "default"}, "spec": {},
    }))
    .unwrap();
    Api::all(lab.client())
        .create(&PostParams::default(), &mesh)
        .await
        .unwrap();
}

/// Sends a signal to a node's agent.
async fn signal(lab: &Lab, node: &str, signal: &str) {
    let script = format!("kill -{signal} $(pgrep --ns $$ --nslist net --exact warren-agent)");
    let output = lab
        .run(Place::Node(node.to_owned()), &["sh", "-c", &script])
        .await
        .unwrap();
    assert!(output.success(), "{output:?}");
}
