//! Addresses of the interfaces that are not ours.

use ipnet::IpNet;
use warren_plan::UnderlayAddress;

use crate::addresses::{self, AddressEntry, is_link_local};
use crate::links::{self, LinkEntry, is_ours};
use crate::netlink::{Netlink, NetlinkError};

/// The addresses of all interfaces that are up and neither ours nor a loopback; IPv6 link-local ones left out.
pub(crate) async fn observe(netlink: &Netlink) -> Result<Vec<UnderlayAddress>, NetlinkError> {
    let links = links::list(netlink).await?;
    let addresses = addresses::list(netlink).await?;
    Ok(addresses
        .iter()
        .filter_map(|entry| underlay(&links, entry))
        .collect())
}

fn underlay(links: &[LinkEntry], entry: &AddressEntry) -> Option<UnderlayAddress> {
    let link = links.iter().find(|link| link.index == entry.index)?;
    if !link.up || link.loopback || is_ours(&link.name) || is_link_local(entry.address) {
        return None;
    }
    let net = IpNet::new(entry.address, entry.prefix_length).ok()?;
    Some(UnderlayAddress {
        interface: link.name.clone(),
        net,
        mtu: link.mtu,
    })
}
