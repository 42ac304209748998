//! How the node's kernel should be ([`Desired`]) and how it says it is ([`Observed`]).
//!
//! Both hold only what bears Warren's mark: our interface names, our route protocol, our nft table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use serde::Serialize;
use warren_model::status::MtuHole;
use warren_model::{Accord, Announcement, Epoch, Lane, NodeName, Path, PublicKey, Refusal};

use crate::guard::{Guard, OpenPod};
use crate::lane::{Endpoints, LaneConfig, LaneObserved};

/// The protocol number of our routes (`ip route show proto 87`), so that they are told from everyone else's.
pub const ROUTE_PROTOCOL: u8 = 87;

/// The VXLAN interface.
pub const VXLAN_INTERFACE: &str = "warren-vx";

/// The IPIP interface.
pub const IPIP_INTERFACE: &str = "warren-ipip";

/// The VXLAN network identifier.
pub const VXLAN_VNI: u32 = 4096;

/// What the host side of every pod's veth is called: this and a hash.
pub const VETH_PREFIX: &str = "wrn";

/// How the node should be. A pure function of the cluster and the node: see [`compute`](crate::compute()).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Desired {
    /// The fail-closed guard.
    pub guard: Guard,
    /// Our interfaces by name: both lanes, the overlay's where one is allowed, and the pods' veths.
    pub links: BTreeMap<String, Link>,
    /// WireGuard configuration of both lanes.
    pub lanes: BTreeMap<Lane, LaneConfig>,
    /// Host addresses (/32, /128) on our interfaces.
    pub addresses: BTreeSet<(String, IpAddr)>,
    /// Permanent neighbours on our interfaces.
    pub neighbours: BTreeMap<(String, IpAddr), Mac>,
    /// FDB entries of the VXLAN interface: the host that has that MAC.
    pub fdb: BTreeMap<Mac, IpAddr>,
    /// Our routes, main table.
    pub routes: BTreeMap<IpNet, Route>,
    /// Files below `/proc/sys/net`, by the path below it, and their values.
    pub sysctls: BTreeMap<String, String>,
    /// What this node should publish; `None` while it has no key.
    pub announcement: Option<Announcement>,
    /// How each peer is reached.
    pub peers: BTreeMap<NodeName, PeerPlan>,
    /// The accord that all this is by.
    pub accord: Option<Accord>,
    /// Whether a path waits for a first handshake, of which nobody tells when it is completed.
    pub awaits_handshake: bool,
    /// Pod networks of other nodes, known now or (with encryption on) before: to be remembered.
    pub remote_networks: BTreeSet<IpNet>,
    /// The MTU that pods get, bytes.
    pub pod_mtu: u32,
    /// What they would get if nothing was lost on any path: the length that paths are probed with.
    pub full_mtu: u32,
    /// What was left out, and why.
    pub refusals: Vec<Refusal>,
}

impl Desired {
    /// Where the peers of each lane are to be sent to: to be remembered for the next plan, once this one is carried out.
    pub fn endpoints(&self) -> Endpoints {
        let of_lane = |(lane, config): (&Lane, &LaneConfig)| {
            let peers = config.peers.iter();
            (*lane, peers.map(|(key, peer)| (*key, peer.endpoint)).collect())
        };
        self.lanes.iter().map(of_lane).collect()
    }
}

/// How one peer is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerPlan {
    /// `None`: it is not reached.
    pub path: Option<Path>,
    /// Why, in a few words.
    pub reason: String,
    /// The address and port its packets go to on a WireGuard path.
    pub endpoint: Option<SocketAddr>,
    /// Its key in the sending lane, and the key's epoch.
    pub key: Option<(Epoch, PublicKey)>,
    /// What its path leaves for packets of pods, bytes, as far as this node's routes tell.
    pub mtu: Option<u32>,
    /// What was found to be lost on it.
    pub mtu_hole: Option<MtuHole>,
}

/// How the node's kernel says it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The fingerprint of the guard that is installed; `None` if there is none, or not all of it.
    pub guard: Option<u64>,
    /// The pods that are open in it.
    pub open_pods: BTreeSet<OpenPod>,
    /// Interfaces that bear our names.
    pub links: BTreeMap<String, Link>,
    /// WireGuard state of the lanes that exist.
    pub lanes: BTreeMap<Lane, LaneObserved>,
    /// Host addresses on our interfaces (link-local ones left out).
    pub addresses: BTreeSet<(String, IpAddr)>,
    /// Permanent neighbours on our interfaces.
    pub neighbours: BTreeMap<(String, IpAddr), Mac>,
    /// FDB entries of the VXLAN interface.
    pub fdb: BTreeMap<Mac, IpAddr>,
    /// Routes of our protocol, main table.
    pub routes: BTreeMap<IpNet, Route>,
    /// The values now of the sysctls asked for.
    pub sysctls: BTreeMap<String, String>,
}

/// An interface of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// What it is.
    pub kind: LinkKind,
    /// Bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
}

/// What an interface is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum LinkKind {
    /// A WireGuard device, of the kernel or userspace.
    Lane(Lane),
    /// The VXLAN interface.
    Vxlan(Vxlan),
    /// The IPIP interface.
    Ipip(Ipip),
    /// Host side of a pod's veth. Plans never create one: attaching a pod does.
    Veth,
    /// An interface with one of our names that is something else, found there and to be replaced.
    Foreign,
}

/// The VXLAN interface's own settings. They cannot be changed on a live interface: another value means another interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vxlan {
    /// UDP port.
    pub port: u16,
    /// Its own MAC, made from the node's name.
    pub mac: Mac,
    /// Source address of the encapsulated packets.
    pub local: IpAddr,
}

/// The IPIP interface's own settings, fixed as those of [`Vxlan`]. It has no remote end: each route names the host its packets
/// go to as an on-link gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ipip {
    /// Source address of the encapsulated packets.
    pub local: Ipv4Addr,
}

/// A route of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// Where it leads.
    pub target: RouteTarget,
    /// The source address for what the node itself sends along it.
    pub source: Option<IpAddr>,
    /// The longest packet it takes, bytes, where that is less than its interface does.
    pub mtu: Option<u32>,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum RouteTarget {
    /// Out of an interface, scope link.
    Device(String),
    /// Out of an interface by a gateway taken to be on its link (`via A dev D onlink`).
    OnLink(String, IpAddr),
    /// By a gateway on the underlay (`via A`); the kernel finds the interface.
    Gateway(IpAddr),
    /// Nowhere, and the sender is told (ICMP): a pod network whose node cannot be reached now.
    Unreachable,
    /// Nowhere, silently: this node's own pod CIDRs, so that what has no pod does not leave by the default route.
    Blackhole,
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            RouteTarget::Device(device) => write!(f, "dev {device}")?,
            RouteTarget::OnLink(device, gateway) => write!(f, "via {gateway} dev {device} onlink")?,
            RouteTarget::Gateway(gateway) => write!(f, "via {gateway}")?,
            RouteTarget::Unreachable => write!(f, "unreachable")?,
            RouteTarget::Blackhole => write!(f, "blackhole")?,
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        match self.mtu {
            Some(mtu) => write!(f, " mtu {mtu}"),
            None => Ok(()),
        }
    }
}

impl Route {
    /// The interface of ours it leads out of, if it names one.
    pub fn device(&self) -> Option<&str> {
        match &self.target {
            RouteTarget::Device(device) | RouteTarget::OnLink(device, _) => Some(device),
            RouteTarget::Gateway(_) | RouteTarget::Unreachable | RouteTarget::Blackhole => None,
        }
    }
}
