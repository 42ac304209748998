//! From the network to the interface.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::Device;
use crate::drops::DropReason;
use crate::old_noise::{Admitted, Output};
use crate::old_peer::Peer;

impl Device {
    /// Takes in a datagram from the network.
    pub(super) fn carry_inbound(&self, datagram: &[u8], source: SocketAddr, out: &mut [u8]) {
        if let Err(reason) = self.inbound(datagram, source, out) {
            tracing::trace!(%source, reason = reason.name(), "datagram dropped");
            self.drops.count(reason);
        }
    }

    fn inbound(&self, datagram: &[u8], source: SocketAddr, out: &mut [u8]) -> Result<(), DropReason> {
        let gate = self.gate().ok_or(DropReason::NoPrivateKey)?;
        let peer = match gate.admit(source.ip(), datagram, out)? {
            Admitted::Initiation(key) => self.peer_with_key(&key).ok_or(DropReason::UnknownPeer)?,
            Admitted::Session(index) => self.peer_with_session(index).ok_or(DropReason::UnknownSession)?,
            Admitted::Cookie(cookie) => {
                if self.sockets().send(cookie, source).is_err() {
                    self.drops.count(DropReason::SendFailed);
                }
                return Err(DropReason::RateLimited);
            }
        };
        let confirmed = self.take_in(&peer, datagram, source, out)?;
        if confirmed {
            self.send_waiting(&peer, out);
        }
        Ok(())
    }

    /// Takes in a message for a peer. Says whether it has completed a handshake.
    fn take_in(
        &self,
        peer: &Arc<Peer>,
        datagram: &[u8],
        source: SocketAddr,
        out: &mut [u8],
    ) -> Result<bool, DropReason> {
        let mut session = peer.session();
        let tunnel = session.tunnel.as_mut().ok_or(DropReason::NoPrivateKey)?;
        let received = tunnel.receive(datagram, out)?;
        session.traffic(Instant::now());
        drop(session);

        peer.received(datagram.len());
        if received.fresh {
            peer.set_endpoint(source);
        }
        if received.confirmed {
            peer.shook_hands();
            tracing::debug!(peer = %peer.key.short(), endpoint = %source, "handshake completed");
        }
        match received.output {
            Output::Nothing => {}
            // The answer to an initiation goes to where that came from, which is no endpoint until it is confirmed.
            Output::Send(answer) => self.transmit(peer, answer, source),
            Output::Packet(packet, from) => self.deliver(peer, packet, from)?,
            Output::NotIp => return Err(DropReason::BadPacket),
        }
        Ok(received.confirmed)
    }

    /// Hands a packet to the kernel if its source address belongs to the peer that it came from.
    fn deliver(&self, peer: &Arc<Peer>, packet: &[u8], from: IpAddr) -> Result<(), DropReason> {
        let belongs = self
            .tables()
            .allowed_ips
            .lookup(from)
            .is_some_and(|owner| Arc::ptr_eq(owner, peer));
        if !belongs {
            tracing::debug!(peer = %peer.key.short(), %from, "packet with a source address that is not the peer's");
            return Err(DropReason::BadSource);
        }
        self.tun.write(packet).map_err(|_| DropReason::InterfaceRefused)
    }

    /// Sends what waited for the session that has just been established.
    fn send_waiting(&self, peer: &Peer, out: &mut [u8]) {
        loop {
            let mut session = peer.session();
            let Some(tunnel) = session.tunnel.as_mut() else {
                return;
            };
            let output = tunnel.next_waiting(out);
            drop(session);
            let (Ok(Output::Send(datagram)), Some(endpoint)) = (output, peer.endpoint()) else {
                return;
            };
            self.transmit(peer, datagram, endpoint);
        }
    }

    fn peer_with_key(&self, key: &[u8; 32]) -> Option<Arc<Peer>> {
        let key = warren_model::PublicKey::from_bytes(*key).ok()?;
        self.tables().by_key.get(&key).cloned()
    }

    fn peer_with_session(&self, index: u32) -> Option<Arc<Peer>> {
        self.tables().by_index.get(&(index >> 8)).cloned()
    }
}
