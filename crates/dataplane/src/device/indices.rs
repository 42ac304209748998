//! Local indices: which peer and session a message from the network is addressed to.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rand_core::{OsRng, RngCore};

use super::member::Member;
use crate::noise::Session;

/// All local indices in use.
#[derive(Default)]
pub(super) struct Indices(RwLock<HashMap<u32, Holder>>);

/// Whose an index is.
#[derive(Clone)]
pub(super) struct Holder {
    /// The peer.
    pub(super) member: Arc<Member>,
    /// The session; `None` while our initiation has not been answered.
    pub(super) session: Option<Arc<Session>>,
}

impl Indices {
    /// Gives a peer a random index that nobody has.
    pub(super) fn reserve(&self, member: &Arc<Member>) -> u32 {
        let mut holders = self.write();
        loop {
            let index = OsRng.next_u32();
            if let Entry::Vacant(free) = holders.entry(index) {
                free.insert(Holder {
                    member: Arc::clone(member),
                    session: None,
                });
                return index;
            }
        }
    }

    /// Notes the session of an index that its peer still has.
    pub(super) fn establish(&self, session: &Arc<Session>) {
        if let Some(holder) = self.write().get_mut(&session.local_index()) {
            holder.session = Some(Arc::clone(session));
        }
    }

    /// Frees indices.
    pub(super) fn release(&self, indices: &[u32]) {
        if indices.is_empty() {
            return;
        }
        let mut holders = self.write();
        for index in indices {
            holders.remove(index);
        }
    }

    /// Frees all indices of a peer, those too that it does not know of yet.
    pub(super) fn release_all(&self, member: &Arc<Member>) {
        self.write()
            .retain(|_, holder| !Arc::ptr_eq(&holder.member, member));
    }

    /// Whose an index is.
    pub(super) fn find(&self, index: u32) -> Option<Holder> {
        self.read().get(&index).cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<u32, Holder>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<u32, Holder>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
