//! Who addresses are held by.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What an address is held by: one interface of one container, the key of a CNI attachment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// The container's id, as the runtime gave it (`CNI_CONTAINERID`).
    pub container_id: String,
    /// The interface inside the container (`CNI_IFNAME`).
    pub if_name: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.if_name)
    }
}

/// One owner's addresses, as they stand in the durable file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// Who holds them.
    #[serde(flatten)]
    pub owner: Owner,
    /// What is held, IPv4 before IPv6.
    pub addresses: Vec<IpAddr>,
}
