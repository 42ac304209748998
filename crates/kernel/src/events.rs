//! A tick for every change in the kernel that may matter to a plan.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums are foreign, open and dozens of variants long"
)]

use futures::{Stream, StreamExt};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use warren_plan::state::ROUTE_PROTOCOL;

use crate::netlink::NetlinkError;

/// What has changed in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelEvent {
    /// Interfaces, addresses or routes of ours, by whomever.
    Network,
    /// The guard, and not by us: until the next pass it may let through what it should not.
    Guard,
}

/// Ticks on changes of interfaces and addresses, and of routes of our protocol, by whomever. Lost notifications are a
/// tick too. The receiver is expected to coalesce; the stream ends only with the netlink socket.
pub(crate) fn subscribe() -> Result<impl Stream<Item = ()> + Send + Unpin + 'static, NetlinkError> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (connection, handle, messages) =
        rtnetlink::new_multicast_connection(&groups).map_err(NetlinkError::Open)?;
    tokio::spawn(connection);
    let ticks = messages.filter_map(move |(message, _)| {
        // The connection lives as long as a handle does.
        let _ = &handle;
        std::future::ready(matters(&message.payload).then_some(()))
    });
    Ok(ticks)
}

/// The names of interfaces of the calling thread's namespace that are gone, from now on.
pub(crate) fn links_gone() -> Result<impl Stream<Item = String> + Send + Unpin + 'static, NetlinkError> {
    let (connection, handle, messages) =
        rtnetlink::new_multicast_connection(&[MulticastGroup::Link]).map_err(NetlinkError::Open)?;
    tokio::spawn(connection);
    let names = messages.filter_map(move |(message, _)| {
        let _ = &handle;
        std::future::ready(name_of_gone(message.payload))
    });
    Ok(names)
}

fn name_of_gone(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<String> {
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) = payload else {
        return None;
    };
    // A bridge announces with its own family that an interface has left it.
    if link.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    link.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    })
}

fn matters(payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    match payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => route.header.protocol == RouteProtocol::from(ROUTE_PROTOCOL),
        NetlinkPayload::InnerMessage(_) | NetlinkPayload::Overrun(_) => true,
        _ => false,
    }
}
