//! The attachments, shared between the CNI server and the main loop.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use warren_ipam::{AllocateError, Owner, Pool};
use warren_plan::{Attachment, LinkKind, Observed};

use super::contents::Record;
use super::store::{AddError, AttachmentStore, StoreError};

/// The attachments of this node, and which of them a request is busy with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SharedAttachments {
    inner: Arc<Mutex<Inner>>,
    /// Rung whenever a request ends.
    ended: Arc<Notify>,
}

#[derive(Debug)]
struct Inner {
    store: AttachmentStore,
    busy: BTreeSet<Owner>,
}

impl SharedAttachments {
    /// Shares a store.
    pub fn new(store: AttachmentStore) -> Self {
        let inner = Inner {
            store,
            busy: BTreeSet::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            ended: Arc::new(Notify::new()),
        }
    }

    /// Begins a request about one attachment; `None` if another is under way.
    pub fn begin(&self, owner: &Owner) -> Option<Busy> {
        let begun = self.lock().busy.insert(owner.clone());
        begun.then(|| Busy {
            attachments: self.clone(),
            owner: owner.clone(),
        })
    }

    /// Begins a request about one attachment once no other is under way: a runtime that gave up waiting for an ADD may
    /// send DEL while the ADD goes on.
    pub async fn begin_next(&self, owner: &Owner) -> Busy {
        loop {
            let ended = self.ended.notified();
            let mut ended = std::pin::pin!(ended);
            // Registered before looking, so that an end in between is not missed.
            ended.as_mut().enable();
            if let Some(busy) = self.begin(owner) {
                return busy;
            }
            ended.await;
        }
    }

    /// Gives an attachment its addresses and records it.
    pub fn add(&self, owner: &Owner, record: Record, pool: &Pool) -> Result<Vec<IpAddr>, AddError> {
        tokio::task::block_in_place(|| self.lock().store.add(owner, record, pool))
    }

    /// Forgets one attachment and frees its addresses.
    pub fn remove(&self, owner: &Owner) -> Result<(), StoreError> {
        tokio::task::block_in_place(|| self.lock().store.remove([owner]))
    }

    /// Forgets attachments whose veth is gone. One that a request has begun on meanwhile is left to it.
    pub fn release(&self, leaked: &[Owner]) -> Result<(), StoreError> {
        tokio::task::block_in_place(|| {
            let mut inner = self.lock();
            let free: Vec<&Owner> = leaked
                .iter()
                .filter(|owner| !inner.busy.contains(*owner))
                .collect();
            inner.store.remove(free)
        })
    }

    /// What is known of one attachment, and its addresses.
    pub fn get(&self, owner: &Owner) -> Option<(Record, Vec<IpAddr>)> {
        self.lock()
            .store
            .get(owner)
            .map(|(record, addresses)| (record.clone(), addresses))
    }

    /// The attachments to a network, by its name. Those of which the network is not known count as any network's: they
    /// would be nobody's to collect otherwise.
    pub fn owners_in(&self, network: &str) -> Vec<Owner> {
        self.lock()
            .store
            .iter()
            .filter(|(_, record, _)| record.network.as_deref().is_none_or(|it| it == network))
            .map(|(owner, ..)| owner.clone())
            .collect()
    }

    /// Whose each attachment is, as `namespace/name` where that is known, and its addresses.
    pub fn all(&self) -> Vec<(Owner, Option<String>, Vec<IpAddr>)> {
        let inner = self.lock();
        let each = inner.store.iter();
        each.map(|(owner, record, addresses)| (owner.clone(), record.pod.clone(), addresses))
            .collect()
    }

    /// Whether another pod would be given addresses.
    ///
    /// # Errors
    /// What there is none of.
    pub fn room(&self, pool: &Pool) -> Result<(), AllocateError> {
        self.lock().store.allocations().room(pool)
    }

    /// The namespace of the pod that has this veth, and the name of the interface in it.
    pub fn pod_side(&self, interface: &str) -> Option<(String, String)> {
        let inner = self.lock();
        let (owner, record, _) = inner
            .store
            .iter()
            .find(|(_, record, _)| record.interface == interface)?;
        Some((record.netns.clone(), owner.if_name.clone()))
    }

    /// The attachments whose veth is among what was observed, as a plan wants them. Those whose veth is not, and that
    /// no request is busy with, are added to `leaked`.
    pub fn present(&self, observed: &Observed, leaked: &mut Vec<Owner>) -> Vec<Attachment> {
        let inner = self.lock();
        let mut present = Vec::new();
        for (owner, record, addresses) in inner.store.iter() {
            let interface = record.interface.clone();
            if observed
                .links
                .get(&interface)
                .is_some_and(|link| link.kind == LinkKind::Veth)
            {
                let pod = record.pod.clone().unwrap_or_else(|| owner.to_string());
                present.push(Attachment {
                    pod,
                    interface,
                    mac: record.mac(),
                    addresses,
                });
            } else if !inner.busy.contains(owner) {
                leaked.push(owner.clone());
            }
        }
        present
    }

    /// A panic elsewhere leaves the store whole: a change is made in one assignment.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way; dropping it ends it.
#[derive(Debug)]
pub struct Busy {
    attachments: SharedAttachments,
    owner: Owner,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.attachments.lock().busy.remove(&self.owner);
        self.attachments.ended.notify_waiters();
    }
}
