//! Changing a device while packets flow, and describing it.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use warren_model::PublicKey;

use super::Device;
use super::member::Member;
use super::tables::Tables;
use crate::noise::{Gate, Local};
use crate::uapi::{
    AllowedIpChange, DeviceState, Errno, PeerState, PresharedKeyChange, PrivateKeyChange, SetDevice, SetPeer,
};
use crate::udp::Sockets;

/// What only configuration looks at.
#[derive(Default)]
pub(super) struct Configured {
    fwmark: u32,
    /// Members that there have been.
    members: u32,
}

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
            self.sockets.load().set_fwmark(fwmark)?;
            configured.fwmark = fwmark;
        }
        if let Some(change) = &request.private_key {
            self.set_private_key(change);
        }
        if !request.replace_peers && request.peers.is_empty() {
            return Ok(());
        }
        let gate = self.gate();
        let mut change = Change {
            local: gate.as_deref().map(Gate::local),
            members: &mut configured.members,
            tables: Tables::clone(&self.tables.load()),
            removed: Vec::new(),
        };
        if request.replace_peers {
            change.remove_all();
        }
        for peer in request.peers {
            change.apply(peer);
        }
        let Change { tables, removed, .. } = change;
        self.tables.store(Arc::new(tables));
        removed.iter().for_each(|member| self.forget(member));
        Ok(())
    }

    /// How the device is now.
    pub fn state(&self) -> DeviceState {
        let configured = self.configuring.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = self.tables.load();
        DeviceState {
            private_key: self.gate().map(|gate| gate.local().private_key()),
            listen_port: self.sockets.load().port(),
            fwmark: configured.fwmark,
            peers: tables
                .by_key
                .values()
                .map(|member| self.peer_state(member, &tables))
                .collect(),
        }
    }

    /// Forgets all keys and peers.
    pub fn clear(&self) {
        self.set_private_key(&PrivateKeyChange::Clear);
        let tables = self.tables.swap(Arc::default());
        tables.by_key.values().for_each(|member| self.forget(member));
    }

    /// Listens on another port. The old sockets stay in use when the new ones cannot be had.
    fn set_port(&self, port: u16, configured: &Configured) -> Result<(), Errno> {
        if port != 0 && port == self.sockets.load().port() {
            return Ok(());
        }
        let sockets = Arc::new(Sockets::bind(port, configured.fwmark)?);
        tracing::info!(port = sockets.port(), "listening");
        self.sockets.swap(sockets).retire();
        Ok(())
    }

    /// Sets or clears the private key. Setting the one in use disturbs nothing.
    fn set_private_key(&self, change: &PrivateKeyChange) {
        let gate = match change {
            PrivateKeyChange::Set(key) => Some(Arc::new(Gate::new(key))),
            PrivateKeyChange::Clear => None,
        };
        let public = |gate: &Option<Arc<Gate>>| gate.as_ref().map(|gate| *gate.local().public_bytes());
        if public(&gate) == public(&self.gate()) {
            return;
        }
        self.gate.store(gate.clone());
        let mut tables = Tables::clone(&self.tables.load());
        // Nobody is a peer of itself.
        let own = tables
            .by_key
            .values()
            .find(|member| Some(*member.key().as_bytes()) == public(&gate))
            .cloned();
        if let Some(own) = own {
            tables.remove(&own);
            self.tables.store(Arc::new(tables.clone()));
            self.forget(&own);
        }
        for member in tables.by_key.values() {
            member.set_identity(gate.as_deref().map(Gate::local));
            self.indices.release_all(member);
        }
    }

    /// Ends everything between us and a peer that has been removed.
    fn forget(&self, member: &Arc<Member>) {
        member.forget_sessions();
        member.take_staged(&self.staged);
        self.indices.release_all(member);
    }

    fn peer_state(&self, member: &Member, tables: &Tables) -> PeerState {
        let traffic = member.traffic();
        let last_handshake = member.last_handshake().map(|at| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            now.saturating_sub(Duration::from_millis(self.now().saturating_sub(at)))
        });
        PeerState {
            public_key: *member.key(),
            preshared_key: member.preshared_key(),
            endpoint: member.endpoint().map(|endpoint| endpoint.to),
            last_handshake,
            rx_bytes: traffic.rx_bytes,
            tx_bytes: traffic.tx_bytes,
            persistent_keepalive: member.keepalive(),
            allowed_ips: tables.allowed_ips.of(member.id()).collect(),
        }
    }
}

/// A request under way: the tables that will take the place of the present ones.
struct Change<'c> {
    local: Option<&'c Local>,
    members: &'c mut u32,
    tables: Tables,
    removed: Vec<Arc<Member>>,
}

impl Change<'_> {
    fn remove_all(&mut self) {
        self.removed
            .extend(std::mem::take(&mut self.tables).by_key.into_values());
    }

    fn apply(&mut self, change: SetPeer) {
        let existing = self.tables.by_key.get(&change.public_key).cloned();
        if change.remove {
            if let Some(member) = existing {
                self.tables.remove(&member);
                self.removed.push(member);
            }
            return;
        }
        let own_key = self
            .local
            .is_some_and(|local| local.public_bytes() == change.public_key.as_bytes());
        let member = match existing {
            Some(member) => member,
            None if change.update_only || own_key => return,
            None => self.add(change.public_key),
        };
        match change.preshared_key {
            Some(PresharedKeyChange::Set(key)) => member.set_preshared_key(Some(key)),
            Some(PresharedKeyChange::Clear) => member.set_preshared_key(None),
            None => {}
        }
        if let Some(endpoint) = change.endpoint {
            member.set_endpoint(endpoint.into());
        }
        if let Some(seconds) = change.persistent_keepalive {
            member.set_keepalive(seconds);
        }
        let allowed_ips = &mut self.tables.allowed_ips;
        if change.replace_allowed_ips {
            allowed_ips.remove_all(member.id());
        }
        for change in change.allowed_ips {
            match change {
                AllowedIpChange::Add(net) => allowed_ips.insert(net, member.id(), Arc::clone(&member)),
                AllowedIpChange::Remove(net) => allowed_ips.remove(net, member.id()),
            }
        }
    }

    fn add(&mut self, key: PublicKey) -> Arc<Member> {
        *self.members = self.members.wrapping_add(1);
        let member = Arc::new(Member::new(*self.members, key, self.local));
        self.tables.by_key.insert(key, Arc::clone(&member));
        member
    }
}

impl Tables {
    fn remove(&mut self, member: &Member) {
        self.allowed_ips.remove_all(member.id());
        self.by_key.remove(member.key());
    }
}
