//! From the interface to a peer.

use std::net::IpAddr;
use std::time::Instant;

use super::Device;
use crate::drops::DropReason;
use crate::old_noise::{Output, padded_len};
use crate::old_peer::Peer;

impl Device {
    /// Carries a packet of the interface: `packet[..len]`, with room behind it for padding.
    pub(super) fn carry_outbound(&self, packet: &mut [u8], len: usize, out: &mut [u8]) {
        if let Err(reason) = self.outbound(packet, len, out) {
            self.drops.count(reason);
        }
    }

    fn outbound(&self, packet: &mut [u8], len: usize, out: &mut [u8]) -> Result<(), DropReason> {
        let destination = destination(&packet[..len]).ok_or(DropReason::NotIp)?;
        let peer = self.tables().allowed_ips.lookup(destination).cloned();
        let peer = peer.ok_or(DropReason::NoPeerForDestination)?;
        // Asked before the packet is encrypted: one that cannot be sent must not begin a handshake or be kept.
        let endpoint = peer.endpoint().ok_or(DropReason::NoEndpoint)?;
        let padded = padded_len(len, self.mtu());
        packet[len..padded].fill(0);
        let mut session = peer.session();
        let tunnel = session.tunnel.as_mut().ok_or(DropReason::NoPrivateKey)?;
        let output = tunnel.send(&packet[..padded], out)?;
        if let Output::Send(datagram) = output {
            session.traffic(Instant::now());
            drop(session);
            self.transmit(&peer, datagram, endpoint);
        }
        Ok(())
    }

    /// Does what is due for a peer: repeats or begins handshakes, sends keepalives. To be called for every peer, also one
    /// that cannot be reached: the protocol takes the time of its sessions from here.
    pub(super) fn tick_peer(&self, peer: &Peer, now: Instant, out: &mut [u8]) {
        let endpoint = peer.endpoint();
        let mut session = peer.session();
        let keepalive_due = endpoint.is_some() && session.keepalive_due(peer.keepalive(), now);
        let Some(tunnel) = session.tunnel.as_mut() else {
            return;
        };
        let mut output = tunnel.tick(out);
        if keepalive_due && !matches!(output, Output::Send(_)) {
            output = tunnel.send(&[], out).unwrap_or(Output::Nothing);
        }
        if keepalive_due || matches!(output, Output::Send(_)) {
            session.traffic(now);
        }
        drop(session);
        if let (Output::Send(datagram), Some(endpoint)) = (output, endpoint) {
            self.transmit(peer, datagram, endpoint);
        }
    }
}

/// The destination of an IP packet.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 if packet.len() >= 20 => Some(IpAddr::from(<[u8; 4]>::try_from(&packet[16..20]).ok()?)),
        6 if packet.len() >= 40 => Some(IpAddr::from(<[u8; 16]>::try_from(&packet[24..40]).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_destination_is_read_from_whole_headers_only() {
        let mut v4 = [0; 20];
        v4[0] = 0x45;
        v4[16..].copy_from_slice(&[10, 1, 2, 3]);
        assert_eq!(destination(&v4), Some("10.1.2.3".parse().unwrap()));
        assert_eq!(destination(&v4[..19]), None);
        let mut v6 = [0; 40];
        v6[0] = 0x60;
        v6[39] = 1;
        assert_eq!(destination(&v6), Some("::1".parse().unwrap()));
        assert_eq!(destination(&v6[..39]), None);
        assert_eq!(destination(&[]), None);
        assert_eq!(destination(&[0x50; 64]), None);
    }
}
