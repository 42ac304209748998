//! Host addresses (/32 and /128) on our interfaces.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums are foreign, open and dozens of variants long"
)]

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

use crate::family::{family, full_length};
use crate::links::{self, LinkEntry, is_ours};
use crate::netlink::{Netlink, NetlinkError, accept};

/// One address of one interface as the kernel lists it.
#[derive(Debug, Clone)]
pub(crate) struct AddressEntry {
    pub(crate) index: u32,
    pub(crate) address: IpAddr,
    pub(crate) prefix_length: u8,
}

/// All addresses of the namespace.
pub(crate) async fn list(netlink: &Netlink) -> Result<Vec<AddressEntry>, NetlinkError> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let messages = netlink.dump(request, "list addresses").await?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(address) => from_message(&address),
            _ => None,
        })
        .collect())
}

/// The host addresses on our interfaces; link-local ones left out.
pub(crate) fn ours(links: &[LinkEntry], addresses: &[AddressEntry]) -> BTreeSet<(String, IpAddr)> {
    let host = |entry: &&AddressEntry| {
        entry.prefix_length == full_length(entry.address) && !is_link_local(entry.address)
    };
    addresses
        .iter()
        .filter(host)
        .filter_map(|entry| {
            let link = links
                .iter()
                .find(|link| link.index == entry.index && is_ours(&link.name))?;
            Some((link.name.clone(), entry.address))
        })
        .collect()
}

/// All of them, whatever the interface.
pub(crate) fn all(addresses: &[AddressEntry]) -> Vec<IpAddr> {
    addresses.iter().map(|entry| entry.address).collect()
}

/// Puts a host address on an interface, usable at once (no duplicate address detection); there already is fine.
pub(crate) async fn add(netlink: &Netlink, link: &str, address: IpAddr) -> Result<(), NetlinkError> {
    let act = format!("add address {address} dev {link}");
    let index = links::index(netlink, link, &act).await?;
    let message = RouteNetlinkMessage::NewAddress(host(index, address));
    accept(
        netlink.act(message, NLM_F_CREATE | NLM_F_EXCL, &act).await,
        &[libc::EEXIST],
    )
}

/// Takes a host address off an interface; not there is fine.
pub(crate) async fn remove(netlink: &Netlink, link: &str, address: IpAddr) -> Result<(), NetlinkError> {
    let act = format!("delete address {address} dev {link}");
    let Some(entry) = links::find(netlink, link).await? else {
        return Ok(());
    };
    let message = RouteNetlinkMessage::DelAddress(host(entry.index, address));
    accept(
        netlink.act(message, 0, &act).await,
        &[libc::EADDRNOTAVAIL, libc::ENODEV],
    )
}

/// 169.254.0.0/16 is not meant: only IPv6 makes such addresses by itself.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// A host address of an interface, usable at once: no duplicate address detection.
pub(crate) fn host(index: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = full_length(address);
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    if address.is_ipv6() {
        let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    message
}

fn from_message(message: &AddressMessage) -> Option<AddressEntry> {
    // Where both are given, `Address` is the other end of a point-to-point link and `Local` is ours.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let plain = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    Some(AddressEntry {
        index: message.header.index,
        address: local.or(plain)?,
        prefix_length: message.header.prefix_len,
    })
}
