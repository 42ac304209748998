//! What is recorded of the attachments, in memory and as the file has it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use warren_ipam::{AllocateError, Allocations, Owner, Pool, ReserveError};
use warren_plan::Mac;

/// The version of the file's format.
pub(super) const VERSION: u32 = 1;

/// What is known of one attachment besides its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Host side of its veth.
    pub interface: String,
    /// MAC of the pod's side.
    pub mac: [u8; 6],
    /// Path of the pod's network namespace, as the runtime gave it.
    pub netns: String,
    /// `namespace/name` of the pod, where the runtime said.
    pub pod: Option<String>,
    /// Name of the CNI network that the runtime attached it to. None if the record was made anew from its veth, which
    /// does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

impl Record {
    /// MAC of the pod's side.
    pub fn mac(&self) -> Mac {
        Mac(self.mac)
    }
}

/// What the file holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Contents {
    version: u32,
    attachments: Vec<Stored>,
    #[serde(flatten)]
    allocations: Allocations,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    owner: Owner,
    #[serde(flatten)]
    record: Record,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            version: VERSION,
            attachments: Vec::new(),
            allocations: Allocations::default(),
        }
    }
}

impl Contents {
    /// What is known of one attachment, and its addresses.
    pub(super) fn get(&self, owner: &Owner) -> Option<(&Record, Vec<IpAddr>)> {
        let stored = self.attachments.iter().find(|stored| stored.owner == *owner)?;
        Some((
            &stored.record,
            self.allocations.addresses(owner).unwrap_or_default(),
        ))
    }

    /// All attachments with their addresses.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Owner, &Record, Vec<IpAddr>)> {
        self.attachments.iter().map(|stored| {
            let addresses = self.allocations.addresses(&stored.owner).unwrap_or_default();
            (&stored.owner, &stored.record, addresses)
        })
    }

    /// Who holds which address.
    pub(super) fn allocations(&self) -> &Allocations {
        &self.allocations
    }

    /// Gives an attachment its addresses, the same ones as before where it has some, and records it.
    pub(super) fn add(
        &mut self,
        owner: &Owner,
        record: Record,
        pool: &Pool,
    ) -> Result<Vec<IpAddr>, AllocateError> {
        let addresses = self.allocations.allocate(pool, owner)?;
        self.set(owner, record);
        Ok(addresses)
    }

    /// Records an attachment that was found with its addresses.
    pub(super) fn restore(
        &mut self,
        owner: &Owner,
        record: Record,
        addresses: &[IpAddr],
    ) -> Result<(), ReserveError> {
        self.allocations.reserve(owner, addresses.iter().copied())?;
        self.set(owner, record);
        Ok(())
    }

    /// Forgets an attachment and frees its addresses. Returns whether there was anything to forget.
    pub(super) fn remove(&mut self, owner: &Owner) -> bool {
        let before = self.attachments.len();
        self.attachments.retain(|stored| stored.owner != *owner);
        let held = self.allocations.release(owner);
        !held.is_empty() || before != self.attachments.len()
    }

    fn set(&mut self, owner: &Owner, record: Record) {
        self.attachments.retain(|stored| stored.owner != *owner);
        self.attachments.push(Stored {
            owner: owner.clone(),
            record,
        });
    }
}
