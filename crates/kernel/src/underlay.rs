//! Addresses of the interfaces that are not ours, and routes that are not ours.

use ipnet::IpNet;
use warren_plan::{UnderlayAddress, UnderlayRoute};

use crate::addresses::{self, AddressEntry, is_link_local};
use crate::links::{self, LinkEntry, is_ours};
use crate::netlink::{Netlink, NetlinkError};
use crate::routes;

/// The addresses of all interfaces that are up and neither ours nor a loopback; IPv6 link-local ones left out.
pub(crate) async fn observe(netlink: &Netlink) -> Result<Vec<UnderlayAddress>, NetlinkError> {
    let links = links::list(netlink).await?;
    let addresses = addresses::list(netlink).await?;
    Ok(addresses
        .iter()
        .filter_map(|entry| underlay(&links, entry))
        .collect())
}

/// The routes of the main table that are neither ours nor out of an interface of ours nor link-local.
pub(crate) async fn routes(netlink: &Netlink) -> Result<Vec<UnderlayRoute>, NetlinkError> {
    let links = links::list(netlink).await?;
    let foreign = routes::foreign(netlink).await?;
    let found = foreign
        .into_iter()
        .filter(|route| !is_link_local(route.net.addr()));
    Ok(found
        .filter_map(|route| {
            let mtu = |index: &u32| {
                let link = links.iter().find(|link| link.index == *index)?;
                (!is_ours(&link.name)).then_some(link.mtu)
            };
            let of_links: Option<Vec<u32>> = route.interfaces.iter().map(mtu).collect();
            Some(UnderlayRoute {
                net: route.net,
                metric: route.metric,
                mtu: of_links?.into_iter().chain(route.mtu).min()?,
            })
        })
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
