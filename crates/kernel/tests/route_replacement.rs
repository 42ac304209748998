//! Setting a route to what has one replaces it without an instant in which packets take the default route.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod rooms;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ipnet::IpNet;
use rooms::{Room, cable, node, send, sh, silent, udp};
use warren_kernel::Kernel;
use warren_plan::{Action, Route, RouteTarget};

/// Sends to an address as fast as it goes while something else happens.
struct Traffic {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Traffic {
    fn start(local: &str, to: &str) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (socket, to) = (udp(local), to.parse::<SocketAddr>().unwrap());
        let thread = std::thread::spawn({
            let (stop, sent) = (stop.clone(), sent.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    // Unreachable and blackhole routes refuse, each in its way.
                    let _ = UdpSocket::send_to(&socket, b"x", to);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { stop, sent, thread }
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.sent.load(Ordering::Relaxed)
    }
}

async fn set(kernel: &Kernel, net: IpNet, target: RouteTarget) {
    let action = Action::SetRoute(
        net,
        Route {
            target,
            source: None,
            mtu: None,
        },
    );
    kernel
        .apply(&action)
        .await
        .unwrap_or_else(|error| panic!("{action}: {error:?}"));
}

#[test]
fn no_packet_takes_the_default_route_while_a_route_is_replaced() {
    node(
        "no_packet_takes_the_default_route_while_a_route_is_replaced",
        async |node| {
            let (outside, lane, vxlan) = (Room::new(), Room::new(), Room::new());
            for (end, room, number) in [
                ("eth0", &outside, 2),
                ("warren0", &lane, 3),
                ("warren-vx", &vxlan, 4),
            ] {
                cable(end, room, "far");
                sh(&format!(
                    "ip addr add 192.0.{number}.1/24 dev {end}; ip addr add fd0{number}::1/64 dev {end} nodad"
                ));
                room.sh(&format!(
                    "ip addr add 192.0.{number}.2/24 dev far; ip addr add fd0{number}::2/64 dev far nodad"
                ));
            }
            outside.sh("ip addr add 10.244.2.5/32 dev far; ip addr add fd10:244:2::5/128 dev far nodad");
            sh("ip route add default via 192.0.2.2; ip -6 route add default via fd02::2");
            // As plans do. A host that does not forward passes over an IPv6 route whose gateway does not answer, and takes a
            // less specific one (net/ipv6/route.c, RT6_LOOKUP_F_REACHABLE).
            sh("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
            sh("ip neigh add 10.244.2.1 lladdr 02:00:00:00:00:09 dev warren-vx nud permanent");
            sh("ip neigh add fd10:244:2::1 lladdr 02:00:00:00:00:09 dev warren-vx nud permanent");

            for (net, gateway, local, to) in [
                ("10.244.2.0/24", "10.244.2.1", "0.0.0.0:0", "10.244.2.5:9"),
                ("fd10:244:2::/64", "fd10:244:2::1", "[::]:0", "[fd10:244:2::5]:9"),
            ] {
                let (net, gateway): (IpNet, _) = (net.parse().unwrap(), gateway.parse().unwrap());
                let receiver = outside.udp(to);
                // Without a route of ours the default route it is, and the receiver would tell.
                send(&udp(local), to.parse().unwrap());
                receiver.recv(&mut [0; 8]).unwrap();

                let lane = || RouteTarget::Device("warren0".to_owned());
                let vxlan = || RouteTarget::OnLink("warren-vx".to_owned(), gateway);
                set(&node.kernel, net, RouteTarget::Unreachable).await;
                let traffic = Traffic::start(local, to);
                for _ in 0..100 {
                    set(&node.kernel, net, lane()).await;
                    set(&node.kernel, net, vxlan()).await;
                    set(&node.kernel, net, RouteTarget::Unreachable).await;
                    set(&node.kernel, net, vxlan()).await;
                    set(&node.kernel, net, RouteTarget::Blackhole).await;
                    set(&node.kernel, net, lane()).await;
                    set(&node.kernel, net, RouteTarget::Unreachable).await;
                }
                let sent = traffic.stop().await;
                assert!(
                    sent > 100,
                    "only {sent} packets in 700 replacements prove nothing"
                );
                assert!(silent(&receiver), "{net}: a packet took the default route");

                let observed = node.kernel.observe(&[]).await.unwrap().routes;
                assert_eq!(
                    observed.keys().collect::<Vec<_>>(),
                    [&net],
                    "and nothing else is left"
                );
                node.kernel.apply(&Action::RemoveRoute(net)).await.unwrap();
            }
        },
    );
}

#[test]
fn an_on_link_gateway_inside_its_own_prefix_can_take_over_from_a_lane() {
    node(
        "an_on_link_gateway_inside_its_own_prefix_can_take_over_from_a_lane",
        async |node| {
            sh("ip link add warren0 type veth peer name far0; ip link set warren0 up; ip link set far0 up");
            sh(
                "ip link add warren-vx type veth peer name far1; ip link set warren-vx up; ip link set far1 up",
            );
            let net: IpNet = "fd10:244:2::/64".parse().unwrap();
            let vxlan = RouteTarget::OnLink("warren-vx".to_owned(), "fd10:244:2::1".parse().unwrap());
            set(&node.kernel, net, RouteTarget::Device("warren0".to_owned())).await;
            set(&node.kernel, net, vxlan.clone()).await;
            let routes = node.kernel.observe(&[]).await.unwrap().routes;
            assert_eq!(
                routes.into_iter().collect::<Vec<_>>(),
                [(
                    net,
                    Route {
                        target: vxlan,
                        source: None,
                        mtu: None,
                    }
                )]
            );
        },
    );
}
