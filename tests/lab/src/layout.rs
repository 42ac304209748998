//! Which addresses and names a lab uses: a function of the number of subnets, the families and a node's number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Most nodes a lab can have: the last octet of a node's address is ten more than its number.
pub const MAX_NODES: u8 = 240;

/// The pods of all nodes, IPv4.
pub const POD_NETWORK_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);

/// The pods of all nodes, IPv6.
pub const POD_NETWORK_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0), 48);

/// Address families of nodes and pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Families {
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// Both; IPv4 comes first.
    #[default]
    Dual,
}

impl Families {
    /// Keeps of `both` the addresses or networks that this choice has.
    fn choose<T>(self, v4: impl Into<T>, v6: impl Into<T>) -> Vec<T> {
        match self {
            Self::V4 => vec![v4.into()],
            Self::V6 => vec![v6.into()],
            Self::Dual => vec![v4.into(), v6.into()],
        }
    }

    /// How many families that are.
    pub fn count(self) -> usize {
        if self == Self::Dual { 2 } else { 1 }
    }
}

/// One subnet of the underlay: a bridge in the lab's root namespace, which routes between the subnets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet(pub(crate) u8);

impl Subnet {
    /// Name of its bridge.
    pub(crate) fn bridge(self) -> String {
        format!("under{}", self.0)
    }

    fn v4(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 211, self.0, host)
    }

    fn v6(self, host: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x211, self.0.into(), 0, 0, 0, 0, host.into())
    }

    fn host(self, families: Families, host: u8) -> Vec<IpNet> {
        families.choose(
            Ipv4Net::new_assert(self.v4(host), 24),
            Ipv6Net::new_assert(self.v6(host), 64),
        )
    }

    /// The router's addresses in this subnet, with prefix length.
    pub(crate) fn router(self, families: Families) -> Vec<IpNet> {
        self.host(families, 1)
    }
}

/// One node, by its number, which counts from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeLayout {
    number: u8,
    subnets: u8,
    families: Families,
}

impl NodeLayout {
    /// The node `number` (1 to [`MAX_NODES`]) of a lab with that many subnets; nodes are dealt to subnets in turn.
    pub(crate) fn new(number: u8, subnets: u8, families: Families) -> Self {
        Self {
            number,
            subnets: subnets.max(1),
            families,
        }
    }

    /// Its name in the API, which is its host name too.
    pub(crate) fn name(self) -> String {
        format!("node{}", self.number)
    }

    /// The end of its link that stays in the lab's root namespace, a port of the subnet's bridge.
    pub(crate) fn port(self) -> String {
        format!("n{}", self.number)
    }

    pub(crate) fn subnet(self) -> Subnet {
        Subnet((self.number - 1) % self.subnets + 1)
    }

    /// Its addresses on the underlay with prefix length, IPv4 first.
    pub(crate) fn addresses(self) -> Vec<IpNet> {
        self.subnet().host(self.families, 10 + self.number)
    }

    /// Its own of several words with commas between them, which are dealt to the nodes in turn.
    pub(crate) fn deal(self, words: &str) -> &str {
        let number = usize::from(self.number - 1);
        words.split(',').cycle().nth(number).unwrap_or_default()
    }

    /// `spec.podCIDRs`, IPv4 first.
    pub(crate) fn pod_cidrs(self) -> Vec<IpNet> {
        let n = self.number;
        self.families.choose(
            Ipv4Net::new_assert(Ipv4Addr::new(10, 244, n, 0), 24),
            Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x244, n.into(), 0, 0, 0, 0), 64),
        )
    }
}

/// Where the API is reached from inside a lab: the router's first address in the first subnet.
pub(crate) fn api_address(families: Families) -> IpAddr {
    match families {
        Families::V4 | Families::Dual => Subnet(1).v4(1).into(),
        Families::V6 => Subnet(1).v6(1).into(),
    }
}

/// Whether an address belongs to a pod.
pub(crate) fn is_pod(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => POD_NETWORK_V4.contains(&it),
        IpAddr::V6(it) => POD_NETWORK_V6.contains(&it),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_an_address_of_each_family_in_its_subnet_and_pod_cidrs_of_its_own() {
        let node = NodeLayout::new(4, 2, Families::Dual);
        let text = |nets: Vec<IpNet>| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(node.addresses()), ["10.211.2.14/24", "fd00:211:2::e/64"]);
        assert_eq!(text(node.pod_cidrs()), ["10.244.4.0/24", "fd00:10:244:4::/64"]);
        assert_eq!(text(node.subnet().router(Families::V6)), ["fd00:211:2::1/64"]);
    }

    #[test]
    fn nodes_are_dealt_to_the_subnets_in_turn() {
        let subnets: Vec<_> = (1..=5)
            .map(|n| NodeLayout::new(n, 2, Families::V4).subnet().0)
            .collect();
        assert_eq!(subnets, [1, 2, 1, 2, 1]);
    }

    #[test]
    fn words_are_dealt_to_the_nodes_in_turn() {
        let dealt = |words| [1, 2, 3].map(|n| NodeLayout::new(n, 1, Families::V4).deal(words));
        assert_eq!(dealt("auto"), ["auto"; 3]);
        assert_eq!(dealt("kernel,userspace"), ["kernel", "userspace", "kernel"]);
    }

    #[test]
    fn pod_addresses_are_told_from_node_addresses() {
        assert!(is_pod("10.244.3.7".parse().unwrap()));
        assert!(is_pod("fd00:10:244:9::2".parse().unwrap()));
        assert!(!is_pod("10.211.1.11".parse().unwrap()));
        assert!(!is_pod("fd00:211:1::b".parse().unwrap()));
    }
}
