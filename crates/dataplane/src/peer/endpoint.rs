//! Where a peer's datagrams go, and from where.

use std::net::{IpAddr, SocketAddr};
use std::sync::{PoisonError, RwLock};

/// Where a peer's datagrams go, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The peer's address.
    pub to: SocketAddr,
    /// The local address that its last authentic datagram came to: ours go out from there ("sticky"). `None`: the kernel
    /// chooses.
    pub from: Option<LocalAddress>,
}

/// A local address and the interface it was seen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalAddress {
    /// The address.
    pub ip: IpAddr,
    /// The interface's index.
    pub interface: u32,
}

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
