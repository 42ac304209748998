//! Pods' links: made, checked and removed, with packets through them.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod rooms;

use std::net::IpAddr;
use std::path::Path;

use rooms::{Node, Room, delivered, node, sh, try_sh, udp};
use warren_kernel::veth::{self, Difference, HostSide, MAX_LABEL, PodLink, VethError};
use warren_kernel::{Namespace, NamespaceError, in_namespace};
use warren_plan::{Action, Mac, Route, RouteTarget};

const POD_MAC: Mac = Mac([2, 0, 0, 0, 0, 5]);

fn link(pod: &Room, addresses: &[&str]) -> PodLink {
    PodLink {
        host_name: "wrn0123456789ab".to_owned(),
        netns: pod.path().to_owned(),
        if_name: "eth0".to_owned(),
        mac: POD_MAC,
        mtu: 1380,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        label: None,
    }
}

/// What the plan adds on the node's side.
async fn routes(node: &Node, link: &PodLink) {
    for address in &link.addresses {
        let route = Route {
            target: RouteTarget::Device(link.host_name.clone()),
            source: None,
            mtu: None,
        };
        for action in [
            Action::SetNeighbour(link.host_name.clone(), *address, link.mac),
            Action::SetRoute((*address).into(), route),
        ] {
            node.kernel.apply(&action).await.unwrap();
        }
    }
}

fn nothing_left(pod: &Room) {
    assert!(!try_sh("ip link show wrn0123456789ab").status.success());
    assert!(!pod.sh("ip -o link").contains("eth0"));
}

#[test]
fn a_pod_and_its_node_reach_each_other_over_both_families() {
    node(
        "a_pod_and_its_node_reach_each_other_over_both_families",
        async |node| {
            sh("ip addr add 10.244.1.1/32 dev lo; ip addr add fd10:244:1::1/128 dev lo");
            let pod = Room::new();
            // As runtimes do that want no IPv6 unless somebody gives an address.
            pod.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6");
            let link = link(&pod, &["10.244.1.5", "fd10:244:1::5"]);
            veth::create(&link).await.unwrap();
            routes(&node, &link).await;
            for (inside, outside) in [
                ("10.244.1.5:7", "10.244.1.1:7"),
                ("[fd10:244:1::5]:7", "[fd10:244:1::1]:7"),
            ] {
                let (inside, outside) = (pod.udp(inside), udp(outside));
                // At once: no address is tentative, no neighbour has to be asked for.
                assert_eq!(delivered(&inside, &outside), inside.local_addr().unwrap().ip());
                assert_eq!(delivered(&outside, &inside), outside.local_addr().unwrap().ip());
            }
            pod.sh("ping -n -c 1 -W 5 10.244.1.1; ping -n -c 1 -W 5 fd10:244:1::1");
            rooms::wait_for(
                "ip -6 route get fe80::ecee:eeff:feee:eeee oif wrn0123456789ab",
                "local",
            );
            pod.sh("ping -n -c 1 -W 5 fe80::ecee:eeff:feee:eeee%eth0");
            sh("ping -n -c 1 -W 5 10.244.1.5; ping -n -c 1 -W 5 fd10:244:1::5");
            assert_eq!(veth::check(&node.kernel, &link).await.unwrap(), []);
            let seen = pod.sh("ip -o link show eth0");
            assert!(
                seen.contains("02:00:00:00:00:05") && seen.contains("mtu 1380"),
                "{seen}"
            );
            assert!(
                pod.sh("cat /sys/class/net/eth0/address 2>/dev/null; ip link show lo")
                    .contains("LOOPBACK,UP")
            );
        },
    );
}

#[test]
fn a_pod_of_one_family_has_no_route_of_the_other() {
    node("a_pod_of_one_family_has_no_route_of_the_other", async |node| {
        for (address, family) in [("10.244.1.5", "-6"), ("fd10:244:1::5", "-4")] {
            let pod = Room::new();
            let link = link(&pod, &[address]);
            veth::create(&link).await.unwrap();
            assert_eq!(veth::check(&node.kernel, &link).await.unwrap(), []);
            assert_eq!(pod.sh(&format!("ip {family} route show default")), "");
            veth::delete(&link.host_name).await.unwrap();
        }
    });
}

#[test]
fn checking_names_each_thing_that_is_not_as_it_was_made() {
    node(
        "checking_names_each_thing_that_is_not_as_it_was_made",
        async |node| {
            let v4: IpAddr = "10.244.1.5".parse().unwrap();
            let v6: IpAddr = "fd10:244:1::5".parse().unwrap();
            let gateway = veth::gateway(v4);
            let cases = [
                ("ip route del default", vec![Difference::DefaultRouteMissing(v4)]),
                (
                    "ip -6 route del default",
                    vec![Difference::DefaultRouteMissing(v6)],
                ),
                (
                    "ip addr del fd10:244:1::5/128 dev eth0",
                    vec![Difference::AddressMissing(v6)],
                ),
                (
                    "ip neigh del 169.254.1.1 dev eth0",
                    vec![Difference::GatewayMissing(gateway)],
                ),
                (
                    "ip link set eth0 mtu 1300",
                    vec![Difference::Mtu {
                        link: "eth0".to_owned(),
                        is: 1300,
                        should: 1380,
                    }],
                ),
                (
                    "ip link set eth0 down; ip link set eth0 name eth9",
                    vec![Difference::PodMissing("eth0".to_owned())],
                ),
                (
                    "ip link del eth0",
                    vec![
                        Difference::HostMissing("wrn0123456789ab".to_owned()),
                        Difference::PodMissing("eth0".to_owned()),
                    ],
                ),
            ];
            for (change, differences) in cases {
                let pod = Room::new();
                let link = link(&pod, &["10.244.1.5", "fd10:244:1::5"]);
                veth::create(&link).await.unwrap();
                pod.sh(change);
                assert_eq!(
                    veth::check(&node.kernel, &link).await.unwrap(),
                    differences,
                    "{change}"
                );
                veth::delete(&link.host_name).await.unwrap();
            }
        },
    );
}

#[test]
fn names_that_are_taken_are_refused_and_their_holders_stay() {
    node(
        "names_that_are_taken_are_refused_and_their_holders_stay",
        async |_| {
            let pod = Room::new();
            let wanted = link(&pod, &["10.244.1.5"]);
            pod.sh("ip link add eth0 type bridge");
            let refused = veth::create(&wanted).await;
            assert!(
                matches!(&refused, Err(VethError::TakenInPod { if_name, .. }) if if_name == "eth0"),
                "{refused:?}"
            );
            assert!(pod.sh("ip -d link show eth0").contains("bridge"));
            assert!(!try_sh("ip link show wrn0123456789ab").status.success());

            pod.sh("ip link del eth0");
            sh("ip link add wrn0123456789ab type bridge");
            let refused = veth::create(&wanted).await;
            assert!(matches!(refused, Err(VethError::TakenOnHost(_))), "{refused:?}");
            assert!(sh("ip -d link show wrn0123456789ab").contains("bridge"));
        },
    );
}

#[test]
fn a_link_that_cannot_be_finished_leaves_nothing() {
    node("a_link_that_cannot_be_finished_leaves_nothing", async |_| {
        let pod = Room::new();
        // A multicast address is nobody's own, which shows only once everything else is done.
        let link = link(&pod, &["10.244.1.5", "ff02::5"]);
        let failed = veth::create(&link).await;
        assert!(matches!(failed, Err(VethError::Netlink(_))), "{failed:?}");
        nothing_left(&pod);
    });
}

#[test]
fn a_link_tells_the_label_it_was_given() {
    node("a_link_tells_the_label_it_was_given", async |node| {
        assert_eq!(veth::host_sides(&node.kernel).await.unwrap(), []);
        let (labelled, plain) = (Room::new(), Room::new());
        let longest = "x".repeat(MAX_LABEL);
        let labelled = PodLink {
            label: Some(longest.clone()),
            ..link(&labelled, &["10.244.1.5"])
        };
        let plain = PodLink {
            host_name: "wrnfedcba987654".to_owned(),
            ..link(&plain, &["10.244.1.6"])
        };
        for link in [&labelled, &plain] {
            veth::create(link).await.unwrap();
        }
        // Neither another's veth nor something else under our mark is the host side of a pod's link.
        sh("ip link add veth0 type veth peer veth1; ip link add wrnbridge type bridge");
        sh("ip link set wrnfedcba987654 down");
        let side = |link: &PodLink, up| HostSide {
            name: link.host_name.clone(),
            label: link.label.clone(),
            up,
        };
        assert_eq!(
            veth::host_sides(&node.kernel).await.unwrap(),
            [side(&labelled, true), side(&plain, false)]
        );

        let third = Room::new();
        let too_long = PodLink {
            host_name: "wrn111111111111".to_owned(),
            label: Some(longest + "x"),
            ..link(&third, &["10.244.1.7"])
        };
        veth::create(&too_long).await.unwrap_err();
        assert!(!third.sh("ip -o link").contains("eth0"), "nothing is left");
    });
}

#[test]
fn a_host_name_without_our_mark_is_refused() {
    node("a_host_name_without_our_mark_is_refused", async |_| {
        let pod = Room::new();
        sh("ip link add eth0 type bridge");
        for name in ["eth0", "wrn0123456789abc", ""] {
            let link = PodLink {
                host_name: name.to_owned(),
                ..link(&pod, &["10.244.1.5"])
            };
            assert!(
                matches!(veth::create(&link).await, Err(VethError::HostName(_))),
                "{name}"
            );
            assert!(
                matches!(veth::delete(name).await, Err(VethError::HostName(_))),
                "{name}"
            );
        }
        sh("ip link show eth0");
    });
}

#[test]
fn a_new_mtu_is_one_for_both_sides() {
    node("a_new_mtu_is_one_for_both_sides", async |node| {
        let pod = Room::new();
        let mut link = link(&pod, &["10.244.1.5"]);
        veth::create(&link).await.unwrap();
        for mtu in [1300, 1450, 1450] {
            veth::set_mtu(&node.kernel, &link.host_name, pod.path(), &link.if_name, mtu)
                .await
                .unwrap();
            link.mtu = mtu;
            assert_eq!(veth::check(&node.kernel, &link).await.unwrap(), []);
        }
    });
}

#[test]
fn deleting_is_repeatable_by_either_name() {
    node("deleting_is_repeatable_by_either_name", async |node| {
        let kernel = &node.kernel;
        let pod = Room::new();
        let link = link(&pod, &["10.244.1.5"]);
        veth::create(&link).await.unwrap();
        veth::delete(&link.host_name).await.unwrap();
        nothing_left(&pod);
        veth::delete(&link.host_name).await.unwrap();

        veth::create(&link).await.unwrap();
        assert!(veth::delete_in_pod(kernel, pod.path(), "eth0").await.unwrap());
        nothing_left(&pod);
        assert!(!veth::delete_in_pod(kernel, pod.path(), "eth0").await.unwrap());
        assert!(
            !veth::delete_in_pod(kernel, Path::new("/nonexistent"), "eth0")
                .await
                .unwrap()
        );
    });
}

#[test]
fn another_plugins_interface_in_a_pod_is_not_deleted() {
    node(
        "another_plugins_interface_in_a_pod_is_not_deleted",
        async |node| {
            let pod = Room::new();
            rooms::cable("cali1", &pod, "eth0");
            pod.sh("ip link add eth1 type veth peer name wrn1");
            for name in ["eth0", "eth1", "lo"] {
                assert!(
                    !veth::delete_in_pod(&node.kernel, pod.path(), name).await.unwrap(),
                    "{name}"
                );
            }
            pod.sh("ip link show eth0 && ip link show eth1");
            sh("ip link show cali1");
        },
    );
}

#[test]
fn a_closure_runs_inside_and_the_caller_stays_outside() {
    node(
        "a_closure_runs_inside_and_the_caller_stays_outside",
        async |_node| {
            let pod = Room::new();
            pod.sh("ip link add here type bridge");
            let inside = in_namespace(pod.path(), || sh("ip -o link")).await.unwrap();
            assert!(inside.contains("here"), "{inside}");
            assert!(!sh("ip -o link").contains("here"));
        },
    );
}

#[test]
fn a_namespace_is_known_by_what_it_is_and_not_by_its_path() {
    node(
        "a_namespace_is_known_by_what_it_is_and_not_by_its_path",
        async |_node| {
            let (one, other) = (Room::new(), Room::new());
            let again = one.path().to_str().unwrap().replace("/proc/", "/proc/./");
            let id = |path: &Path| Namespace::open(path).unwrap().id();
            assert_eq!(id(one.path()), id(Path::new(&again)));
            assert_ne!(id(one.path()), id(other.path()));
        },
    );
}

#[test]
fn what_is_no_network_namespace_is_refused() {
    node("what_is_no_network_namespace_is_refused", async |_node| {
        let missing = in_namespace(Path::new("/run/netns/nobody-has-this"), || ()).await;
        assert!(matches!(missing, Err(NamespaceError::Missing(_))), "{missing:?}");
        for other in ["/proc/self/ns/uts", "/proc/self/stat", "/proc"] {
            let refused = in_namespace(Path::new(other), || ()).await;
            assert!(
                matches!(refused, Err(NamespaceError::NotANamespace(_))),
                "{other}: {refused:?}"
            );
        }
    });
}

#[test]
fn a_panic_inside_is_an_error_outside() {
    node("a_panic_inside_is_an_error_outside", async |_node| {
        let pod = Room::new();
        let panicked: Result<(), _> = in_namespace(pod.path(), || -> () { panic!("on purpose") }).await;
        assert!(matches!(panicked, Err(NamespaceError::Thread(_))), "{panicked:?}");
    });
}
