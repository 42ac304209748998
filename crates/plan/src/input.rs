//! What a plan is made from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use warren_model::status::MtuHole;
use warren_model::{Epoch, Mesh, Node, NodeName, PathKind, PublicKey, Refusal};

use crate::in_force::InForce;
use crate::lane::Endpoints;
use crate::state::Mac;

/// The cluster as the watches show it now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cluster {
    /// All nodes, this one among them, by name.
    pub nodes: BTreeMap<NodeName, Node>,
    /// The mesh's configuration.
    pub mesh: Mesh,
    /// What was refused on decoding; carried through to the result.
    pub refusals: Vec<Refusal>,
}

/// This node as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    /// Its name.
    pub node: NodeName,
    /// Its keys, one an epoch.
    pub keys: BTreeMap<Epoch, PublicKey>,
    /// The epoch that it says it has settled in; `None`: the oldest of its keys'.
    pub settled: Option<Epoch>,
    /// The kinds of path it can send and receive on.
    pub can: BTreeSet<PathKind>,
    /// The pods attached here whose veth exists.
    pub attachments: Vec<Attachment>,
    /// Addresses of the interfaces that are not ours.
    pub underlay: Vec<UnderlayAddress>,
    /// Routes that are not ours: by which of them a peer's address is reached tells what the way to it takes.
    pub underlay_routes: Vec<UnderlayRoute>,
    /// The peers on whose paths packets of full size were found to be lost.
    pub mtu_holes: BTreeMap<NodeName, MtuHole>,
    /// Pod networks of other nodes that were known before, of nodes that may be gone by now. Pods may still live there, or
    /// be sent to, so with encryption on they stay sealed.
    pub networks_before: BTreeSet<IpNet>,
    /// The endpoints that the plan before this one wanted: [`Desired::endpoints`](crate::Desired::endpoints).
    pub endpoints_before: Endpoints,
    /// How it reaches its peers now.
    pub in_force: InForce,
}

/// One pod attached to this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The pod as `namespace/name`, or its container where the runtime did not say.
    pub pod: String,
    /// Host side of its veth.
    pub interface: String,
    /// MAC of the pod's side.
    pub mac: Mac,
    /// Its addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
}

/// One route that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderlayRoute {
    /// Where it leads.
    pub net: IpNet,
    /// Its metric: of two routes to one network the one with the lower counts.
    pub metric: u32,
    /// What it takes, bytes: the MTU of its interface, or its own where that is smaller.
    pub mtu: u32,
}

/// One address of an interface that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderlayAddress {
    /// The interface.
    pub interface: String,
    /// The address with the length of its subnet's prefix.
    pub net: IpNet,
    /// The interface's MTU, bytes.
    pub mtu: u32,
}
