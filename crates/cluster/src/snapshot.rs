//! The cluster as this node's watches show it, at one moment.

use std::collections::BTreeMap;

use warren_model::{Mesh, Node, NodeName, Pod, Refusal};

use crate::mesh_resource::MeshStatus;

/// Everything an agent acts on that comes from the API. It holds no event: two that are equal ask for the same.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// All nodes.
    pub nodes: BTreeMap<NodeName, Node>,
    /// The configuration that holds.
    pub mesh: Mesh,
    /// The object `Mesh/default`, if there is one: where the mesh's status goes.
    pub mesh_object: Option<ObservedMesh>,
    /// The uid of every Mesh there is, by name, also of those that do not count.
    pub mesh_uids: BTreeMap<String, String>,
    /// The uids of policies, network sets and host endpoints of which something is refused, by what the refusals call them.
    pub policy_uids: BTreeMap<String, String>,
    /// The pods of this node, by namespace and name.
    pub pods: Vec<Pod>,
    /// Objects, or parts of them, that are not acted on.
    pub refusals: Vec<Refusal>,
    /// Which kinds have been listed.
    pub synced: Synced,
}

impl Snapshot {
    /// Whether every kind has been listed at least once. Before that, what is not here may well exist: nothing may be
    /// removed on the strength of it.
    pub fn is_synced(&self) -> bool {
        let Synced { nodes, pods, mesh } = self.synced;
        nodes && pods && mesh
    }
}

/// Which kinds have been listed at least once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Synced {
    /// Nodes.
    pub nodes: bool,
    /// Pods of this node.
    pub pods: bool,
    /// The Mesh, or the fact that the server does not know the kind.
    pub mesh: bool,
}

/// What of the object `Mesh/default` matters beside its spec.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedMesh {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`: a write that is made from this view is bound to it.
    pub version: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// What is wrong with `spec`, one a field; empty: it is in force.
    pub problems: Vec<String>,
    /// `status`, as last written.
    pub status: Option<MeshStatus>,
}
