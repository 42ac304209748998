//! Namespaces beside the node that send to each other through it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Instant;

use warren_policy::{Flow, Protocol};

use crate::rooms::{DEADLINE, Room, cable, send, sh};

/// How many pods of each have a room. The generator gives the pod of each number the same addresses in all of them.
pub(crate) const PODS: usize = 4;
/// An address of nobody, of each family.
const OUTSIDE: [&str; 2] = ["198.51.100.7", "2001:db8::7"];
/// Of the generator's, two: a packet for each pair, port and family.
pub(crate) const PORTS: [u16; 2] = [53, 80];

/// A namespace with two addresses, that sends and listens at each of them.
pub(crate) struct Place {
    pub(crate) addresses: [IpAddr; 2],
    pub(crate) senders: [UdpSocket; 2],
    pub(crate) listeners: Vec<UdpSocket>,
    _room: Room,
}

impl Place {
    fn new(number: usize, addresses: [IpAddr; 2]) -> Self {
        let room = Room::new();
        let end = format!("place{number}");
        cable(&end, &room, "eth0");
        let [v4, v6] = addresses;
        sh(&format!(
            "ip addr add 169.254.{number}.1/32 dev {end}; ip addr add fd77:{number}::1/128 dev {end} nodad
             ip route add {v4}/32 dev {end}; ip -6 route add {v6}/128 dev {end}"
        ));
        room.sh(&format!(
            "ip addr add {v4}/32 dev eth0; ip addr add {v6}/128 dev eth0 nodad
             ip route add 169.254.{number}.1/32 dev eth0; ip route add default via 169.254.{number}.1
             ip -6 route add fd77:{number}::1/128 dev eth0; ip -6 route add default via fd77:{number}::1"
        ));
        let bound = |address: IpAddr, port: u16| {
            let socket = room.udp(&SocketAddr::new(address, port).to_string());
            socket.set_nonblocking(true).unwrap();
            socket
        };
        // Rules may ask for the source port, so it is the one that flows are judged with.
        let opened_from = |address| Flow::to_port(address, address, Protocol::UDP, 0).source_port();
        Self {
            senders: addresses.map(|address| bound(address, opened_from(address).unwrap())),
            listeners: addresses
                .into_iter()
                .flat_map(|address| PORTS.map(|port| bound(address, port)))
                .collect(),
            addresses,
            _room: room,
        }
    }
}

/// A place for each pod the generator makes first, and one for an address of nobody.
pub(crate) fn everywhere() -> Vec<Place> {
    sh("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
    let mut addresses: Vec<[IpAddr; 2]> = Vec::new();
    for number in 1..=PODS {
        let v4 = format!("10.0.{}.{number}", (number - 1) % 2);
        addresses.push([v4.parse().unwrap(), format!("fd00::{number:x}").parse().unwrap()]);
    }
    addresses.push(OUTSIDE.map(|text| text.parse().unwrap()));
    let numbered = addresses.into_iter().enumerate();
    let places: Vec<Place> = numbered
        .map(|(number, addresses)| Place::new(number + 1, addresses))
        .collect();
    wake_neighbours(&places);
    places
}

/// Until one datagram has arrived at each listener, the kernel may still be asking who has an address.
fn wake_neighbours(places: &[Place]) {
    for from in places {
        for to in places {
            for listener in &to.listeners {
                let address = listener.local_addr().unwrap();
                let sender = &from.senders[usize::from(address.is_ipv6())];
                let deadline = Instant::now() + DEADLINE;
                send(sender, address);
                while listener.recv(&mut [0; 8]).is_err() {
                    assert!(
                        Instant::now() < deadline,
                        "{address} is not reached without policies"
                    );
                }
            }
        }
    }
}

pub(crate) fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "it does not come to that");
    }
}
