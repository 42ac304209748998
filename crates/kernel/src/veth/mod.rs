//! A pod's link to its node: a veth pair, the host side `wrn`+hash and the pod's side under its final name.
//!
//! The pod reaches everything by a gateway that is only a permanent neighbour, the host side's fixed MAC: no ARP, no
//! neighbour discovery, nothing to spoof. The routes from the node to the pod are the plan's.

mod check;
mod make;
mod pod_side;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use netlink_packet_route::link::InfoKind;
use thiserror::Error;
use warren_plan::Mac;
use warren_plan::state::VETH_PREFIX;

pub use check::{Difference, check};
pub use pod_side::gateway;

use crate::kernel::Kernel;
use crate::links::{self, is_ours};
use crate::netlink::NetlinkError;
use crate::netns::{Namespace, NamespaceError};
use crate::sysctl::SysctlError;

/// The MAC of every pod link's host side: nobody else sees it, and a pod that is moved keeps its neighbour entry.
pub const HOST_MAC: Mac = Mac([0xee; 6]);

/// One pod's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLink {
    /// Host side, `wrn` and a hash.
    pub host_name: String,
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// The pod's side, as the runtime wants it named.
    pub if_name: String,
    /// MAC of the pod's side.
    pub mac: Mac,
    /// Bytes, both sides.
    pub mtu: u32,
    /// The pod's addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// What the host side bears as its alias, so that the link itself tells whose it is: at most [`MAX_LABEL`] bytes.
    pub label: Option<String>,
}

/// The longest label: the kernel's IFALIASZ, 256, counts a final zero, and so does the attribute.
pub const MAX_LABEL: usize = 254;

/// The host side of a pod's link, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSide {
    /// Its name.
    pub name: String,
    /// The label it was given.
    pub label: Option<String>,
    /// Whether it is up. One that never was is half made: no packet has passed it.
    pub up: bool,
}

/// A pod link that cannot be made, checked or removed.
#[derive(Debug, Error)]
pub enum VethError {
    /// The pod's namespace cannot be used.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The kernel said no.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// One of the interface's settings.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The name is taken in the pod: another network plugin, or an earlier attachment that was not removed.
    #[error("the pod's namespace {netns} already has an interface {if_name}: detach the pod first")]
    TakenInPod {
        /// The namespace.
        netns: PathBuf,
        /// The name.
        if_name: String,
    },
    /// The name is taken on the node.
    #[error("the node already has an interface {0}: detach the pod it belongs to first")]
    TakenOnHost(String),
    /// A host name that does not bear our mark.
    #[error("{0:?} is no name for a pod's veth: it must begin with {VETH_PREFIX} and have at most 15 bytes")]
    HostName(String),
    /// An IPv6 address for a pod, on a kernel without IPv6.
    #[error("cannot give a pod {0}: this kernel has IPv6 disabled; take the IPv6 pod CIDR off the node")]
    NoIpv6(IpAddr),
}

impl VethError {
    /// Whether the same may succeed later without a change elsewhere.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Namespace(error) => error.is_transient(),
            Self::Netlink(error) => error.is_transient(),
            Self::Sysctl(error) => error.is_transient(),
            Self::TakenInPod { .. } | Self::TakenOnHost(_) | Self::HostName(_) | Self::NoIpv6(_) => false,
        }
    }
}

/// The host sides of all pods' links, by name.
pub async fn host_sides(kernel: &Kernel) -> Result<Vec<HostSide>, VethError> {
    let mut sides: Vec<HostSide> = links::list(kernel.netlink())
        .await?
        .into_iter()
        .filter(|link| link.kind == Some(InfoKind::Veth) && link.name.starts_with(VETH_PREFIX))
        .map(|link| HostSide {
            name: link.name,
            label: link.alias,
            up: link.up,
        })
        .collect();
    sides.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(sides)
}

/// Makes the link, both sides up, addresses and routes in the pod. On failure nothing is left. Until the guard opens
/// the pod no packet of it passes.
pub async fn create(link: &PodLink) -> Result<(), VethError> {
    let namespace = Namespace::open(&link.netns)?;
    check_host_name(&link.host_name)?;
    if let Some(v6) = link
        .addresses
        .iter()
        .find(|address| address.is_ipv6())
        .filter(|_| !has_ipv6())
    {
        return Err(VethError::NoIpv6(*v6));
    }
    // One thread for all of it, on sockets of its own: some fifteen requests take less than handing over one of them.
    let link = link.clone();
    namespace
        .run_from_outside(move |namespace| make::make(&link, namespace))
        .await?
}

/// Sets the MTU of both sides. The pod's side is lowered before the host's and raised after it: at no moment does the
/// pod send more than the host side takes, and a crash in between is put right by doing it again.
pub async fn set_mtu(
    kernel: &Kernel,
    host_name: &str,
    netns: &Path,
    if_name: &str,
    mtu: u32,
) -> Result<(), VethError> {
    check_host_name(host_name)?;
    let inside = Namespace::open(netns)?.netlink().await?;
    let lowered = links::find(&inside, if_name)
        .await?
        .is_some_and(|pod_side| mtu < pod_side.mtu);
    if lowered {
        links::set_mtu(&inside, if_name, mtu).await?;
        Ok(links::set_mtu(kernel.netlink(), host_name, mtu).await?)
    } else {
        links::set_mtu(kernel.netlink(), host_name, mtu).await?;
        Ok(links::set_mtu(&inside, if_name, mtu).await?)
    }
}

/// Removes a pod's link by its host side, in the namespace of the calling thread; gone already is fine. It has neither name
/// nor route any more then; the kernel's last work on it goes on for some milliseconds.
pub async fn delete(host_name: &str) -> Result<(), VethError> {
    check_host_name(host_name)?;
    Ok(links::remove_until_announced(host_name).await?)
}

/// Removes a pod's link by its name in the pod, for when the host side's name is not known. An interface of that name
/// that is not tied to one of ours is left alone. Says whether something was removed; a namespace that is gone had
/// nothing.
pub async fn delete_in_pod(kernel: &Kernel, netns: &Path, if_name: &str) -> Result<bool, VethError> {
    let namespace = match Namespace::open(netns) {
        Ok(namespace) => namespace,
        Err(NamespaceError::Missing(_) | NamespaceError::NotANamespace(_)) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let inside = namespace.netlink().await?;
    let Some(pod_side) = links::find(&inside, if_name).await? else {
        return Ok(false);
    };
    let host_sides = links::list(kernel.netlink()).await?;
    let Some(host_side) = host_sides.iter().find(|link| {
        // Indices are numbers of their own in each namespace, so both directions must fit.
        Some(link.index) == pod_side.tied_to
            && link.tied_to == Some(pod_side.index)
            && link.kind == Some(InfoKind::Veth)
            && is_ours(&link.name)
    }) else {
        return Ok(false);
    };
    links::remove(&host_side.name).await?;
    Ok(true)
}

fn check_host_name(name: &str) -> Result<(), VethError> {
    // IFNAMSIZ is 16 with the final zero.
    if name.starts_with(VETH_PREFIX) && name.len() <= 15 {
        Ok(())
    } else {
        Err(VethError::HostName(name.to_owned()))
    }
}

/// Whether the kernel has IPv6 at all (`ipv6.disable=1` takes the folder away).
fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}
