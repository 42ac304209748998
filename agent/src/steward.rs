//! Reporting for the whole mesh: on the one agent that is elected, the status of the Mesh and an Event for each refusal. The status
//! is also where a rotation of keys by schedule begins.
//!
//! What is decided when is the business of [`warren_cluster::election`]; this carries it out. An ex-steward that has not
//! noticed yet does no harm: its status is bound to a version of the Mesh that is no more, and its Events exist already.

mod findings;
mod pause;
mod teller;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use warren_cluster::client::{ClientConfig, ClientError};
use warren_cluster::election::{Act, Election};
use warren_cluster::lease::{LeaseError, StewardLease, read, sign};
use warren_cluster::mesh_resource::MeshStatus;
use warren_cluster::mesh_status::{mesh_status, needs_write, place, write_status};
use warren_cluster::schedule::scheduled;
use warren_cluster::{HealthReader, ObservedMesh, WriteError};
use warren_model::schedule::Scheduled;
use warren_model::status::StewardStatus;
use warren_model::{Epoch, NodeName};
use warren_telemetry::Drain;

use self::findings::Findings;
use self::pause::{Outlook, Pause};
use self::teller::Teller;
use crate::metrics::StewardMetrics;
use crate::view::View;

/// How long the watch is given to show a status that was written, before it is written again.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

/// How long the holder is given to begin a rotation that is due by schedule, seconds.
const HOLDERS_TURN: i64 = 60;

/// What it is made from.
#[derive(Debug)]
pub struct StewardConfig {
    /// This node.
    pub node: NodeName,
    /// Where the Lease is.
    pub namespace: String,
    /// Credentials for the Lease, which may do nothing else. Not the node's: NodeRestriction keeps nodes from it.
    pub lease: ClientConfig,
    /// Credentials for status and Events: the node's. Read anew for each write: the kubelet replaces them.
    pub writing: ClientConfig,
    /// How the watches fare: an agent that sees nothing new does not report.
    pub watches: HealthReader,
    /// What it counts.
    pub metrics: StewardMetrics,
    /// Who reports, as far as this agent knows.
    pub known: watch::Sender<Option<StewardStatus>>,
}

/// Reports when it is this agent's turn.
#[derive(Debug)]
pub struct Steward {
    config: StewardConfig,
    started: Instant,
    election: Election,
    lease: Option<StewardLease>,
    lease_pause: Pause,
    status_pause: Pause,
    /// The version of the Mesh that the last write was bound to, and when that was.
    written: Option<(String, Duration)>,
    teller: Teller,
}

impl Steward {
    /// One that knows nothing of the Lease yet.
    pub fn new(config: StewardConfig) -> Self {
        Self {
            election: Election::new(config.node.as_str()),
            teller: Teller::new(
                config.node.clone(),
                config.writing.clone(),
                config.metrics.clone(),
            ),
            config,
            started: Instant::now(),
            lease: None,
            lease_pause: Pause::default(),
            status_pause: Pause::default(),
            written: None,
        }
    }

    /// Follows the passes of the main loop until the drain is signalled. What is under way then is dropped: whether it was
    /// done, the next steward sees.
    pub async fn run(mut self, mut views: watch::Receiver<Arc<View>>, drain: Drain) {
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            let wake = tokio::select! {
                () = drain.drained() => return,
                wake = self.report(&view) => wake,
            };
            let at = self.started + wake.unwrap_or_default();
            tokio::select! {
                () = drain.drained() => return,
                changed = views.changed() => if changed.is_err() { return },
                () = sleep_until(at), if wake.is_some() => {}
            }
        }
    }

    /// Does what is due and can be done now; returns when to come again if nothing changes before.
    async fn report(&mut self, view: &View) -> Option<Duration> {
        let findings = Findings::of(view, unix_time())?;
        let place = place(&view.snapshot, &self.config.node);
        self.teller.forget_all_but(&findings);
        loop {
            let more = if self.election.is_holder() {
                self.teller.tell(findings.all(), self.started).await
            } else {
                // Nobody else knows of these.
                self.teller.tell(findings.own(), self.started).await
            };
            let now = self.started.elapsed();
            let status = self.due_status(view, &findings, now);
            let due = self.sees() && (status.is_some() || self.lacks(&findings));
            let act = self.election.next(now, due, place, random());
            match (act, status, &view.snapshot.mesh_object) {
                (Act::Rest, ..) => return earliest(more, self.status_pause.over(now)),
                (Act::Wait(until), ..) => return earliest(more, Some(until)),
                (Act::Look, ..) => self.look().await,
                (Act::Write, Some(status), Some(mesh)) if !self.lacks(&findings) => {
                    self.write(mesh, &status).await;
                }
                (Act::Take | Act::Renew | Act::Write, ..) => self.sign(&findings).await,
            }
            self.show();
        }
    }

    /// The status to write, if one is to be written and nothing speaks against trying now.
    fn due_status(&self, view: &View, findings: &Findings, now: Duration) -> Option<MeshStatus> {
        let mesh = view.snapshot.mesh_object.as_ref()?;
        let is_on_its_way = self
            .written
            .as_ref()
            .is_some_and(|(version, at)| *version == mesh.version && now < *at + SHOWN_WITHIN);
        if is_on_its_way || self.status_pause.over(now).is_some() {
            return None;
        }
        let mut status = mesh_status(&view.snapshot, &findings.of_others(), unix_time());
        if let Some(epoch) = self.due_rotation(view) {
            status.scheduled_epoch = Some(i64::from(epoch.number()));
        }
        needs_write(mesh, &status).then_some(status)
    }

    /// The epoch to rotate to, where that is due by schedule. Bound to the version of the Mesh that was seen, as all of the status, it
    /// is begun once. Others than the holder wait for it, with clocks that may be ahead of its.
    fn due_rotation(&self, view: &View) -> Option<Epoch> {
        let patience = if self.election.is_holder() {
            0
        } else {
            HOLDERS_TURN
        };
        match scheduled(&view.snapshot, unix_time().saturating_sub(patience)) {
            Scheduled::Now(epoch) => Some(epoch),
            Scheduled::Nothing | Scheduled::At(_) | Scheduled::PutOff(..) => None,
        }
    }

    /// Whether the Lease does not say of every refusal that its holder has it in hand. Of another holder only what it must
    /// see as well is asked.
    fn lacks(&self, findings: &Findings) -> bool {
        let reported = self
            .lease
            .as_ref()
            .map(StewardLease::reported)
            .unwrap_or_default();
        let is_holder = self.election.is_holder();
        findings
            .of_mesh(is_holder)
            .any(|finding| !reported.contains(&finding.key()))
    }

    /// Whether the watches work: what is seen without them may be old.
    fn sees(&self) -> bool {
        self.config
            .watches
            .read()
            .iter()
            .all(|watch| watch.failing_since.is_none())
    }

    async fn look(&mut self) {
        let found = match self.config.lease.build().await {
            Ok(client) => read(&client, &self.config.namespace).await,
            Err(error) => Err(self.no_client(&error)),
        };
        match found {
            Ok(lease) => {
                self.lease_pause.end();
                self.election.saw(self.started.elapsed(), lease.record());
                self.lease = Some(lease);
            }
            Err(error) => self.lease_failed(&error),
        }
    }

    /// Takes or renews the Lease, and has it say what this agent has in hand.
    async fn sign(&mut self, findings: &Findings) {
        let Some(seen) = self.lease.clone() else {
            self.election.was_changed();
            return;
        };
        let asked = self.started.elapsed();
        let keys = findings.of_mesh(true).map(|finding| finding.key()).collect();
        let signed = match self.config.lease.build().await {
            Ok(client) => {
                sign(
                    &client,
                    &self.config.namespace,
                    &seen,
                    self.config.node.as_str(),
                    &keys,
                )
                .await
            }
            Err(error) => Err(self.no_client(&error)),
        };
        match signed {
            Ok(lease) => {
                self.lease_pause.end();
                let is_turn = !self.election.is_holder();
                self.config.metrics.signed(is_turn);
                if is_turn {
                    let from = seen.record().holder.unwrap_or_else(|| "nobody".to_owned());
                    tracing::info!(
                        from,
                        term = lease.transitions(),
                        "this agent reports for the mesh now"
                    );
                }
                self.election.signed(asked, lease.record());
                self.lease = Some(lease);
            }
            Err(LeaseError::Changed) => self.election.was_changed(),
            Err(error) => self.lease_failed(&error),
        }
    }

    async fn write(&mut self, mesh: &ObservedMesh, status: &MeshStatus) {
        let result = match self.config.writing.build().await {
            Ok(client) => write_status(&client, mesh, status).await,
            Err(error) => Err(WriteError::Unavailable {
                object: "the Mesh's status".to_owned(),
                reason: error.to_string(),
                wait: None,
            }),
        };
        let now = self.started.elapsed();
        match result {
            Ok(()) => {
                let before = mesh.status.as_ref().and_then(|status| status.scheduled_epoch);
                if let Some(epoch) = status
                    .scheduled_epoch
                    .filter(|_| status.scheduled_epoch != before)
                {
                    tracing::info!(epoch, "a rotation of keys begins, by schedule");
                }
                self.config.metrics.status_written();
                self.status_pause.end();
                self.written = Some((mesh.version.clone(), now));
            }
            // Another was quicker, or this agent came to itself late: the watch will show which.
            Err(error @ WriteError::Changed { .. }) => {
                tracing::debug!(%error, "looking again before the status is written");
                self.written = Some((mesh.version.clone(), now));
            }
            Err(error) => self.status_pause.begin(now, Outlook::of_write(&error), &error),
        }
    }

    fn lease_failed(&mut self, error: &LeaseError) {
        let now = self.started.elapsed();
        self.lease_pause.begin(now, Outlook::of_lease(error), error);
        self.election.was_changed();
        self.election.hold_off(self.lease_pause.over(now).unwrap_or(now));
        self.lease = None;
    }

    fn no_client(&self, error: &ClientError) -> LeaseError {
        LeaseError::Unavailable {
            namespace: self.config.namespace.clone(),
            reason: error.to_string(),
            wait: None,
        }
    }

    /// Tells metrics and `/status` how things are.
    fn show(&self) {
        let is_usable = self.lease_pause.has_ended();
        self.config.metrics.show(self.election.is_holder(), is_usable);
        let known = self.lease.as_ref().and_then(|lease| {
            Some(StewardStatus {
                node: lease.record().holder?,
                term: lease.transitions(),
            })
        });
        self.config.known.send_if_modified(|shown| {
            let differs = *shown != known;
            *shown = known;
            differs
        });
    }
}

fn earliest(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    [one, other].into_iter().flatten().min()
}

fn unix_time() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// A number that differs from call to call and from node to node: each `RandomState` has keys of its own.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
