//! The metrics registry.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Metric;
use serde::Serialize;

/// The media type of [`Registry::encode`]'s text (OpenMetrics 1.0.0, "Protocol Negotiation").
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where the parts of a program register their metrics, once, when they are built. All names begin with `warren_`.
///
/// It remembers a description of each metric, because the reference documentation is made from them and a family
/// without a series leaves no trace in the encoded text.
#[derive(Debug)]
pub struct Registry {
    inner: prometheus_client::registry::Registry,
    described: Vec<MetricDescription>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self {
            inner: prometheus_client::registry::Registry::with_prefix("warren"),
            described: Vec::new(),
        }
    }

    /// Registers a metric without labels. `name` has neither the prefix `warren_` nor a counter's `_total`: both are
    /// added. It ends in the base unit, if it has one: `cni_request_duration_seconds`.
    ///
    /// # Panics
    /// When the name is not one or is taken: both are mistakes in our code, found at the first start.
    pub fn register(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.register_labelled(name, help, &[], metric);
    }

    /// Registers a family whose series bear these labels. The labels go into the documentation; those in the encoded
    /// text come from the family's own label set.
    ///
    /// # Panics
    /// As [`Registry::register`].
    pub fn register_labelled(&mut self, name: &str, help: &str, labels: &[&str], metric: impl Metric) {
        let kind = MetricKind::from(metric.metric_type());
        // prometheus-client ends each help text with a full stop of its own.
        let help = help.trim_end_matches('.');
        assert!(
            is_name(name) && !name.ends_with("_total") && !name.starts_with("warren_"),
            "{name:?} is not a metric name without prefix and suffix"
        );
        self.describe_new(MetricDescription {
            name: format!("warren_{name}{}", kind.suffix()),
            kind,
            help: format!("{help}."),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        });
        self.inner.register(name, help, metric);
    }

    /// Registers a collector, which makes its metrics at each scrape, with the descriptions of what it makes (their
    /// names as they appear in the encoded text, `warren_` and `_total` included).
    ///
    /// # Panics
    /// As [`Registry::register`].
    pub fn register_collector(
        &mut self,
        collector: Box<dyn Collector>,
        descriptions: impl IntoIterator<Item = MetricDescription>,
    ) {
        for description in descriptions {
            self.describe_new(description);
        }
        self.inner.register_collector(collector);
    }

    /// All metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// When a metric cannot be written; writing to memory itself does not fail.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut encoded = String::new();
        text::encode(&mut encoded, &self.inner)?;
        Ok(encoded)
    }

    /// What is registered, sorted by name.
    pub fn describe(&self) -> Vec<MetricDescription> {
        let mut described = self.described.clone();
        described.sort_by(|a, b| a.name.cmp(&b.name));
        described
    }

    fn describe_new(&mut self, description: MetricDescription) {
        let taken = self.described.iter().any(|other| other.name == description.name);
        assert!(!taken, "the metric {} is registered twice", description.name);
        self.described.push(description);
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

/// One metric, as the reference documentation shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MetricDescription {
    /// The name to query for, with prefix and suffix. A histogram adds `_bucket`, `_sum` and `_count`.
    pub name: String,
    /// What its values mean.
    pub kind: MetricKind,
    /// The help text, one sentence.
    pub help: String,
    /// The names of its labels, empty if it has none.
    pub labels: Vec<String>,
}

/// The kinds of metrics of OpenMetrics that we have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricKind {
    /// Only ever rises, until a restart.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts of observations by size.
    Histogram,
    /// The constant 1, with what is to be said in its labels.
    Info,
    /// None of these.
    Unknown,
}

impl MetricKind {
    /// What the text format appends to the name of such a metric.
    fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Info => "_info",
            Self::Gauge | Self::Histogram | Self::Unknown => "",
        }
    }
}

impl From<MetricType> for MetricKind {
    fn from(kind: MetricType) -> Self {
        match kind {
            MetricType::Counter => Self::Counter,
            MetricType::Gauge => Self::Gauge,
            MetricType::Histogram => Self::Histogram,
            MetricType::Info => Self::Info,
            MetricType::Unknown => Self::Unknown,
        }
    }
}

/// Snake case: the subset of OpenMetrics' names that ours keep to.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::metrics::info::Info;

    use super::*;

    #[test]
    fn a_metric_is_described_by_the_name_it_is_encoded_with() {
        let mut registry = Registry::new();
        registry.register("peers", "Peers known", Gauge::<i64>::default());
        registry.register("plan_passes", "Passes of the loop.", Counter::<u64>::default());
        registry.register("build", "Version of the program", Info::new([("version", "1")]));
        registry.register("apply_duration_seconds", "Time to apply", Histogram::new([1.0]));

        let text = registry.encode().unwrap();
        for description in registry.describe() {
            let sample = match description.kind {
                MetricKind::Histogram => format!("\n{}_count ", description.name),
                MetricKind::Info => format!("\n{}{{version=\"1\"}} ", description.name),
                MetricKind::Counter | MetricKind::Gauge | MetricKind::Unknown => {
                    format!("\n{} ", description.name)
                }
            };
            assert!(text.contains(&sample), "no sample of {description:?} in:\n{text}");
            assert!(text.contains(&format!(" {}\n", description.help)), "{text}");
        }
        assert!(
            text.contains("# HELP warren_plan_passes Passes of the loop.\n"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_family_without_a_series_is_described_though_it_is_not_encoded() {
        let drops = Family::<Vec<(String, String)>, Counter>::default();
        let mut registry = Registry::new();
        registry.register_labelled("dropped_packets", "Packets dropped", &["reason"], drops.clone());
        assert_eq!(registry.encode().unwrap(), "# EOF\n");
        assert_eq!(
            registry.describe(),
            [MetricDescription {
                name: "warren_dropped_packets_total".to_owned(),
                kind: MetricKind::Counter,
                help: "Packets dropped.".to_owned(),
                labels: vec!["reason".to_owned()],
            }]
        );
        drops
            .get_or_create(&vec![("reason".to_owned(), "plaintext".to_owned())])
            .inc();
        let text = registry.encode().unwrap();
        assert!(
            text.contains("warren_dropped_packets_total{reason=\"plaintext\"} 1\n"),
            "{text}"
        );
    }

    #[test]
    #[should_panic(expected = "registered twice")]
    fn a_name_is_given_once() {
        let mut registry = Registry::new();
        registry.register("peers", "Peers known", Gauge::<i64>::default());
        registry.register("peers", "Peers known", Gauge::<i64>::default());
    }

    #[test]
    #[should_panic(expected = "without prefix and suffix")]
    fn a_counter_does_not_bring_its_own_suffix() {
        Registry::new().register("passes_total", "Passes", Counter::<u64>::default());
    }
}
