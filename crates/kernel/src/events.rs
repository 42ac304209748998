//! A tick for every change in the kernel that may matter to a plan.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums are foreign, open and dozens of variants long"
)]

use futures::{Stream, StreamExt};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteProtocol;
use rtnetlink::MulticastGroup;
use warren_plan::state::ROUTE_PROTOCOL;

use crate::netlink::NetlinkError;

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

fn matters(payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    match payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => route.header.protocol == RouteProtocol::from(ROUTE_PROTOCOL),
        NetlinkPayload::InnerMessage(_) | NetlinkPayload::Overrun(_) => true,
        _ => false,
    }
}
