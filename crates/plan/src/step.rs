//! One step from what the kernel is to what it should be: a value that can be printed, tested and applied.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use warren_model::Lane;

use crate::guard::Guard;
use crate::lane::{LaneChange, LaneObserved};
use crate::state::{IPIP_INTERFACE, Ipip, Link, LinkKind, Mac, Observed, Route, VXLAN_INTERFACE, Vxlan};

/// One step and why it is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// Why, in a few words.
    pub reason: String,
}

/// What a step does. Each is one act for the kernel, and each but the creations may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Put this content into the nft table, in one transaction; of what is there already, nothing is written.
    InstallGuard(Guard),
    /// Make a lane's WireGuard device, down.
    CreateLane(Lane, LinkMtu),
    /// Make the VXLAN interface, down.
    CreateVxlan(Vxlan, LinkMtu),
    /// Make the IPIP interface, down.
    CreateIpip(Ipip, LinkMtu),
    /// Set an interface's MTU.
    SetMtu(String, LinkMtu),
    /// Bring an interface up.
    SetUp(String),
    /// Change a lane's WireGuard configuration.
    ConfigureLane(Lane, LaneChange),
    /// Write a value below `/proc/sys/net`.
    SetSysctl(String, String),
    /// Put a host address on an interface.
    AddAddress(String, IpAddr),
    /// Add or replace a permanent neighbour.
    SetNeighbour(String, IpAddr, Mac),
    /// Add or replace an FDB entry of the VXLAN interface.
    SetFdb(Mac, IpAddr),
    /// Add or replace a route.
    SetRoute(IpNet, Route),
    /// Remove a route.
    RemoveRoute(IpNet),
    /// Remove an FDB entry of the VXLAN interface.
    RemoveFdb(Mac),
    /// Remove a neighbour.
    RemoveNeighbour(String, IpAddr),
    /// Take an address off an interface.
    RemoveAddress(String, IpAddr),
    /// Delete an interface; a userspace lane's process ends with it.
    RemoveLink(String, LinkKind),
}

impl Action {
    /// The interface it makes, if it makes one.
    pub fn creates(&self) -> Option<&str> {
        match self {
            Self::CreateLane(lane, _) => Some(lane.interface()),
            Self::CreateVxlan(..) => Some(VXLAN_INTERFACE),
            Self::CreateIpip(..) => Some(IPIP_INTERFACE),
            Self::InstallGuard(_)
            | Self::SetMtu(..)
            | Self::SetUp(_)
            | Self::ConfigureLane(..)
            | Self::SetSysctl(..)
            | Self::AddAddress(..)
            | Self::SetNeighbour(..)
            | Self::SetFdb(..)
            | Self::SetRoute(..)
            | Self::RemoveRoute(_)
            | Self::RemoveFdb(_)
            | Self::RemoveNeighbour(..)
            | Self::RemoveAddress(..)
            | Self::RemoveLink(..) => None,
        }
    }

    /// The interface it needs to be there, if it needs one.
    pub fn interface(&self) -> Option<&str> {
        match self {
            Self::SetMtu(link, _)
            | Self::SetUp(link)
            | Self::AddAddress(link, _)
            | Self::SetNeighbour(link, ..)
            | Self::RemoveNeighbour(link, _)
            | Self::RemoveAddress(link, _) => Some(link),
            Self::ConfigureLane(lane, _) => Some(lane.interface()),
            Self::SetFdb(..) | Self::RemoveFdb(_) => Some(VXLAN_INTERFACE),
            Self::SetRoute(_, route) => route.device(),
            Self::InstallGuard(_)
            | Self::CreateLane(..)
            | Self::CreateVxlan(..)
            | Self::CreateIpip(..)
            | Self::SetSysctl(..)
            | Self::RemoveRoute(_)
            | Self::RemoveLink(..) => None,
        }
    }
}

/// An MTU in bytes.
pub type LinkMtu = u32;

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InstallGuard(guard) => write!(
                f,
                "guard install: {} sealed, {} clear, {} open pod addresses",
                guard.sealed.len(),
                guard.clear.len(),
                guard.pods.len()
            ),
            Self::CreateLane(lane, mtu) => write!(f, "link add {lane} type wireguard mtu {mtu}"),
            Self::CreateVxlan(vxlan, mtu) => write!(
                f,
                "link add {VXLAN_INTERFACE} type vxlan local {} dstport {} address {} mtu {mtu}",
                vxlan.local, vxlan.port, vxlan.mac
            ),
            Self::CreateIpip(ipip, mtu) => write!(
                f,
                "link add {IPIP_INTERFACE} type ipip local {} mtu {mtu}",
                ipip.local
            ),
            Self::SetMtu(link, mtu) => write!(f, "link set {link} mtu {mtu}"),
            Self::SetUp(link) => write!(f, "link set {link} up"),
            Self::ConfigureLane(lane, change) => write!(f, "wg set {lane} {change}"),
            Self::SetSysctl(key, value) => write!(f, "sysctl net.{}={value}", key.replace('/', ".")),
            Self::AddAddress(link, address) => write!(f, "addr add {address} dev {link}"),
            Self::SetNeighbour(link, address, mac) => {
                write!(f, "neigh replace {address} lladdr {mac} dev {link} permanent")
            }
            Self::SetFdb(mac, host) => write!(f, "fdb replace {mac} dst {host} dev {VXLAN_INTERFACE}"),
            Self::SetRoute(net, route) => write!(f, "route replace {net} {route}"),
            Self::RemoveRoute(net) => write!(f, "route del {net}"),
            Self::RemoveFdb(mac) => write!(f, "fdb del {mac} dev {VXLAN_INTERFACE}"),
            Self::RemoveNeighbour(link, address) => write!(f, "neigh del {address} dev {link}"),
            Self::RemoveAddress(link, address) => write!(f, "addr del {address} dev {link}"),
            Self::RemoveLink(link, _) => write!(f, "link del {link}"),
        }
    }
}

impl Observed {
    /// What the kernel is after a step: the model that tests and simulations run plans on. Like the kernel it drops
    /// with an interface all that hangs on it.
    pub fn apply(&mut self, action: &Action) {
        match action {
            Action::InstallGuard(guard) => {
                self.guard = Some(guard.fingerprint());
                self.open_pods = guard.pods.clone();
            }
            Action::CreateLane(lane, mtu) => {
                self.create(lane.interface(), LinkKind::Lane(*lane), *mtu);
                self.lanes.insert(*lane, LaneObserved::default());
            }
            Action::CreateVxlan(vxlan, mtu) => {
                self.create(VXLAN_INTERFACE, LinkKind::Vxlan(vxlan.clone()), *mtu);
            }
            Action::CreateIpip(ipip, mtu) => {
                self.create(IPIP_INTERFACE, LinkKind::Ipip(ipip.clone()), *mtu);
            }
            Action::SetMtu(name, mtu) => {
                if let Some(link) = self.links.get_mut(name) {
                    link.mtu = *mtu;
                }
            }
            Action::SetUp(name) => {
                if let Some(link) = self.links.get_mut(name) {
                    link.up = true;
                }
            }
            Action::ConfigureLane(lane, change) => {
                if let Some(device) = self.lanes.get_mut(lane) {
                    device.apply(change);
                }
            }
            Action::SetSysctl(key, value) => {
                self.sysctls.insert(key.clone(), value.clone());
            }
            Action::AddAddress(link, address) => {
                self.addresses.insert((link.clone(), *address));
            }
            Action::SetNeighbour(link, address, mac) => {
                self.neighbours.insert((link.clone(), *address), *mac);
            }
            Action::SetFdb(mac, host) => {
                self.fdb.insert(*mac, *host);
            }
            Action::SetRoute(net, route) => {
                self.routes.insert(*net, route.clone());
            }
            Action::RemoveRoute(net) => {
                self.routes.remove(net);
            }
            Action::RemoveFdb(mac) => {
                self.fdb.remove(mac);
            }
            Action::RemoveNeighbour(link, address) => {
                self.neighbours.remove(&(link.clone(), *address));
            }
            Action::RemoveAddress(link, address) => {
                self.addresses.remove(&(link.clone(), *address));
            }
            Action::RemoveLink(name, _) => self.remove_link(name),
        }
    }

    fn create(&mut self, name: &str, kind: LinkKind, mtu: u32) {
        self.links.insert(name.to_owned(), Link { kind, mtu, up: false });
    }

    /// Forgets an interface and everything that hangs on it.
    pub fn remove_link(&mut self, name: &str) {
        self.links.remove(name);
        if let Some(lane) = Lane::of_interface(name) {
            self.lanes.remove(&lane);
        }
        if name == VXLAN_INTERFACE {
            self.fdb.clear();
        }
        self.addresses.retain(|(link, _)| link != name);
        self.sysctls
            .retain(|key, _| !key.split('/').any(|part| part == name));
        self.neighbours.retain(|(link, _), _| link != name);
        self.routes.retain(|_, route| route.device() != Some(name));
    }
}
