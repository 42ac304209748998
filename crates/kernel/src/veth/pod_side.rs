//! The pod's side of its link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::{HOST_MAC, PodLink, VethError};
use crate::family::family;
use crate::netlink::{Netlink, NetlinkError};
use crate::netns::Namespace;
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

/// Addresses, neighbours and routes in the pod, in this order; the interface and `lo` come up. Returns the socket
/// inside that it was done with.
pub(super) async fn configure(namespace: &Namespace, link: &PodLink) -> Result<Netlink, VethError> {
    if link.addresses.iter().any(IpAddr::is_ipv6) {
        let name = link.if_name.clone();
        namespace.run(move || settle_ipv6(&name)).await??;
    }
    let inside = namespace.netlink().await?;
    links::set_up(&inside, "lo").await?;
    links::set_up(&inside, &link.if_name).await?;
    let act = format!("show link {} in the pod", link.if_name);
    let pod_side = links::find(&inside, &link.if_name)
        .await?
        .ok_or_else(|| NetlinkError::NoLink {
            act,
            link: link.if_name.clone(),
        })?;
    for address in &link.addresses {
        addresses::add(&inside, &link.if_name, *address).await?;
        neighbours::set(&inside, &link.if_name, gateway(*address), HOST_MAC).await?;
        add_default_route(&inside, pod_side.index, *address).await?;
    }
    Ok(inside)
}

/// Runs inside the pod's namespace. Some runtimes switch IPv6 off for new interfaces; whoever gives an address wants it.
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

async fn add_default_route(inside: &Netlink, index: u32, address: IpAddr) -> Result<(), NetlinkError> {
    let gateway = gateway(address);
    if address.is_ipv4() {
        // A gateway must be on the link before anything goes by it. For IPv6 link-local addresses are.
        let mut on_link = route(address, index);
        on_link.header.destination_prefix_length = 32;
        on_link.header.scope = RouteScope::Link;
        on_link
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::from(gateway)));
        set(inside, on_link, &format!("add route {gateway} in the pod")).await?;
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
    .await
}

async fn set(inside: &Netlink, route: RouteMessage, act: &str) -> Result<(), NetlinkError> {
    inside
        .act(
            RouteNetlinkMessage::NewRoute(route),
            NLM_F_CREATE | NLM_F_REPLACE,
            act,
        )
        .await
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
