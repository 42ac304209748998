//! What the last pass saw, wanted and did: read by status, metrics, publishing and the CNI server.

use std::collections::BTreeMap;
use std::sync::Arc;

use warren_cluster::Snapshot;
use warren_ipam::Pool;
use warren_model::Lane;
use warren_model::status::{DropCount, KeyChange};
use warren_plan::{Action, Desired, Observed, Step};

/// The outcome of one pass of the main loop.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// How many passes there have been.
    pub pass: u64,
    /// The cluster the pass was made from: of other nodes' keys, what is believed.
    pub snapshot: Arc<Snapshot>,
    /// What the kernel said before the steps.
    pub observed: Observed,
    /// What should be; `None` until the watches are in sync.
    pub desired: Option<Desired>,
    /// The steps that were found necessary.
    pub steps: Vec<Step>,
    /// The steps that failed.
    pub failures: Vec<Failure>,
    /// Why the pass as a whole failed, if it did.
    pub error: Option<String>,
    /// What a rotation of keys that is under way waits for, for people.
    pub rotation_waits_for: Vec<String>,
    /// Keys of other nodes that changed outside a rotation.
    pub key_changes: Vec<KeyChange>,
    /// What the guard has dropped since the node booted.
    pub drops: Vec<DropCount>,
    /// What each lane's device has dropped since it started, by reason.
    pub lane_drops: BTreeMap<Lane, BTreeMap<String, u64>>,
}

/// A step that failed, and why.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The step.
    pub step: Step,
    /// Why.
    pub error: String,
}

impl View {
    /// The first thing that went wrong, for people.
    pub fn first_error(&self) -> Option<String> {
        let of_step = || {
            self.failures
                .first()
                .map(|failure| format!("{}: {}", failure.step.action, failure.error))
        };
        self.error.clone().or_else(of_step)
    }

    /// A lane that should be up, and was not when the pass looked.
    pub fn lane_down(&self) -> Option<Lane> {
        let up = |lane: &Lane| {
            self.observed
                .links
                .get(lane.interface())
                .is_some_and(|link| link.up)
        };
        self.desired
            .as_ref()?
            .lanes
            .keys()
            .copied()
            .find(|lane| !up(lane))
    }

    /// The addresses this node may give to pods: its pod CIDRs that no older node claims, in the Node's order.
    pub fn pool(&self, node: &str) -> Pool {
        let (Some(desired), Some(own)) = (&self.desired, self.snapshot.nodes.get(node)) else {
            return Pool::default();
        };
        let accepted = own
            .pod_cidrs
            .iter()
            .map(|cidr| cidr.net())
            .filter(|net| desired.guard.local.contains(net));
        // Accepted CIDRs never overlap, which is all that a pool asks for.
        Pool::new(accepted).unwrap_or_default()
    }

    /// The steps of a pass that failed and that a pod on this interface depends on.
    pub fn failure_of(&self, interface: &str) -> Option<&Failure> {
        self.failures.iter().find(|failure| {
            let action = &failure.step.action;
            let forwards = matches!(action, Action::SetSysctl(key, _) if key.ends_with("forward") || key.ends_with("forwarding"));
            let guards = matches!(action, Action::InstallGuard(_));
            guards || forwards || action.interface() == Some(interface)
        })
    }

    /// Whether what a pod on this interface needs is wanted by the pass: its addresses are open in the guard.
    pub fn is_open(&self, interface: &str) -> bool {
        let Some(desired) = &self.desired else {
            return false;
        };
        desired.guard.pods.iter().any(|pod| pod.interface == interface)
    }

    /// Whether the guard may still let packets through for an interface of this name, made before the pass.
    pub fn may_be_open(&self, interface: &str) -> bool {
        let mut before = self.observed.open_pods.iter();
        self.is_open(interface) || before.any(|pod| pod.interface == interface)
    }
}
