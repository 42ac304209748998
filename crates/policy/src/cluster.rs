//! What policies are compiled against: pods, namespaces, network sets, host endpoints and nodes' addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use warren_model::mesh::Ports;
use warren_model::{NodeName, PodName};

use crate::labels::Labels;
use crate::protocol::{PortRange, Protocol};

/// The cluster, as far as policy can speak of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cluster {
    /// All pods. Those on the host's network and finished ones are left out of everything.
    pub pods: Vec<Arc<Pod>>,
    /// All namespaces. A pod of a namespace that is not here is in one without labels of its own.
    pub namespaces: Vec<Namespace>,
    /// NetworkSets and GlobalNetworkSets.
    pub network_sets: Vec<NetworkSet>,
    /// Host endpoints.
    pub host_endpoints: Vec<HostEndpoint>,
    /// Each node's own addresses, from which it may always reach its pods.
    pub nodes: BTreeMap<NodeName, Vec<IpAddr>>,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: PodName,
    /// `metadata.uid`: what tells it from one of the same name that was there before; empty where nobody asks.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `status.podIPs`, or what its node has just given it.
    pub addresses: Vec<IpAddr>,
    /// The ports of its containers that have names.
    pub ports: Vec<NamedPort>,
    /// `spec.hostNetwork`: it has no address of its own.
    pub host_network: bool,
    /// Phase Succeeded or Failed: its address may be another's by now.
    pub finished: bool,
    /// `spec.nodeName`.
    pub node: Option<NodeName>,
    /// Since when it has its addresses.
    pub since: Since,
}

/// Since when a pod has its addresses, as far as anybody can tell. Of pods that claim the same one the latest has it, of equals the last
/// by name: a pod's object may outlive the pod for a while, and its address be another's by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Since {
    /// Not before it was created: `metadata.creationTimestamp`, in seconds since 1970.
    Created(i64),
    /// Now: it is attached with them here, whatever the API says of others.
    Attached,
}

/// A port with a name, of a pod's container or a host endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// The protocol; the same name may stand for different ports of different protocols.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Labels,
}

/// A NetworkSet or GlobalNetworkSet: networks with labels, that selectors of rules find like pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSet {
    /// The namespace of a NetworkSet; `None`: a GlobalNetworkSet.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.nets`.
    pub nets: Vec<IpNet>,
}

/// A node's interfaces, protected by GlobalNetworkPolicies that select them by labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEndpoint {
    /// Its name.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.node`.
    pub node: NodeName,
    /// `spec.interfaceName`; `None`: the interface that has one of the expected addresses.
    pub interface: Option<Interface>,
    /// `spec.expectedIPs`.
    pub expected_addresses: Vec<IpAddr>,
    /// `spec.ports`.
    pub ports: Vec<NamedPort>,
    /// Whether what no policy speaks of passes: the profile `projectcalico-default-allow`. Without it nothing passes that no
    /// policy allows, but for the failsafe ports.
    pub default_allow: bool,
}

/// `spec.interfaceName` of a host endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interface {
    /// `*`: all of the node's interfaces.
    Every,
    /// The one of that name.
    Named(String),
}

impl Pod {
    /// Whether policy speaks of it: it has a network of its own and still runs.
    pub fn is_subject(&self) -> bool {
        !self.host_network && !self.finished
    }
}

impl HostEndpoint {
    /// The addresses that stand for it in selectors: the expected ones; without any, of all interfaces, the node's.
    pub(crate) fn addresses<'a>(&'a self, nodes: &'a BTreeMap<NodeName, Vec<IpAddr>>) -> &'a [IpAddr] {
        if self.expected_addresses.is_empty() && self.interface == Some(Interface::Every) {
            nodes.get(&self.node).map_or(&[], Vec::as_slice)
        } else {
            &self.expected_addresses
        }
    }
}

/// Ports that no policy closes on a host endpoint, so that a wrong one does not cut a node off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failsafe {
    /// To the node.
    pub inbound: Vec<(Protocol, PortRange)>,
    /// From the node.
    pub outbound: Vec<(Protocol, PortRange)>,
}

impl Failsafe {
    /// These, and the ports by which the mesh's own packets come and go.
    pub fn with_mesh(mut self, ports: &Ports) -> Self {
        let [first, second] = ports.wireguard;
        for port in [first, second, ports.vxlan] {
            self.inbound.push((Protocol::UDP, PortRange::one(port)));
            self.outbound.push((Protocol::UDP, PortRange::one(port)));
        }
        self
    }

    /// These, and IP in IP, by which the mesh carries packets where it is told to.
    pub fn with_ipip(mut self) -> Self {
        self.inbound.push((Protocol::IPIP, PortRange::ALL));
        self.outbound.push((Protocol::IPIP, PortRange::ALL));
        self
    }
}

impl Default for Failsafe {
    /// Calico's: SSH, BGP, etcd, its Typha, the API server, DHCP, and outbound DNS.
    fn default() -> Self {
        const BOTH_WAYS: [u16; 8] = [22, 179, 2379, 2380, 5473, 6443, 6666, 6667];
        let with_tcp = |udp: &[u16]| {
            let tcp = BOTH_WAYS.map(|port| (Protocol::TCP, PortRange::one(port)));
            let udp = udp.iter().map(|port| (Protocol::UDP, PortRange::one(*port)));
            tcp.into_iter().chain(udp).collect()
        };
        Self {
            inbound: with_tcp(&[68]),
            outbound: with_tcp(&[53, 67]),
        }
    }
}
