//! Peers that change their address, and those who pretend to.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::nodes::{Network, eventually, join, role};
use super::partners::Partner;

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

    // B says nothing of its own from now on.
    b.sh("ip link set wg0 down");
    let delivered = a.delivered();
    relaying.stdin.take().unwrap().write_all(b"attack\n").unwrap();
    assert!(lines.any(|line| line.unwrap().contains("attacked")));
    // Initiations, responses and data that B made and that A has had: once again, and changed in each way.
    for reason in [
        "replayed",
        "decrypt_failed",
        "bad_mac",
        "malformed",
        "too_short",
        "unknown_session",
    ] {
        eventually(&format!("A has dropped some: {reason}"), || a.drops(reason) >= 1);
    }
    assert_eq!(a.shows("endpoints", &key_b), before);
    b.sh("ip link set wg0 up");
    assert_eq!(a.delivered(), delivered, "nothing of it was delivered");
    assert!(a.pings("10.5.2.1"), "the session has survived it");
    assert_eq!(a.shows("endpoints", &key_b), before);
    relaying.kill().unwrap();
    relaying.wait().unwrap();
}

/// The third node holds back what A sends, and sends it twice and the other way round.
#[test]
fn reordered_messages_are_taken_and_repeated_ones_only_once() {
    const NAME: &str = "roaming::reordered_messages_are_taken_and_repeated_ones_only_once";
    const PORT: u16 = 7000;
    // No more than a socket holds by default.
    const COUNT: u16 = 100;
    match role().as_deref() {
        Some("relay") => return reverse(),
        Some("receiver") => {
            let socket = UdpSocket::bind(("10.5.2.1", PORT)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            println!("bound");
            let (mut numbers, mut datagram) = (Vec::new(), [0; 2048]);
            while numbers.len() < usize::from(COUNT) {
                let (len, _) = socket.recv_from(&mut datagram).unwrap();
                assert_eq!(len, 500);
                numbers.push(u16::from_le_bytes([datagram[0], datagram[1]]));
            }
            assert!(!numbers.is_sorted(), "they were to come in another order");
            numbers.sort_unstable();
            assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>(), "each of them, and once");
            println!("all received");
            return;
        }
        Some(_) => {
            let socket = UdpSocket::bind(("10.5.1.1", 0)).unwrap();
            for number in 0..COUNT {
                let mut datagram = [0; 500];
                datagram[..2].copy_from_slice(&number.to_le_bytes());
                socket.send_to(&datagram, ("10.5.2.1", PORT)).unwrap();
            }
            return;
        }
        None => {}
    }
    let Some(mut network) = Network::new() else { return };
    let (a, b, relay) = (network.node(), network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    a.expect_ping("10.5.2.1");
    let mut relay = Partner::new(&relay, NAME, "relay");
    relay.wait_for("bound");
    a.sh(&format!(
        "wg set wg0 peer {} endpoint 192.0.2.3:5001",
        key_b.public
    ));
    let mut receiver = Partner::new(&b, NAME, "receiver");
    receiver.wait_for("bound");
    let repeated = b.drops("replayed");
    let sent = a.play(NAME, "sender").wait_with_output().unwrap();
    assert!(sent.status.success());
    receiver.wait_for("all received");
    eventually("the repeated ones are dropped", || {
        b.drops("replayed") >= repeated + u64::from(COUNT)
    });
}

/// Carries what node 1 sends on to node 2: whenever nothing has come for a moment, all that has come by then, from the
/// last to the first, and then once again.
fn reverse() {
    let socket = UdpSocket::bind("192.0.2.3:5001").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    println!("bound");
    let (mut held, mut datagram) = (Vec::new(), [0; 2048]);
    loop {
        match socket.recv_from(&mut datagram) {
            Ok((len, from)) if from.ip().to_string() == "192.0.2.1" => held.push(datagram[..len].to_vec()),
            Ok(_) => {}
            Err(_) => {
                for datagram in held.iter().rev().chain(&held) {
                    socket.send_to(datagram, "192.0.2.2:51820").unwrap();
                }
                held.clear();
            }
        }
    }
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
    let sent_by_b = sent_by_b.lock().unwrap().clone();
    for datagram in &sent_by_b {
        attacker.send_to(datagram, a).unwrap();
    }
    // One of each kind: the first of them is enough.
    for kind in 1..=4 {
        let Some(datagram) = sent_by_b.iter().find(|datagram| datagram[0] == kind) else {
            continue;
        };
        for forged in forgeries(datagram) {
            attacker.send_to(&forged, a).unwrap();
        }
    }
    println!("attacked");
    loop {
        std::thread::park();
    }
}

/// A message with each of its bytes changed, cut to each length, and with something behind it.
fn forgeries(message: &[u8]) -> Vec<Vec<u8>> {
    let mut fresh = message.to_vec();
    if fresh[0] == 4 {
        // A counter that has not been used yet, or it would be taken for a repetition.
        fresh[8..16].copy_from_slice(&5000_u64.to_le_bytes());
    }
    let changed = (0..fresh.len()).map(|at| {
        let mut changed = fresh.clone();
        changed[at] ^= 1;
        changed
    });
    let cut = (0..fresh.len()).map(|len| fresh[..len].to_vec());
    let longer = [1, 16, 1000].map(|more| [fresh.as_slice(), &vec![0; more]].concat());
    changed.chain(cut).chain(longer).collect()
}
