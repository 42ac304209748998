//! Changing a device while packets flow, and describing it.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::{Arc, PoisonError};

use rand_core::{OsRng, RngCore};
use warren_model::PublicKey;

use super::{Configured, Device, Tables};
use crate::old_noise::Gate;
use crate::old_peer::Peer;
use crate::uapi::{
    AllowedIpChange, DeviceState, Errno, PeerState, PresharedKeyChange, PrivateKeyChange, SetDevice, SetPeer,
};
use crate::udp::Sockets;

impl Device {
    /// Applies a request. What can fail (the port, the mark) is done first: a request that fails changes nothing but,
    /// at worst, the port. Peers that it does not name are not disturbed.
    ///
    /// # Errors
    /// The kernel's error number: EADDRINUSE when something else listens on the port.
    pub fn set(&self, request: SetDevice) -> Result<(), Errno> {
        let mut configured = self.configuring.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(port) = request.listen_port {
            self.set_port(port, &configured)?;
        }
        if let Some(fwmark) = request.fwmark {
            self.sockets().set_fwmark(fwmark)?;
            configured.fwmark = fwmark;
        }
        if let Some(change) = &request.private_key {
            self.set_private_key(change);
        }
        let gate = self.gate();
        let mut prepared = self.prepare(&request, gate.as_deref());
        let mut tables = self.tables_mut();
        if request.replace_peers {
            *tables = Tables::default();
        }
        for peer in request.peers {
            tables.set_peer(peer, &mut prepared, gate.as_deref());
        }
        Ok(())
    }

    /// How the device is now.
    pub fn state(&self) -> DeviceState {
        let configured = self.configuring.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = self.tables();
        DeviceState {
            private_key: self.gate().map(|gate| gate.private_key()),
            listen_port: self.sockets().port(),
            fwmark: configured.fwmark,
            peers: tables
                .by_key
                .values()
                .map(|peer| tables.peer_state(peer))
                .collect(),
        }
    }

    /// Forgets all keys and peers.
    pub fn clear(&self) {
        self.set_private_key(&PrivateKeyChange::Clear);
        *self.tables_mut() = Tables::default();
    }

    /// Makes the peers that a request adds. Each one costs a Diffie-Hellman, too long to hold up packets for.
    fn prepare(&self, request: &SetDevice, gate: Option<&Gate>) -> Prepared {
        let mut prepared = Prepared::new();
        let tables = self.tables();
        let is_new = |change: &&SetPeer| {
            let exists = !request.replace_peers && tables.by_key.contains_key(&change.public_key);
            !exists && !change.remove && !change.update_only
        };
        let new: Vec<PublicKey> = request
            .peers
            .iter()
            .filter(is_new)
            .map(|change| change.public_key)
            .collect();
        let mut taken: HashSet<u32> = tables.by_index.keys().copied().collect();
        drop(tables);
        for key in new {
            let index = free_index(|index| !taken.contains(&index));
            taken.insert(index);
            prepared
                .entry(key)
                .or_insert_with(|| Arc::new(Peer::new(key, index, gate)));
        }
        prepared
    }

    /// Listens on another port. The old sockets stay in use when the new ones cannot be had.
    fn set_port(&self, port: u16, configured: &Configured) -> Result<(), Errno> {
        if port != 0 && port == self.sockets().port() {
            return Ok(());
        }
        let sockets = Arc::new(Sockets::bind(port, configured.fwmark)?);
        tracing::info!(port = sockets.port(), "listening");
        *self.sockets.write().unwrap_or_else(PoisonError::into_inner) = sockets;
        (&self.rebound).write_all(&[1])?;
        Ok(())
    }

    /// Sets or clears the private key. Setting the one in use disturbs nothing.
    fn set_private_key(&self, change: &PrivateKeyChange) {
        let gate = match change {
            PrivateKeyChange::Set(key) => Some(Arc::new(Gate::new(key))),
            PrivateKeyChange::Clear => None,
        };
        let public = |gate: &Option<Arc<Gate>>| gate.as_ref().map(|gate| *gate.public_bytes());
        if public(&gate) == public(&self.gate()) {
            return;
        }
        self.gate
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&gate);
        let mut tables = self.tables_mut();
        // Nobody is a peer of itself.
        let own = tables
            .by_key
            .values()
            .find(|peer| Some(*peer.key.as_bytes()) == public(&gate))
            .cloned();
        if let Some(own) = own {
            tables.remove(&own);
        }
        let peers: Vec<Arc<Peer>> = tables.by_key.values().cloned().collect();
        drop(tables);
        for peer in peers {
            peer.rekey(gate.as_deref());
        }
    }
}

impl Tables {
    fn set_peer(&mut self, change: SetPeer, prepared: &mut Prepared, gate: Option<&Gate>) {
        let existing = self.by_key.get(&change.public_key).cloned();
        if change.remove {
            if let Some(peer) = existing {
                self.remove(&peer);
            }
            return;
        }
        let own_key = gate.is_some_and(|gate| gate.public_bytes() == change.public_key.as_bytes());
        let peer = match existing {
            Some(peer) => peer,
            None if change.update_only || own_key => return,
            None => self.add(change.public_key, prepared, gate),
        };
        match change.preshared_key {
            Some(PresharedKeyChange::Set(key)) => peer.set_preshared_key(Some(key), gate),
            Some(PresharedKeyChange::Clear) => peer.set_preshared_key(None, gate),
            None => {}
        }
        if let Some(endpoint) = change.endpoint {
            peer.set_endpoint(endpoint);
        }
        if let Some(seconds) = change.persistent_keepalive {
            peer.set_keepalive(seconds);
        }
        if change.replace_allowed_ips {
            self.allowed_ips.remove_all(peer.index);
        }
        for change in change.allowed_ips {
            match change {
                AllowedIpChange::Add(net) => self.allowed_ips.insert(net, peer.index, Arc::clone(&peer)),
                AllowedIpChange::Remove(net) => self.allowed_ips.remove(net, peer.index),
            }
        }
    }

    fn add(&mut self, key: PublicKey, prepared: &mut Prepared, gate: Option<&Gate>) -> Arc<Peer> {
        // A peer that one request removes and adds again has not been prepared.
        let peer = prepared.remove(&key).unwrap_or_else(|| {
            let index = free_index(|index| !self.by_index.contains_key(&index));
            Arc::new(Peer::new(key, index, gate))
        });
        self.by_key.insert(key, Arc::clone(&peer));
        self.by_index.insert(peer.index, Arc::clone(&peer));
        peer
    }

    fn remove(&mut self, peer: &Peer) {
        self.allowed_ips.remove_all(peer.index);
        self.by_index.remove(&peer.index);
        self.by_key.remove(&peer.key);
    }

    fn peer_state(&self, peer: &Peer) -> PeerState {
        let (tx_bytes, rx_bytes) = peer.bytes();
        PeerState {
            public_key: peer.key,
            preshared_key: peer.preshared_key(),
            endpoint: peer.endpoint(),
            last_handshake: peer.last_handshake(),
            rx_bytes,
            tx_bytes,
            persistent_keepalive: peer.keepalive(),
            allowed_ips: self.allowed_ips.of(peer.index).collect(),
        }
    }
}

/// Peers made before the table is locked.
type Prepared = HashMap<PublicKey, Arc<Peer>>;

/// A random index of 24 bits that nobody has: the lower 8 bits of a session index count the peer's sessions.
fn free_index(is_free: impl Fn(u32) -> bool) -> u32 {
    loop {
        let index = OsRng.next_u32() >> 8;
        if is_free(index) {
            return index;
        }
    }
}
