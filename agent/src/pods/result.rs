//! What a runtime is told of an attachment.

use std::net::IpAddr;

use ipnet::IpNet;
use warren_cni_wire::{AddResult, Interface, IpConfig, MacAddr, Route};
use warren_kernel::veth::{self, PodLink};

/// The result of ADD and CHECK. The host's end is interface 0, the pod's is 1.
pub(super) fn of(link: &PodLink) -> AddResult {
    let interface = |name: &str, mac: [u8; 6], sandbox: Option<String>| {
        Some(Interface {
            name: name.parse().ok()?,
            mac: Some(MacAddr(mac)),
            mtu: Some(link.mtu),
            sandbox: match sandbox {
                Some(path) => Some(path.parse().ok()?),
                None => None,
            },
        })
    };
    let netns = link.netns.display().to_string();
    let ends = [
        interface(&link.host_name, veth::HOST_MAC.0, None),
        interface(&link.if_name, link.mac.0, Some(netns)),
    ];
    let ip = |address: &IpAddr| IpConfig {
        address: IpNet::from(*address),
        gateway: Some(veth::gateway(*address)),
        interface: Some(1),
    };
    let route = |address: &IpAddr| Route {
        dst: everything(*address),
        gw: Some(veth::gateway(*address)),
        mtu: None,
    };
    AddResult {
        interfaces: ends.into_iter().flatten().collect(),
        ips: link.addresses.iter().map(ip).collect(),
        routes: link.addresses.iter().map(route).collect(),
        ..AddResult::default()
    }
}

/// The default route's destination in the family of an address.
fn everything(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}
