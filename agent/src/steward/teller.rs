//! Writing Events: each once, and not too many.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use warren_cluster::WriteError;
use warren_cluster::client::ClientConfig;
use warren_cluster::events::{Finding, event, post};
use warren_cluster::pace::Pace;
use warren_model::NodeName;

use super::findings::Findings;
use super::pause::{Outlook, Pause};
use super::unix_time;
use crate::metrics::StewardMetrics;

/// Writes an Event for each finding that has none.
#[derive(Debug)]
pub(super) struct Teller {
    node: NodeName,
    credentials: ClientConfig,
    metrics: StewardMetrics,
    pace: Pace,
    pause: Pause,
    /// The keys of findings that have their Event.
    told: BTreeSet<u64>,
    /// Of those that wait for their turn.
    held_back: BTreeSet<u64>,
}

impl Teller {
    /// One that has told nothing yet. What a former process told has its Event, and the server says so.
    pub(super) fn new(node: NodeName, credentials: ClientConfig, metrics: StewardMetrics) -> Self {
        Self {
            node,
            credentials,
            metrics,
            pace: Pace::default(),
            pause: Pause::default(),
            told: BTreeSet::new(),
            held_back: BTreeSet::new(),
        }
    }

    /// A refusal that is gone is news again when it comes back.
    pub(super) fn forget_all_but(&mut self, findings: &Findings) {
        let keys: BTreeSet<_> = findings.all().map(Finding::key).collect();
        self.told.retain(|key| keys.contains(key));
        self.held_back.retain(|key| keys.contains(key));
    }

    /// Writes what is missing, as far as it may; returns when to go on. `start`: where its time begins.
    pub(super) async fn tell<'a>(
        &mut self,
        findings: impl Iterator<Item = &'a Finding>,
        start: Instant,
    ) -> Option<Duration> {
        let missing: Vec<_> = findings.filter(|it| !self.told.contains(&it.key())).collect();
        for (index, finding) in missing.iter().enumerate() {
            if let Some(over) = self.pause.over(start.elapsed()) {
                return Some(over);
            }
            if let Err(later) = self.pace.take(start.elapsed()) {
                let keys = missing[index..].iter().map(|it| it.key());
                let held_back = keys.filter(|key| self.held_back.insert(*key)).count();
                self.metrics.events_held_back(held_back);
                return Some(later);
            }
            match self.write(finding).await {
                Ok(()) => {
                    self.pause.end();
                    self.told.insert(finding.key());
                    self.held_back.remove(&finding.key());
                }
                Err(error) => {
                    self.metrics.event("failed");
                    self.pause
                        .begin(start.elapsed(), Outlook::of_write(&error), &error);
                }
            }
        }
        None
    }

    async fn write(&self, finding: &Finding) -> Result<(), WriteError> {
        let Some(event) = event(finding, &self.node, unix_time()) else {
            return Ok(());
        };
        let client = self.credentials.build().await;
        let client = client.map_err(|error| WriteError::Unavailable {
            object: format!("an Event of {}", finding.refusal.object),
            reason: error.to_string(),
            wait: None,
        })?;
        let posted = post(&client, &event).await?;
        self.metrics.event(posted.as_str());
        Ok(())
    }
}
