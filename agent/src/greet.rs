//! Causing handshakes: one empty datagram to each new peer's node-local address.
//!
//! WireGuard shakes hands only when it has something to send. A device that was made anew has no sessions, and its peers
//! would go on sending in the old ones, unheard, until their own timers give up 15 s later. The datagram makes the new
//! device speak first; it also proves the path before a pod needs it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::IpNet;
use warren_model::{Lane, NodeName, PublicKey};
use warren_plan::{Action, Desired, LaneChange, Observed, PeerPlan, Step};

/// The discard service (RFC 863): nobody answers there, and nobody needs to.
const DISCARD: u16 = 9;

/// Sends to every peer that these steps added to the lane it is sent to by. Best effort: a handshake that does not come
/// about now comes with the first packet.
pub fn greet(steps: &[Step], desired: &Desired) {
    send_to_all(newly_reached(steps, &desired.peers));
}

/// Sends to every peer that was there before and never shook hands. For an agent's first pass: its predecessor may have
/// been killed after it had added a peer and before it greeted that.
pub fn greet_unheard(observed: &Observed, desired: &Desired) {
    send_to_all(unheard(observed, &desired.peers));
}

/// The node-local addresses of the peers that were added, one a peer.
fn newly_reached(steps: &[Step], plans: &BTreeMap<NodeName, PeerPlan>) -> Vec<IpAddr> {
    let added = steps.iter().filter_map(|step| {
        let Action::ConfigureLane(lane, LaneChange::AddPeer(key, peer)) = &step.action else {
            return None;
        };
        Some((*lane, key, peer.allowed_ips.first()))
    });
    those_sent_to(added, plans)
}

/// The node-local addresses of the peers without a handshake, one a peer.
fn unheard(observed: &Observed, plans: &BTreeMap<NodeName, PeerPlan>) -> Vec<IpAddr> {
    let silent = observed.lanes.iter().flat_map(|(lane, device)| {
        let silent = device
            .peers
            .iter()
            .filter(|(_, peer)| peer.handshake_age.is_none());
        silent.map(|(key, peer)| (*lane, key, peer.allowed_ips.first()))
    });
    those_sent_to(silent, plans)
}

/// Of these peers of a lane, the addresses of those that are sent to by it.
fn those_sent_to<'a>(
    peers: impl Iterator<Item = (Lane, &'a PublicKey, Option<&'a IpNet>)>,
    plans: &BTreeMap<NodeName, PeerPlan>,
) -> Vec<IpAddr> {
    let is_sent_to = |lane: Lane, key: &PublicKey| {
        plans.values().any(|plan| {
            plan.key
                .is_some_and(|(epoch, sending)| sending == *key && epoch.lane() == lane)
        })
    };
    peers
        .filter(|(lane, key, _)| is_sent_to(*lane, key))
        .filter_map(|(_, _, net)| net.map(|net| warren_model::cidr::node_address(*net)))
        .collect()
}

fn send_to_all(addresses: Vec<IpAddr>) {
    for address in addresses {
        if let Err(error) = send(address) {
            tracing::debug!(%address, %error, "cannot greet a peer");
        }
    }
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::time::Duration;

    use warren_model::Epoch;
    use warren_plan::{LaneObserved, PeerObserved};

    use super::*;

    #[test]
    fn a_peer_that_never_shook_hands_is_greeted_by_the_lane_that_sends_to_it_and_no_other() {
        let key = |n| PublicKey::from_bytes([n; 32]).unwrap();
        let peer = |n: u8, handshake_age| PeerObserved {
            allowed_ips: [format!("10.244.{n}.0/24").parse().unwrap()].into(),
            handshake_age,
            ..PeerObserved::default()
        };
        let device = LaneObserved {
            peers: [
                (key(1), peer(1, None)),
                (key(2), peer(2, Some(Duration::from_secs(9)))),
                (key(3), peer(3, None)),
            ]
            .into(),
            ..LaneObserved::default()
        };
        let observed = Observed {
            lanes: Lane::ALL.map(|lane| (lane, device.clone())).into(),
            ..Observed::default()
        };
        let epoch = Epoch::new(1).unwrap();
        let plan = |n: u8| PeerPlan {
            mtu: Some(1420),
            mtu_hole: None,
            path: None,
            reason: String::new(),
            endpoint: None,
            key: Some((epoch, key(n))),
        };
        let peers = [("a", 1), ("b", 2)].map(|(name, n)| (name.parse().unwrap(), plan(n)));
        assert_eq!(
            unheard(&observed, &peers.into()),
            ["10.244.1.1".parse::<IpAddr>().unwrap()]
        );
    }
}
