//! What is counted of the keys that other nodes publish.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use warren_model::status::KeyChange;
use warren_telemetry::Registry;

/// Metrics of other nodes' keys.
#[derive(Debug, Clone)]
pub struct KeyMetrics {
    changes: Family<OutcomeLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

impl KeyMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            changes: Family::default(),
        };
        registry.register_labelled(
            "keys_changed_outside_rotation",
            "Keys of other nodes seen to change outside a rotation: taken, or held back by spec.keys.pinning",
            &["outcome"],
            metrics.changes.clone(),
        );
        metrics
    }

    /// Counts a change that was not seen before.
    pub fn changed(&self, change: &KeyChange) {
        let outcome = if change.in_force { "taken" } else { "held" };
        self.changes.get_or_create(&OutcomeLabels { outcome }).inc();
    }
}
