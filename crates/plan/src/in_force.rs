//! How this node reaches its peers now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use warren_model::{Lane, Path, PublicKey};

use crate::state::{IPIP_INTERFACE, Observed, RouteTarget, VXLAN_INTERFACE};

/// How this node reaches its peers now, and for how long it has known how it should.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    /// The path that each prefix is routed by.
    pub routed: BTreeMap<IpNet, Path>,
    /// The paths that a prefix was routed by until lately: a packet may have been routed before and be on its way still.
    pub left: BTreeMap<IpNet, BTreeSet<Path>>,
    /// The peers' keys that a handshake was completed with lately, by lane: a key that is carried over is in both.
    pub proven: BTreeSet<(Lane, PublicKey)>,
    /// The peers' keys that the devices hold, by lane.
    pub held: BTreeSet<(Lane, PublicKey)>,
    /// Whether there is a WireGuard device.
    pub has_lanes: bool,
    /// Time since this node came to the accord it has now.
    pub accord_age: Duration,
}

impl InForce {
    /// As the kernel and the devices say. What they do not tell is which paths were left lately: none.
    pub fn observed(observed: &Observed, accord_age: Duration) -> Self {
        let path = |target: &RouteTarget| match target {
            RouteTarget::Device(device) | RouteTarget::OnLink(device, _) => {
                if device == VXLAN_INTERFACE {
                    Some(Path::Vxlan)
                } else if device == IPIP_INTERFACE {
                    Some(Path::Ipip)
                } else {
                    Lane::of_interface(device).map(Path::Wireguard)
                }
            }
            RouteTarget::Gateway(_) => Some(Path::Direct),
            RouteTarget::Unreachable | RouteTarget::Blackhole => None,
        };
        let routed = observed.routes.iter();
        let devices = observed.lanes.iter();
        let peers = devices.flat_map(|(lane, device)| device.peers.iter().map(|peer| (*lane, peer)));
        let held = peers.clone().map(|(lane, (key, _))| (lane, *key));
        Self {
            held: held.collect(),
            left: BTreeMap::new(),
            routed: routed
                .filter_map(|(net, route)| Some((*net, path(&route.target)?)))
                .collect(),
            proven: peers
                .filter(|(_, (_, peer))| peer.is_proven())
                .map(|(lane, (key, _))| (lane, *key))
                .collect(),
            has_lanes: !observed.lanes.is_empty(),
            accord_age,
        }
    }
}
