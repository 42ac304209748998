//! The kernel's own WireGuard. Where the kernel has none, that this is found out; the rest, which is ignored, then runs in
//! the virtual machine of `hack/vm.sh`, whose kernel has it.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod rooms;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;
use rooms::{Room, cable, node, sh, try_sh, udp};
use warren_kernel::wireguard::{self, KernelWireguard, WireguardError};
use warren_model::{PrivateKey, PublicKey};
use warren_plan::{LaneChange, LaneObserved, PeerConfig, PeerObserved};

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
        // An agent that keeps its keys in memory finds them here again.
        let held = devices.private_key("warren0").await.unwrap();
        let held = held.as_ref().map(PrivateKey::expose_bytes);
        let expected = model.public_key.map(|_| secret.expose_bytes());
        assert!(held == expected, "after {change}");
    }
    wireguard::remove("warren0").await.unwrap();
    wireguard::remove("warren0").await.unwrap();
    assert_eq!(observe().await, None);
}

/// A private key of 32 times 0x42, as `wg` reads it, and its public half.
const OTHER_PRIVATE: &str = "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=";
const OTHER: &str = "EyxEK+AQ+9V+cmAzKKp25x/MwVA6riGTJ9FNnJmT9HI=";

/// A session lives on, and no packet of it is lost, while prefixes come and go beside the one in use: one after the other,
/// which a kernel that knows no flag for it does by moving them to a peer that goes.
#[test]
#[ignore = "needs kernel WireGuard: hack/vm.sh"]
fn taking_prefixes_from_a_peer_loses_nothing_of_its_others() {
    let name = "taking_prefixes_from_a_peer_loses_nothing_of_its_others";
    node(name, async |node| {
        let room = Room::new();
        cable("under", &room, "there");
        sh("ip addr add 192.0.2.1/24 dev under");
        room.sh("ip addr add 192.0.2.2/24 dev there");
        let (own, other): (PublicKey, PublicKey) = (PUBLIC.parse().unwrap(), OTHER.parse().unwrap());
        let key = node.state.path().join("key");
        std::fs::write(&key, OTHER_PRIVATE).unwrap();
        room.sh(&format!(
            "ip link add wg type wireguard && ip addr add 10.9.0.2/32 dev wg && ip link set wg up && \
             ip route add 10.9.0.1/32 dev wg && \
             wg set wg private-key {} listen-port 51820 peer {own} allowed-ips 10.9.0.1/32",
            key.display()
        ));

        wireguard::create(&node.kernel, "warren0", 1420).await.unwrap();
        let devices = KernelWireguard::new().unwrap();
        let apply = async |change: LaneChange| {
            let secret = PrivateKey::from_bytes(&mut [0x77; 32]);
            devices.apply("warren0", &change, Some(&secret)).await.unwrap();
        };
        let spare: BTreeSet<IpNet> = nets(0x10, 40).collect();
        let used: IpNet = "10.9.0.2/32".parse().unwrap();
        let config = PeerConfig {
            endpoint: "192.0.2.2:51820".parse().unwrap(),
            allowed_ips: spare.iter().copied().chain([used]).collect(),
            keepalive: 0,
        };
        apply(LaneChange::SetKey(Some(own))).await;
        apply(LaneChange::AddPeer(other, config)).await;
        sh(
            "ip addr add 10.9.0.1/32 dev warren0 && ip link set warren0 up && ip route add 10.9.0.2/32 dev warren0",
        );

        let receiver = room.udp("10.9.0.2:7000");
        let sender = udp("10.9.0.1:0");
        sender.connect("10.9.0.2:7000").unwrap();
        // The first one causes the handshake, and waits for it.
        sender.send(&[0; 4]).unwrap();
        receiver.recv(&mut [0; 4]).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let sending = std::thread::spawn(move || {
            let mut sent = 0_u32;
            while !until.load(Ordering::Relaxed) {
                sent += 1;
                sender.send(&sent.to_be_bytes()).unwrap();
                // As many as the receiver keeps up with: a full socket buffer would lose some, too.
                receiver.recv(&mut [0; 4]).expect("a packet was lost");
            }
            sent
        });
        for net in &spare {
            apply(LaneChange::RemoveAllowedIp(other, *net)).await;
        }
        over.store(true, Ordering::Relaxed);
        let sent = sending.join().unwrap();
        eprintln!(
            "{sent} packets went through while {} prefixes were taken away",
            spare.len()
        );
        assert!(sent > 10, "{sent} packets were sent meanwhile");
        let observed = devices
            .observe("warren0", SystemTime::now())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            observed.peers.keys().collect::<Vec<_>>(),
            [&other],
            "nobody else stays"
        );
        assert_eq!(observed.peers[&other].allowed_ips, BTreeSet::from([used]));
    });
}

/// What a large mesh costs, printed; and that it fits into messages. By its name the last one: the end of its namespace, and
/// with it of so many peers, keeps the kernel busy for a while.
#[test]
#[ignore = "needs kernel WireGuard: hack/vm.sh"]
fn with_500_and_with_2000_peers_all_fit_and_one_of_them_is_changed_alone() {
    let name = "with_500_and_with_2000_peers_all_fit_and_one_of_them_is_changed_alone";
    node(name, async |node| {
        large_mesh(&node.kernel, "warren0", 500).await;
        large_mesh(&node.kernel, "warren1", 2000).await;
    });
}

async fn large_mesh(kernel: &warren_kernel::Kernel, device: &str, peers: u16) {
    let devices = KernelWireguard::new().unwrap();
    let observe = async || devices.observe(device, SystemTime::now()).await.unwrap().unwrap();
    let (mut model, mut told) = (LaneObserved::default(), Vec::new());
    let mut carry_out = async |what: &str, changes: Vec<LaneChange>| {
        let began = Instant::now();
        for change in &changes {
            devices.apply(device, change, None).await.unwrap();
        }
        told.push(format!("{what} {}", milliseconds(began.elapsed())));
        for change in &changes {
            match change {
                // What the model does for these, looking for their prefixes at all others, would take longer than all the rest.
                LaneChange::AddPeer(key, config) => drop(model.peers.insert(*key, observed_as(config))),
                LaneChange::SetKey(_)
                | LaneChange::SetPort(_)
                | LaneChange::SetEndpoint(..)
                | LaneChange::SetKeepalive(..)
                | LaneChange::AddAllowedIp(..)
                | LaneChange::RemoveAllowedIp(..)
                | LaneChange::RemovePeer(_) => model.apply(change),
            }
        }
        let began = Instant::now();
        let observed = observe().await;
        let dump = milliseconds(began.elapsed());
        assert!(
            observed == model,
            "after {what} the device is not what it should be"
        );
        told.push(format!("dump {dump}"));
    };
    wireguard::create(kernel, device, 1420).await.unwrap();
    let all = (0..peers).map(|n| LaneChange::AddPeer(numbered_key(n), numbered_peer(n)));
    carry_out("create all", all.collect()).await;
    let endpoint = "[2001:db8::1]:51821".parse().unwrap();
    carry_out(
        "change one",
        vec![LaneChange::SetEndpoint(numbered_key(7), endpoint)],
    )
    .await;
    let net = *numbered_peer(9).allowed_ips.first().unwrap();
    carry_out(
        "take a prefix from one",
        vec![LaneChange::RemoveAllowedIp(numbered_key(9), net)],
    )
    .await;
    carry_out("remove one", vec![LaneChange::RemovePeer(numbered_key(8))]).await;
    eprintln!("{peers} peers: {}", told.join(", "));
}

fn observed_as(config: &PeerConfig) -> PeerObserved {
    PeerObserved {
        endpoint: Some(config.endpoint),
        allowed_ips: config.allowed_ips.clone(),
        keepalive: config.keepalive,
        ..PeerObserved::default()
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn numbered_key(number: u16) -> PublicKey {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    PublicKey::from_bytes(bytes).unwrap()
}

/// As a node is: an address, and a pod network of each family.
fn numbered_peer(number: u16) -> PeerConfig {
    let [high, low] = number.to_be_bytes();
    let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, number, 0, 0, 0, 0);
    PeerConfig {
        endpoint: SocketAddr::new(IpAddr::from([192, 0, high + 2, low]), 51820),
        allowed_ips: BTreeSet::from([
            IpNet::new(IpAddr::from([10, high, low, 0]), 24).unwrap(),
            IpNet::new(v6.into(), 64).unwrap(),
        ]),
        keepalive: 0,
    }
}
