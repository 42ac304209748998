//! A WireGuard device: its key, its sockets, its interface and its peers, and the way of a packet through them.
//!
//! | module | what it is about |
//! |---|---|
//! | `outbound` | a packet from the interface becomes a datagram to a peer |
//! | `inbound` | a datagram becomes a packet on the interface, or an answer |
//! | `configure` | changing and describing the device while packets flow |
//! | `threads` | who runs all that |
//!
//! Threads share one [`Device`]. A packet takes the table's lock for reading, for one look-up, and then its peer's for
//! one encryption; nothing is held while a system call runs. Changes are made one at a time.

mod configure;
mod inbound;
mod outbound;
pub(crate) mod threads;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use warren_model::PublicKey;

use crate::allowed_ips::AllowedIps;
use crate::drops::{DropCounters, DropReason};
use crate::old_noise::Gate;
use crate::old_peer::Peer;
use crate::tun::Tun;
use crate::udp::Sockets;

/// A device.
pub struct Device {
    tun: Tun,
    /// The interface's MTU as last seen.
    mtu: AtomicUsize,
    sockets: RwLock<Arc<Sockets>>,
    /// Written to when the sockets have been replaced, to wake the thread that waits for the old ones.
    rebound: io::PipeWriter,
    gate: RwLock<Option<Arc<Gate>>>,
    tables: RwLock<Tables>,
    drops: DropCounters,
    /// Held by whoever changes the device.
    configuring: Mutex<Configured>,
}

/// Peers by everything they are looked up by.
#[derive(Default)]
struct Tables {
    by_key: BTreeMap<PublicKey, Arc<Peer>>,
    by_index: HashMap<u32, Arc<Peer>>,
    allowed_ips: AllowedIps<Arc<Peer>>,
}

/// What only configuration looks at.
#[derive(Default)]
struct Configured {
    fwmark: u32,
}

impl Device {
    /// A device on an open interface, without key and peers, listening on any free port. Gives also the end that wakes
    /// the thread that receives.
    pub fn new(tun: Tun) -> io::Result<(Self, io::PipeReader)> {
        let (rebound_reader, rebound) = io::pipe()?;
        let device = Self {
            mtu: AtomicUsize::new(tun.mtu()?),
            tun,
            sockets: RwLock::new(Arc::new(Sockets::bind(0, 0)?)),
            rebound,
            gate: RwLock::default(),
            tables: RwLock::default(),
            drops: DropCounters::default(),
            configuring: Mutex::default(),
        };
        Ok((device, rebound_reader))
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        self.tun.name()
    }

    /// What was dropped.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    fn sockets(&self) -> Arc<Sockets> {
        Arc::clone(&self.sockets.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn gate(&self) -> Option<Arc<Gate>> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tables_mut(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn mtu(&self) -> usize {
        self.mtu.load(Ordering::Relaxed)
    }

    /// Sends a datagram of a peer's, and counts it.
    fn transmit(&self, peer: &Peer, datagram: &[u8], to: SocketAddr) {
        match self.sockets().send(datagram, to) {
            Ok(()) => peer.sent(datagram.len()),
            Err(error) => {
                tracing::trace!(peer = %peer.key.short(), %to, %error, "datagram not sent");
                self.drops.count(DropReason::SendFailed);
            }
        }
    }
}
