//! Network policy on this node: compiled from what the watches show, rendered, and kept in force by a loop of its own, so that
//! a pod that changes somewhere in the cluster does not make the node look at all its links and routes.
//!
//! A pod that is attached waits until its policy is in the kernel; only then the guard lets its veth through. What is in
//! force stays so when the agent ends, and while the API server cannot be reached.

mod cutter;
mod denied;
mod handle;
mod world;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use warren_cluster::{HealthReader, PolicySnapshot, Snapshot, WatchKind};
use warren_kernel::Kernel;
use warren_kernel::policy::{Ruling, Table, render, render_logged};
use warren_model::mesh::{Mesh, OnInvalid};
use warren_model::{NodeName, OverlayMode, Refusal};
use warren_policy::cluster::Failsafe;
use warren_policy::{Compiler, Input, Reach, RuleSet};
use warren_telemetry::{Drain, Gate, Heartbeat};

use crate::attachments::SharedAttachments;
use crate::metrics::PolicyMetrics;
use crate::ready::waited_for;
use cutter::Judge;
pub use denied::NO_DENIED_LOG;
use denied::{DeniedLog, Whose};
pub use handle::{Admission, PolicyHandle};
use handle::{Newcomer, Request};
use world::World;

/// The time between two updates that nothing asked for; then counters are read, too.
const RESYNC: Duration = Duration::from_secs(10);
/// The pause before an update that failed is repeated.
const RETRY: Duration = Duration::from_millis(500);
/// For how long changes that come together are gathered.
const GATHER: Duration = Duration::from_millis(5);
/// For how long a pod that is attached waits for its object to be seen.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the loop needs.
pub struct Parts {
    /// This node.
    pub node: NodeName,
    /// Where policy is put in force.
    pub kernel: Arc<Kernel>,
    /// The pods attached.
    pub attachments: SharedAttachments,
    /// What policies are compiled from.
    pub policy: watch::Receiver<Arc<PolicySnapshot>>,
    /// Nodes and the Mesh.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// How the watches fare.
    pub watches: HealthReader,
    /// What the loop counts.
    pub metrics: PolicyMetrics,
    /// Opened once policy is in force.
    pub gate: Gate,
    /// Told why denied flows cannot be logged, where they should be.
    pub cannot_log: watch::Sender<Option<Refusal>>,
}

/// The loop, ready to run.
pub struct Enforcer {
    parts: Parts,
    requests: mpsc::UnboundedReceiver<Request>,
    in_force: watch::Sender<bool>,
    world: World,
    compiler: Compiler,
    judge: watch::Sender<Option<Judge>>,
    rulings: BTreeMap<String, Ruling>,
    denied: DeniedLog,
    waiting: Vec<Newcomer>,
}

impl Enforcer {
    /// The loop and the way to ask it.
    pub fn new(parts: Parts) -> (Self, PolicyHandle) {
        let (requests, receiver) = mpsc::unbounded_channel();
        let (in_force, is_in_force) = watch::channel(false);
        let enforcer = Self {
            world: World::new(parts.node.clone()),
            compiler: Compiler::default(),
            requests: receiver,
            in_force,
            judge: watch::Sender::new(None),
            rulings: BTreeMap::new(),
            denied: DeniedLog::new(parts.node.clone(), parts.cannot_log.clone()),
            waiting: Vec::new(),
            parts,
        };
        (enforcer, PolicyHandle::new(requests, is_in_force))
    }

    /// Runs until the drain is signalled. What is in the kernel then stays in force.
    pub async fn run(
        mut self,
        mut alterations: impl Stream<Item = ()> + Unpin,
        drain: Drain,
        heartbeat: Heartbeat,
    ) {
        let (kernel, judges) = (Arc::clone(&self.parts.kernel), self.judge.subscribe());
        let cutting = cutter::run(kernel, judges, self.parts.metrics.clone(), drain.clone());
        let following = async {
            let mut due = Instant::now();
            while self.wait(&mut alterations, due).await {
                heartbeat.beat();
                self.gather().await;
                due = Instant::now() + self.pass().await;
            }
        };
        tokio::select! {
            () = drain.drained() => {}
            () = cutting => {}
            () = following => {}
        }
    }

    /// Waits for a reason to look; false: there will be none any more.
    async fn wait(&mut self, alterations: &mut (impl Stream<Item = ()> + Unpin), due: Instant) -> bool {
        let patience = self.waiting.iter().map(|it| it.deadline).min();
        let due = patience.map_or(due, |deadline| due.min(deadline));
        loop {
            tokio::select! {
                Ok(()) = self.parts.policy.changed() => return true,
                Ok(()) = self.parts.snapshots.changed() => return true,
                Some(request) = self.requests.recv() => {
                    self.take(request);
                    return true;
                }
                Some(()) = alterations.next() => return true,
                packets = self.denied.read() => {
                    let mesh = Arc::clone(&self.parts.snapshots.borrow());
                    let whose = Whose { cluster: self.world.cluster(), nodes: &mesh.nodes };
                    self.denied.write(packets, &whose, &self.parts.metrics);
                }
                () = sleep_until(due) => return true,
                else => return false,
            }
        }
    }

    /// Takes what comes together with the reason, for a moment; a pod that waits is not kept waiting.
    async fn gather(&mut self) {
        let until = Instant::now() + GATHER;
        loop {
            while let Ok(request) = self.requests.try_recv() {
                self.take(request);
            }
            if !self.waiting.is_empty() {
                return;
            }
            match timeout_at(until, self.requests.recv()).await {
                Ok(Some(request)) => self.take(request),
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Look => {}
            Request::Admit(pod, reply) => self.waiting.push(Newcomer {
                pod,
                reply,
                deadline: Instant::now() + PATIENCE,
            }),
        }
    }

    /// Brings policy up to date and answers who waits for it. Returns when it is to be done again at the latest.
    async fn pass(&mut self) -> Duration {
        let policy = Arc::clone(&self.parts.policy.borrow_and_update());
        let mesh = Arc::clone(&self.parts.snapshots.borrow_and_update());
        if !policy.synced || !mesh.is_synced() {
            if let Some(reason) = waited_for(&self.parts.watches.read(), WatchKind::is_of_policy) {
                self.parts.gate.close(reason);
            }
            for waiting in self.waiting.drain(..) {
                waiting.answer(Admission::NotInSync);
            }
            return RETRY;
        }
        let started = Instant::now();
        match self.update(&policy, &mesh).await {
            Ok(()) => {
                self.parts.metrics.updated(started.elapsed());
                self.in_force.send_replace(true);
                self.parts.gate.open();
                self.answer(&policy);
                self.read_counters().await;
                RESYNC
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "policy is not up to date in the kernel; trying again");
                self.parts.metrics.failed();
                for waiting in self.waiting.drain(..) {
                    waiting.answer(Admission::Failed(error.clone()));
                }
                RETRY
            }
        }
    }

    async fn update(&mut self, policy: &PolicySnapshot, mesh: &Snapshot) -> anyhow::Result<()> {
        let own = own_addresses(&self.parts.kernel).await?;
        let is_wanted = mesh.mesh.policy.log_denied;
        self.denied.turn(is_wanted, &self.parts.kernel).await;
        let attached = self.parts.attachments.all();
        let (rules, table) = tokio::task::block_in_place(|| {
            self.world.update(policy, mesh, &attached, &own);
            self.compiled(policy, &mesh.mesh)
        });
        self.rulings.clone_from(table.rulings());
        self.denied.learn(&self.rulings);
        let written = match self.parts.kernel.install_policy(table).await {
            Ok(written) => written,
            Err(error) => {
                // Maybe it is for the log: the next attempt is made without.
                let error = anyhow::Error::from(error);
                self.denied.give_up(&error);
                return Err(error);
            }
        };
        tracing::debug!(
            ?written,
            endpoints = rules.endpoints.len(),
            "policy is up to date"
        );
        self.parts.metrics.wrote(written);
        let judge = Judge {
            rules: Arc::new(rules),
            established: mesh.mesh.policy.established,
        };
        self.judge.send_if_modified(|before| {
            let same = before
                .as_ref()
                .is_some_and(|it| it.established == judge.established && it.rules == judge.rules);
            if !same {
                *before = Some(judge);
            }
            !same
        });
        Ok(())
    }

    fn compiled(&mut self, policy: &PolicySnapshot, mesh: &Mesh) -> (RuleSet, Table) {
        let rules = self.compiler.compile(&Input {
            policies: &policy.objects.policies,
            invalid: &policy.objects.invalid,
            on_invalid: match mesh.policy.on_invalid {
                OnInvalid::Closed => warren_policy::OnInvalid::Closed,
                OnInvalid::Open => warren_policy::OnInvalid::Open,
            },
            tiers: &[],
            cluster: self.world.cluster(),
            failsafe: failsafe(mesh),
            reach: Reach::Node(self.parts.node.clone()),
        });
        let render = if self.denied.is_on() {
            render_logged
        } else {
            render
        };
        let table = render(&rules);
        (rules, table)
    }

    /// Answers those whose pods are known by now, and those that have waited long enough: their veths stay closed until they are.
    fn answer(&mut self, policy: &PolicySnapshot) {
        let now = Instant::now();
        let (ready, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|it| it.is_known(policy) || it.deadline <= now);
        self.waiting = waiting;
        let ready: Vec<Newcomer> = ready;
        for newcomer in ready {
            if !newcomer.is_known(policy) {
                tracing::warn!(
                    pod = newcomer.pod.as_ref().map(ToString::to_string),
                    "no such Pod has been seen yet: its interface stays closed until it is"
                );
            }
            newcomer.answer(Admission::Admitted);
        }
    }

    async fn read_counters(&mut self) {
        match self.parts.kernel.policy_counters().await {
            Ok(counters) => {
                self.parts.metrics.counted(&self.rulings, &counters);
                self.denied.count(&counters, &self.rulings, &self.parts.metrics);
            }
            Err(error) => tracing::debug!(%error, "cannot read what policy has denied"),
        }
    }
}

/// What a host endpoint leaves open: Calico's ports, and what the mesh itself needs.
fn failsafe(mesh: &Mesh) -> Failsafe {
    let failsafe = Failsafe::default().with_mesh(&mesh.ports);
    let ipip = mesh.overlay.mode == OverlayMode::Ipip || mesh.fallback == warren_model::Fallback::Ipip;
    if ipip { failsafe.with_ipip() } else { failsafe }
}

/// The node's own addresses that can be a packet's on its way to a pod.
async fn own_addresses(kernel: &Kernel) -> anyhow::Result<Vec<IpAddr>> {
    let mut own = kernel.own_addresses().await?;
    own.sort_unstable();
    own.dedup();
    Ok(own)
}
