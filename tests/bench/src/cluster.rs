//! Clusters of any size, for what is measured against their size.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use warren_model::{AnnouncedKey, Announcement, Epoch, Node, PathKind, PodCidr, PublicKey};

/// The UDP port of the lane that epoch 1 lives in.
const PORT: u16 = 51821;

/// The node of that number, dual-stack, with one key. Up to some 50,000 its pod CIDRs are none of a lab's own nodes.
pub(crate) fn node(number: u16) -> anyhow::Result<Node> {
    let [high, low] = number.to_be_bytes();
    let cidrs: [IpNet; 2] = [
        Ipv4Net::new(Ipv4Addr::new(10, high, low, 0), 24)?.into(),
        Ipv6Net::new(Ipv6Addr::new(0xfd00, 0x99, 0, number, 0, 0, 0, 0), 64)?.into(),
    ];
    let cidrs = cidrs.map(PodCidr::try_from);
    Ok(Node {
        name: format!("peer{number}")
            .parse()
            .context("the name of a made-up node")?,
        uid: format!("uid-{number}"),
        created: i64::from(number),
        pod_cidrs: cidrs.into_iter().collect::<Result<_, _>>()?,
        internal_ips: vec![
            IpAddr::from([10, 212, high, low]),
            Ipv6Addr::new(0xfd00, 0x212, 0, 0, 0, 0, 0, number).into(),
        ],
        announcement: Some(Ok(announcement(key(number, 0)?)?)),
        ready: true,
    })
}

/// What a node with this one key publishes.
pub(crate) fn announcement(public_key: PublicKey) -> anyhow::Result<Announcement> {
    let epoch = first_epoch()?;
    let key = AnnouncedKey {
        epoch,
        public_key,
        port: PORT,
    };
    let paths = BTreeSet::from([PathKind::Wireguard, PathKind::Vxlan]);
    Announcement::new(vec![key], epoch, paths).context("an announcement")
}

/// The epoch that a new cluster lives in.
pub(crate) fn first_epoch() -> anyhow::Result<Epoch> {
    Epoch::new(1).context("epochs begin with 1")
}

/// A public key for each node and generation. Nobody has the private one.
pub(crate) fn key(number: u16, generation: u8) -> anyhow::Result<PublicKey> {
    let mut bytes = [9; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    bytes[2] = generation;
    PublicKey::from_bytes(bytes).context("a public key")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn no_two_nodes_share_a_cidr_an_address_or_a_key() {
        let nodes: Vec<Node> = (0..5000).map(|n| node(n).unwrap()).collect();
        let cidrs: BTreeSet<IpNet> = nodes
            .iter()
            .flat_map(|it| &it.pod_cidrs)
            .map(|it| it.net())
            .collect();
        let addresses: BTreeSet<IpAddr> = nodes.iter().flat_map(|it| it.internal_ips.clone()).collect();
        let keys: BTreeSet<PublicKey> = nodes
            .iter()
            .map(|it| it.announcement.as_ref().unwrap().as_ref().unwrap().keys[0].public_key)
            .collect();
        assert_eq!((cidrs.len(), addresses.len(), keys.len()), (10_000, 10_000, 5000));
    }
}
