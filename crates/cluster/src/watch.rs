//! The watches: Node, the own node's Pods, and Mesh, each on its own.
//!
//! One watch that fails (no permission, kind not installed, server gone) stops none of the others, and what it has
//! shown so far holds. Objects become values of the model as they arrive; nothing else of them is kept. Readers get the
//! latest [`Snapshot`], never a queue of events.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as k8s;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use warren_model::NodeName;

use crate::decode::{decode_node, decode_pod};
use crate::follower::{Follower, Shared};
use crate::mesh_in_force::MeshObject;
use crate::mesh_resource::Mesh;
use crate::policy::{PolicySnapshot, followers};
use crate::snapshot::Snapshot;
use crate::watch_health::{WatchHealth, WatchKind};

/// How long the server serves one watch before it closes it and the next begins, where the last ended and so without a
/// list. It bounds for how long a link that hangs goes unnoticed (see [`crate::connection`]), and it costs the server a request
/// for each of eleven watches: of 5,000 nodes 2,750 a second, each answered from the server's watch cache.
pub const WATCH_TIMEOUT: Duration = Duration::from_secs(20);

/// The running watches; dropping this ends them.
#[derive(Debug)]
pub struct Watches {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Watches {
    /// Starts watching on behalf of that node. Never fails: what cannot be watched is tried again until it can.
    pub fn start(client: Client, node_name: &NodeName) -> Self {
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        let config =
            watcher::Config::default().timeout(u32::try_from(WATCH_TIMEOUT.as_secs()).unwrap_or(u32::MAX));
        let nodes = Follower {
            kind: WatchKind::Nodes,
            api: Api::<k8s::Node>::all(client.clone()),
            config: config.clone(),
            decode: |node| (node.name_any(), decode_node(&node)),
            contents: |state| &mut state.nodes,
            shared: Arc::clone(&shared),
        };
        let pods = Follower {
            kind: WatchKind::Pods,
            api: Api::<k8s::Pod>::all(client.clone()),
            config: config.clone().fields(&format!("spec.nodeName={node_name}")),
            decode: |pod| {
                let key = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
                (key, decode_pod(&pod))
            },
            contents: |state| &mut state.pods,
            shared: Arc::clone(&shared),
        };
        let meshes = Follower {
            kind: WatchKind::Mesh,
            api: Api::<DynamicObject>::all_with(client.clone(), &ApiResource::erase::<Mesh>(&())),
            config: config.clone(),
            decode: |object| (object.name_any(), MeshObject::from(object)),
            contents: |state| &mut state.meshes,
            shared: Arc::clone(&shared),
        };
        tasks.spawn(nodes.run());
        tasks.spawn(pods.run());
        tasks.spawn(meshes.run());
        followers::spawn(&mut tasks, &client, &config, &shared);
        Self { shared, tasks }
    }

    /// The latest snapshot and, later, each newer one; those in between may be skipped.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.shared.mesh.subscribe()
    }

    /// The same of what policies are compiled from.
    pub fn subscribe_policy(&self) -> watch::Receiver<Arc<PolicySnapshot>> {
        self.shared.policy.subscribe()
    }

    /// How each watch fares.
    pub fn health(&self) -> HealthReader {
        HealthReader(Arc::clone(&self.shared))
    }

    /// Waits until a watch has ended, which none does by itself: it has panicked, and the snapshot will not follow the
    /// cluster any more. The agent should stop then and be restarted.
    pub async fn ended(&mut self) {
        // `None` (no task is left) is the same bad news.
        let _ended = self.tasks.join_next().await;
    }
}

/// Tells how the watches fare, for as long as anybody asks.
#[derive(Debug, Clone)]
pub struct HealthReader(Arc<Shared>);

impl HealthReader {
    /// How each watch fares now, in the order of [`WatchKind::ALL`].
    pub fn read(&self) -> Vec<WatchHealth> {
        self.0.lock().health.to_vec()
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
