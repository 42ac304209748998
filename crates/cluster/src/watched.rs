//! All that the watches have shown so far, and the snapshot made of it.

use warren_model::mesh::MESH_NAME;
use warren_model::schedule::furthest;
use warren_model::{Node, Pod};

use crate::contents::Contents;
use crate::decode::Decoded;
use crate::mesh_in_force::{MeshInForce, MeshObject};
use crate::policy::watched::WatchedPolicy;
use crate::snapshot::{ObservedMesh, Snapshot, Synced};
use crate::watch_health::{WatchHealth, WatchKind};

/// All that the watches have shown.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) nodes: Contents<Decoded<Node>>,
    pub(crate) pods: Contents<Decoded<Pod>>,
    pub(crate) meshes: Contents<MeshObject>,
    pub(crate) policy: WatchedPolicy,
    in_force: MeshInForce,
    pub(crate) health: [WatchHealth; WatchKind::ALL.len()],
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            nodes: Contents::default(),
            pods: Contents::default(),
            meshes: Contents::default(),
            policy: WatchedPolicy::default(),
            in_force: MeshInForce::default(),
            health: WatchKind::ALL.map(WatchHealth::new),
        }
    }
}

impl Watched {
    pub(crate) fn health(&mut self, kind: WatchKind) -> &mut WatchHealth {
        &mut self.health[kind as usize]
    }

    pub(crate) fn snapshot(&mut self) -> Snapshot {
        // Before the first list there is nothing to look at, and "no object" would not be true.
        let mut refusals = if self.meshes.is_synced() {
            let nodes = self.nodes.current().values();
            let furthest = self
                .nodes
                .is_synced()
                .then(|| furthest(nodes.filter_map(|it| it.value.as_ref())));
            self.in_force.update(self.meshes.current(), furthest)
        } else {
            Vec::new()
        };
        let (nodes, pods, meshes) = (self.nodes.current(), self.pods.current(), self.meshes.current());
        refusals.extend(nodes.values().flat_map(|it| it.refusals.iter().cloned()));
        refusals.extend(pods.values().flat_map(|it| it.refusals.iter().cloned()));
        refusals.extend(self.policy.refused().refusals.iter().cloned());
        let usable = nodes.values().filter_map(|it| it.value.clone());
        Snapshot {
            nodes: usable.map(|node| (node.name.clone(), node)).collect(),
            mesh: self.in_force.mesh().clone(),
            mesh_object: meshes.get(MESH_NAME).map(|object| ObservedMesh {
                uid: object.uid.clone(),
                version: object.version.clone(),
                generation: object.generation,
                problems: self.in_force.problems().to_vec(),
                status: object.status.clone(),
            }),
            mesh_uids: meshes
                .iter()
                .map(|(name, mesh)| (name.clone(), mesh.uid.clone()))
                .collect(),
            policy_uids: self.policy.refused().uids.clone(),
            pods: pods.values().filter_map(|it| it.value.clone()).collect(),
            refusals,
            synced: Synced {
                nodes: self.nodes.is_synced(),
                pods: self.pods.is_synced(),
                mesh: self.meshes.is_synced(),
            },
        }
    }
}
