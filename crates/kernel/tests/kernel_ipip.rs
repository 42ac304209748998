//! IPIP of the kernel, where it has that; where not, that this is told and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod rooms;

use std::collections::BTreeMap;

use rooms::{node, sh, try_sh};
use warren_plan::{Action, Ipip, Link, LinkKind, Route, RouteTarget};

#[test]
fn an_interface_is_made_and_seen_and_its_routes_name_the_hosts_that_packets_go_to() {
    node(
        "an_interface_is_made_and_seen_and_its_routes_name_the_hosts_that_packets_go_to",
        async |node| {
            let probed = node.kernel.probe_ipip().await;
            assert_eq!(
                links(&node.kernel).await,
                BTreeMap::new(),
                "a probe leaves nothing"
            );
            let tried = try_sh("ip link add tried type ipip local 192.0.2.7 && ip link del tried");
            if !tried.status.success() {
                eprintln!("this kernel has no IPIP");
                assert!(probed.is_err());
                return;
            }
            probed.unwrap();
            sh(
                "ip link add under type veth peer name far; ip addr add 192.0.2.1/24 dev under; ip link set under up; ip link set far up",
            );
            let ipip = Ipip {
                local: [192, 0, 2, 1].into(),
            };
            let name = || "warren-ipip".to_owned();
            for action in [
                Action::CreateIpip(ipip.clone(), 1480),
                Action::SetUp(name()),
                Action::AddAddress(name(), [10, 244, 1, 1].into()),
            ] {
                node.kernel.apply(&action).await.unwrap();
            }
            let link = Link {
                kind: LinkKind::Ipip(ipip),
                mtu: 1480,
                up: true,
            };
            assert_eq!(links(&node.kernel).await, BTreeMap::from([(name(), link)]));

            let net = "10.244.2.0/24".parse().unwrap();
            let route = Route {
                target: RouteTarget::OnLink(name(), [192, 0, 2, 2].into()),
                source: Some([10, 244, 1, 1].into()),
                mtu: None,
            };
            node.kernel
                .apply(&Action::SetRoute(net, route.clone()))
                .await
                .unwrap();
            let observed = node.kernel.observe(&[]).await.unwrap();
            assert_eq!(observed.routes.get(&net), Some(&route));
            // The host is the next hop on the wire: it is asked for there.
            sh("ping -c 1 -W 1 10.244.2.5 || true");
            let asked = sh("ip neigh show dev under");
            assert!(asked.contains("192.0.2.2"), "{asked}");

            // Another make under our name is replaced, not believed.
            sh("ip link del warren-ipip; ip link add warren-ipip type ipip local 192.0.2.1 remote 192.0.2.9");
            assert_eq!(links(&node.kernel).await["warren-ipip"].kind, LinkKind::Foreign);
        },
    );
}

async fn links(kernel: &warren_kernel::Kernel) -> BTreeMap<String, Link> {
    kernel.observe(&[]).await.unwrap().links
}
