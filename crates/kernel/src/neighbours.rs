//! Permanent neighbours on our interfaces, and the VXLAN interface's FDB.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums are foreign, open and dozens of variants long"
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use warren_plan::Mac;
use warren_plan::state::VXLAN_INTERFACE;

use crate::family::family;
use crate::links::{self, LinkEntry, is_ours};
use crate::netlink::{Netlink, NetlinkError, accept};

/// The permanent neighbours on our interfaces.
pub(crate) async fn ours(
    netlink: &Netlink,
    links: &[LinkEntry],
) -> Result<BTreeMap<(String, IpAddr), Mac>, NetlinkError> {
    let messages = dump(netlink, AddressFamily::Unspec, "list neighbours").await?;
    Ok(messages
        .iter()
        .filter(|message| message.header.state == NeighbourState::Permanent)
        .filter_map(|message| {
            let link = links.iter().find(|link| link.index == message.header.ifindex)?;
            let entry = is_ours(&link.name).then(|| link.name.clone())?;
            Some(((entry, destination(message)?), mac(message)?))
        })
        .collect())
}

/// The permanent neighbours on one interface, whosever it is.
pub(crate) async fn permanent(netlink: &Netlink, index: u32) -> Result<BTreeMap<IpAddr, Mac>, NetlinkError> {
    let messages = dump(netlink, AddressFamily::Unspec, "list neighbours").await?;
    Ok(messages
        .iter()
        .filter(|message| message.header.state == NeighbourState::Permanent)
        .filter(|message| message.header.ifindex == index)
        .filter_map(|message| Some((destination(message)?, mac(message)?)))
        .collect())
}

/// The FDB of the VXLAN interface: which host has which MAC.
pub(crate) async fn fdb(
    netlink: &Netlink,
    links: &[LinkEntry],
) -> Result<BTreeMap<Mac, IpAddr>, NetlinkError> {
    let Some(vxlan) = links.iter().find(|link| link.name == VXLAN_INTERFACE) else {
        return Ok(BTreeMap::new());
    };
    let messages = dump(netlink, AddressFamily::Bridge, "list FDB entries").await?;
    Ok(messages
        .iter()
        .filter(|message| message.header.ifindex == vxlan.index)
        .filter_map(|message| Some((mac(message)?, destination(message)?)))
        .collect())
}

/// Adds or replaces a permanent neighbour.
pub(crate) async fn set(
    netlink: &Netlink,
    link: &str,
    address: IpAddr,
    mac: Mac,
) -> Result<(), NetlinkError> {
    let act = format!("replace neighbour {address} lladdr {mac} dev {link}");
    let index = links::index(netlink, link, &act).await?;
    let message = RouteNetlinkMessage::NewNeighbour(neighbour(index, address, Some(mac)));
    netlink.act(message, NLM_F_CREATE | NLM_F_REPLACE, &act).await
}

/// Removes a neighbour; not there is fine.
pub(crate) async fn remove(netlink: &Netlink, link: &str, address: IpAddr) -> Result<(), NetlinkError> {
    let act = format!("delete neighbour {address} dev {link}");
    let Some(entry) = links::find(netlink, link).await? else {
        return Ok(());
    };
    let message = RouteNetlinkMessage::DelNeighbour(neighbour(entry.index, address, None));
    accept(netlink.act(message, 0, &act).await, &[libc::ENOENT, libc::ENODEV])
}

/// Adds or replaces an FDB entry of the VXLAN interface.
pub(crate) async fn set_fdb(netlink: &Netlink, mac: Mac, host: IpAddr) -> Result<(), NetlinkError> {
    let act = format!("replace FDB entry {mac} dst {host} dev {VXLAN_INTERFACE}");
    let index = links::index(netlink, VXLAN_INTERFACE, &act).await?;
    let mut message = fdb_entry(index, mac);
    message
        .attributes
        .push(NeighbourAttribute::Destination(NeighbourAddress::from(host)));
    netlink
        .act(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            &act,
        )
        .await
}

/// Removes an FDB entry of the VXLAN interface; not there is fine.
pub(crate) async fn remove_fdb(netlink: &Netlink, mac: Mac) -> Result<(), NetlinkError> {
    let act = format!("delete FDB entry {mac} dev {VXLAN_INTERFACE}");
    let Some(entry) = links::find(netlink, VXLAN_INTERFACE).await? else {
        return Ok(());
    };
    let message = RouteNetlinkMessage::DelNeighbour(fdb_entry(entry.index, mac));
    accept(netlink.act(message, 0, &act).await, &[libc::ENOENT, libc::ENODEV])
}

async fn dump(
    netlink: &Netlink,
    family: AddressFamily,
    act: &str,
) -> Result<Vec<NeighbourMessage>, NetlinkError> {
    let mut request = NeighbourMessage::default();
    request.header.family = family;
    let messages = netlink
        .dump(RouteNetlinkMessage::GetNeighbour(request), act)
        .await?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(neighbour) => Some(neighbour),
            _ => None,
        })
        .collect())
}

/// A permanent neighbour; without a MAC, one to be removed.
pub(crate) fn neighbour(index: u32, address: IpAddr, mac: Option<Mac>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message
        .attributes
        .push(NeighbourAttribute::Destination(NeighbourAddress::from(address)));
    message
        .attributes
        .extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())));
    message
}

fn fdb_entry(index: u32, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}

fn destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => from_bytes(bytes),
        _ => None,
    })
}

/// FDB entries are of the bridge family, so only the length tells which kind of address it is.
fn from_bytes(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes)
        .ok()
        .map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    v4.or_else(|| {
        <[u8; 16]>::try_from(bytes)
            .ok()
            .map(|octets| IpAddr::V6(Ipv6Addr::from(octets)))
    })
}

fn mac(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac),
        _ => None,
    })
}
