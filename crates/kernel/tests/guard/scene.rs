//! A node with a pod, its underlay, and what is at the far end of each path.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;

use warren_kernel::veth::{self, PodLink};
use warren_plan::{Action, Guard, Mac, OpenPod, Route, RouteTarget};

use crate::rooms::{Node, Room, cable, dropped, sh};

/// A pod on the node, an underlay neighbour, and what is at the far end of lane 0 and of the VXLAN interface. Lane and
/// VXLAN are plain veths under those names: the guard goes by names.
pub(crate) struct Scene {
    pub(crate) node: Node,
    pub(crate) pod: Room,
    pub(crate) underlay: Room,
    pub(crate) lane: Room,
    pub(crate) vxlan: Room,
    pub(crate) ipip: Room,
    pub(crate) guard: Guard,
}

pub(crate) const POD_MAC: Mac = Mac([2, 0, 0, 0, 0, 5]);
pub(crate) const POD: [&str; 2] = ["10.244.1.5", "fd10:244:1::5"];
/// A pod of the node 2, wherever it is reached.
pub(crate) const REMOTE: [&str; 2] = ["10.244.2.5", "fd10:244:2::5"];

impl Scene {
    pub(crate) async fn new(node: Node) -> Self {
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
                mtu: None,
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

    pub(crate) async fn install(&self) {
        self.node
            .kernel
            .apply(&Action::InstallGuard(self.guard.clone()))
            .await
            .unwrap();
    }

    /// Leads the way to node 2's pods to a room.
    pub(crate) fn route_remote(&self, end: &str, number: u8) {
        sh(&format!(
            "ip route replace 10.244.2.0/24 via 192.0.{number}.2 dev {end}
             ip -6 route replace fd10:244:2::/64 via fd0{number}::2 dev {end}"
        ));
    }

    pub(crate) async fn dropped(&self, reason: &str, packets: u64) {
        dropped(&self.node.kernel, reason, packets).await;
    }
}

pub(crate) fn guard() -> Guard {
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

pub(crate) fn bound(room: &Room, addresses: [&str; 2], port: u16) -> [UdpSocket; 2] {
    [
        room.udp(&format!("{}:{port}", addresses[0])),
        room.udp(&format!("[{}]:{port}", addresses[1])),
    ]
}
