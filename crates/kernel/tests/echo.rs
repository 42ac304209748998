//! Echo requests of a given size in packets of a machine that has routes.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod rooms;

use std::net::IpAddr;
use std::time::Duration;

use rooms::{Room, cable, node, sh};
use warren_kernel::echo;

#[test]
fn a_request_is_not_cut_for_a_route_that_takes_less_than_its_interface() {
    node(
        "a_request_is_not_cut_for_a_route_that_takes_less_than_its_interface",
        async |_node| {
            let room = Room::new();
            cable("under", &room, "there");
            sh("ip addr add 192.0.2.1/24 dev under && ip addr add 2001:db8::1/64 dev under nodad");
            room.sh("ip addr add 192.0.2.2/24 dev there && ip addr add 2001:db8::2/64 dev there nodad");
            // Pieces of a packet would come through.
            room.sh(
                "nft 'table netdev hole { chain in { type filter hook ingress device there priority 0;
                 meta length > 1350 drop; }; }'",
            );
            sh(
                "ip route add 192.0.2.2/32 dev under mtu 1300 && ip route add 2001:db8::2/128 dev under mtu 1300",
            );
            let there = ["192.0.2.2", "2001:db8::2"].map(|it| it.parse::<IpAddr>().unwrap());
            let answering = |length, limit| {
                let answered = echo::answering(&there, length, Duration::from_secs(limit)).unwrap();
                answered.len()
            };
            assert_eq!(answering(1300, 10), 2, "it is there");
            assert_eq!(answering(1400, 1), 0, "it was sent in pieces");
        },
    );
}
