//! What is counted of network policy.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use warren_kernel::DropCounter;
use warren_kernel::policy::{Ruling, Written};
use warren_policy::Decision;
use warren_telemetry::Registry;

use super::{count, number};

/// Metrics of network policy.
#[derive(Debug, Clone)]
pub struct PolicyMetrics {
    duration: Histogram,
    writes: Family<HowLabels, Counter>,
    failures: Counter,
    connections_cut: Counter,
    denied: Family<RuleLabels, Gauge>,
    allowed: Family<RuleLabels, Gauge>,
    denied_logged: Counter,
    denied_unlogged: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HowLabels {
    how: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabels {
    policy: String,
    rule: String,
}

impl PolicyMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            duration: Histogram::new(exponential_buckets(0.001, 2.0, 12)),
            writes: Family::default(),
            failures: Counter::default(),
            connections_cut: Counter::default(),
            denied: Family::default(),
            allowed: Family::default(),
            denied_logged: Counter::default(),
            denied_unlogged: Counter::default(),
        };
        registry.register(
            "policy_update_duration_seconds",
            "Time from the reason to look at policy until it is in force in the kernel",
            metrics.duration.clone(),
        );
        let help = "Changes of the nft table of policy: by what differs, or all of it";
        registry.register_labelled("policy_writes", help, &["how"], metrics.writes.clone());
        registry.register(
            "policy_update_failures",
            "Updates of policy that did not reach the kernel; what was in force before stays so",
            metrics.failures.clone(),
        );
        registry.register(
            "policy_connections_cut",
            "Connections that were cut because policy forbids them since they were opened",
            metrics.connections_cut.clone(),
        );
        let help = "Packets that policy has denied since its table was made, by the policy and its rule";
        registry.register_labelled(
            "policy_denied_packets",
            help,
            &["policy", "rule"],
            metrics.denied.clone(),
        );
        let help = "Packets that a rule of policy has let through since its table was made: the first of each connection, because the \
                    others do not meet policy any more";
        registry.register_labelled(
            "policy_allowed_packets",
            help,
            &["policy", "rule"],
            metrics.allowed.clone(),
        );
        registry.register(
            "policy_denied_logged_flows",
            "Lines that were written for denied flows; none unless spec.policy.logDenied is on",
            metrics.denied_logged.clone(),
        );
        registry.register(
            "policy_denied_unlogged_packets",
            "Denied packets without a line of their own while spec.policy.logDenied is on: more of a flow that has one, beyond the limits, or lost",
            metrics.denied_unlogged.clone(),
        );
        metrics
    }

    /// Counts an update.
    pub fn updated(&self, took: Duration) {
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts what an update has written.
    pub fn wrote(&self, written: Written) {
        let how = match written {
            Written::Nothing => return,
            Written::Difference(_) => "difference",
            Written::Whole => "whole",
        };
        self.writes.get_or_create(&HowLabels { how }).inc();
    }

    /// Counts an update that failed.
    pub fn failed(&self) {
        self.failures.inc();
    }

    /// Counts connections that were cut.
    pub fn cut(&self, connections: usize) {
        self.connections_cut.inc_by(count(connections));
    }

    /// Counts a line for a denied flow.
    pub fn logged(&self) {
        self.denied_logged.inc();
    }

    /// Counts denied packets that have no line.
    pub fn unlogged(&self, packets: u64) {
        self.denied_unlogged.inc_by(packets);
    }

    /// Shows what was denied and what was allowed. Series of rules that are no more go; a rule that has allowed nothing has none.
    pub fn counted(&self, rulings: &BTreeMap<String, Ruling>, counters: &[DropCounter]) {
        self.denied.clear();
        self.allowed.clear();
        for counter in counters {
            let Some(ruling) = rulings.get(&counter.reason) else {
                continue;
            };
            let series = match ruling.decision {
                Decision::Deny => &self.denied,
                Decision::Allow if counter.packets > 0 => &self.allowed,
                Decision::Allow => continue,
            };
            let labels = RuleLabels {
                policy: ruling.policy.clone(),
                rule: ruling.rule.clone(),
            };
            series.get_or_create(&labels).set(number(counter.packets));
        }
    }
}
