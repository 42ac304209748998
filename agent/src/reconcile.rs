//! The one loop that changes the kernel: see how things are, plan how they should be, apply the difference.
//!
//! It runs when the cluster changes, when the kernel says that something changed, when a pod is attached or detached,
//! and now and then without a reason. It remembers nothing between passes that it could not see again.

mod apply;
mod handle;
mod left_paths;
mod pace;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use warren_cluster::Snapshot;
use warren_ipam::Owner;
use warren_kernel::{Kernel, KernelEvent, sysctl};
use warren_keymgr::KeyStore;
use warren_model::status::{DropCount, PlanReport, PlannedStep};
use warren_model::{Accord, NodeName, PathKind, Refusal};
use warren_plan::{Cluster, Guard, InForce, Local, Step, accord, compute, diff};
use warren_telemetry::{Drain, Heartbeat};

use crate::attachments::SharedAttachments;
use crate::boot_guard::BootGuard;
use crate::devices::Devices;
use crate::endpoints::KeptEndpoints;
use crate::greet::{greet, greet_unheard};
use crate::key_epochs::KeyEpochs;
use crate::known_keys::KnownKeys;
use crate::metrics::PassMetrics;
use crate::mtu_probe::Holes;
use crate::rotation::Rotation;
use crate::view::View;
pub use handle::{NewPod, OpenedBy, ReconcileHandle};
use handle::{Opened, Request};
use left_paths::LeftPaths;
use pace::Pace;

/// What the loop needs.
pub struct Parts {
    /// This node.
    pub node: NodeName,
    /// Links, routes and the like.
    pub kernel: Arc<Kernel>,
    /// WireGuard devices.
    pub devices: Arc<Devices>,
    /// Whether the kernel has IPIP.
    pub has_ipip: bool,
    /// This node's keys.
    pub keys: KeyStore,
    /// Where those in memory are found again.
    pub key_epochs: KeyEpochs,
    /// This node's part in rotating them.
    pub rotation: Rotation,
    /// The pods attached.
    pub attachments: SharedAttachments,
    /// The cluster.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The guard kept for the next boot.
    pub boot_guard: BootGuard,
    /// Where the peers were to be sent to.
    pub endpoints: KeptEndpoints,
    /// What is known of other nodes' keys.
    pub known_keys: KnownKeys,
    /// On which paths packets of full size are lost.
    pub mtu_holes: watch::Receiver<Holes>,
    /// Why denied flows cannot be logged, where they should be.
    pub no_denied_log: watch::Receiver<Option<Refusal>>,
    /// What the loop counts.
    pub metrics: PassMetrics,
}

/// What the last pass has put in place and the pods opened since then have added, if nothing was left to do.
#[derive(Debug)]
struct Settled {
    guard: Guard,
    pod_mtu: u32,
}

/// The loop, ready to run.
pub struct Reconciler {
    parts: Parts,
    requests: mpsc::UnboundedReceiver<Request>,
    views: watch::Sender<Arc<View>>,
    opened: Opened,
    settled: Option<Settled>,
    /// The accord this node has come to, and when.
    accord: Option<(Accord, Instant)>,
    left: LeftPaths,
    pass: u64,
    /// Whether those have been greeted that the agent before this one may have left ungreeted.
    has_greeted: bool,
}

impl Reconciler {
    /// The loop and the way to ask it.
    pub fn new(parts: Parts) -> (Self, ReconcileHandle) {
        let (requests, receiver) = mpsc::unbounded_channel();
        let (views, view) = watch::channel(Arc::new(View::default()));
        let opened = Opened::default();
        (
            Self {
                parts,
                requests: receiver,
                views,
                opened: opened.clone(),
                settled: None,
                accord: None,
                left: LeftPaths::default(),
                pass: 0,
                has_greeted: false,
            },
            ReconcileHandle {
                requests,
                views: view,
                opened,
            },
        )
    }

    /// Runs until the drain is signalled. What is in the kernel then stays there: it carries the pods' traffic.
    pub async fn run(
        mut self,
        mut events: impl Stream<Item = KernelEvent> + Unpin,
        drain: Drain,
        heartbeat: Heartbeat,
    ) {
        let mut pace = Pace::new(Instant::now());
        loop {
            let (mut asked, mut changed) = (Vec::new(), false);
            tokio::select! {
                () = drain.drained() => return,
                Ok(()) = self.parts.snapshots.changed() => changed = true,
                Ok(()) = self.parts.mtu_holes.changed() => changed = true,
                Ok(()) = self.parts.no_denied_log.changed() => changed = true,
                Some(request) = self.requests.recv() => asked.push(request),
                Some(event) = events.next() => match event {
                    KernelEvent::Network => pace.event(Instant::now()),
                    KernelEvent::Guard => pace.guard_changed(Instant::now()),
                },
                () = sleep_until(pace.due()) => {}
            }
            while let Ok(request) = self.requests.try_recv() {
                asked.push(request);
            }
            heartbeat.beat();
            // Before anything else: a runtime waits for each of them, and for no more than its own steps.
            let waiting = self.open(asked).await;
            let due = changed || pace.due() <= Instant::now();
            if !due && waiting.iter().all(|request| matches!(request, Request::Look(_))) {
                if !waiting.is_empty() {
                    let view = Arc::new(self.look(&mut Vec::new()).await);
                    answer(waiting, &view);
                }
                continue;
            }
            let view = Arc::new(self.pass().await);
            pace.passed(Instant::now(), view.first_error().is_some());
            if view
                .desired
                .as_ref()
                .is_some_and(|desired| desired.awaits_handshake)
            {
                let now = Instant::now();
                let since = self.accord.map_or(now, |(_, since)| since);
                pace.hurry(now, now.saturating_duration_since(since));
            }
            if let Some(until) = self.left.until() {
                pace.again(until);
            }
            if let Some(again) = self.parts.rotation.again() {
                pace.again(Instant::now() + again);
            }
            self.views.send_replace(Arc::clone(&view));
            if view.desired.is_some() {
                self.opened.clear();
            }
            answer(waiting, &view);
        }
    }

    /// Opens the pods that only need their own steps, in one transaction of the guard. Returns what is still to be answered.
    async fn open(&mut self, asked: Vec<Request>) -> Vec<Request> {
        let Some(settled) = self.settled.take() else {
            return asked;
        };
        let (mut pods, mut replies, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for request in asked {
            match request {
                Request::Open(pod, reply) if pod.mtu == settled.pod_mtu => {
                    pods.push(pod.attachment.clone());
                    replies.push((pod, reply));
                }
                Request::Open(..) | Request::Pass(_) | Request::Look(_) => waiting.push(request),
            }
        }
        if pods.is_empty() {
            self.settled = Some(settled);
            return waiting;
        }
        let opening = warren_plan::pod::open(&settled.guard, settled.pod_mtu, &pods);
        self.opened.add(pods.iter().map(|pod| pod.interface.as_str()));
        if self.apply(&opening.steps).await.is_empty() {
            self.settled = Some(Settled {
                guard: opening.guard,
                ..settled
            });
            for (_, reply) in replies {
                // Whoever asked may have given up.
                let _ = reply.send(OpenedBy::Itself);
            }
        } else {
            // A pass finds out what is amiss, and tells which pods it concerns.
            waiting.extend(replies.into_iter().map(|(pod, reply)| Request::Open(pod, reply)));
        }
        waiting
    }

    async fn pass(&mut self) -> View {
        self.pass += 1;
        // Only a pass takes note of a change. A look that did would leave it to wait for the next resync.
        self.parts.snapshots.mark_unchanged();
        self.parts.mtu_holes.mark_unchanged();
        self.parts.no_denied_log.mark_unchanged();
        let started = Instant::now();
        let mut leaked = Vec::new();
        let mut view = self.look(&mut leaked).await;
        self.settled = None;
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
                self.settled = Some(Settled {
                    guard: desired.guard.clone(),
                    pod_mtu: desired.pod_mtu,
                });
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
        parts.known_keys.judge(view, &parts.node);
        let mut refusals = view.snapshot.refusals.clone();
        refusals.extend(parts.no_denied_log.borrow().clone());
        let cluster = Cluster {
            nodes: view.snapshot.nodes.clone(),
            mesh: view.snapshot.mesh.clone(),
            refusals,
        };
        // The kernel first, the attachments after: a veth that is seen here has its attachment recorded by then.
        let (observed, drops) = parts.kernel.observe_with_drops(&[]).await?;
        view.observed = observed;
        parts.devices.observe(&mut view.observed).await?;
        // A node that cannot do WireGuard has a key too: without one nothing is published, and nobody would know what it can.
        let settled = parts.rotation.go_on(
            &mut parts.keys,
            &view.snapshot,
            &view.observed,
            &parts.node,
            parts.devices.available(),
        );
        // Also where that failed half way: what was made counts.
        parts.key_epochs.keep(&parts.keys);
        let settled = settled?;
        view.rotation_waits_for = parts.rotation.waits_for();
        let mut local = Local {
            node: parts.node.clone(),
            settled,
            keys: parts.keys.public_keys().into_iter().collect(),
            can: can(&parts.devices, parts.has_ipip),
            attachments: parts.attachments.present(&view.observed, leaked),
            underlay: parts.kernel.underlay().await?,
            underlay_routes: parts.kernel.underlay_routes().await?,
            mtu_holes: BTreeMap::clone(&parts.mtu_holes.borrow()),
            networks_before: parts.boot_guard.networks(),
            endpoints_before: parts.endpoints.get().clone(),
            in_force: InForce::default(),
        };
        let now = Instant::now();
        let age = age_of(&mut self.accord, accord(&cluster, &local), now);
        local.in_force = InForce::observed(&view.observed, age);
        local.in_force.left = self.left.note(&local.in_force.routed, now);
        let desired = compute(&cluster, &local);
        // Only now it is known which are asked for. One that is not there yet belongs to an interface that is not either.
        let values = desired
            .sysctls
            .keys()
            .filter_map(|key| Some((key.clone(), sysctl::read(key).ok()?)));
        view.observed.sysctls = values.collect();
        view.steps = diff(&desired, &view.observed);
        view.desired = Some(desired);
        view.lane_drops = parts.devices.drops(view.observed.lanes.keys().copied()).await;
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

fn answer(waiting: Vec<Request>, view: &Arc<View>) {
    for request in waiting {
        // Whoever asked may have given up.
        let _ = match request {
            Request::Open(_, reply) => reply.send(OpenedBy::Pass(Arc::clone(view))).is_ok(),
            Request::Pass(reply) | Request::Look(reply) => reply.send(Arc::clone(view)).is_ok(),
        };
    }
}

/// For how long this has been the accord.
fn age_of(known: &mut Option<(Accord, Instant)>, accord: Accord, now: Instant) -> Duration {
    match known {
        Some((same, since)) if *same == accord => now.saturating_duration_since(*since),
        _ => {
            *known = Some((accord, now));
            Duration::ZERO
        }
    }
}

fn can(devices: &Devices, has_ipip: bool) -> BTreeSet<PathKind> {
    let mut can = BTreeSet::from([PathKind::Vxlan]);
    if has_ipip {
        can.insert(PathKind::Ipip);
    }
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
