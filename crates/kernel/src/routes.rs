//! Routes of protocol 87 in the main table.
//!
//! All carry one metric of their own, in both families. So setting a route replaces ours, whatever its type was, in one
//! step of the kernel (`NLM_F_REPLACE`), and never somebody else's route to the same prefix, which has another metric.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums are foreign, open and dozens of variants long"
)]

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use warren_plan::state::ROUTE_PROTOCOL;
use warren_plan::{Route, RouteTarget};

use crate::direct::Direct;
use crate::family::{family, full_length};
use crate::links::{self, LinkEntry};
use crate::netlink::{Netlink, NetlinkError};

/// The metric of our routes.
pub const ROUTE_METRIC: u32 = 87;

/// As many routes of ours to one prefix as a removal expects at most: one, and strays of other metrics.
const STRAYS: usize = 16;

/// Our routes, both families.
pub(crate) async fn ours(
    netlink: &Netlink,
    links: &[LinkEntry],
) -> Result<BTreeMap<IpNet, Route>, NetlinkError> {
    let routes = list(netlink).await?;
    Ok(routes
        .iter()
        .filter(|route| is_ours(route) && metric(route) == Some(ROUTE_METRIC))
        .filter_map(|route| Some((destination(route)?, to_route(route, links)?)))
        .collect())
}

/// A route of somebody else's.
pub(crate) struct ForeignRoute {
    pub(crate) net: IpNet,
    pub(crate) metric: u32,
    /// Its own, if it has one.
    pub(crate) mtu: Option<u32>,
    /// The interfaces it leads out of.
    pub(crate) interfaces: Vec<u32>,
}

/// The routes of the main table by which packets go on and that are not ours.
pub(crate) async fn foreign(netlink: &Netlink) -> Result<Vec<ForeignRoute>, NetlinkError> {
    let routes = list(netlink).await?;
    let leads_on = |route: &&RouteMessage| {
        route.header.table == RouteHeader::RT_TABLE_MAIN
            && route.header.kind == RouteType::Unicast
            && route.header.protocol != RouteProtocol::from(ROUTE_PROTOCOL)
            && !route.header.flags.contains(RouteFlags::Cloned)
    };
    Ok(routes.iter().filter(leads_on).filter_map(to_foreign).collect())
}

/// The prefixes that any route of our protocol leads to, whatever its metric.
pub(crate) async fn prefixes(netlink: &Netlink) -> Result<Vec<IpNet>, NetlinkError> {
    let routes = list(netlink).await?;
    Ok(routes
        .iter()
        .filter(|route| is_ours(route))
        .filter_map(destination)
        .collect())
}

/// Adds or replaces a route.
pub(crate) async fn set(netlink: &Netlink, net: IpNet, route: &Route) -> Result<(), NetlinkError> {
    let act = format!("replace route {net} {route}");
    let message = message(netlink, net, route, &act).await?;
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    let replaced = netlink
        .act(RouteNetlinkMessage::NewRoute(message.clone()), flags, &act)
        .await;
    match (&route.target, replaced) {
        // IPv6 refuses an on-link gateway that is routed out of another interface so far, and the gateway is often
        // inside the very prefix that is to move (net/ipv6/route.c, ip6_route_check_nh_onlink). A route for the gateway
        // alone, there for the moment of the change, moves it ahead; the prefix is never without a route.
        (RouteTarget::OnLink(device, gateway @ IpAddr::V6(_)), Err(error))
            if error.errno() == Some(libc::EINVAL) =>
        {
            let stone = IpNet::from(*gateway);
            let ahead = Route {
                target: RouteTarget::Device(device.clone()),
                source: None,
                mtu: None,
            };
            let ahead = self::message(netlink, stone, &ahead, &act).await?;
            netlink
                .act(RouteNetlinkMessage::NewRoute(ahead), flags, &act)
                .await?;
            let replaced = netlink
                .act(RouteNetlinkMessage::NewRoute(message), flags, &act)
                .await;
            remove(netlink, stone).await?;
            replaced
        }
        (_, replaced) => replaced,
    }
}

/// Removes our route to a prefix; not there is fine.
pub(crate) async fn remove(netlink: &Netlink, net: IpNet) -> Result<(), NetlinkError> {
    for _ in 0..STRAYS {
        let mut message = header(net);
        // "Any" in a removal.
        message.header.scope = RouteScope::NoWhere;
        message.header.kind = RouteType::Unspec;
        let act = format!("delete route {net} proto {ROUTE_PROTOCOL}");
        match netlink.act(RouteNetlinkMessage::DelRoute(message), 0, &act).await {
            Err(error) if matches!(error.errno(), Some(libc::ESRCH | libc::ENOENT | libc::ENODEV)) => break,
            other => other?,
        }
    }
    Ok(())
}

/// Whether the kernel would take a packet for that address itself.
pub(crate) fn is_local(netlink: &mut Direct, address: IpAddr) -> Result<bool, NetlinkError> {
    let mut request = RouteMessage::default();
    request.header.address_family = family(address);
    request.header.destination_prefix_length = full_length(address);
    request
        .attributes
        .push(RouteAttribute::Destination(RouteAddress::from(address)));
    let act = format!("look up the route to {address}");
    match netlink.get(RouteNetlinkMessage::GetRoute(request), &act) {
        Ok(Some(RouteNetlinkMessage::NewRoute(route))) => Ok(route.header.kind == RouteType::Local),
        Ok(_) => Ok(false),
        Err(error) if matches!(error.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the main table has a default route by that gateway out of that interface, whosever it is.
pub(crate) async fn has_default(
    netlink: &Netlink,
    index: u32,
    gateway: IpAddr,
) -> Result<bool, NetlinkError> {
    let routes = list(netlink).await?;
    let has = |route: &RouteMessage, wanted: RouteAttribute| route.attributes.contains(&wanted);
    Ok(routes.iter().any(|route| {
        route.header.destination_prefix_length == 0
            && route.header.table == RouteHeader::RT_TABLE_MAIN
            && has(route, RouteAttribute::Oif(index))
            && has(route, RouteAttribute::Gateway(RouteAddress::from(gateway)))
    }))
}

async fn list(netlink: &Netlink) -> Result<Vec<RouteMessage>, NetlinkError> {
    let messages = netlink
        .dump(
            RouteNetlinkMessage::GetRoute(RouteMessage::default()),
            "list routes",
        )
        .await?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        })
        .collect())
}

fn is_ours(route: &RouteMessage) -> bool {
    route.header.protocol == RouteProtocol::from(ROUTE_PROTOCOL)
        && route.header.table == RouteHeader::RT_TABLE_MAIN
        && !route.header.flags.contains(RouteFlags::Cloned)
}

async fn message(
    netlink: &Netlink,
    net: IpNet,
    route: &Route,
    act: &str,
) -> Result<RouteMessage, NetlinkError> {
    let mut message = header(net);
    message.attributes.push(RouteAttribute::Priority(ROUTE_METRIC));
    match &route.target {
        RouteTarget::Device(device) => {
            let index = links::index(netlink, device, act).await?;
            message.header.scope = RouteScope::Link;
            message.attributes.push(RouteAttribute::Oif(index));
        }
        RouteTarget::OnLink(device, gateway) => {
            let index = links::index(netlink, device, act).await?;
            message.header.flags.insert(RouteFlags::Onlink);
            message.attributes.push(RouteAttribute::Oif(index));
            message
                .attributes
                .push(RouteAttribute::Gateway(RouteAddress::from(*gateway)));
        }
        RouteTarget::Gateway(gateway) => {
            message
                .attributes
                .push(RouteAttribute::Gateway(RouteAddress::from(*gateway)));
        }
        RouteTarget::Unreachable => message.header.kind = RouteType::Unreachable,
        RouteTarget::Blackhole => message.header.kind = RouteType::BlackHole,
    }
    if let Some(source) = route.source {
        message
            .attributes
            .push(RouteAttribute::PrefSource(RouteAddress::from(source)));
    }
    if let Some(mtu) = route.mtu {
        message
            .attributes
            .push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    Ok(message)
}

fn header(net: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(net.addr());
    message.header.destination_prefix_length = net.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message
        .attributes
        .push(RouteAttribute::Destination(RouteAddress::from(net.network())));
    message
}

/// `None`: it has no interface, as with a next hop object, which is not looked up.
fn to_foreign(route: &RouteMessage) -> Option<ForeignRoute> {
    let mut interfaces = Vec::new();
    let mut mtu = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interfaces.push(*index),
            RouteAttribute::MultiPath(hops) => interfaces.extend(hops.iter().map(|hop| hop.interface_index)),
            RouteAttribute::Metrics(metrics) => mtu = mtu_of(metrics),
            _ => {}
        }
    }
    // A default route has no destination.
    let default = || match route.header.address_family {
        AddressFamily::Inet => Some(IpNet::V4(Ipv4Net::default())),
        AddressFamily::Inet6 => Some(IpNet::V6(Ipv6Net::default())),
        _ => None,
    };
    Some(ForeignRoute {
        net: destination(route).or_else(default)?,
        metric: metric(route).unwrap_or_default(),
        mtu,
        interfaces: (!interfaces.is_empty()).then_some(interfaces)?,
    })
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    })?;
    let length = route.header.destination_prefix_length.min(full_length(address));
    IpNet::new(address, length).ok()
}

/// The route in the plan's terms; `None` for what no plan asks for (several next hops, other types), which is then
/// replaced as if it were missing.
fn to_route(route: &RouteMessage, links: &[LinkEntry]) -> Option<Route> {
    let (mut device, mut gateway, mut source, mut mtu) = (None, None, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => {
                device = links
                    .iter()
                    .find(|link| link.index == *index)
                    .map(|link| link.name.clone());
            }
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Metrics(metrics) => mtu = mtu_of(metrics),
            RouteAttribute::MultiPath(_) | RouteAttribute::Via(_) => return None,
            _ => {}
        }
    }
    let on_link = route.header.flags.contains(RouteFlags::Onlink);
    let target = match route.header.kind {
        RouteType::Unicast => match (gateway, on_link) {
            (Some(gateway), true) => RouteTarget::OnLink(device?, gateway),
            (Some(gateway), false) => RouteTarget::Gateway(gateway),
            (None, _) => RouteTarget::Device(device?),
        },
        RouteType::Unreachable => RouteTarget::Unreachable,
        RouteType::BlackHole => RouteTarget::Blackhole,
        _ => return None,
    };
    Some(Route { target, source, mtu })
}

fn mtu_of(metrics: &[RouteMetric]) -> Option<u32> {
    let mtu = metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    mtu.filter(|mtu| *mtu > 0)
}

fn metric(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
