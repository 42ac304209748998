//! What the guard drops and what it lets through, with real packets.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../rooms/mod.rs"]
mod rooms;
mod scene;
mod table;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use nix::sys::socket::{getsockopt, sockopt};
use warren_plan::{Carrier, Clear};

use rooms::{delivered, node, send, sh, silent, udp};
use scene::{POD, REMOTE, Scene, bound, guard};

#[test]
fn a_sealed_network_is_reached_through_a_lane_and_by_nothing_else() {
    node(
        "a_sealed_network_is_reached_through_a_lane_and_by_nothing_else",
        async |node| {
            let scene = Scene::new(node).await;
            let pod = bound(&scene.pod, POD, 7);
            let mut drops = 0;
            for (end, number, room) in [
                ("eth0", 2, &scene.underlay),
                ("warren-vx", 4, &scene.vxlan),
                ("warren-ipip", 5, &scene.ipip),
            ] {
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
                "for name in all eth0 warren-vx warren-ipip; do echo 0 > /proc/sys/net/ipv4/conf/$name/rp_filter; done",
            );
            scene.route_remote("warren0", 3);
            let pod = bound(&scene.pod, POD, 7);
            let mut drops = 0;
            for room in [&scene.underlay, &scene.vxlan, &scene.ipip] {
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
            sh(
                "for name in all eth0 warren0 warren-vx warren-ipip; do echo 0 > /proc/sys/net/ipv4/conf/$name/rp_filter; done",
            );
            let pod = bound(&scene.pod, POD, 7);
            let mut drops = 0;
            for room in [&scene.underlay, &scene.lane, &scene.vxlan, &scene.ipip] {
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
