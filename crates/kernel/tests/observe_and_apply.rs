//! What is observed after an action is what the plan's model says.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod rooms;

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use rooms::{node, sh, try_sh};
use warren_kernel::{Kernel, KernelError, KernelEvent, uninstall};
use warren_plan::{
    Action, Carrier, Clear, Guard, LinkKind, Mac, Observed, OpenPod, Route, RouteTarget, Vxlan,
};

fn vxlan(local: &str) -> Vxlan {
    Vxlan {
        port: 4789,
        mac: Mac([2, 1, 2, 3, 4, 5]),
        local: local.parse().unwrap(),
    }
}

fn route(target: RouteTarget) -> Route {
    Route {
        target,
        source: None,
        mtu: None,
    }
}

/// Applies a step to the kernel and to the model, twice, and compares what the kernel is with what the model says.
async fn step(kernel: &Kernel, model: &mut Observed, action: Action) {
    kernel
        .apply(&action)
        .await
        .unwrap_or_else(|error| panic!("{action}: {error:?}"));
    model.apply(&action);
    let keys: Vec<String> = model.sysctls.keys().cloned().collect();
    assert_eq!(kernel.observe(&keys).await.unwrap(), *model, "after {action}");
    if !matches!(action, Action::CreateVxlan(..)) {
        kernel
            .apply(&action)
            .await
            .unwrap_or_else(|error| panic!("{action}, again: {error:?}"));
        assert_eq!(
            kernel.observe(&keys).await.unwrap(),
            *model,
            "after {action}, again"
        );
    }
}

#[test]
fn every_action_does_to_the_kernel_what_it_does_to_the_model() {
    node(
        "every_action_does_to_the_kernel_what_it_does_to_the_model",
        async |node| {
            sh("ip link add eth0 type veth peer name other");
            sh("ip link set eth0 up; ip link set other up");
            sh("ip addr add 192.0.2.1/24 dev eth0; ip addr add fd00::1/64 dev eth0 nodad");
            // Somebody else's: never seen, never touched.
            sh(
                "ip route add 198.51.100.0/24 via 192.0.2.9; ip route add 10.244.9.0/24 via 192.0.2.9 metric 5",
            );
            let kernel = &node.kernel;
            let mut model = Observed::default();
            assert_eq!(kernel.observe(&[]).await.unwrap(), model);

            let name = || "warren-vx".to_owned();
            let v4 = "10.244.1.1".parse().unwrap();
            let v6 = "fd10:244:1::1".parse().unwrap();
            let remote4 = "10.244.2.1".parse().unwrap();
            let remote6 = "fd10:244:2::1".parse().unwrap();
            let mac = Mac([2, 9, 9, 9, 9, 9]);
            let net4 = "10.244.2.0/24".parse().unwrap();
            let net6 = "fd10:244:2::/64".parse().unwrap();
            let mut steps = vec![
                Action::InstallGuard(Guard {
                    sealed: BTreeSet::from([net4, net6]),
                    clear: BTreeMap::from([("10.244.3.0/24".parse().unwrap(), Clear::by(Carrier::Direct))]),
                    pods: BTreeSet::from([OpenPod {
                        interface: "wrn1".to_owned(),
                        address: v4,
                    }]),
                    ..Guard::default()
                }),
                Action::CreateVxlan(vxlan("192.0.2.1"), 1400),
                Action::SetMtu(name(), 1390),
                Action::SetUp(name()),
                Action::SetSysctl("ipv4/conf/warren-vx/rp_filter".to_owned(), "2".to_owned()),
                Action::SetSysctl("ipv4/ip_forward".to_owned(), "1".to_owned()),
                Action::AddAddress(name(), v4),
                Action::AddAddress(name(), v6),
                Action::SetNeighbour(name(), remote4, mac),
                Action::SetNeighbour(name(), remote6, mac),
                Action::SetNeighbour(name(), remote6, Mac([2, 8, 8, 8, 8, 8])),
                Action::SetFdb(mac, "192.0.2.2".parse().unwrap()),
                Action::SetFdb(mac, "192.0.2.3".parse().unwrap()),
            ];
            for (net, gateway, underlay, own) in [
                (net4, remote4, "192.0.2.7".parse().unwrap(), v4),
                (net6, remote6, "fd00::7".parse().unwrap(), v6),
            ] {
                // Each type of route after each other.
                let targets = [
                    RouteTarget::Unreachable,
                    RouteTarget::Device(name()),
                    RouteTarget::Blackhole,
                    RouteTarget::OnLink(name(), gateway),
                    RouteTarget::Unreachable,
                    RouteTarget::Gateway(underlay),
                    RouteTarget::Device(name()),
                    RouteTarget::OnLink(name(), gateway),
                    RouteTarget::Device(name()),
                    RouteTarget::Gateway(underlay),
                    RouteTarget::Blackhole,
                    RouteTarget::Gateway(underlay),
                    RouteTarget::OnLink(name(), gateway),
                    RouteTarget::Gateway(underlay),
                    RouteTarget::Unreachable,
                    RouteTarget::Blackhole,
                    RouteTarget::Device(name()),
                    RouteTarget::Unreachable,
                ];
                steps.extend(targets.map(|target| Action::SetRoute(net, route(target))));
                let with_source = Route {
                    target: RouteTarget::Device(name()),
                    source: Some(own),
                    mtu: None,
                };
                let lowered = Route {
                    mtu: Some(1328),
                    ..with_source.clone()
                };
                let raised = with_source.clone();
                steps.extend([with_source, lowered, raised].map(|route| Action::SetRoute(net, route)));
            }
            steps.extend([
                Action::SetRoute("10.244.9.0/24".parse().unwrap(), route(RouteTarget::Unreachable)),
                Action::RemoveRoute("10.244.9.0/24".parse().unwrap()),
                Action::RemoveRoute(net6),
                Action::RemoveFdb(mac),
                Action::RemoveNeighbour(name(), remote4),
                Action::RemoveRoute(net4),
                Action::RemoveAddress(name(), v4),
                Action::SetRoute(net4, route(RouteTarget::Device(name()))),
                Action::SetFdb(mac, "192.0.2.2".parse().unwrap()),
            ]);
            for action in steps {
                step(kernel, &mut model, action).await;
            }
            // What belongs to an interface goes with it, in the model as in the kernel; a value of it is no more there.
            model.sysctls.remove("ipv4/conf/warren-vx/rp_filter");
            let kind = LinkKind::Vxlan(vxlan("192.0.2.1"));
            step(kernel, &mut model, Action::RemoveLink(name(), kind)).await;
            let others = sh("ip route show");
            assert!(others.contains("198.51.100.0/24 via 192.0.2.9"), "{others}");
            assert!(others.contains("10.244.9.0/24 via 192.0.2.9"), "{others}");
        },
    );
}

#[test]
fn a_vxlan_interface_over_ipv6_is_observed_as_it_was_asked_for() {
    node(
        "a_vxlan_interface_over_ipv6_is_observed_as_it_was_asked_for",
        async |node| {
            sh("ip link add eth0 type veth peer name other; ip link set eth0 up");
            sh("ip addr add fd00::1/64 dev eth0 nodad");
            let mut model = Observed::default();
            step(
                &node.kernel,
                &mut model,
                Action::CreateVxlan(vxlan("fd00::1"), 1350),
            )
            .await;
            let mac = Mac([2, 9, 9, 9, 9, 9]);
            step(
                &node.kernel,
                &mut model,
                Action::SetFdb(mac, "fd00::2".parse().unwrap()),
            )
            .await;
        },
    );
}

#[test]
fn an_interface_with_our_name_and_another_make_is_foreign() {
    node(
        "an_interface_with_our_name_and_another_make_is_foreign",
        async |node| {
            sh("ip link add warren-vx type vxlan id 7 local 127.0.0.1 dstport 4789 nolearning");
            sh("ip link add warren0 type bridge");
            sh("ip tuntap add dev warren1 mode tun");
            sh("ip link add wrnabc type bridge");
            sh("ip link add wrndef type veth peer name other");
            let links = node.kernel.observe(&[]).await.unwrap().links;
            let kinds: Vec<_> = links
                .iter()
                .map(|(name, link)| (name.as_str(), link.kind.clone()))
                .collect();
            assert_eq!(
                kinds,
                [
                    ("warren-vx", LinkKind::Foreign),
                    ("warren0", LinkKind::Foreign),
                    ("warren1", LinkKind::Lane(warren_model::Lane::One)),
                    ("wrnabc", LinkKind::Foreign),
                    ("wrndef", LinkKind::Veth),
                ]
            );
        },
    );
}

#[test]
fn somebody_elses_interface_is_refused() {
    node("somebody_elses_interface_is_refused", async |node| {
        sh("ip link add eth0 type veth peer name other");
        for action in [
            Action::SetUp("eth0".to_owned()),
            Action::SetMtu("eth0".to_owned(), 1300),
            Action::AddAddress("eth0".to_owned(), "10.0.0.1".parse().unwrap()),
            Action::RemoveLink("eth0".to_owned(), LinkKind::Foreign),
        ] {
            let refused = node.kernel.apply(&action).await;
            assert!(
                matches!(refused, Err(KernelError::NotOurs(_))),
                "{action}: {refused:?}"
            );
        }
        assert!(try_sh("ip link show eth0").status.success());
    });
}

#[test]
fn the_underlay_is_what_is_up_and_not_ours() {
    node("the_underlay_is_what_is_up_and_not_ours", async |node| {
        sh(
            "ip link add eth0 mtu 1450 type veth peer name eth1; ip link add wrn1 type veth peer name warren0",
        );
        sh("ip link set eth0 up; ip link set wrn1 up");
        sh("ip addr add 192.0.2.1/24 dev eth0; ip addr add fd00::1/64 dev eth0 nodad");
        sh("ip addr add 192.0.3.1/24 dev eth1; ip addr add 192.0.4.1/24 dev wrn1");
        let underlay = node.kernel.underlay().await.unwrap();
        let seen: Vec<_> = underlay
            .iter()
            .map(|u| (u.interface.as_str(), u.net.to_string(), u.mtu))
            .collect();
        assert_eq!(
            seen,
            [
                ("eth0", "192.0.2.1/24".to_owned(), 1450),
                ("eth0", "fd00::1/64".to_owned(), 1450)
            ]
        );
    });
}

#[test]
fn routes_of_others_tell_what_they_take() {
    node("routes_of_others_tell_what_they_take", async |node| {
        sh("ip link add eth0 mtu 9000 type veth peer name p0; ip link add eth1 mtu 1450 type veth peer name p1
            ip link add wrn1 type veth peer name p2
            for link in eth0 eth1 wrn1 p0 p1 p2; do ip link set $link up; done
            ip addr add 192.0.2.1/24 dev eth0; ip addr add fd00::1/64 dev eth0 nodad
            ip addr add 198.51.100.1/24 dev eth1
            ip route add default via 198.51.100.2
            ip route add 203.0.113.0/24 via 192.0.2.2 mtu 1400 metric 7
            ip route add 203.0.114.0/24 nexthop via 192.0.2.2 nexthop via 198.51.100.2
            ip route add unreachable 203.0.115.0/24
            ip route add 10.244.2.0/24 dev eth0 proto 87; ip route add 10.244.1.5 dev wrn1");
        let routes = node.kernel.underlay_routes().await.unwrap();
        let mut seen: Vec<_> = routes
            .iter()
            .map(|route| (route.net.to_string(), route.metric, route.mtu))
            .filter(|(net, ..)| !net.starts_with("ff00"))
            .collect();
        seen.sort();
        let wanted = [
            ("0.0.0.0/0", 0, 1450),
            ("192.0.2.0/24", 0, 9000),
            ("198.51.100.0/24", 0, 1450),
            ("203.0.113.0/24", 7, 1400),
            ("203.0.114.0/24", 0, 1450),
            ("fd00::/64", 256, 9000),
        ]
        .map(|(net, metric, mtu)| (net.to_owned(), metric, mtu));
        assert_eq!(seen, wanted);
    });
}

#[test]
fn a_change_by_hand_is_a_tick() {
    node("a_change_by_hand_is_a_tick", async |node| {
        let mut events = node.kernel.events().unwrap();
        for change in [
            "ip link add wrn1 type veth peer name eth1",
            "ip link set wrn1 up",
            "ip addr add 10.244.1.1/32 dev wrn1",
            "ip route add unreachable 10.9.0.0/16 proto 87 metric 87",
            "ip -6 route del fe80::/64 dev wrn1 2>/dev/null; ip -6 route add blackhole fd09::/64 proto 87",
            "ip link del wrn1",
        ] {
            sh(change);
            let tick = tokio::time::timeout(rooms::DEADLINE, events.next()).await;
            assert_eq!(tick.ok().flatten(), Some(KernelEvent::Network), "{change}");
            while futures::FutureExt::now_or_never(events.next()).is_some() {}
        }
    });
}

#[test]
fn uninstalling_leaves_nothing_of_ours_and_everything_of_others() {
    node(
        "uninstalling_leaves_nothing_of_ours_and_everything_of_others",
        async |node| {
            sh(
                "ip link add eth0 type veth peer name other; ip link set eth0 up; ip addr add 192.0.2.1/24 dev eth0",
            );
            sh("ip route add 198.51.100.0/24 via 192.0.2.9; nft add table inet filter");
            let before = (
                sh("ip -d link"),
                sh("ip route; ip -6 route"),
                sh("nft list ruleset"),
            );
            let forward = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward");
            assert_eq!(forward().unwrap().trim(), "0");

            let kernel = &node.kernel;
            for action in [
                Action::InstallGuard(Guard::default()),
                Action::CreateVxlan(vxlan("192.0.2.1"), 1400),
                Action::SetSysctl("ipv4/ip_forward".to_owned(), "1".to_owned()),
                Action::SetSysctl("ipv4/ip_forward".to_owned(), "1".to_owned()),
                Action::SetRoute("10.244.2.0/24".parse().unwrap(), route(RouteTarget::Unreachable)),
                Action::SetRoute("fd10::/64".parse().unwrap(), route(RouteTarget::Blackhole)),
            ] {
                kernel.apply(&action).await.unwrap();
            }
            sh(
                "ip link add wrn1 type veth peer name eth1; ip route add blackhole 10.244.2.0/24 proto 87 metric 9",
            );
            assert_eq!(forward().unwrap().trim(), "1");

            let (swept, left) = uninstall::sweep(kernel).await;
            assert!(left.is_empty(), "{left:?}");
            assert_eq!(swept.links, ["warren-vx", "wrn1"]);
            assert_eq!(swept.routes.len(), 3, "{:?}", swept.routes);
            assert_eq!(swept.sysctls, ["ipv4/ip_forward"]);
            assert!(swept.guard);
            assert_eq!(forward().unwrap().trim(), "0");
            // Interfaces that went take their numbers with them, nothing else.
            let after = (
                sh("ip -d link"),
                sh("ip route; ip -6 route"),
                sh("nft list ruleset"),
            );
            assert_eq!(after, before);
            let (again, left) = uninstall::sweep(kernel).await;
            assert!(left.is_empty(), "{left:?}");
            assert_eq!(again, uninstall::Sweep::default());
        },
    );
}
