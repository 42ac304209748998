//! What the agent counts. Names get the prefix `warren_`, counters the suffix `_total`.

mod keys;
mod policy;
mod steward;
mod watches;

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use warren_cni_wire::Outcome;
use warren_model::status::AgentStatus;
use warren_telemetry::{MetricDescription, Registry};

pub use self::keys::KeyMetrics;
pub use self::policy::PolicyMetrics;
pub use self::steward::StewardMetrics;
pub use self::watches::register_watches;
use crate::view::View;

/// All metrics of the agent, by the part that counts them.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Of the main loop.
    pub pass: PassMetrics,
    /// Of the CNI server.
    pub cni: CniMetrics,
    /// Of the mesh as this node sees it.
    pub mesh: MeshMetrics,
    /// Of network policy.
    pub policy: PolicyMetrics,
    /// Of reporting for the whole mesh.
    pub steward: StewardMetrics,
    /// Of the keys that other nodes publish.
    pub keys: KeyMetrics,
}

impl Metrics {
    /// Registers them all.
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            pass: PassMetrics::new(registry),
            cni: CniMetrics::new(registry),
            mesh: MeshMetrics::new(registry),
            policy: PolicyMetrics::new(registry),
            steward: StewardMetrics::new(registry),
            keys: KeyMetrics::new(registry),
        }
    }
}

/// The metrics there are, for the reference documentation.
pub fn describe() -> Vec<MetricDescription> {
    let mut registry = Registry::new();
    Metrics::new(&mut registry);
    register_watches(&mut registry, None);
    registry.describe()
}

/// Metrics of the main loop.
#[derive(Debug, Clone)]
pub struct PassMetrics {
    duration: Histogram,
    steps: Counter,
    failures: Counter,
    failed: Counter,
}

impl PassMetrics {
    fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            duration: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            steps: Counter::default(),
            failures: Counter::default(),
            failed: Counter::default(),
        };
        registry.register(
            "pass_duration_seconds",
            "Time of one pass of the main loop",
            metrics.duration.clone(),
        );
        registry.register(
            "steps",
            "Changes to the kernel that were found necessary",
            metrics.steps.clone(),
        );
        registry.register(
            "step_failures",
            "Changes to the kernel that failed",
            metrics.failures.clone(),
        );
        registry.register(
            "pass_failures",
            "Passes that could not see or plan at all",
            metrics.failed.clone(),
        );
        metrics
    }

    /// Counts a pass.
    pub fn observe(&self, view: &View, took: Duration) {
        self.duration.observe(took.as_secs_f64());
        self.steps.inc_by(count(view.steps.len()));
        self.failures.inc_by(count(view.failures.len()));
        self.failed.inc_by(u64::from(view.error.is_some()));
    }
}

/// Metrics of the CNI server.
#[derive(Debug, Clone)]
pub struct CniMetrics {
    requests: Family<CniLabels, Counter>,
    duration: Family<VerbLabels, Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CniLabels {
    verb: &'static str,
    code: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabels {
    verb: &'static str,
}

impl CniMetrics {
    fn new(registry: &mut Registry) -> Self {
        let histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 14));
        let metrics = Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(histogram),
        };
        let help = "CNI requests answered, by verb and CNI error code; 0 is success";
        registry.register_labelled("cni_requests", help, &["verb", "code"], metrics.requests.clone());
        let help = "Time from a CNI request to its answer";
        registry.register_labelled(
            "cni_request_duration_seconds",
            help,
            &["verb"],
            metrics.duration.clone(),
        );
        metrics
    }

    /// Counts a request.
    pub fn observe(&self, verb: &'static str, outcome: &Outcome, took: Duration) {
        let code = match outcome {
            Outcome::Added(_) | Outcome::Done => 0,
            Outcome::Error { code, .. } => code.0,
        };
        self.requests.get_or_create(&CniLabels { verb, code }).inc();
        self.duration
            .get_or_create(&VerbLabels { verb })
            .observe(took.as_secs_f64());
    }
}

/// Metrics of the mesh as this node sees it: taken from the status after each pass, so at most one pass old.
///
/// Bytes and drops are counted by the kernel and the devices; they are shown as they stand there, as gauges.
#[derive(Debug, Clone)]
pub struct MeshMetrics {
    encryption: Gauge,
    pods: Gauge,
    pod_mtu: Gauge,
    epoch: Gauge,
    peers: Family<PathLabels, Gauge>,
    refusals: Family<CodeLabels, Gauge>,
    dropped: Family<ReasonLabels, Gauge>,
    device_dropped: Family<DeviceDropLabels, Gauge>,
    mtu_hole: Family<PeerLabels, Gauge>,
    handshake_age: Family<PeerLabels, Gauge>,
    received: Family<PeerLabels, Gauge>,
    sent: Family<PeerLabels, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PathLabels {
    path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceDropLabels {
    interface: String,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabels {
    peer: String,
}

impl MeshMetrics {
    fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            encryption: Gauge::default(),
            pods: Gauge::default(),
            pod_mtu: Gauge::default(),
            epoch: Gauge::default(),
            peers: Family::default(),
            refusals: Family::default(),
            dropped: Family::default(),
            device_dropped: Family::default(),
            mtu_hole: Family::default(),
            handshake_age: Family::default(),
            received: Family::default(),
            sent: Family::default(),
        };
        registry.register(
            "encryption",
            "1 if the Mesh asks for encryption, else 0",
            metrics.encryption.clone(),
        );
        registry.register("pods", "Pods attached to this node", metrics.pods.clone());
        registry.register("pod_mtu_bytes", "MTU that pods get", metrics.pod_mtu.clone());
        registry.register(
            "key_epoch",
            "The key epoch the Mesh asks for",
            metrics.epoch.clone(),
        );
        let help = "Peer nodes by the path in force towards them; none: not reached";
        registry.register_labelled("peers", help, &["path"], metrics.peers.clone());
        let help = "Objects that are not acted on, by reason";
        registry.register_labelled("refusals", help, &["code"], metrics.refusals.clone());
        let help = "Packets the guard has dropped since the node booted; plaintext-out and plaintext-in are proof \
                    that it was needed";
        registry.register_labelled(
            "guard_dropped_packets",
            help,
            &["reason"],
            metrics.dropped.clone(),
        );
        let help = "Packets a userspace WireGuard device has dropped since it started";
        registry.register_labelled(
            "device_dropped_packets",
            help,
            &["interface", "reason"],
            metrics.device_dropped.clone(),
        );
        let help = "Longest packet that comes through to a peer to which packets of full size are lost (an MTU black \
                    hole); absent for all others";
        registry.register_labelled(
            "peer_mtu_black_hole_bytes",
            help,
            &["peer"],
            metrics.mtu_hole.clone(),
        );
        let help = "Time since the last completed handshake with a peer";
        registry.register_labelled(
            "peer_handshake_age_seconds",
            help,
            &["peer"],
            metrics.handshake_age.clone(),
        );
        let help = "Bytes received from a peer since its device was made";
        registry.register_labelled("peer_received_bytes", help, &["peer"], metrics.received.clone());
        let help = "Bytes sent to a peer since its device was made";
        registry.register_labelled("peer_sent_bytes", help, &["peer"], metrics.sent.clone());
        metrics
    }

    /// Shows a new status. Series of peers, paths and reasons that are no more go with it.
    pub fn show(&self, status: &AgentStatus) {
        self.encryption.set(i64::from(status.encryption));
        self.pods.set(number(count(status.pods)));
        self.pod_mtu.set(i64::from(status.pod_mtu));
        self.epoch.set(i64::from(status.epoch.number()));
        self.peers.clear();
        self.mtu_hole.clear();
        self.handshake_age.clear();
        self.received.clear();
        self.sent.clear();
        for peer in &status.peers {
            let path = peer
                .path
                .map_or_else(|| "none".to_owned(), |path| path.to_string());
            self.peers.get_or_create(&PathLabels { path }).inc();
            let labels = PeerLabels {
                peer: peer.node.to_string(),
            };
            if let Some(hole) = peer.mtu_hole {
                self.mtu_hole.get_or_create(&labels).set(i64::from(hole.passes));
            }
            if let Some(age) = peer.handshake_age_seconds {
                self.handshake_age.get_or_create(&labels).set(number(age));
            }
            self.received.get_or_create(&labels).set(number(peer.rx_bytes));
            self.sent.get_or_create(&labels).set(number(peer.tx_bytes));
        }
        self.refusals.clear();
        for refusal in &status.refusals {
            self.refusals
                .get_or_create(&CodeLabels {
                    code: refusal.code.clone(),
                })
                .inc();
        }
        self.dropped.clear();
        for drop in &status.drops {
            self.dropped
                .get_or_create(&ReasonLabels {
                    reason: drop.reason.clone(),
                })
                .set(number(drop.packets));
        }
        self.device_dropped.clear();
        for lane in &status.lanes {
            for (reason, packets) in &lane.drops {
                let labels = DeviceDropLabels {
                    interface: lane.interface.clone(),
                    reason: reason.clone(),
                };
                self.device_dropped.get_or_create(&labels).set(number(*packets));
            }
        }
    }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
