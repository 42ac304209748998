//! A pod of this node.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Namespace and name of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodName {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What Warren uses of a Kubernetes Pod on its own node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: PodName,
    /// `metadata.uid`.
    pub uid: String,
    /// `status.podIPs`.
    pub ips: Vec<IpAddr>,
    /// `spec.hostNetwork`: it has no address of its own.
    pub host_network: bool,
    /// Phase Succeeded or Failed: its address may be given away.
    pub finished: bool,
}
