//! The WireGuard cross-platform userspace configuration protocol (<https://www.wireguard.com/xplatform/>): the text that
//! `wg` and the agent exchange with a device over its Unix socket.
//!
//! Text becomes a typed [`Request`] as a whole before anything of it is applied, so a malformed one changes nothing.
//! Beyond the standard there are, as in `wireguard-go`, `allowed_ip=-PREFIX` (take one prefix away), and a request of
//! our own, `get=drops`, which stock tools never send.

mod parse;
mod print;
mod reply;
mod serve;

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use thiserror::Error;
use warren_model::{PrivateKey, PublicKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use reply::{ReplyError, parse_device, parse_drops, parse_status};
pub use serve::{ConfigSocket, SocketError};

/// One request.
pub enum Request {
    /// `get=1`: how the device is.
    Get,
    /// `get=drops`: what it dropped, by reason.
    GetDrops,
    /// `set=1`: change it.
    Set(SetDevice),
}

/// Changes to a device. What is `None` or absent stays as it is.
#[derive(Default)]
pub struct SetDevice {
    /// A new private key, or none any more.
    pub private_key: Option<PrivateKeyChange>,
    /// UDP port to listen on; 0: any.
    pub listen_port: Option<u16>,
    /// Mark of outgoing datagrams; 0: none.
    pub fwmark: Option<u32>,
    /// Remove all peers first.
    pub replace_peers: bool,
    /// Peers to change, in this order.
    pub peers: Vec<SetPeer>,
}

/// What becomes of the private key.
pub enum PrivateKeyChange {
    /// It is this one from now on.
    Set(PrivateKey),
    /// The device has none from now on.
    Clear,
}

/// Changes to one peer, which is made unless it exists or the change says otherwise.
pub struct SetPeer {
    /// Whom it is about.
    pub public_key: PublicKey,
    /// Remove it; nothing else counts.
    pub remove: bool,
    /// Do nothing if it does not exist.
    pub update_only: bool,
    /// A preshared key, or none any more.
    pub preshared_key: Option<PresharedKeyChange>,
    /// Where its packets go.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalives; 0: none.
    pub persistent_keepalive: Option<u16>,
    /// Take all its allowed IPs away first.
    pub replace_allowed_ips: bool,
    /// Allowed IPs to give or take, in this order.
    pub allowed_ips: Vec<AllowedIpChange>,
}

impl SetPeer {
    /// A change that makes the peer if need be and leaves the rest as it is.
    pub fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            remove: false,
            update_only: false,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }
}

/// What becomes of one allowed IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowedIpChange {
    /// The peer has it from now on, and no other.
    Add(IpNet),
    /// The peer has it no longer.
    Remove(IpNet),
}

/// What becomes of a peer's preshared key.
pub enum PresharedKeyChange {
    /// It is this one from now on.
    Set(PresharedKey),
    /// There is none from now on.
    Clear,
}

/// A symmetric key mixed into a peer's handshakes. As guarded as a private key.
#[derive(PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; 32]);

impl PresharedKey {
    /// Takes 32 secret bytes; the caller's copy is overwritten. All zero means no key, in the protocol as in WireGuard.
    pub fn from_bytes(bytes: &mut [u8; 32]) -> Option<Self> {
        let key = Self(*bytes);
        bytes.zeroize();
        (key.0 != [0; 32]).then_some(key)
    }

    /// The secret bytes.
    pub fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A second copy, to be dropped as soon as the first.
    pub(crate) fn copy(&self) -> Self {
        Self(self.0)
    }
}

/// How a device is: what `get=1` answers.
#[derive(Default)]
pub struct DeviceState {
    /// Its private key, if any.
    pub private_key: Option<PrivateKey>,
    /// The UDP port it listens on; 0 if none.
    pub listen_port: u16,
    /// The mark of its datagrams; 0: none.
    pub fwmark: u32,
    /// Its peers.
    pub peers: Vec<PeerState>,
}

/// How one peer of a device is.
pub struct PeerState {
    /// Its public key.
    pub public_key: PublicKey,
    /// Its preshared key, if any.
    pub preshared_key: Option<PresharedKey>,
    /// Where its packets go now.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake completed, since the Unix epoch; `None`: never.
    pub last_handshake: Option<Duration>,
    /// Bytes of UDP payload received from it that were authentic.
    pub rx_bytes: u64,
    /// Bytes of UDP payload sent to it.
    pub tx_bytes: u64,
    /// Seconds between keepalives; 0: none.
    pub persistent_keepalive: u16,
    /// Its allowed IPs.
    pub allowed_ips: Vec<IpNet>,
}

impl PeerState {
    /// A peer of which nothing but the key is known.
    pub fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            preshared_key: None,
            endpoint: None,
            last_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
            persistent_keepalive: 0,
            allowed_ips: Vec::new(),
        }
    }
}

/// A request that cannot be carried out, with the error number that the protocol answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("errno {0}")]
pub struct Errno(pub i32);

impl Errno {
    /// The request is malformed.
    pub const INVALID: Self = Self(libc::EINVAL);
    /// The request is longer than any that makes sense.
    pub const TOO_LONG: Self = Self(libc::EMSGSIZE);
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}
