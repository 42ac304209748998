//! Telling the cluster about this node: its annotation.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use warren_cluster::client::{ClientConfig, ClientError};
use warren_cluster::publish::{needs_publish, publish};
use warren_cluster::write::{Retry, WriteError};
use warren_model::NodeName;
use warren_plan::Action;
use warren_telemetry::{Drain, Gate};

use crate::view::View;

/// The pause after a failed write, doubled each time up to [`LAST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest pause after a failed write.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// How long the watch is given to show what was written, before the same is written again.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

/// The shortest time between two writes of the same, where what was shown is gone again: somebody else writes there too.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Writes this node's annotation.
#[derive(Debug)]
pub struct Publishing {
    /// This node.
    pub node: NodeName,
    /// Credentials that may write this node, and no other. Read anew for each write: the kubelet replaces them.
    pub credentials: ClientConfig,
    /// Opened once the API shows what this node has to say.
    pub published: Gate,
}

impl Publishing {
    /// Writes what differs from what the API shows, and nothing else, until the drain is signalled.
    pub async fn run(self, mut views: watch::Receiver<Arc<View>>, drain: Drain) {
        let mut pause = FIRST_RETRY;
        let mut written = Last::default();
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            let mut held_back = None;
            let wait = match self.write(&view, &mut written).await {
                Ok(wait) => {
                    held_back = wait;
                    None
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot write to the API");
                    error.wait(pause)
                }
            };
            let changed = views.changed();
            match wait {
                None => {
                    pause = FIRST_RETRY;
                    tokio::select! {
                        () = drain.drained() => return,
                        changed = changed => if changed.is_err() { return },
                        () = sleep(held_back.unwrap_or_default()), if held_back.is_some() => {}
                    }
                }
                Some(wait) => {
                    pause = (pause * 2).min(LAST_RETRY);
                    tokio::select! {
                        () = drain.drained() => return,
                        () = sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// Returns for how long a write is held back, if one is.
    async fn write(&self, view: &View, written: &mut Last) -> Result<Option<Duration>, PublishError> {
        let mut held_back = None;
        let Some(desired) = &view.desired else {
            return Ok(None);
        };
        let own = view.snapshot.nodes.get(&self.node);
        // Peers send as soon as they know the key: it is told only once the lane it belongs to stands.
        let stands = |link: &str| view.observed.links.get(link).is_some_and(|link| link.up);
        let lanes_stand = desired.lanes.keys().all(|lane| stands(lane.interface()));
        // And they send by a path as soon as they are told that it is taken.
        let is_done = !view.failures.iter().any(|failure| carries(&failure.step.action));
        match (&desired.announcement, own) {
            (Some(announcement), Some(own)) if !needs_publish(Some(own), announcement) => {
                self.published.open();
                written.shown();
            }
            (Some(announcement), Some(own)) if lanes_stand && is_done => {
                let content = format!("{} {}", own.uid, announcement.to_json());
                held_back = written.held_back(&content);
                if held_back.is_none() {
                    self.publish(own, announcement).await?;
                    written.note(content);
                }
            }
            _ => {}
        }
        Ok(held_back)
    }

    async fn publish(
        &self,
        own: &warren_model::Node,
        announcement: &warren_model::Announcement,
    ) -> Result<(), PublishError> {
        let written = match self.credentials.build().await {
            Ok(client) => publish(&client, own, announcement)
                .await
                .map_err(PublishError::from),
            Err(error) => Err(error.into()),
        };
        match &written {
            Ok(()) => {
                tracing::info!(settled = %announcement.settled, keys = announcement.keys.len(), "published");
                self.published.open();
            }
            Err(error) => self.published.close(error.to_string()),
        }
        written
    }
}

/// Whether what is published of the paths is not true while this is not done.
fn carries(action: &Action) -> bool {
    match action {
        Action::InstallGuard(_)
        | Action::CreateLane(..)
        | Action::CreateVxlan(..)
        | Action::CreateIpip(..)
        | Action::SetUp(_)
        | Action::SetRoute(..) => true,
        Action::SetMtu(..)
        | Action::ConfigureLane(..)
        | Action::SetSysctl(..)
        | Action::AddAddress(..)
        | Action::SetNeighbour(..)
        | Action::SetFdb(..)
        | Action::RemoveRoute(_)
        | Action::RemoveFdb(_)
        | Action::RemoveNeighbour(..)
        | Action::RemoveAddress(..)
        | Action::RemoveLink(..) => false,
    }
}

/// What was written last, which the watch may not show yet.
#[derive(Debug, Default)]
struct Last {
    write: Option<(String, Instant)>,
    /// Whether the watch has shown it since.
    was_shown: bool,
}

impl Last {
    /// For how long this content is not to be written; `None`: it is due. Another content than the last always is.
    fn held_back(&self, content: &str) -> Option<Duration> {
        let (_, at) = self.write.as_ref().filter(|(last, _)| last == content)?;
        let pause = if self.was_shown { AGAIN_AFTER } else { SHOWN_WITHIN };
        let rest = pause.saturating_sub(at.elapsed());
        (!rest.is_zero()).then_some(rest)
    }

    fn note(&mut self, content: String) {
        self.write = Some((content, Instant::now()));
        self.was_shown = false;
    }

    fn shown(&mut self) {
        self.was_shown = true;
    }
}

#[derive(Debug, Error)]
enum PublishError {
    #[error(transparent)]
    Credentials(#[from] ClientError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl PublishError {
    /// How long to wait before trying again; `None`: until something changes.
    fn wait(&self, pause: Duration) -> Option<Duration> {
        match self {
            Self::Credentials(_) => Some(pause),
            Self::Write(error) => match error.retry() {
                Retry::OnChange => None,
                Retry::Reconnect | Retry::Later => Some(pause),
                Retry::After(wait) => Some(wait),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_written_again_sooner_where_it_was_shown_and_is_gone() {
        let mut last = Last::default();
        assert_eq!(last.held_back("a"), None);
        last.note("a".to_owned());
        assert!(
            last.held_back("a")
                .is_some_and(|rest| rest > AGAIN_AFTER && rest <= SHOWN_WITHIN)
        );
        assert_eq!(last.held_back("b"), None);
        last.shown();
        assert!(last.held_back("a").is_none_or(|rest| rest <= AGAIN_AFTER));
    }
}
