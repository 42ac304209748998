//! Sets made from nothing.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::index::{Index, Member};
use crate::protocol::Protocol;
use crate::query::Query;
use crate::ruleset::{AddressSet, PortSet};

/// The set of what a query finds, without a name.
pub(super) fn address_set(index: &Index, query: &Query) -> AddressSet {
    let found = index.select(query);
    let members = || found.iter().filter_map(|id| index.member(*id));
    let mut addresses: Vec<IpAddr> = Vec::new();
    // One family after the other: members come by address, so this is nearly in order.
    for wants_v6 in [false, true] {
        let of_family = |address: &&IpAddr| address.is_ipv6() == wants_v6;
        addresses.extend(members().flat_map(|member| &member.addresses).filter(of_family));
    }
    // A sort that makes use of what is in order already.
    addresses.sort();
    addresses.dedup();
    let nets: Vec<IpNet> = members().flat_map(|member| &member.nets).copied().collect();
    AddressSet {
        name: String::new(),
        query: query.clone(),
        addresses,
        nets: IpNet::aggregate(&nets),
    }
}

/// The set of all ports of that name and protocol, without a name of its own.
pub(super) fn port_set(index: &Index, protocol: Protocol, port_name: &str) -> PortSet {
    let members = index
        .members()
        .flat_map(|(_, member)| named(member, protocol, port_name));
    let mut members: Vec<(IpAddr, u16)> = members.collect();
    members.sort();
    members.dedup();
    PortSet {
        name: String::new(),
        protocol,
        port_name: port_name.to_owned(),
        members,
    }
}

/// A member's ports of that name and protocol, at each of its addresses.
pub(super) fn named<'m>(
    member: &'m Member,
    protocol: Protocol,
    port_name: &'m str,
) -> impl Iterator<Item = (IpAddr, u16)> + 'm {
    let ports = member.ports().iter();
    let named = ports.filter(move |port| port.protocol == protocol && port.name == port_name);
    named.flat_map(|port| member.addresses.iter().map(|address| (*address, port.port)))
}
