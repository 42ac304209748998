//! How the watches fare, in numbers.

use std::fmt;
use std::time::Instant;

/// The kinds of object that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WatchKind {
    /// All nodes.
    Nodes,
    /// The pods of this node.
    Pods,
    /// Mesh objects.
    Mesh,
    /// The pods of all nodes, as far as policy speaks of them.
    AllPods,
    /// Namespaces.
    Namespaces,
    /// NetworkPolicies of `networking.k8s.io`.
    KubernetesPolicies,
    /// NetworkPolicies of `warren-mesh.io`.
    WarrenPolicies,
    /// GlobalNetworkPolicies.
    GlobalPolicies,
    /// NetworkSets.
    NetworkSets,
    /// GlobalNetworkSets.
    GlobalNetworkSets,
    /// HostEndpoints.
    HostEndpoints,
}

/// Who has to know of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Concerns {
    /// Who plans the node.
    Mesh,
    /// Who enforces policy: a pod anywhere.
    Pods,
    /// Who enforces policy: a policy, or something that it speaks of.
    Policy,
}

impl WatchKind {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::Nodes,
        Self::Pods,
        Self::Mesh,
        Self::AllPods,
        Self::Namespaces,
        Self::KubernetesPolicies,
        Self::WarrenPolicies,
        Self::GlobalPolicies,
        Self::NetworkSets,
        Self::GlobalNetworkSets,
        Self::HostEndpoints,
    ];

    /// Whether a server may not know the kind, which is as good as no object of it.
    pub(crate) fn is_ours(self) -> bool {
        match self {
            Self::Mesh
            | Self::WarrenPolicies
            | Self::GlobalPolicies
            | Self::NetworkSets
            | Self::GlobalNetworkSets
            | Self::HostEndpoints => true,
            Self::Nodes | Self::Pods | Self::AllPods | Self::Namespaces | Self::KubernetesPolicies => false,
        }
    }

    /// Whether it is watched for network policy, and for nothing else.
    pub fn is_of_policy(self) -> bool {
        self.concerns() != Concerns::Mesh
    }

    pub(crate) fn concerns(self) -> Concerns {
        match self {
            Self::Nodes | Self::Pods | Self::Mesh => Concerns::Mesh,
            Self::AllPods => Concerns::Pods,
            Self::Namespaces
            | Self::KubernetesPolicies
            | Self::WarrenPolicies
            | Self::GlobalPolicies
            | Self::NetworkSets
            | Self::GlobalNetworkSets
            | Self::HostEndpoints => Concerns::Policy,
        }
    }
}

impl fmt::Display for WatchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nodes => "nodes",
            Self::Pods => "pods",
            Self::Mesh => "meshes",
            Self::AllPods => "all-pods",
            Self::Namespaces => "namespaces",
            Self::KubernetesPolicies => "networkpolicies.networking.k8s.io",
            Self::WarrenPolicies => "networkpolicies",
            Self::GlobalPolicies => "globalnetworkpolicies",
            Self::NetworkSets => "networksets",
            Self::GlobalNetworkSets => "globalnetworksets",
            Self::HostEndpoints => "hostendpoints",
        })
    }
}

/// How one watch fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchHealth {
    /// Which.
    pub kind: WatchKind,
    /// Whether the kind has been listed at least once.
    pub synced: bool,
    /// How often all objects of the kind were listed; more than 1: the watch was lost and begun anew.
    pub lists_total: u64,
    /// Objects added, changed and deleted after the first list.
    pub events_total: u64,
    /// Lists and watches that failed.
    pub errors_total: u64,
    /// What the last of them said.
    pub last_error: Option<String>,
    /// Since when the server cannot be watched; `None`: all is well as far as one can tell.
    pub failing_since: Option<Instant>,
}

impl WatchHealth {
    /// Of a watch that has not been tried.
    pub fn new(kind: WatchKind) -> Self {
        Self {
            kind,
            synced: false,
            lists_total: 0,
            events_total: 0,
            errors_total: 0,
            last_error: None,
            failing_since: None,
        }
    }
}
