//! The kernel's own WireGuard. Where the kernel has none, that this is found out; the rest then runs in a virtual
//! machine whose kernel has it.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod rooms;

use std::time::SystemTime;

use ipnet::IpNet;
use rooms::{node, sh, try_sh};
use warren_kernel::wireguard::{self, KernelWireguard, WireguardError};
use warren_model::{PrivateKey, PublicKey};
use warren_plan::{LaneChange, LaneObserved, PeerConfig};

/// The public half of a private key of 32 times 0x77, by `wg pubkey`.
const PUBLIC: &str = "HPV5q6RaELodHvBtkfyiqp7QoRUFFWUxVUBdCxjLmmc=";

fn peer_key(byte: u8) -> PublicKey {
    PublicKey::from_bytes([byte; 32]).unwrap()
}

fn nets(first: u8, count: u16) -> impl Iterator<Item = IpNet> {
    (0..count).map(move |number| {
        format!("fd{first:02x}:{number:x}::/32")
            .parse::<IpNet>()
            .unwrap()
            .trunc()
    })
}

#[test]
fn probing_finds_what_ip_finds_and_leaves_nothing() {
    node("probing_finds_what_ip_finds_and_leaves_nothing", async |node| {
        let has_wireguard = try_sh("ip link add wgtest type wireguard && ip link del wgtest")
            .status
            .success();
        let before = sh("ip -o link");
        let probed = wireguard::probe(&node.kernel).await;
        assert_eq!(sh("ip -o link"), before);
        if has_wireguard {
            probed.unwrap();
            return changes(&node.kernel).await;
        }
        assert!(
            matches!(probed, Err(WireguardError::Unsupported(_))),
            "{probed:?}"
        );
        let refused = wireguard::create(&node.kernel, "warren0", 1420).await;
        assert!(
            matches!(refused, Err(WireguardError::Unsupported(_))),
            "{refused:?}"
        );
    });
}

#[test]
fn a_change_of_key_takes_the_private_half() {
    node("a_change_of_key_takes_the_private_half", async |_node| {
        let change = LaneChange::SetKey(Some(peer_key(7)));
        let refused = KernelWireguard::new()
            .unwrap()
            .apply("warren0", &change, None)
            .await;
        assert!(
            matches!(refused, Err(WireguardError::NoPrivateKey(_))),
            "{refused:?}"
        );
    });
}

/// Every change does to the device what it does to the model.
async fn changes(kernel: &warren_kernel::Kernel) {
    let devices = KernelWireguard::new().unwrap();
    let observe = async || devices.observe("warren0", SystemTime::now()).await.unwrap();
    assert_eq!(observe().await, None);
    wireguard::create(kernel, "warren0", 1420).await.unwrap();
    let mut model = LaneObserved::default();
    assert_eq!(observe().await.as_ref(), Some(&model));

    let secret = PrivateKey::from_bytes(&mut [0x77; 32]);
    let public: PublicKey = PUBLIC.parse().unwrap();
    let config = |nets: Vec<IpNet>| PeerConfig {
        endpoint: "192.0.2.1:51820".parse().unwrap(),
        allowed_ips: nets.into_iter().collect(),
        keepalive: 25,
    };
    let (one, two) = (peer_key(7), peer_key(8));
    let net: IpNet = "10.244.2.0/24".parse().unwrap();
    let some = nets(0x10, 3).next().unwrap();
    for change in [
        LaneChange::SetKey(Some(public)),
        LaneChange::SetPort(51820),
        LaneChange::AddPeer(one, config(nets(0x10, 1000).collect())),
        LaneChange::AddPeer(two, config(vec![net])),
        LaneChange::SetEndpoint(two, "[2001:db8::1]:51821".parse().unwrap()),
        LaneChange::SetKeepalive(two, 0),
        LaneChange::AddAllowedIp(one, net),
        LaneChange::AddAllowedIp(two, some),
        LaneChange::RemoveAllowedIp(one, net),
        LaneChange::RemoveAllowedIp(two, some),
        LaneChange::RemovePeer(two),
        LaneChange::RemovePeer(one),
        LaneChange::SetKey(None),
    ] {
        devices
            .apply("warren0", &change, Some(&secret))
            .await
            .unwrap_or_else(|e| panic!("{change}: {e:?}"));
        model.apply(&change);
        assert_eq!(observe().await.as_ref(), Some(&model), "after {change}");
    }
    wireguard::remove("warren0").await.unwrap();
    wireguard::remove("warren0").await.unwrap();
    assert_eq!(observe().await, None);
}
