//! What the guard drops and what it lets through, with real packets.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod rooms;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use nix::sys::socket::{getsockopt, sockopt};
use rooms::{Node, Room, cable, delivered, dropped, node, send, sh, silent, udp};
use warren_kernel::veth::{self, PodLink};
use warren_plan::{Action, Carrier, Clear, Guard, Mac, OpenPod, Route, RouteTarget};

/// A pod on the node, an underlay neighbour, and what is at the far end of lane 0 and of the VXLAN interface. Lane and
/// VXLAN are plain veths under those names: the guard goes by names.
struct Scene {
    node: Node,
    pod: Room,
    underlay: Room,
    lane: Room,
    vxlan: Room,
    ipip: Room,
    guard: Guard,
}

const POD_MAC: Mac = Mac([2, 0, 0, 0, 0, 5]);
const POD: [&str; 2] = ["10.244.1.5", "fd10:244:1::5"];
/// A pod of the node 2, wherever it is reached.
const REMOTE: [&str; 2] = ["10.244.2.5", "fd10:244:2::5"];

impl Scene {
    async fn new(node: Node) -> Self {
        let scene = Self {
            node,
            pod: Room::new(),
            underlay: Room::new(),
            lane: Room::new(),
            vxlan: Room::new(),
            ipip: Room::new(),
            guard: guard(),
        };
        sh("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
        for (end, room, number) in [
            ("eth0", &scene.underlay, 2),
            ("warren0", &scene.lane, 3),
            ("warren-vx", &scene.vxlan, 4),
            ("warren-ipip", &scene.ipip, 5),
        ] {
            cable(end, room, "far");
            sh(&format!(
                "ip addr add 192.0.{number}.1/24 dev {end}; ip addr add fd0{number}::1/64 dev {end} nodad"
            ));
            room.sh(&format!(
                "ip addr add 192.0.{number}.2/24 dev far; ip addr add fd0{number}::2/64 dev far nodad
                 ip addr add {}/32 dev far; ip addr add {}/128 dev far nodad
                 ip route add default via 192.0.{number}.1; ip route add default via fd0{number}::1",
                REMOTE[0], REMOTE[1]
            ));
            // Otherwise they ask for the gateway in the name of the source being tested; the guard drops the question as
            // well and counts it as often as it is asked.
            let mac = sh(&format!(
                "ip -o link show {end} | grep -o 'ether [^ ]*' | cut -d ' ' -f 2"
            ));
            for gateway in [format!("192.0.{number}.1"), format!("fd0{number}::1")] {
                room.sh(&format!(
                    "ip neigh replace {gateway} lladdr {} dev far nud permanent",
                    mac.trim()
                ));
            }
        }
        let link = PodLink {
            host_name: "wrnpod".to_owned(),
            netns: scene.pod.path().to_owned(),
            if_name: "eth0".to_owned(),
            mac: POD_MAC,
            mtu: 1400,
            addresses: POD.map(|text| text.parse().unwrap()).to_vec(),
            label: None,
        };
        veth::create(&link).await.unwrap();
        for address in link.addresses {
            let route = Route {
                target: RouteTarget::Device("wrnpod".to_owned()),
                source: None,
            };
            for action in [
                Action::SetNeighbour("wrnpod".to_owned(), address, POD_MAC),
                Action::SetRoute(address.into(), route),
            ] {
                scene.node.kernel.apply(&action).await.unwrap();
            }
        }
        scene.install().await;
        scene
    }

    async fn install(&self) {
        self.node
            .kernel
            .apply(&Action::InstallGuard(self.guard.clone()))
            .await
            .unwrap();
    }

    /// Leads the way to node 2's pods to a room.
    fn route_remote(&self, end: &str, number: u8) {
        sh(&format!(
            "ip route replace 10.244.2.0/24 via 192.0.{number}.2 dev {end}
             ip -6 route replace fd10:244:2::/64 via fd0{number}::2 dev {end}"
        ));
    }

    async fn dropped(&self, reason: &str, packets: u64) {
        dropped(&self.node.kernel, reason, packets).await;
    }
}

fn guard() -> Guard {
    let networks = ["10.244.0.0/16".parse().unwrap(), "fd10:244::/32".parse().unwrap()];
    let pods = POD.map(|text| OpenPod {
        interface: "wrnpod".to_owned(),
        address: text.parse().unwrap(),
    });
    Guard {
        local: [
            "10.244.1.0/24".parse().unwrap(),
            "fd10:244:1::/64".parse().unwrap(),
        ]
        .into(),
        sealed: networks.into(),
        clear: BTreeMap::new(),
        pods: pods.into(),
        masquerade: BTreeSet::new(),
        pod_networks: networks.into(),
    }
}

fn bound(room: &Room, addresses: [&str; 2], port: u16) -> [UdpSocket; 2] {
    [
        room.udp(&format!("{}:{port}", addresses[0])),
        room.udp(&format!("[{}]:{port}", addresses[1])),
    ]
}

#[test]
fn a_sealed_network_is_reached_through_a_lane_and_by_nothing_else() {
    node(
        "a_sealed_network_is_reached_through_a_lane_and_by_nothing_else",
        async |node| {
            let scene = Scene::new(node).await;
            let pod = bound(&scene.pod, POD, 7);
            let mut drops = 0;
            for (end, number, room) in [("eth0", 2, &scene.underlay), ("warren-vx", 4, &scene.vxlan)] {
                scene.route_remote(end, number);
                let remote = bound(room, REMOTE, 8);
                for (pod, remote) in pod.iter().zip(&remote) {
                    send(pod, remote.local_addr().unwrap());
                    drops += 1;
                    scene.dropped("plaintext-out", drops).await;
                    // From the node itself as well.
                    let own = if remote.local_addr().unwrap().is_ipv4() {
                        udp("0.0.0.0:0")
                    } else {
                        udp("[::]:0")
                    };
                    send(&own, remote.local_addr().unwrap());
                    drops += 1;
                    scene.dropped("plaintext-out", drops).await;
                    assert!(silent(remote));
                }
            }
            scene.route_remote("warren0", 3);
            for (index, remote) in bound(&scene.lane, REMOTE, 8).iter().enumerate() {
                assert_eq!(delivered(&pod[index], remote).to_string(), POD[index]);
            }
            scene.dropped("plaintext-out", drops).await;
        },
    );
}

#[test]
fn a_sealed_source_is_believed_from_a_lane_and_from_nothing_else() {
    node(
        "a_sealed_source_is_believed_from_a_lane_and_from_nothing_else",
        async |node| {
            let scene = Scene::new(node).await;
            sh(
                "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter; echo 0 > /proc/sys/net/ipv4/conf/eth0/rp_filter",
            );
            scene.route_remote("warren0", 3);
            let pod = bound(&scene.pod, POD, 7);
            let mut drops = 0;
            for room in [&scene.underlay, &scene.vxlan] {
                for (pod, remote) in pod.iter().zip(&bound(room, REMOTE, 8)) {
                    send(remote, pod.local_addr().unwrap());
                    drops += 1;
                    scene.dropped("plaintext-in", drops).await;
                    assert!(silent(pod));
                }
            }
            for (index, remote) in bound(&scene.lane, REMOTE, 8).iter().enumerate() {
                assert_eq!(delivered(remote, &pod[index]).to_string(), REMOTE[index]);
            }
        },
    );
}

#[test]
fn a_clear_network_goes_by_its_carrier_or_a_lane() {
    node("a_clear_network_goes_by_its_carrier_or_a_lane", async |node| {
        let mut scene = Scene::new(node).await;
        sh(
            "for name in all eth0 warren0 warren-vx warren-ipip; do echo 0 > /proc/sys/net/ipv4/conf/$name/rp_filter; done",
        );
        let pod = bound(&scene.pod, POD, 7);
        let rooms = [
            bound(&scene.underlay, REMOTE, 8),
            bound(&scene.lane, REMOTE, 8),
            bound(&scene.vxlan, REMOTE, 8),
            bound(&scene.ipip, REMOTE, 8),
        ];
        let ends = [("eth0", 2), ("warren0", 3), ("warren-vx", 4), ("warren-ipip", 5)];
        let mut drops = 0;
        for (carrier, allowed) in [
            (Carrier::Direct, [true, true, false, false]),
            (Carrier::Vxlan, [false, true, true, false]),
            (Carrier::Ipip, [false, true, false, true]),
        ] {
            let nets = ["10.244.2.0/24", "fd10:244:2::/64"];
            scene.guard.clear = nets.map(|net| (net.parse().unwrap(), Clear::by(carrier))).into();
            scene.install().await;
            for ((room, (end, number)), allowed) in rooms.iter().zip(ends).zip(allowed) {
                scene.route_remote(end, number);
                for index in [0, 1] {
                    let (pod, remote) = (&pod[index], &room[index]);
                    if allowed {
                        assert_eq!(
                            delivered(pod, remote).to_string(),
                            POD[index],
                            "{carrier:?} {end}"
                        );
                        assert_eq!(
                            delivered(remote, pod).to_string(),
                            REMOTE[index],
                            "{carrier:?} {end}"
                        );
                    } else {
                        drops += 1;
                        send(pod, remote.local_addr().unwrap());
                        scene.dropped("wrong-carrier-out", drops).await;
                        send(remote, pod.local_addr().unwrap());
                        scene.dropped("wrong-carrier-in", drops).await;
                        assert!(silent(pod) && silent(remote));
                    }
                }
            }
        }
        scene.dropped("plaintext-out", 0).await;
        scene.dropped("plaintext-in", 0).await;
    });
}

#[test]
fn a_network_in_a_hand_over_comes_by_what_its_node_still_sends_by_and_is_sealed_otherwise() {
    node(
        "a_network_in_a_hand_over_comes_by_what_its_node_still_sends_by_and_is_sealed_otherwise",
        async |node| {
            let mut scene = Scene::new(node).await;
            sh(
                "for name in all eth0 warren0 warren-vx; do echo 0 > /proc/sys/net/ipv4/conf/$name/rp_filter; done",
            );
            let nets = ["10.244.2.0/24", "fd10:244:2::/64"].map(|net| net.parse().unwrap());
            let still = Clear {
                incoming: [Carrier::Vxlan].into(),
                ..Clear::default()
            };
            scene.guard.sealed = nets.into();
            scene.guard.clear = nets.map(|net| (net, still.clone())).into();
            scene.install().await;
            let pod = bound(&scene.pod, POD, 7);
            let (lane, vxlan) = (bound(&scene.lane, REMOTE, 8), bound(&scene.vxlan, REMOTE, 8));
            let underlay = bound(&scene.underlay, REMOTE, 8);
            for index in [0, 1] {
                scene.route_remote("warren0", 3);
                assert_eq!(delivered(&pod[index], &lane[index]).to_string(), POD[index]);
                assert_eq!(delivered(&vxlan[index], &pod[index]).to_string(), REMOTE[index]);
                let count = index as u64 + 1;
                send(&underlay[index], pod[index].local_addr().unwrap());
                scene.dropped("plaintext-in", count).await;
                scene.route_remote("warren-vx", 4);
                send(&pod[index], vxlan[index].local_addr().unwrap());
                scene.dropped("plaintext-out", count).await;
                assert!(silent(&pod[index]) && silent(&vxlan[index]));
            }
        },
    );
}

#[test]
fn a_pod_sends_from_its_own_addresses_only() {
    node("a_pod_sends_from_its_own_addresses_only", async |node| {
        let scene = Scene::new(node).await;
        let outside = bound(&scene.underlay, ["192.0.2.2", "fd02::2"], 7);
        let false_addresses = ["10.244.1.6", "fd10:244:1::6"];
        scene
            .pod
            .sh("ip addr add 10.244.1.6/32 dev eth0; ip addr add fd10:244:1::6/128 dev eth0 nodad");
        let outside_addresses = ["192.0.2.2:7", "[fd02::2]:7"].map(|text| text.parse().unwrap());
        for (index, liar) in bound(&scene.pod, false_addresses, 9).iter().enumerate() {
            send(liar, outside_addresses[index]);
            scene.dropped("pod-spoofed", index as u64 + 1).await;
            assert!(silent(&outside[index]));
        }
        for (index, pod) in bound(&scene.pod, POD, 9).iter().enumerate() {
            send(pod, outside_addresses[index]);
            let (_, source) = outside[index].recv_from(&mut [0; 8]).unwrap();
            assert_eq!(source.ip().to_string(), POD[index]);
        }
    });
}

#[test]
fn a_pod_that_is_not_open_neither_sends_nor_receives() {
    node(
        "a_pod_that_is_not_open_neither_sends_nor_receives",
        async |node| {
            let mut scene = Scene::new(node).await;
            let pod = bound(&scene.pod, POD, 7);
            let outside = bound(&scene.underlay, ["192.0.2.2", "fd02::2"], 7);
            // The pod has chatted while it came up, which is counted apart.
            scene.guard.pods.clear();
            scene.install().await;
            for (index, (pod, outside)) in pod.iter().zip(&outside).enumerate() {
                let count = index as u64 + 1;
                send(pod, outside.local_addr().unwrap());
                scene.dropped("pod-spoofed", count).await;
                send(outside, pod.local_addr().unwrap());
                scene.dropped("pod-unopened", count).await;
                assert!(silent(pod) && silent(outside));
            }
            scene.guard = guard();
            scene.install().await;
            for (pod, outside) in pod.iter().zip(&outside) {
                delivered(pod, outside);
                delivered(outside, pod);
            }
        },
    );
}

#[test]
fn our_own_pods_addresses_neither_come_from_outside_nor_leave() {
    node(
        "our_own_pods_addresses_neither_come_from_outside_nor_leave",
        async |node| {
            let scene = Scene::new(node).await;
            sh("for name in all eth0 warren0; do echo 0 > /proc/sys/net/ipv4/conf/$name/rp_filter; done");
            let pod = bound(&scene.pod, POD, 7);
            let mut drops = 0;
            for room in [&scene.underlay, &scene.lane] {
                room.sh("ip addr add 10.244.1.9/32 dev far; ip addr add fd10:244:1::9/128 dev far nodad");
                for (liar, pod) in bound(room, ["10.244.1.9", "fd10:244:1::9"], 9).iter().zip(&pod) {
                    send(liar, pod.local_addr().unwrap());
                    drops += 1;
                    scene.dropped("spoofed-local", drops).await;
                    assert!(silent(pod));
                }
            }
            sh("ip route add default via 192.0.2.2; ip -6 route add default via fd02::2");
            for (index, address) in ["10.244.1.77:7", "[fd10:244:1::77]:7"].into_iter().enumerate() {
                send(&pod[index], address.parse().unwrap());
                scene.dropped("local-out", index as u64 + 1).await;
            }
        },
    );
}

#[test]
fn pods_are_masqueraded_towards_the_outside_and_nowhere_else() {
    node(
        "pods_are_masqueraded_towards_the_outside_and_nowhere_else",
        async |node| {
            let mut scene = Scene::new(node).await;
            scene.guard.masquerade = scene.guard.local.clone();
            let pod = bound(&scene.pod, POD, 7);
            // Between pods by any path, in both directions, whoever speaks first.
            let nets = ["10.244.2.0/24", "fd10:244:2::/64"].map(|net| net.parse().unwrap());
            for (carrier, end, number, room) in [
                (Carrier::Direct, "eth0", 2, &scene.underlay),
                (Carrier::Vxlan, "warren-vx", 4, &scene.vxlan),
                (Carrier::Ipip, "warren-ipip", 5, &scene.ipip),
            ] {
                scene.guard.clear = nets.map(|net| (net, Clear::by(carrier))).into();
                scene.install().await;
                scene.route_remote(end, number);
                let remote = bound(room, REMOTE, 18);
                let first = bound(room, REMOTE, 19);
                for index in [0, 1] {
                    assert_eq!(
                        delivered(&pod[index], &remote[index]).to_string(),
                        POD[index],
                        "{end}"
                    );
                    assert_eq!(
                        delivered(&first[index], &pod[index]).to_string(),
                        REMOTE[index],
                        "{end}"
                    );
                }
            }
            scene.guard.clear.clear();
            scene.install().await;
            scene.route_remote("warren0", 3);
            let outside = bound(&scene.underlay, ["192.0.2.2", "fd02::2"], 7);
            let remote = bound(&scene.lane, REMOTE, 8);
            for (index, own) in ["192.0.2.1", "fd02::1"].into_iter().enumerate() {
                assert_eq!(delivered(&pod[index], &outside[index]).to_string(), own);
                assert_eq!(delivered(&pod[index], &remote[index]).to_string(), POD[index]);
            }
            scene.guard.masquerade.clear();
            scene.install().await;
            // Another flow: an old one keeps its translation.
            for (index, pod) in bound(&scene.pod, POD, 70).iter().enumerate() {
                assert_eq!(delivered(pod, &outside[index]).to_string(), POD[index]);
            }
        },
    );
}

#[test]
fn what_leaves_by_a_lane_from_a_foreign_address_gets_the_lanes_own() {
    node(
        "what_leaves_by_a_lane_from_a_foreign_address_gets_the_lanes_own",
        async |node| {
            let scene = Scene::new(node).await;
            scene.route_remote("warren0", 3);
            let remote = bound(&scene.lane, REMOTE, 8);
            // The node's address on the underlay: what a process has that connected to a Service.
            let own = [udp("192.0.2.1:9"), udp("[fd02::1]:9")];
            for (index, lane) in ["192.0.3.1", "fd03::1"].into_iter().enumerate() {
                assert_eq!(delivered(&own[index], &remote[index]).to_string(), lane);
            }
        },
    );
}

#[test]
fn segments_of_a_connection_are_no_longer_than_its_path_takes() {
    node(
        "segments_of_a_connection_are_no_longer_than_its_path_takes",
        async |node| {
            let scene = Scene::new(node).await;
            scene.route_remote("warren0", 3);
            // The pod's own MTU is 1400. Header of IP and TCP off, and the 12 bytes of its time stamps.
            for (mtu, segments) in [(1500, [1348, 1328]), (1300, [1248, 1228])] {
                sh(&format!("ip link set warren0 mtu {mtu}"));
                for (address, segment) in REMOTE.into_iter().zip(segments) {
                    let to: SocketAddr = (address.parse::<IpAddr>().unwrap(), 80).into();
                    let listener = scene.lane.run(move || TcpListener::bind(to).unwrap());
                    let client = scene.pod.run(move || TcpStream::connect(to).unwrap());
                    let (server, _) = listener.accept().unwrap();
                    // Its own interface takes 1500, so this is what the pod was heard to take.
                    let heard = getsockopt(&server, sockopt::TcpMaxSeg).unwrap();
                    assert_eq!(heard, segment, "{address} by {mtu}");
                    drop(client);
                }
            }
        },
    );
}

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
            assert!(begin.elapsed() < rooms::DEADLINE);
        },
    );
}
