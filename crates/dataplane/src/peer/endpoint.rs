//! Where a peer's datagrams go, and from where.

use std::sync::{PoisonError, RwLock};

use crate::endpoint::Endpoint;

/// An endpoint that is looked at often and changes seldom.
#[derive(Debug, Default)]
pub(super) struct EndpointCell(RwLock<Option<Endpoint>>);

impl EndpointCell {
    pub(super) fn get(&self) -> Option<Endpoint> {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, endpoint: Endpoint) {
        if self.get() != Some(endpoint) {
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(endpoint);
        }
    }

    /// The local address may be the reason for silence: the kernel shall choose anew.
    pub(super) fn forget_source(&self) {
        if let Some(endpoint) = &mut *self.0.write().unwrap_or_else(PoisonError::into_inner) {
            endpoint.from = None;
        }
    }
}
