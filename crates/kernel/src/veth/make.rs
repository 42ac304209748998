//! Making a pod's link, on a thread that begins on the node and ends in the pod.

use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};

use super::{HOST_MAC, PodLink, VethError, pod_side};
use crate::direct::Direct;
use crate::links;
use crate::netlink::NetlinkError;
use crate::netns::Namespace;
use crate::routes;
use crate::sysctl::{self, SysctlError};

/// How long workers of the kernel may take to notice a carrier or an address; they do within milliseconds, at worst within a
/// second.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// Makes the link and all in the pod that belongs to it. Leaves the calling thread in either namespace.
pub(super) fn make(link: &PodLink, namespace: &Namespace) -> Result<(), VethError> {
    let mut node = Direct::open()?;
    add_pair(&mut node, link, namespace)?;
    let finished = finish(&mut node, link, namespace);
    if finished.is_err() {
        // One side takes the other with it, and all that hangs on both. The first error is the one to report.
        if let Err(error) = links::remove_directly(&mut node, &link.host_name) {
            tracing::warn!(link = link.host_name, %error, "cannot undo a half-made pod link");
        }
    }
    finished
}

fn add_pair(node: &mut Direct, link: &PodLink, namespace: &Namespace) -> Result<(), VethError> {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(link.if_name.clone()),
        LinkAttribute::Mtu(link.mtu),
        LinkAttribute::Address(link.mac.0.to_vec()),
        LinkAttribute::NetNsFd(namespace.raw_fd()),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(link.host_name.clone()),
        LinkAttribute::Mtu(link.mtu),
        LinkAttribute::Address(HOST_MAC.0.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    let act = format!("add link {} type veth peer {}", link.host_name, link.if_name);
    let message = RouteNetlinkMessage::NewLink(message);
    match node.act(message, NLM_F_CREATE | NLM_F_EXCL, &act) {
        Err(error) if error.errno() == Some(libc::EEXIST) => {
            if links::find_directly(node, &link.host_name)?.is_some() {
                return Err(VethError::TakenOnHost(link.host_name.clone()));
            }
            Err(VethError::TakenInPod {
                netns: link.netns.clone(),
                if_name: link.if_name.clone(),
            })
        }
        other => Ok(other?),
    }
}

fn finish(node: &mut Direct, link: &PodLink, namespace: &Namespace) -> Result<(), VethError> {
    // The kernel takes no alias when it makes a link. It comes before the link is up: one that carries packets has it.
    if let Some(label) = &link.label {
        let mut message = links::named(&link.host_name);
        message.attributes.push(LinkAttribute::IfAlias(label.clone()));
        let act = format!("set link {} alias", link.host_name);
        node.act(RouteNetlinkMessage::SetLink(message), 0, &act)?;
    }
    // The link-local address that the kernel makes from the MAC is the pod's gateway: usable at once, and no router
    // advertisement of the pod changes the node's routes.
    for (setting, value) in [
        ("accept_dad", "0"),
        ("dad_transmits", "0"),
        ("accept_ra", "0"),
        ("autoconf", "0"),
    ] {
        let key = format!("ipv6/conf/{}/{setting}", link.host_name);
        match sysctl::write(&key, value) {
            Err(SysctlError::Missing { .. }) => {}
            other => other?,
        }
    }
    links::set_up_directly(node, &link.host_name)?;

    namespace.enter()?;
    let mut pod = Direct::open()?;
    pod_side::configure(&mut pod, link)?;
    // Whoever is told that the link is made sends at once.
    operational(node, &link.host_name)?;
    operational(&mut pod, &link.if_name)?;
    for address in &link.addresses {
        // For IPv6 the route that says "mine" comes from a worker, even without duplicate address detection, some
        // milliseconds after the address is there and can be bound to (net/ipv6/addrconf.c, addrconf_dad_work).
        let act = format!("wait until packets for {address} are taken");
        wait_until(&act, || routes::is_local(&mut pod, *address))?;
    }
    Ok(())
}

/// Waits until an interface that is up carries packets. The kernel gives the end of a veth that came up first its queue only
/// when it has noticed the carrier (net/core/link_watch.c); what is sent before is lost. Since Linux 6.8 asking makes it
/// notice; before, a worker does.
fn operational(netlink: &mut Direct, name: &str) -> Result<(), NetlinkError> {
    let act = format!("wait until link {name} carries packets");
    wait_until(&act, || match links::find_directly(netlink, name)? {
        Some(entry) => Ok(entry.operational),
        None => Err(NetlinkError::NoLink {
            act: act.clone(),
            link: name.to_owned(),
        }),
    })
}

fn wait_until(act: &str, mut holds: impl FnMut() -> Result<bool, NetlinkError>) -> Result<(), NetlinkError> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > deadline {
            return Err(NetlinkError::Silent { act: act.to_owned() });
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}
