//! The one loop that changes the kernel: see how things are, plan how they should be, apply the difference.
//!
//! It runs when the cluster changes, when the kernel says that something changed, when a pod is attached or detached,
//! and now and then without a reason. It remembers nothing between passes that it could not see again.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use warren_cluster::Snapshot;
use warren_ipam::Owner;
use warren_kernel::{Kernel, sysctl, veth};
use warren_keymgr::KeyStore;
use warren_model::status::{DropCount, PlanReport, PlannedStep};
use warren_model::{NodeName, PathKind};
use warren_plan::{Action, Cluster, LinkKind, Local, Step, compute, diff};
use warren_telemetry::{Drain, Heartbeat};

use crate::attachments::SharedAttachments;
use crate::boot_guard::BootGuard;
use crate::devices::Devices;
use crate::endpoints::KeptEndpoints;
use crate::epochs::{first_epoch, refuse_rotation};
use crate::greet::{greet, greet_unheard};
use crate::metrics::PassMetrics;
use crate::view::{Failure, View};

/// The time between two passes that nothing asked for.
const RESYNC: Duration = Duration::from_secs(10);
/// The pause before a failed pass is repeated, doubled each time up to [`RESYNC`].
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// For how long no event of the kernel comes before a pass: one act there makes several, and pods that end together many.
const GATHER: Duration = Duration::from_millis(20);
/// How long events of the kernel are gathered at most.
const GATHER_AT_MOST: Duration = Duration::from_millis(200);

/// What the loop needs.
pub struct Parts {
    /// This node.
    pub node: NodeName,
    /// Links, routes and the like.
    pub kernel: Arc<Kernel>,
    /// WireGuard devices.
    pub devices: Arc<Devices>,
    /// This node's keys.
    pub keys: KeyStore,
    /// The pods attached.
    pub attachments: SharedAttachments,
    /// The cluster.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The guard kept for the next boot.
    pub boot_guard: BootGuard,
    /// Where the peers were to be sent to.
    pub endpoints: KeptEndpoints,
    /// What the loop counts.
    pub metrics: PassMetrics,
}

/// A way to ask the loop for something.
#[derive(Debug, Clone)]
pub struct ReconcileHandle {
    requests: mpsc::UnboundedSender<Request>,
    views: watch::Receiver<Arc<View>>,
}

#[derive(Debug)]
enum Request {
    Pass(oneshot::Sender<Arc<View>>),
    Look(oneshot::Sender<Arc<View>>),
}

impl ReconcileHandle {
    /// Waits for a pass that began after this call; `None` if the loop has ended.
    pub async fn pass(&self) -> Option<Arc<View>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Pass(reply)).ok()?;
        answer.await.ok()
    }

    /// What a pass would see and do now, without doing it; `None` if the loop has ended.
    pub async fn look(&self) -> Option<Arc<View>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Look(reply)).ok()?;
        answer.await.ok()
    }

    /// What the last pass saw and did.
    pub fn last(&self) -> Arc<View> {
        Arc::clone(&self.views.borrow())
    }

    /// Each pass's outcome; outcomes may be skipped, the last one never is.
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.views.clone()
    }
}

/// The loop, ready to run.
pub struct Reconciler {
    parts: Parts,
    requests: mpsc::UnboundedReceiver<Request>,
    views: watch::Sender<Arc<View>>,
    pass: u64,
    /// Whether those have been greeted that the agent before this one may have left ungreeted.
    has_greeted: bool,
}

impl Reconciler {
    /// The loop and the way to ask it.
    pub fn new(parts: Parts) -> (Self, ReconcileHandle) {
        let (requests, receiver) = mpsc::unbounded_channel();
        let (views, view) = watch::channel(Arc::new(View::default()));
        (
            Self {
                parts,
                requests: receiver,
                views,
                pass: 0,
                has_greeted: false,
            },
            ReconcileHandle {
                requests,
                views: view,
            },
        )
    }

    /// Runs until the drain is signalled. What is in the kernel then stays there: it carries the pods' traffic.
    pub async fn run(
        mut self,
        mut events: impl Stream<Item = ()> + Unpin,
        drain: Drain,
        heartbeat: Heartbeat,
    ) {
        let mut retry = FIRST_RETRY;
        let mut next = Instant::now();
        let mut failed = false;
        loop {
            let (mut waiting, mut changed) = (Vec::new(), false);
            tokio::select! {
                () = drain.drained() => return,
                Ok(()) = self.parts.snapshots.changed() => changed = true,
                Some(request) = self.requests.recv() => waiting.push(request),
                // A pass that fails makes events of its own: it is repeated when its time has come, not at once.
                Some(()) = events.next(), if !failed => {
                    changed = true;
                    gather(&mut events, &mut self.requests, &mut waiting).await;
                }
                () = sleep_until(next) => {}
            }
            while let Ok(request) = self.requests.try_recv() {
                waiting.push(request);
            }
            heartbeat.beat();
            let look_only =
                !changed && !waiting.is_empty() && waiting.iter().all(|r| matches!(r, Request::Look(_)));
            if look_only {
                let view = Arc::new(self.look(&mut Vec::new()).await);
                answer(waiting, &view);
                continue;
            }
            let view = Arc::new(self.pass().await);
            failed = view.first_error().is_some();
            self.views.send_replace(Arc::clone(&view));
            answer(waiting, &view);
            next = Instant::now() + if failed { retry } else { RESYNC };
            retry = if failed {
                (retry * 2).min(RESYNC)
            } else {
                FIRST_RETRY
            };
        }
    }

    async fn pass(&mut self) -> View {
        self.pass += 1;
        // Only a pass takes note of a change. A look that did would leave it to wait for the next resync.
        self.parts.snapshots.mark_unchanged();
        let started = Instant::now();
        let mut leaked = Vec::new();
        let mut view = self.look(&mut leaked).await;
        if view.error.is_none() {
            self.release(&leaked);
            view.failures = self.apply(&view.steps).await;
            if let Some(desired) = &view.desired {
                if !std::mem::replace(&mut self.has_greeted, true) {
                    greet_unheard(&view.observed, desired);
                }
                greet(&view.steps, desired);
                self.parts.endpoints.remember(desired, &view.failures);
            }
            if let Some(desired) = view.desired.as_ref().filter(|_| view.failures.is_empty()) {
                self.parts
                    .boot_guard
                    .remember(&desired.guard, &desired.remote_networks);
            }
        }
        if let Some(error) = &view.error {
            tracing::warn!(pass = self.pass, error, "the pass failed and will be repeated");
        }
        self.parts.metrics.observe(&view, started.elapsed());
        view
    }

    /// Everything of a pass that changes nothing but the key store.
    async fn look(&mut self, leaked: &mut Vec<Owner>) -> View {
        let snapshot = Arc::clone(&self.parts.snapshots.borrow());
        let mut view = View {
            pass: self.pass,
            snapshot,
            ..View::default()
        };
        if !view.snapshot.is_synced() {
            return view;
        }
        if let Err(error) = self.fill(&mut view, leaked).await {
            view.error = Some(format!("{error:#}"));
        }
        view
    }

    async fn fill(&mut self, view: &mut View, leaked: &mut Vec<Owner>) -> anyhow::Result<()> {
        let parts = &mut self.parts;
        if parts.devices.available() && parts.keys.public_keys().is_empty() {
            parts.keys.ensure(first_epoch(&view.snapshot, &parts.node))?;
        }
        let mut cluster = Cluster {
            nodes: view.snapshot.nodes.clone(),
            mesh: view.snapshot.mesh.clone(),
            refusals: view.snapshot.refusals.clone(),
        };
        refuse_rotation(&parts.keys, &mut cluster);
        // The kernel first, the attachments after: a veth that is seen here has its attachment recorded by then.
        let (observed, drops) = parts.kernel.observe_with_drops(&[]).await?;
        view.observed = observed;
        parts.devices.observe(&mut view.observed).await?;
        let local = Local {
            node: parts.node.clone(),
            keys: parts.keys.public_keys().into_iter().collect(),
            can: can(&parts.devices),
            attachments: parts.attachments.present(&view.observed, leaked),
            underlay: parts.kernel.underlay().await?,
            networks_before: parts.boot_guard.networks(),
            endpoints_before: parts.endpoints.get().clone(),
        };
        let desired = compute(&cluster, &local);
        // Only now it is known which are asked for. One that is not there yet belongs to an interface that is not either.
        let values = desired
            .sysctls
            .keys()
            .filter_map(|key| Some((key.clone(), sysctl::read(key).ok()?)));
        view.observed.sysctls = values.collect();
        view.steps = diff(&desired, &view.observed);
        view.desired = Some(desired);
        view.drops = drops
            .into_iter()
            .map(|drop| DropCount {
                reason: drop.reason,
                packets: drop.packets,
                bytes: drop.bytes,
            })
            .collect();
        Ok(())
    }

    /// Applies the steps in order. A step that fails does not stop those that come after it, but for those on an interface
    /// that could not be made; and without its guard the node changes nothing.
    async fn apply(&self, steps: &[Step]) -> Vec<Failure> {
        let mut failures: Vec<Failure> = Vec::new();
        for step in steps {
            let on_missing = |failure: &Failure| {
                failure
                    .step
                    .action
                    .creates()
                    .is_some_and(|made| step.action.interface() == Some(made))
            };
            if failures.iter().any(on_missing) {
                continue;
            }
            match self.apply_one(&step.action).await {
                Ok(()) => tracing::info!(action = %step.action, reason = step.reason, "applied"),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(action = %step.action, error, "step failed and will be repeated");
                    failures.push(Failure {
                        step: step.clone(),
                        error,
                    });
                    if matches!(step.action, Action::InstallGuard(_)) {
                        break;
                    }
                }
            }
        }
        failures
    }

    async fn apply_one(&self, action: &Action) -> anyhow::Result<()> {
        let parts = &self.parts;
        match action {
            Action::CreateLane(lane, mtu) => {
                parts.devices.create(*lane, *mtu).await?;
                parts
                    .kernel
                    .apply(&Action::SetMtu(lane.interface().to_owned(), *mtu))
                    .await?;
            }
            Action::ConfigureLane(lane, change) => {
                parts.devices.configure(*lane, change, &parts.keys).await?
            }
            Action::SetMtu(link, mtu) => match parts.attachments.pod_side(link) {
                // A pod that sends more than the host side takes would lose it without a word: both sides change.
                Some((netns, if_name)) => {
                    veth::set_mtu(&parts.kernel, link, Path::new(&netns), &if_name, *mtu).await?;
                }
                None => parts.kernel.apply(action).await?,
            },
            Action::RemoveLink(_, LinkKind::Lane(lane)) => parts.devices.remove(*lane).await?,
            Action::InstallGuard(_)
            | Action::CreateVxlan(..)
            | Action::SetUp(_)
            | Action::SetSysctl(..)
            | Action::AddAddress(..)
            | Action::SetNeighbour(..)
            | Action::SetFdb(..)
            | Action::SetRoute(..)
            | Action::RemoveRoute(_)
            | Action::RemoveFdb(_)
            | Action::RemoveNeighbour(..)
            | Action::RemoveAddress(..)
            | Action::RemoveLink(..) => parts.kernel.apply(action).await?,
        }
        Ok(())
    }

    fn release(&self, leaked: &[Owner]) {
        if leaked.is_empty() {
            return;
        }
        let owners: Vec<String> = leaked.iter().map(ToString::to_string).collect();
        match self.parts.attachments.release(leaked) {
            Ok(()) => tracing::info!(?owners, "freed the addresses of pods that are gone"),
            Err(error) => tracing::warn!(?owners, error = format!("{error:#}"), "cannot free addresses"),
        }
    }
}

/// Waits until the kernel has no more events for a while, but no longer than until somebody asks: a pod's own link makes
/// events just before it is asked for, and its runtime waits.
async fn gather(
    events: &mut (impl Stream<Item = ()> + Unpin),
    requests: &mut mpsc::UnboundedReceiver<Request>,
    waiting: &mut Vec<Request>,
) {
    let at_last = Instant::now() + GATHER_AT_MOST;
    while Instant::now() < at_last {
        let quiet = at_last.min(Instant::now() + GATHER);
        tokio::select! {
            Some(request) = requests.recv() => return waiting.push(request),
            Some(()) = events.next() => {}
            () = sleep_until(quiet) => return,
        }
    }
}

fn answer(waiting: Vec<Request>, view: &Arc<View>) {
    for request in waiting {
        let (Request::Pass(reply) | Request::Look(reply)) = request;
        // Whoever asked may have given up.
        let _ = reply.send(Arc::clone(view));
    }
}

fn can(devices: &Devices) -> BTreeSet<PathKind> {
    let mut can = BTreeSet::from([PathKind::Vxlan]);
    if devices.available() {
        can.insert(PathKind::Wireguard);
    }
    can
}

/// What `warren plan` prints.
pub fn plan_report(node: &NodeName, view: &View) -> PlanReport {
    let step = |step: &Step| PlannedStep {
        action: step.action.to_string(),
        reason: step.reason.clone(),
    };
    PlanReport {
        node: node.clone(),
        steps: view.steps.iter().map(step).collect(),
        refusals: view
            .desired
            .as_ref()
            .map(|desired| desired.refusals.clone())
            .unwrap_or_default(),
    }
}
