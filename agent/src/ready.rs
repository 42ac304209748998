//! Whether the node can take pods: what each pass means for readiness, and the CNI configuration that follows from it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use warren_cluster::{HealthReader, WatchHealth, WatchKind};
use warren_model::{Encryption, Fallback, NodeName};
use warren_telemetry::{Drain, Gate, Readiness};

use crate::cni_conf;
use crate::config::Config;
use crate::devices::Devices;
use crate::metrics::MeshMetrics;
use crate::status::status;
use crate::view::View;

/// How often it is looked again while the node is not ready.
const RETRY: Duration = Duration::from_millis(250);

/// What must hold before pods may be attached.
#[derive(Debug)]
struct Gates {
    watches: Gate,
    plan: Gate,
    guard: Gate,
    lanes: Gate,
    pod_cidrs: Gate,
}

/// Follows the passes of the main loop.
#[derive(Debug)]
pub struct Follower {
    node: NodeName,
    config: Config,
    devices: Arc<Devices>,
    metrics: MeshMetrics,
    readiness: Readiness,
    watches: HealthReader,
    gates: Gates,
    /// Whether a pass has got as far as a plan.
    has_planned: bool,
}

impl Follower {
    /// Makes the gates, closed.
    pub fn new(
        node: NodeName,
        config: Config,
        devices: Arc<Devices>,
        metrics: MeshMetrics,
        readiness: Readiness,
        watches: HealthReader,
    ) -> Self {
        let gates = Gates {
            watches: readiness.gate("watches-in-sync"),
            plan: readiness.gate("first-plan"),
            guard: readiness.gate("guard-in-force"),
            lanes: readiness.gate("lanes-up"),
            pod_cidrs: readiness.gate("pod-cidrs-known"),
        };
        Self {
            node,
            config,
            devices,
            metrics,
            readiness,
            watches,
            gates,
            has_planned: false,
        }
    }

    /// Follows until the drain is signalled.
    pub async fn run(mut self, mut views: watch::Receiver<Arc<View>>, drain: Drain) {
        let mut trouble = None;
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            self.judge(&view);
            let ready = self.readiness.report().is_ok();
            if let Some(status) = status(&self.node, ready, &self.devices, &view, None) {
                self.metrics.show(&status);
            }
            if ready {
                trouble = self.write_conf(trouble.as_deref());
            }
            tokio::select! {
                () = drain.drained() => return,
                changed = views.changed() => if changed.is_err() { return },
                // Publishing opens its gate on its own time, and a configuration that could not be written is tried again.
                () = tokio::time::sleep(RETRY), if !ready || trouble.is_some() => {}
            }
        }
    }

    fn judge(&mut self, view: &View) {
        let gates = &self.gates;
        if view.desired.is_none() {
            if let Some(reason) = waited_for(&self.watches.read(), |kind| !kind.is_of_policy()) {
                gates.watches.close(reason);
            }
            if view.snapshot.is_synced() {
                gates.watches.open();
            }
            // Only before the first plan: a node that takes pods does not stop to for one look that failed.
            if let Some(error) = view.error.as_ref().filter(|_| !self.has_planned) {
                gates.plan.close(error.clone());
            }
            return;
        }
        self.has_planned = true;
        gates.watches.open();
        gates.plan.open();
        match view
            .failures
            .iter()
            .find(|failure| matches!(failure.step.action, warren_plan::Action::InstallGuard(_)))
        {
            None => gates.guard.open(),
            Some(failure) => gates.guard.close(failure.error.clone()),
        }
        let mesh = &view.snapshot.mesh;
        let needs_wireguard = mesh.encryption == Encryption::Wireguard && mesh.fallback == Fallback::None;
        match view.lane_down() {
            Some(lane) => gates.lanes.close(
                view.first_error()
                    .unwrap_or_else(|| format!("{lane} is not up yet")),
            ),
            None if needs_wireguard && !self.devices.available() => gates.lanes.close(self.devices.reason()),
            None => gates.lanes.open(),
        }
        if view.pool(self.node.as_str()).cidrs().is_empty() {
            let reason = format!(
                "Node/{} has no usable spec.podCIDRs: see the refusals in /status",
                self.node
            );
            gates.pod_cidrs.close(reason);
        } else {
            gates.pod_cidrs.open();
        }
    }

    /// Writes the CNI configuration if it is not as it should be; returns what keeps it from being written. Said once
    /// for each different reason: it is tried often.
    fn write_conf(&self, trouble: Option<&str>) -> Option<String> {
        match tokio::task::block_in_place(|| cni_conf::install_conf(&self.config)) {
            Ok(changed) => {
                if changed {
                    tracing::info!(dir = %self.config.cni_conf_dir.display(), "ready; wrote the CNI configuration");
                }
                None
            }
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                if trouble != Some(error.as_str()) {
                    tracing::warn!(error, "cannot write the CNI configuration");
                }
                Some(error)
            }
        }
    }
}

/// Which of some kinds have not been listed yet and why, with the remedy; `None`: all have.
pub(crate) fn waited_for(watches: &[WatchHealth], meant: fn(WatchKind) -> bool) -> Option<String> {
    let mut kinds = Vec::new();
    for watch in watches.iter().filter(|watch| !watch.synced && meant(watch.kind)) {
        let why = watch.last_error.as_deref().unwrap_or("not listed yet");
        kinds.push(format!("{}: {why}", watch.kind));
    }
    (!kinds.is_empty()).then(|| {
        format!(
            "{}; nothing is changed on the node before all kinds are listed: check the API server, and that the \
             agent's ClusterRole lets it list and watch them",
            kinds.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_named_with_its_reason_and_what_is_there_is_not() {
        let mut watches = WatchKind::ALL.map(WatchHealth::new);
        watches[0].synced = true;
        watches[1].last_error = Some("403 Forbidden: no".to_owned());
        let of_the_mesh = |kind: WatchKind| !kind.is_of_policy();
        let text = waited_for(&watches, of_the_mesh).unwrap_or_default();
        assert!(
            text.starts_with("pods: 403 Forbidden: no; meshes: not listed yet; nothing"),
            "{text}"
        );
        assert!(text.contains("ClusterRole"), "{text}");
        watches[1].synced = true;
        watches[2].synced = true;
        assert_eq!(waited_for(&watches, of_the_mesh), None);
        let text = waited_for(&watches, WatchKind::is_of_policy).unwrap_or_default();
        assert!(
            text.starts_with("all-pods: not listed yet; namespaces: not listed yet; "),
            "{text}"
        );
    }
}
