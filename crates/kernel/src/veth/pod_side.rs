//! The pod's side of its link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::{HOST_MAC, PodLink, VethError};
use crate::direct::Direct;
use crate::family::family;
use crate::netlink::{NetlinkError, accept};
use crate::sysctl;
use crate::{addresses, links, neighbours};

/// The IPv4 gateway of every pod: no address of anything, only a neighbour (RFC 3927 keeps it off all networks).
pub(super) const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));

/// The IPv6 gateway of every pod: what the host side's MAC makes as link-local address (RFC 4291, appendix A).
pub(super) const GATEWAY_V6: IpAddr =
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee));

/// The gateway that a pod with this address has.
pub fn gateway(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => GATEWAY_V4,
        IpAddr::V6(_) => GATEWAY_V6,
    }
}

/// Addresses, neighbours and routes in the pod, in this order; the interface and `lo` come up. The calling thread and the
/// socket are inside.
pub(super) fn configure(inside: &mut Direct, link: &PodLink) -> Result<(), VethError> {
    if link.addresses.iter().any(IpAddr::is_ipv6) {
        settle_ipv6(&link.if_name)?;
    }
    links::set_up_directly(inside, "lo")?;
    links::set_up_directly(inside, &link.if_name)?;
    let act = format!("show link {} in the pod", link.if_name);
    let pod_side = links::find_directly(inside, &link.if_name)?.ok_or_else(|| NetlinkError::NoLink {
        act,
        link: link.if_name.clone(),
    })?;
    for address in &link.addresses {
        let message = RouteNetlinkMessage::NewAddress(addresses::host(pod_side.index, *address));
        let act = format!("add address {address} in the pod");
        let added = inside.act(message, NLM_F_CREATE | NLM_F_EXCL, &act);
        accept(added, &[libc::EEXIST])?;
        let gateway = gateway(*address);
        let neighbour = neighbours::neighbour(pod_side.index, gateway, Some(HOST_MAC));
        let message = RouteNetlinkMessage::NewNeighbour(neighbour);
        let act = format!("replace neighbour {gateway} in the pod");
        inside.act(message, NLM_F_CREATE | NLM_F_REPLACE, &act)?;
        add_default_route(inside, pod_side.index, *address)?;
    }
    Ok(())
}

/// Some runtimes switch IPv6 off for new interfaces; whoever gives an address wants it.
fn settle_ipv6(name: &str) -> Result<(), sysctl::SysctlError> {
    for (setting, value) in [
        ("disable_ipv6", "0"),
        ("accept_dad", "0"),
        ("dad_transmits", "0"),
        ("accept_ra", "0"),
    ] {
        sysctl::write(&format!("ipv6/conf/{name}/{setting}"), value)?;
    }
    Ok(())
}

fn add_default_route(inside: &mut Direct, index: u32, address: IpAddr) -> Result<(), NetlinkError> {
    let gateway = gateway(address);
    if address.is_ipv4() {
        // A gateway must be on the link before anything goes by it. For IPv6 link-local addresses are.
        let mut on_link = route(address, index);
        on_link.header.destination_prefix_length = 32;
        on_link.header.scope = RouteScope::Link;
        on_link
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::from(gateway)));
        set(inside, on_link, &format!("add route {gateway} in the pod"))?;
    }
    let mut default = route(address, index);
    default
        .attributes
        .push(RouteAttribute::Gateway(RouteAddress::from(gateway)));
    set(
        inside,
        default,
        &format!("add default route by {gateway} in the pod"),
    )
}

fn set(inside: &mut Direct, route: RouteMessage, act: &str) -> Result<(), NetlinkError> {
    inside.act(
        RouteNetlinkMessage::NewRoute(route),
        NLM_F_CREATE | NLM_F_REPLACE,
        act,
    )
}

fn route(address: IpAddr, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(address);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Oif(index));
    message
}
