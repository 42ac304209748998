//! Peers that change their address, and those who pretend to.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};

use super::nodes::{Network, eventually, join, role};

#[test]
fn a_peer_is_answered_where_it_last_sent_from() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    a.expect_ping("10.5.2.1");
    b.sh("ip addr del 192.0.2.2/24 dev eth0 && ip addr add 192.0.2.77/24 dev eth0");
    b.expect_ping("10.5.1.1");
    assert_eq!(a.shows("endpoints", &key_b), "192.0.2.77:51820");
    assert!(a.pings("10.5.2.1"));
}

#[test]
fn a_peer_that_changes_its_port_is_followed() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    a.expect_ping("10.5.2.1");
    b.sh("wg set wg0 listen-port 51999");
    assert!(b.pings("10.5.1.1"), "the session lives on");
    assert_eq!(a.shows("endpoints", &key_b), "192.0.2.2:51999");
}

/// The third node carries datagrams between the other two, and so can repeat and forge them.
#[test]
fn forged_and_repeated_messages_move_no_endpoint() {
    if role().is_some() {
        relay();
        return;
    }
    let Some(mut network) = Network::new() else { return };
    let (a, b, relay) = (network.node(), network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    let mut relaying = relay.play("roaming::forged_and_repeated_messages_move_no_endpoint", "relay");
    let mut lines = BufReader::new(relaying.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("bound")));
    for (node, peer, port) in [(&a, &key_b, 5001), (&b, &key_a, 5002)] {
        node.sh(&format!(
            "wg set wg0 peer {} endpoint 192.0.2.3:{port}",
            peer.public
        ));
    }
    a.expect_ping("10.5.2.1");
    let before = a.shows("endpoints", &key_b);
    assert_eq!(before, "192.0.2.3:5001");

    relaying.stdin.take().unwrap().write_all(b"attack\n").unwrap();
    assert!(lines.any(|line| line.unwrap().contains("attacked")));
    // Initiations, responses and data that B made and that A has had: once again, and with one bit changed.
    eventually("A has dropped the repeated ones", || a.drops("replayed") >= 1);
    eventually("A has dropped the forged ones", || {
        a.drops("decrypt_failed") + a.drops("bad_mac") >= 1
    });
    assert_eq!(a.shows("endpoints", &key_b), before);
    assert!(a.pings("10.5.2.1"), "the session has survived it");
    assert_eq!(a.shows("endpoints", &key_b), before);
    relaying.kill().unwrap();
    relaying.wait().unwrap();
}

/// Carries what node 1 sends to port 5001 on to node 2 and the other way round, until a line comes in: then everything
/// that node 2 has sent is sent to node 1 again from another port, as it is and changed.
fn relay() {
    let for_a = UdpSocket::bind("192.0.2.3:5001").unwrap();
    let for_b = UdpSocket::bind("192.0.2.3:5002").unwrap();
    println!("bound");
    let a: SocketAddr = "192.0.2.1:51820".parse().unwrap();
    let b: SocketAddr = "192.0.2.2:51820".parse().unwrap();
    let (from_a, to_b) = (for_a.try_clone().unwrap(), for_b.try_clone().unwrap());
    std::thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((len, _)) = from_a.recv_from(&mut datagram) {
            to_b.send_to(&datagram[..len], b).unwrap();
        }
    });
    let sent_by_b = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let record = std::sync::Arc::clone(&sent_by_b);
    std::thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((len, _)) = for_b.recv_from(&mut datagram) {
            record.lock().unwrap().push(datagram[..len].to_vec());
            for_a.send_to(&datagram[..len], a).unwrap();
        }
    });
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
    let attacker = UdpSocket::bind("192.0.2.3:5003").unwrap();
    for datagram in sent_by_b.lock().unwrap().iter() {
        attacker.send_to(datagram, a).unwrap();
        let mut forged = datagram.clone();
        *forged.last_mut().unwrap() ^= 1;
        if forged[0] == 4 {
            // A counter that has not been used yet, or it would be taken for a repetition.
            forged[8..16].copy_from_slice(&5000_u64.to_le_bytes());
        }
        attacker.send_to(&forged, a).unwrap();
    }
    println!("attacked");
    loop {
        std::thread::park();
    }
}
