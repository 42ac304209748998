//! A node of the cluster, as the agents of all nodes see it.

use std::net::IpAddr;

use crate::announcement::{Announcement, AnnouncementError};
use crate::cidr::PodCidr;
use crate::name::NodeName;

/// What Warren uses of a Kubernetes Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: NodeName,
    /// `metadata.uid`; together with `created` it decides who is older.
    pub uid: String,
    /// `metadata.creationTimestamp`, seconds since 1970.
    pub created: i64,
    /// `spec.podCIDRs`, the control plane's word on which pod addresses live there. Empty until it has spoken.
    pub pod_cidrs: Vec<PodCidr>,
    /// `status.addresses` of type InternalIP, in the order given.
    pub internal_ips: Vec<IpAddr>,
    /// What its agent publishes; `None` until it has published anything.
    pub announcement: Option<Result<Announcement, AnnouncementError>>,
    /// Whether its condition Ready is not False or Unknown.
    pub ready: bool,
}

impl Node {
    /// The key by which the older of two nodes is told: creation time, then uid, then name.
    pub fn seniority(&self) -> (i64, &str, &NodeName) {
        (self.created, &self.uid, &self.name)
    }
}
