//! Network interfaces.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums are foreign, open and dozens of variants long"
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use futures::StreamExt;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoIpTunnel, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};
use warren_model::Lane;
use warren_plan::state::{IPIP_INTERFACE, VETH_PREFIX, VXLAN_INTERFACE, VXLAN_VNI};
use warren_plan::{Ipip, Link, LinkKind, Mac, Vxlan};

use crate::direct::Direct;
use crate::events;
use crate::netlink::{Netlink, NetlinkError, accept};

/// The interface that finds out whether the kernel has IPIP.
const IPIP_PROBE: &str = "warren-ip-probe";

/// Its source address, of a range that no host has (RFC 5737).
const PROBED_FROM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Hops that an encapsulated packet may take (RFC 1700).
const IPIP_TTL: u8 = 64;

/// Whether an interface of that name is ours.
pub fn is_ours(name: &str) -> bool {
    let named = [VXLAN_INTERFACE, IPIP_INTERFACE, IPIP_PROBE].contains(&name);
    Lane::of_interface(name).is_some() || named || name.starts_with(VETH_PREFIX)
}

/// One interface as the kernel lists it.
#[derive(Debug, Clone)]
pub(crate) struct LinkEntry {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    /// Carries packets. An interface that is up does so only when the kernel has noticed its carrier.
    pub(crate) operational: bool,
    pub(crate) loopback: bool,
    pub(crate) mac: Option<Mac>,
    pub(crate) alias: Option<String>,
    /// The interface it is tied to (a veth's other end), by its index in that one's namespace.
    pub(crate) tied_to: Option<u32>,
    pub(crate) kind: Option<InfoKind>,
    data: Option<InfoData>,
}

impl LinkEntry {
    fn from_message(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut entry = Self {
            index: message.header.index,
            name: String::new(),
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            operational: false,
            loopback: flags.contains(LinkFlags::Loopback),
            mac: None,
            alias: None,
            tied_to: None,
            kind: None,
            data: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => entry.name = name,
                LinkAttribute::Mtu(mtu) => entry.mtu = mtu,
                LinkAttribute::OperState(state) => entry.operational = state == State::Up,
                LinkAttribute::Address(bytes) => entry.mac = bytes.try_into().ok().map(Mac),
                LinkAttribute::IfAlias(alias) => entry.alias = Some(alias),
                LinkAttribute::Link(index) => entry.tied_to = Some(index),
                LinkAttribute::LinkInfo(infos) => entry.take_infos(infos),
                _ => {}
            }
        }
        entry
    }

    fn take_infos(&mut self, infos: Vec<LinkInfo>) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = Some(kind),
                LinkInfo::Data(data) => self.data = Some(data),
                _ => {}
            }
        }
    }

    /// The interface in the plan's terms.
    pub(crate) fn to_link(&self) -> Link {
        Link {
            kind: self.plan_kind(),
            mtu: self.mtu,
            up: self.up,
        }
    }

    fn plan_kind(&self) -> LinkKind {
        if let Some(lane) = Lane::of_interface(&self.name) {
            return match self.kind {
                Some(InfoKind::Wireguard | InfoKind::Tun) => LinkKind::Lane(lane),
                _ => LinkKind::Foreign,
            };
        }
        if self.name == VXLAN_INTERFACE {
            return self.vxlan().map_or(LinkKind::Foreign, LinkKind::Vxlan);
        }
        if self.name == IPIP_INTERFACE {
            return self.ipip().map_or(LinkKind::Foreign, LinkKind::Ipip);
        }
        match self.kind {
            Some(InfoKind::Veth) => LinkKind::Veth,
            _ => LinkKind::Foreign,
        }
    }

    fn ipip(&self) -> Option<Ipip> {
        match &self.data {
            Some(InfoData::IpTunnel(infos)) if self.kind == Some(InfoKind::IpIp) => ipip(infos),
            _ => None,
        }
    }

    /// Its settings if it is a VXLAN interface of ours: our network identifier, one source address, no learning.
    fn vxlan(&self) -> Option<Vxlan> {
        let Some(InfoData::Vxlan(infos)) = &self.data else {
            return None;
        };
        let (mut vni, mut port, mut local, mut learning) = (None, None, None, false);
        for info in infos {
            match info {
                InfoVxlan::Id(id) => vni = Some(*id),
                InfoVxlan::Port(number) => port = Some(*number),
                InfoVxlan::Local(address) => local = Some(IpAddr::V4(*address)),
                InfoVxlan::Local6(address) => local = Some(IpAddr::V6(*address)),
                InfoVxlan::Learning(on) => learning = *on,
                _ => {}
            }
        }
        if vni != Some(VXLAN_VNI) || learning {
            return None;
        }
        Some(Vxlan {
            port: port?,
            mac: self.mac?,
            local: local?,
        })
    }
}

/// An IPIP interface's settings if it is one of ours: one source address and no remote end.
fn ipip(infos: &[InfoIpTunnel]) -> Option<Ipip> {
    let (mut local, mut remote) = (None, None);
    for info in infos {
        match info {
            InfoIpTunnel::Local(IpAddr::V4(address)) => local = Some(*address),
            InfoIpTunnel::Remote(address) => remote = Some(*address),
            _ => {}
        }
    }
    let to_anyone = remote.is_none_or(|remote: IpAddr| remote.is_unspecified());
    let local = local.filter(|local| to_anyone && !local.is_unspecified())?;
    Some(Ipip { local })
}

/// All interfaces of the namespace.
pub(crate) async fn list(netlink: &Netlink) -> Result<Vec<LinkEntry>, NetlinkError> {
    let messages = netlink
        .dump(
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            "list interfaces",
        )
        .await?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(LinkEntry::from_message(link)),
            _ => None,
        })
        .collect())
}

/// The interfaces that bear our names, as the plan sees them.
pub(crate) fn ours(entries: &[LinkEntry]) -> BTreeMap<String, Link> {
    entries
        .iter()
        .filter(|entry| is_ours(&entry.name))
        .map(|entry| (entry.name.clone(), entry.to_link()))
        .collect()
}

/// One interface by name; `None` if there is none.
pub(crate) async fn find(netlink: &Netlink, name: &str) -> Result<Option<LinkEntry>, NetlinkError> {
    let act = format!("show link {name}");
    found(netlink.get(RouteNetlinkMessage::GetLink(named(name)), &act).await)
}

/// The same, on a thread of its own.
pub(crate) fn find_directly(netlink: &mut Direct, name: &str) -> Result<Option<LinkEntry>, NetlinkError> {
    let act = format!("show link {name}");
    found(netlink.get(RouteNetlinkMessage::GetLink(named(name)), &act))
}

/// Brings an interface up, on a thread of its own.
pub(crate) fn set_up_directly(netlink: &mut Direct, name: &str) -> Result<(), NetlinkError> {
    netlink.act(up(name), 0, &format!("set link {name} up"))
}

fn found(
    answer: Result<Option<RouteNetlinkMessage>, NetlinkError>,
) -> Result<Option<LinkEntry>, NetlinkError> {
    match answer {
        Ok(Some(RouteNetlinkMessage::NewLink(link))) => Ok(Some(LinkEntry::from_message(link))),
        Ok(_) => Ok(None),
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The index of an interface that must be there for `act` to be done.
pub(crate) async fn index(netlink: &Netlink, name: &str, act: &str) -> Result<u32, NetlinkError> {
    match find(netlink, name).await? {
        Some(entry) => Ok(entry.index),
        None => Err(NetlinkError::NoLink {
            act: act.to_owned(),
            link: name.to_owned(),
        }),
    }
}

/// Makes the VXLAN interface, down: no learning (the FDB is ours to fill) and no ARP or ND proxy.
pub(crate) async fn create_vxlan(netlink: &Netlink, vxlan: &Vxlan, mtu: u32) -> Result<(), NetlinkError> {
    let local = match vxlan.local {
        IpAddr::V4(address) => InfoVxlan::Local(address),
        IpAddr::V6(address) => InfoVxlan::Local6(address),
    };
    let data = vec![
        InfoVxlan::Id(VXLAN_VNI),
        local,
        InfoVxlan::Port(vxlan.port),
        InfoVxlan::Learning(false),
        InfoVxlan::Proxy(false),
        InfoVxlan::L2Miss(false),
        InfoVxlan::L3Miss(false),
    ];
    let info = vec![
        LinkInfo::Kind(InfoKind::Vxlan),
        LinkInfo::Data(InfoData::Vxlan(data)),
    ];
    let what = format!("type vxlan port {}", vxlan.port);
    add(netlink, VXLAN_INTERFACE, mtu, Some(vxlan.mac), info, &what).await
}

/// Makes the IPIP interface, down: without a remote end, so that the gateway of a route is where its packets go to
/// (net/ipv4/ip_tunnel.c, ip_tunnel_xmit).
pub(crate) async fn create_ipip(netlink: &Netlink, ipip: &Ipip, mtu: u32) -> Result<(), NetlinkError> {
    add_ipip(netlink, IPIP_INTERFACE, ipip.local, mtu).await
}

/// Whether the kernel has IPIP: makes an interface and removes it.
pub(crate) async fn probe_ipip(netlink: &Netlink) -> Result<(), NetlinkError> {
    // A probe that was killed halfway left one.
    remove(IPIP_PROBE).await?;
    add_ipip(netlink, IPIP_PROBE, PROBED_FROM, 1480).await?;
    remove(IPIP_PROBE).await
}

async fn add_ipip(netlink: &Netlink, name: &str, local: Ipv4Addr, mtu: u32) -> Result<(), NetlinkError> {
    let data = vec![
        InfoIpTunnel::Local(local.into()),
        InfoIpTunnel::Ttl(IPIP_TTL),
        InfoIpTunnel::PMtuDisc(true),
    ];
    let info = vec![
        LinkInfo::Kind(InfoKind::IpIp),
        LinkInfo::Data(InfoData::IpTunnel(data)),
    ];
    add(
        netlink,
        name,
        mtu,
        None,
        info,
        &format!("type ipip local {local}"),
    )
    .await
}

/// Makes a WireGuard interface of the kernel, down.
pub(crate) async fn create_wireguard(netlink: &Netlink, name: &str, mtu: u32) -> Result<(), NetlinkError> {
    let info = vec![LinkInfo::Kind(InfoKind::Wireguard)];
    add(netlink, name, mtu, None, info, "type wireguard").await
}

/// Makes an interface, down. `what`: its kind and what is particular about it, for an error.
async fn add(
    netlink: &Netlink,
    name: &str,
    mtu: u32,
    mac: Option<Mac>,
    info: Vec<LinkInfo>,
    what: &str,
) -> Result<(), NetlinkError> {
    let mut message = named(name);
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message
        .attributes
        .extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.push(LinkAttribute::LinkInfo(info));
    netlink
        .act(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
            &format!("add link {name} {what}"),
        )
        .await
}

/// Sets an interface's MTU.
pub(crate) async fn set_mtu(netlink: &Netlink, name: &str, mtu: u32) -> Result<(), NetlinkError> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::Mtu(mtu)];
    netlink
        .act(
            RouteNetlinkMessage::SetLink(message),
            0,
            &format!("set link {name} mtu {mtu}"),
        )
        .await
}

/// The request that brings an interface up.
pub(crate) fn up(name: &str) -> RouteNetlinkMessage {
    let mut message = named(name);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(message)
}

/// Brings an interface up.
pub(crate) async fn set_up(netlink: &Netlink, name: &str) -> Result<(), NetlinkError> {
    netlink.act(up(name), 0, &format!("set link {name} up")).await
}

/// Deletes an interface of the calling thread's namespace; gone already is fine. The kernel takes its time to be sure that
/// nobody uses it any more, and does so for several at once.
pub(crate) async fn remove(name: &str) -> Result<(), NetlinkError> {
    let mut netlink = Direct::open()?;
    let removed = name.to_owned();
    let removed = tokio::task::spawn_blocking(move || remove_directly(&mut netlink, &removed));
    removed.await.map_err(|_| NetlinkError::Silent {
        act: format!("delete link {name}"),
    })?
}

/// The same, but waits no longer than until the kernel announces that the interface is gone: it has neither name, address nor
/// route then, and passes nothing. What the kernel goes on to wait for, that all who were just looking at it have done so,
/// is half of the time that deleting takes.
pub(crate) async fn remove_until_announced(name: &str) -> Result<(), NetlinkError> {
    let mut announcements = events::links_gone()?;
    let announced = async {
        while let Some(gone) = announcements.next().await {
            if gone == name {
                return;
            }
        }
        // Nothing more is announced: what is left is to wait for the answer.
        std::future::pending().await
    };
    tokio::select! {
        removed = remove(name) => removed,
        () = announced => Ok(()),
    }
}

/// As [`remove`], on a thread of its own.
pub(crate) fn remove_directly(netlink: &mut Direct, name: &str) -> Result<(), NetlinkError> {
    let message = RouteNetlinkMessage::DelLink(named(name));
    let removed = netlink.act(message, 0, &format!("delete link {name}"));
    accept(removed, &[libc::ENODEV])
}

/// A message about an interface by its name.
pub(crate) fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}
