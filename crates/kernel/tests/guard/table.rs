//! The guard's table: what survives, what is noticed, what is repaired, and how it is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use ipnet::IpNet;
use warren_plan::{Action, Carrier, Clear, Guard, OpenPod};

use crate::rooms::{delivered, node, send, sh};
use crate::scene::{POD, REMOTE, Scene, bound, guard};

#[test]
fn counters_survive_a_new_content() {
    node("counters_survive_a_new_content", async |node| {
        let mut scene = Scene::new(node).await;
        scene.route_remote("eth0", 2);
        let pod = scene.pod.udp("10.244.1.5:7");
        send(&pod, "10.244.2.5:7".parse().unwrap());
        scene.dropped("plaintext-out", 1).await;
        // Overlaps with what was there, larger and smaller.
        scene.guard.sealed = [
            "10.244.2.0/25".parse().unwrap(),
            "10.240.0.0/13".parse().unwrap(),
            "fd10::/16".parse().unwrap(),
        ]
        .into();
        scene.install().await;
        scene.dropped("plaintext-out", 1).await;
        send(&pod, "10.244.2.5:7".parse().unwrap());
        scene.dropped("plaintext-out", 2).await;
    });
}

#[test]
fn a_table_changed_by_hand_counts_as_missing_and_is_repaired() {
    node(
        "a_table_changed_by_hand_counts_as_missing_and_is_repaired",
        async |node| {
            let guard = Guard {
                masquerade: ["10.0.0.0/8".parse().unwrap()].into(),
                ..guard()
            };
            let install = Action::InstallGuard(guard.clone());
            let kernel = &node.kernel;
            for change in [
                "nft delete table inet warren",
                "nft flush chain inet warren outgoing",
                "nft flush chain inet warren fingerprint",
                "nft flush table inet warren",
                "nft insert rule inet warren incoming accept",
                "nft add chain inet warren mine; nft add rule inet warren mine accept",
                "nft flush chain inet warren translate; nft delete chain inet warren translate",
                "nft 'delete table inet warren; add table inet warren; add chain inet warren incoming; \
             add set inet warren pods4 { type ipv4_addr; }'",
            ] {
                kernel.apply(&install).await.unwrap();
                assert_eq!(
                    kernel.observe(&[]).await.unwrap().guard,
                    Some(guard.fingerprint())
                );
                sh(change);
                assert_eq!(kernel.observe(&[]).await.unwrap().guard, None, "{change}");
            }
            sh("nft add set inet warren old '{ type ipv4_addr; }'; nft add counter inet warren stale");
            kernel.apply(&install).await.unwrap();
            assert_eq!(
                kernel.observe(&[]).await.unwrap().guard,
                Some(guard.fingerprint())
            );
            let text = sh("nft list table inet warren");
            assert!(
                !text.contains("set old") && !text.contains("counter stale"),
                "{text}"
            );
            assert!(text.contains("hook postrouting priority srcnat"), "{text}");
        },
    );
}

#[test]
fn pods_come_and_go_without_a_rule_being_written() {
    node("pods_come_and_go_without_a_rule_being_written", async |node| {
        let kernel = &node.kernel;
        let mut guard = guard();
        let first = guard.pods.clone();
        let more = ["10.244.1.6", "fd10:244:1::6"].map(|text| OpenPod {
            interface: "wrn0123456789ab".to_owned(),
            address: text.parse().unwrap(),
        });
        kernel.apply(&Action::InstallGuard(guard.clone())).await.unwrap();
        // With their handles, of which a new rule has a new one.
        let rules = || sh("nft --handle --terse list table inet warren");
        let before = rules();
        for pods in [
            first.iter().chain(&more).cloned().collect(),
            more.iter().cloned().collect(),
            first,
            BTreeSet::new(),
        ] {
            kernel.observe(&[]).await.unwrap();
            guard.pods = pods;
            kernel.apply(&Action::InstallGuard(guard.clone())).await.unwrap();
            let observed = kernel.observe(&[]).await.unwrap();
            assert_eq!(observed.guard, Some(guard.fingerprint()));
            assert_eq!(observed.open_pods, guard.pods);
            assert_eq!(rules(), before);
            let sets = sh("nft list set inet warren pods4; nft list set inet warren pods6");
            for pod in &guard.pods {
                let element = format!("\"{}\" . {}", pod.interface, pod.address);
                assert!(sets.contains(&element), "{sets}");
            }
            assert_eq!(sets.matches(" . ").count(), guard.pods.len() + 2, "{sets}");
        }
    });
}

#[test]
fn a_pod_is_never_opened_in_a_table_that_was_changed_since_it_was_looked_at() {
    node(
        "a_pod_is_never_opened_in_a_table_that_was_changed_since_it_was_looked_at",
        async |node| {
            let kernel = &node.kernel;
            let mut guard = guard();
            for (number, change) in [
                "nft flush table inet warren",
                "nft delete table inet warren",
                "nft insert rule inet warren from-pod accept",
                "nft flush set inet warren pods4",
                "nft add table inet theirs",
            ]
            .into_iter()
            .enumerate()
            {
                kernel.apply(&Action::InstallGuard(guard.clone())).await.unwrap();
                let observed = kernel.observe(&[]).await.unwrap();
                assert_eq!(observed.open_pods, guard.pods);
                sh(change);
                guard.pods.insert(OpenPod {
                    interface: "wrnnew".to_owned(),
                    address: std::net::Ipv4Addr::from([10, 244, 1, 10 + number as u8]).into(),
                });
                kernel.apply(&Action::InstallGuard(guard.clone())).await.unwrap();
                let observed = kernel.observe(&[]).await.unwrap();
                assert_eq!(observed.guard, Some(guard.fingerprint()), "{change}");
                assert_eq!(observed.open_pods, guard.pods, "{change}");
            }
        },
    );
}

#[test]
fn a_missing_program_is_named() {
    node("a_missing_program_is_named", async |node| {
        let config = warren_kernel::KernelConfig {
            nft: "/nonexistent/nft".into(),
            state_dir: node.state.path().to_owned(),
        };
        let kernel = warren_kernel::Kernel::new(config).unwrap();
        let error = kernel.observe(&[]).await.unwrap_err();
        assert!(
            error.to_string().contains("cannot run /nonexistent/nft"),
            "{error}"
        );
        assert!(!error.is_transient());
    });
}

#[test]
fn a_thousand_pods_and_networks_are_installed_and_observed_in_little_time() {
    node(
        "a_thousand_pods_and_networks_are_installed_and_observed_in_little_time",
        async |node| {
            // Not many more fit the buffer of one transaction where the tests do not run as root: nft cannot raise its size
            // there.
            let pods = (0..1_000_u32).map(|number| OpenPod {
                interface: format!("wrn{number}"),
                address: std::net::Ipv4Addr::from(0x0a00_0000 + number).into(),
            });
            let sealed = (0..1_000_u32).map(|number| {
                let address = std::net::Ipv4Addr::from(0x0b00_0000 + number * 512);
                ipnet::Ipv4Net::new(address, 24).unwrap().into()
            });
            let guard = Guard {
                pods: pods.collect(),
                sealed: sealed.collect(),
                ..Guard::default()
            };
            let install = Action::InstallGuard(guard.clone());
            for what in ["first", "again"] {
                let begin = std::time::Instant::now();
                node.kernel.apply(&install).await.unwrap();
                eprintln!("{what}: {:?}", begin.elapsed());
            }
            let begin = std::time::Instant::now();
            assert_eq!(
                node.kernel.observe(&[]).await.unwrap().guard,
                Some(guard.fingerprint())
            );
            eprintln!("observed in {:?}", begin.elapsed());
            assert!(begin.elapsed() < crate::rooms::DEADLINE);
        },
    );
}

#[test]
fn what_may_pass_before_and_after_passes_while_the_table_is_written_as_well() {
    node(
        "table::what_may_pass_before_and_after_passes_while_the_table_is_written_as_well",
        async |node| {
            let mut scene = Scene::new(node).await;
            // Several of each, because a single one is compared with and not looked up.
            let nets = REMOTE_AND_ANOTHER.map(|net| net.parse().unwrap());
            scene.guard.clear = nets.map(|net| (net, Clear::by(Carrier::Vxlan))).into();
            scene.guard.sealed.extend(many());
            scene.install().await;
            scene.route_remote("warren-vx", 4);
            let (pod, remote) = (bound(&scene.pod, POD, 7), bound(&scene.vxlan, REMOTE, 8));
            let flood = Flood::default();
            for (one, other) in pod.iter().zip(&remote) {
                delivered(one, other);
                delivered(other, one);
            }
            // One family each way: a processor is left for who writes.
            let senders = [flood.start(&pod[0], &remote[0]), flood.start(&remote[1], &pod[1])];
            let before = drops(&scene).await;
            write_again_and_again(&mut scene).await;
            let sent = flood.end(senders);
            assert_eq!(drops(&scene).await, before, "of {sent} packets");
        },
    );
}

#[test]
fn what_may_pass_neither_before_nor_after_does_not_pass_while_the_table_is_written() {
    node(
        "table::what_may_pass_neither_before_nor_after_does_not_pass_while_the_table_is_written",
        async |node| {
            let mut scene = Scene::new(node).await;
            scene.guard.sealed = REMOTE_AND_ANOTHER.map(|net| net.parse().unwrap()).into();
            scene.guard.sealed.extend(many());
            scene.install().await;
            scene.route_remote("eth0", 2);
            let (pod, remote) = (bound(&scene.pod, POD, 7), bound(&scene.underlay, REMOTE, 8));
            let flood = Flood::default();
            let senders = [flood.start(&pod[0], &remote[0]), flood.start(&remote[1], &pod[1])];
            write_again_and_again(&mut scene).await;
            let sent = flood.end(senders);
            for socket in pod.iter().chain(&remote) {
                socket.set_nonblocking(true).unwrap();
                let came = socket.recv(&mut [0; 64]).map_err(|error| error.kind());
                assert_eq!(came, Err(ErrorKind::WouldBlock), "of {sent} packets");
            }
            let dropped = drops(&scene).await;
            for reason in ["plaintext-in", "plaintext-out"] {
                assert!(
                    dropped[reason] > u64::from(WRITTEN),
                    "{dropped:?} of {sent} packets"
                );
            }
        },
    );
}

/// The networks of the remote pod, and others that are no neighbours of theirs.
const REMOTE_AND_ANOTHER: [&str; 4] = [
    "10.244.2.0/24",
    "fd10:244:2::/64",
    "10.244.9.0/24",
    "fd10:244:9::/64",
];

/// Networks nobody sends to. The larger a transaction, the longer it takes to take effect.
fn many() -> impl Iterator<Item = IpNet> {
    let addresses = (0..300_u32).map(|number| Ipv4Addr::from(0x0b00_0000 + number * 512));
    addresses.map(|address| IpNet::new(address.into(), 24).unwrap())
}

/// How often the table is written under a flood.
const WRITTEN: u32 = 30;

/// Writes the table while networks come and go beside those that matter.
async fn write_again_and_again(scene: &mut Scene) {
    for number in 0..WRITTEN {
        let also = format!("172.{}.0.0/16", 16 + number % 3).parse().unwrap();
        scene.guard.sealed.insert(also);
        scene.node.kernel.observe(&[]).await.unwrap();
        scene.install().await;
        scene.guard.sealed.remove(&also);
    }
}

/// Datagrams as fast as they can be sent. Nobody reads them: what the receiver has no room for is not the guard's doing.
#[derive(Default)]
struct Flood {
    ends: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

impl Flood {
    fn start(&self, from: &UdpSocket, to: &UdpSocket) -> JoinHandle<()> {
        let (from, to) = (from.try_clone().unwrap(), to.local_addr().unwrap());
        let (ends, sent) = (Arc::clone(&self.ends), Arc::clone(&self.sent));
        std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                send(&from, to);
                sent.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// Ends it and gives how many were sent.
    fn end(&self, senders: [JoinHandle<()>; 2]) -> u64 {
        self.ends.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let sent = self.sent.load(Ordering::Relaxed);
        assert!(sent > u64::from(WRITTEN), "{sent} packets sent");
        sent
    }
}

/// What the guard has dropped of pods' packets, by reason.
async fn drops(scene: &Scene) -> BTreeMap<String, u64> {
    let counters = scene.node.kernel.guard_counters().await.unwrap();
    let counted = counters.into_iter().filter(|it| it.reason != "pod-link-local");
    counted.map(|it| (it.reason, it.packets)).collect()
}
