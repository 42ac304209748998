//! Where a peer is reached.

use std::net::{IpAddr, SocketAddr};

/// Where a peer's datagrams go, and from which of our addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The peer's address and port.
    pub to: SocketAddr,
    /// The address that the peer last sent to, which our datagrams come from; `None`: the kernel chooses.
    pub from: Option<IpAddr>,
}

impl From<SocketAddr> for Endpoint {
    fn from(to: SocketAddr) -> Self {
        Self { to, from: None }
    }
}
