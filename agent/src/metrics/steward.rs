//! What reporting for the whole mesh counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use warren_telemetry::Registry;

use super::count;

/// Metrics of the steward.
#[derive(Debug, Clone)]
pub struct StewardMetrics {
    is_steward: Gauge,
    lease_unusable: Gauge,
    lease_writes: Counter,
    turns: Counter,
    status_writes: Counter,
    events: Family<OutcomeLabels, Counter>,
    held_back: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

impl StewardMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            is_steward: Gauge::default(),
            lease_unusable: Gauge::default(),
            lease_writes: Counter::default(),
            turns: Counter::default(),
            status_writes: Counter::default(),
            events: Family::default(),
            held_back: Counter::default(),
        };
        registry.register(
            "steward",
            "1 if this agent reports for the mesh, as far as it knows, else 0",
            metrics.is_steward.clone(),
        );
        registry.register(
            "steward_lease_unusable",
            "1 while the Lease warren-steward cannot be read or written, so that this agent does not report, else 0",
            metrics.lease_unusable.clone(),
        );
        registry.register(
            "steward_lease_writes",
            "Times that this agent has written the Lease: taken or renewed it",
            metrics.lease_writes.clone(),
        );
        registry.register(
            "steward_turns",
            "Times that this agent has become the one that reports",
            metrics.turns.clone(),
        );
        registry.register(
            "mesh_status_writes",
            "Times that this agent has written the Mesh's status",
            metrics.status_writes.clone(),
        );
        let help = "Events written, by outcome: created, existed (written before) or failed";
        registry.register_labelled("events", help, &["outcome"], metrics.events.clone());
        registry.register(
            "events_held_back",
            "Events that had to wait because there were too many at once",
            metrics.held_back.clone(),
        );
        metrics
    }

    /// How things are.
    pub fn show(&self, is_steward: bool, is_lease_usable: bool) {
        self.is_steward.set(i64::from(is_steward));
        self.lease_unusable.set(i64::from(!is_lease_usable));
    }

    /// Counts a write of the Lease; `is_turn`: another held it before, or nobody.
    pub fn signed(&self, is_turn: bool) {
        self.lease_writes.inc();
        self.turns.inc_by(u64::from(is_turn));
    }

    /// Counts a write of the Mesh's status.
    pub fn status_written(&self) {
        self.status_writes.inc();
    }

    /// Counts an Event.
    pub fn event(&self, outcome: &'static str) {
        self.events.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Counts Events that have to wait.
    pub fn events_held_back(&self, number: usize) {
        self.held_back.inc_by(count(number));
    }
}
