//! The network that carries the cluster: a bridge for each subnet, a router between them, a link for each node.

use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use ipnet::IpNet;

use crate::layout::{Families, NodeLayout, Subnet};
use crate::namespaces::Namespaces;

/// Makes the bridges and has this namespace route between them.
pub(crate) fn build(subnets: u8, families: Families) -> anyhow::Result<()> {
    let mut lines = vec!["link set lo up".to_owned()];
    for subnet in (1..=subnets).map(Subnet) {
        let bridge = subnet.bridge();
        // Snooping would hold back neighbour discovery until the bridge has seen the groups' members.
        lines.push(format!(
            "link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        ));
        lines.extend(subnet.router(families).iter().map(|it| add_address(*it, &bridge)));
        lines.push(format!("link set {bridge} up"));
    }
    batch(&lines, None)?;
    for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        let path = format!("/proc/sys/net/{file}");
        std::fs::write(&path, "1").with_context(|| format!("write {path}"))?;
    }
    Ok(())
}

/// Plugs a node in: `eth0` there, a port of its bridge here, which stays down until [`connect`].
pub(crate) fn plug(node: NodeLayout, holder: u32) -> anyhow::Result<()> {
    let (port, bridge) = (node.port(), node.subnet().bridge());
    batch(
        &[
            format!("link add {port} type veth peer name eth0 netns {holder}"),
            format!("link set {port} master {bridge}"),
        ],
        None,
    )
}

/// Takes a node's link up and gives it its addresses and its route.
pub(crate) fn connect(node: NodeLayout, families: Families, inside: &Namespaces) -> anyhow::Result<()> {
    set_port(node, true)?;
    let mut lines = vec!["link set lo up".to_owned()];
    let addresses = node.addresses();
    lines.extend(addresses.iter().map(|it| add_address(*it, "eth0")));
    let own_v6 = addresses.iter().find_map(|it| match it.addr() {
        IpAddr::V6(address) => Some(address.segments()[7]),
        IpAddr::V4(_) => None,
    });
    if let Some(own) = own_v6 {
        // The kernel's own link-local address is being claimed for a second or two, and without it nobody can be looked for: a
        // node that has been up for a while is what is wanted.
        lines.push("link set eth0 addrgenmode none".to_owned());
        lines.push(format!("addr add fe80::{own:x}/64 dev eth0 nodad"));
    }
    lines.push("link set eth0 up".to_owned());
    let routers = node.subnet().router(families);
    lines.extend(
        routers
            .iter()
            .map(|it| format!("route add default via {}", it.addr())),
    );
    batch(&lines, Some(inside))
}

/// Takes a node's link up or down, at the end that the node does not see.
pub(crate) fn set_port(node: NodeLayout, up: bool) -> anyhow::Result<()> {
    batch(
        &[format!(
            "link set {} {}",
            node.port(),
            if up { "up" } else { "down" }
        )],
        None,
    )
}

/// Removes a node's link, if it is still there: the kernel does so itself, later, when the node's namespace ends.
pub(crate) fn unplug(node: NodeLayout) -> anyhow::Result<()> {
    if nix::net::if_::if_nametoindex(node.port().as_str()).is_ok() {
        batch(&[format!("link del {}", node.port())], None)?;
    }
    Ok(())
}

fn add_address(address: IpNet, link: &str) -> String {
    // Duplicate detection would keep an IPv6 address from use for a second.
    let detection = if address.addr().is_ipv6() { " nodad" } else { "" };
    format!("addr add {address} dev {link}{detection}")
}

/// Runs lines of `ip -batch`, here or in the given namespaces.
fn batch(lines: &[String], place: Option<&Namespaces>) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if let Some(place) = place {
        place.apply(&mut command);
    }
    let mut child = command.spawn().context("run ip (Debian package iproute2)")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all((lines.join("\n") + "\n").as_bytes())
            .context("write to ip")?;
    }
    let output = child.wait_with_output().context("wait for ip")?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("ip refused one of [{}]: {}", lines.join("; "), complaint.trim());
    }
    Ok(())
}
