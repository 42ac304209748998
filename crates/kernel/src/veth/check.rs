//! Whether a pod's link is still as it was made (CNI CHECK).

use std::fmt;
use std::net::IpAddr;

use super::pod_side::gateway;
use super::{HOST_MAC, PodLink, VethError};
use crate::kernel::Kernel;
use crate::links::{self, LinkEntry};
use crate::netns::Namespace;
use crate::{addresses, neighbours, routes};

/// One thing about a pod's link that is not as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The host side is gone.
    HostMissing(String),
    /// The pod's side is gone.
    PodMissing(String),
    /// Both are there and are not the two ends of one link.
    NotPaired,
    /// Not up.
    Down(String),
    /// Another MTU.
    Mtu {
        /// The interface.
        link: String,
        /// Bytes now.
        is: u32,
        /// Bytes as it was made.
        should: u32,
    },
    /// The pod has lost an address.
    AddressMissing(IpAddr),
    /// The pod has lost its default route of the family of this address.
    DefaultRouteMissing(IpAddr),
    /// The pod's gateway is no longer the host side.
    GatewayMissing(IpAddr),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostMissing(name) => write!(f, "the node has no interface {name}"),
            Self::PodMissing(name) => write!(f, "the pod has no interface {name}"),
            Self::NotPaired => write!(f, "the pod's interface is not tied to the node's"),
            Self::Down(name) => write!(f, "interface {name} is down"),
            Self::Mtu { link, is, should } => write!(f, "interface {link} has MTU {is}, not {should}"),
            Self::AddressMissing(address) => write!(f, "the pod has lost its address {address}"),
            Self::DefaultRouteMissing(address) => write!(f, "the pod has no default route for {address}"),
            Self::GatewayMissing(gateway) => {
                write!(f, "the pod's gateway {gateway} does not lead to the node")
            }
        }
    }
}

/// Everything about the link that is not as [`create`](super::create) made it; empty: all is well.
pub async fn check(kernel: &Kernel, link: &PodLink) -> Result<Vec<Difference>, VethError> {
    let inside = Namespace::open(&link.netns)?.netlink().await?;
    let host_side = links::find(kernel.netlink(), &link.host_name).await?;
    let pod_side = links::find(&inside, &link.if_name).await?;
    let (Some(host_side), Some(pod_side)) = (&host_side, &pod_side) else {
        let host = host_side
            .is_none()
            .then(|| Difference::HostMissing(link.host_name.clone()));
        let pod = pod_side
            .is_none()
            .then(|| Difference::PodMissing(link.if_name.clone()));
        return Ok(host.into_iter().chain(pod).collect());
    };
    let mut differences = Vec::new();
    let paired = host_side.tied_to == Some(pod_side.index) && pod_side.tied_to == Some(host_side.index);
    if !paired {
        differences.push(Difference::NotPaired);
    }
    side(&mut differences, host_side, link.mtu);
    side(&mut differences, pod_side, link.mtu);

    let listed = addresses::list(&inside).await?;
    let neighbours = neighbours::permanent(&inside, pod_side.index).await?;
    for address in &link.addresses {
        if !listed
            .iter()
            .any(|entry| entry.index == pod_side.index && entry.address == *address)
        {
            differences.push(Difference::AddressMissing(*address));
        }
        let gateway = gateway(*address);
        if neighbours.get(&gateway) != Some(&HOST_MAC) {
            differences.push(Difference::GatewayMissing(gateway));
        }
        if !routes::has_default(&inside, pod_side.index, gateway).await? {
            differences.push(Difference::DefaultRouteMissing(*address));
        }
    }
    Ok(differences)
}

fn side(differences: &mut Vec<Difference>, entry: &LinkEntry, mtu: u32) {
    if !entry.up {
        differences.push(Difference::Down(entry.name.clone()));
    }
    if entry.mtu != mtu {
        differences.push(Difference::Mtu {
            link: entry.name.clone(),
            is: entry.mtu,
            should: mtu,
        });
    }
}
