//! How the watches fare, read from them at each scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use warren_cluster::{HealthReader, WatchHealth};
use warren_telemetry::{MetricDescription, MetricKind, Registry};

/// One metric of each watch.
struct PerWatch {
    name: &'static str,
    kind: MetricKind,
    help: &'static str,
    of: fn(&WatchHealth) -> u64,
}

const METRICS: [PerWatch; 3] = [
    PerWatch {
        name: "watch_lists",
        kind: MetricKind::Counter,
        help: "Times that all objects of a kind were listed; more than one: a watch was lost and begun anew",
        of: |health| health.lists_total,
    },
    PerWatch {
        name: "watch_errors",
        kind: MetricKind::Counter,
        help: "Lists and watches of a kind that failed",
        of: |health| health.errors_total,
    },
    PerWatch {
        name: "watch_failing",
        kind: MetricKind::Gauge,
        help: "1 while a kind cannot be watched and what was seen of it last holds, else 0",
        of: |health| u64::from(health.failing_since.is_some()),
    },
];

/// Registers the metrics of these watches; without any, for the documentation, only their descriptions are of use.
pub fn register_watches(registry: &mut Registry, watches: Option<HealthReader>) {
    let descriptions = METRICS.map(|metric| {
        let suffix = if metric.kind == MetricKind::Counter {
            "_total"
        } else {
            ""
        };
        MetricDescription {
            name: format!("warren_{}{suffix}", metric.name),
            kind: metric.kind,
            help: format!("{}.", metric.help),
            labels: vec!["kind".to_owned()],
        }
    });
    registry.register_collector(Box::new(WatchCollector(watches)), descriptions);
}

#[derive(Debug)]
struct WatchCollector(Option<HealthReader>);

impl Collector for WatchCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let watches = self.0.as_ref().map(HealthReader::read).unwrap_or_default();
        for metric in &METRICS {
            let is_counter = metric.kind == MetricKind::Counter;
            let shown = if is_counter {
                MetricType::Counter
            } else {
                MetricType::Gauge
            };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, shown)?;
            for health in &watches {
                let labels = [("kind", health.kind.to_string())];
                let series = family.encode_family(&labels)?;
                let value = (metric.of)(health);
                if is_counter {
                    ConstCounter::new(value).encode(series)?;
                } else {
                    ConstGauge::new(value).encode(series)?;
                }
            }
        }
        Ok(())
    }
}
