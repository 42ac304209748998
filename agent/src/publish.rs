//! Telling the cluster about this node: its annotation, and, on the one node whose turn it is, the status of the Mesh.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::sleep;
use warren_cluster::client::{ClientConfig, ClientError};
use warren_cluster::mesh_status::{mesh_status, needs_write, steward, write_status};
use warren_cluster::publish::{needs_publish, publish};
use warren_cluster::write::{Retry, WriteError};
use warren_model::NodeName;
use warren_telemetry::{Drain, Gate};

use crate::view::View;

/// The pause after a failed write, doubled each time up to [`LAST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest pause after a failed write.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Writes this node's annotation and, in turn, the status of the Mesh.
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
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            let wait = match self.write(&view).await {
                Ok(()) => None,
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

    async fn write(&self, view: &View) -> Result<(), PublishError> {
        let Some(desired) = &view.desired else {
            return Ok(());
        };
        let own = view.snapshot.nodes.get(&self.node);
        // Peers send as soon as they know the key: it is told only once the lane it belongs to stands.
        let stands = |link: &str| view.observed.links.get(link).is_some_and(|link| link.up);
        let lanes_stand = desired.lanes.keys().all(|lane| stands(lane.interface()));
        match (&desired.announcement, own) {
            (Some(announcement), Some(own)) if lanes_stand && needs_publish(Some(own), announcement) => {
                let written = self.publish(own, announcement).await;
                if let Err(error) = &written {
                    self.published.close(error.to_string());
                }
                written?;
                tracing::info!(settled = %announcement.settled, keys = announcement.keys.len(), "published");
                self.published.open();
            }
            (Some(announcement), Some(own)) if !needs_publish(Some(own), announcement) => {
                self.published.open()
            }
            _ => {}
        }
        self.write_mesh_status(view).await
    }

    async fn publish(
        &self,
        own: &warren_model::Node,
        announcement: &warren_model::Announcement,
    ) -> Result<(), PublishError> {
        let client = self.credentials.build().await?;
        Ok(publish(&client, own, announcement).await?)
    }

    async fn write_mesh_status(&self, view: &View) -> Result<(), PublishError> {
        let Some(object) = &view.snapshot.mesh_object else {
            return Ok(());
        };
        if steward(&view.snapshot).as_ref() != Some(&self.node) {
            return Ok(());
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let status = mesh_status(&view.snapshot, i64::try_from(now).unwrap_or(i64::MAX));
        if needs_write(object, &status) {
            let client = self.credentials.build().await?;
            write_status(&client, object, &status).await?;
        }
        Ok(())
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
