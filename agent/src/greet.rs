//! Causing handshakes: one empty datagram to each new peer's node-local address.
//!
//! WireGuard shakes hands only when it has something to send. A device that was made anew has no sessions, and its peers
//! would go on sending in the old ones, unheard, until their own timers give up 15 s later. The datagram makes the new
//! device speak first; it also proves the path before a pod needs it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use warren_plan::{Action, Desired, LaneChange, Step};

/// The discard service (RFC 863): nobody answers there, and nobody needs to.
const DISCARD: u16 = 9;

/// Sends to every peer that these steps added to the lane it is sent to by. Best effort: a handshake that does not come
/// about now comes with the first packet.
pub fn greet(steps: &[Step], desired: &Desired) {
    for address in newly_reached(steps, desired) {
        if let Err(error) = send(address) {
            tracing::debug!(%address, %error, "cannot greet a peer");
        }
    }
}

/// The node-local addresses of the peers that were added, one a peer.
fn newly_reached(steps: &[Step], desired: &Desired) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for step in steps {
        let Action::ConfigureLane(lane, LaneChange::AddPeer(key, peer)) = &step.action else {
            continue;
        };
        let sends_there = |plan: &warren_plan::PeerPlan| {
            plan.key
                .is_some_and(|(epoch, sending)| sending == *key && epoch.lane() == *lane)
        };
        if desired.peers.values().any(sends_there) {
            addresses.extend(
                peer.allowed_ips
                    .first()
                    .map(|net| warren_model::cidr::node_address(*net)),
            );
        }
    }
    addresses
}

fn send(address: IpAddr) -> std::io::Result<()> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // An empty datagram is put into the interface's queue and never waits.
    UdpSocket::bind(SocketAddr::new(any, 0))?.send_to(&[], SocketAddr::new(address, DISCARD))?;
    Ok(())
}
