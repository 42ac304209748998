//! Address sets, each made once for all rules whose selectors are equal.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use warren_model::fnv::fnv1a;

use crate::index::{Index, What};
use crate::protocol::Protocol;
use crate::query::Query;
use crate::ruleset::{AddressSet, PortSet, PortSetId, SetId};

/// The sets that rules have asked for.
///
/// They are told apart by what they hold and not by a hash of it, which somebody who may write policies could make collide.
pub(crate) struct Sets<'a> {
    index: &'a Index<'a>,
    by_query: BTreeMap<Query, SetId>,
    by_port: BTreeMap<(Protocol, String), PortSetId>,
    sets: Vec<AddressSet>,
    port_sets: Vec<PortSet>,
}

impl<'a> Sets<'a> {
    /// None yet.
    pub(crate) fn new(index: &'a Index<'a>) -> Self {
        Self {
            index,
            by_query: BTreeMap::new(),
            by_port: BTreeMap::new(),
            sets: Vec::new(),
            port_sets: Vec::new(),
        }
    }

    /// The set of what a query finds.
    pub(crate) fn of(&mut self, query: &Query) -> SetId {
        if let Some(id) = self.by_query.get(query) {
            return *id;
        }
        let id = self.sets.len();
        let set = address_set(self.index, query);
        self.sets.push(set);
        self.by_query.insert(query.clone(), id);
        id
    }

    /// The set of all ports of that name and protocol.
    pub(crate) fn of_port(&mut self, protocol: Protocol, port_name: &str) -> PortSetId {
        let key = (protocol, port_name.to_owned());
        if let Some(id) = self.by_port.get(&key) {
            return *id;
        }
        let id = self.port_sets.len();
        self.port_sets.push(port_set(self.index, protocol, port_name));
        self.by_port.insert(key, id);
        id
    }

    /// All of them, with names that no two share.
    pub(crate) fn finish(mut self) -> (Vec<AddressSet>, Vec<PortSet>) {
        // In the order of what they hold, so that of two whose hashes collide always the same one has the plain name.
        let mut names = Names::default();
        for (query, id) in &self.by_query {
            self.sets[*id].name = names.unique("s", &query.to_string());
        }
        for ((protocol, port_name), id) in &self.by_port {
            self.port_sets[*id].name = names.unique("p", &format!("{} {port_name}", protocol.0));
        }
        (self.sets, self.port_sets)
    }
}

#[derive(Default)]
struct Names(BTreeMap<String, u32>);

impl Names {
    fn unique(&mut self, prefix: &str, text: &str) -> String {
        let name = format!("{prefix}-{:016x}", fnv1a(text));
        let taken = self.0.entry(name.clone()).or_default();
        *taken += 1;
        match *taken {
            1 => name,
            again => format!("{name}-{again}"),
        }
    }
}

fn address_set(index: &Index<'_>, query: &Query) -> AddressSet {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut nets: Vec<IpNet> = Vec::new();
    let found = index.select(query);
    let members = || found.iter().map(|id| &index.members()[*id as usize]);
    // One family after the other: members come by address, so this is nearly in order.
    for wants_v6 in [false, true] {
        let of_family = |address: &&IpAddr| address.is_ipv6() == wants_v6;
        addresses.extend(members().flat_map(|member| member.addresses).filter(of_family));
    }
    for net in members().flat_map(|member| member.nets) {
        if net.prefix_len() == net.max_prefix_len() {
            addresses.push(net.addr());
        } else {
            nets.push(*net);
        }
    }
    // A sort that makes use of what is in order already.
    addresses.sort();
    addresses.dedup();
    AddressSet {
        name: String::new(),
        query: query.clone(),
        addresses,
        // Overlapping intervals are an error to nftables.
        nets: IpNet::aggregate(&nets),
    }
}

fn port_set(index: &Index<'_>, protocol: Protocol, port_name: &str) -> PortSet {
    let mut members: Vec<(IpAddr, u16)> = Vec::new();
    for member in index.members() {
        let ports = match member.what {
            What::Pod(pod) => &pod.ports,
            What::Host(host) => &host.ports,
            What::Set => continue,
        };
        for port in ports {
            if port.protocol == protocol && port.name == port_name {
                members.extend(member.addresses.iter().map(|address| (*address, port.port)));
            }
        }
    }
    members.sort_unstable();
    members.dedup();
    PortSet {
        name: String::new(),
        protocol,
        port_name: port_name.to_owned(),
        members,
    }
}
