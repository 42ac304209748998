//! Strangers who send as much as they can.
//!
//! What is asked is what a flood costs the device, not what it costs the machine: the same flood to another port of the
//! same host, where nobody listens, is what it is compared with.
//!
//! A program that was not optimised, on a machine that has other things to do, is slowed down by anything. So the tunnel
//! carries only part of what it can, unless `hack/flood.sh` runs this with a program and for a machine of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use blake2::digest::{FixedOutput, KeyInit, Update, consts::U16};
use blake2::{Blake2s256, Blake2sMac, Digest};
use rand_core::{OsRng, RngCore};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::nodes::{Network, Node, WARREN_WG, hex, join, role};
use super::partners::Partner;

const NAME: &str = "flood::a_flood_of_strangers_costs_a_tunnel_little_and_keeps_no_peer_out";

/// The program that `hack/flood.sh` asks about.
const PROGRAM: &str = "WARREN_FLOOD_PROGRAM";

/// How long the sender waits between two pieces, if there is no such program.
const PACE: Duration = Duration::from_millis(2);

/// Datagrams a second.
const RATE: u32 = 30_000;

/// Datagrams of one measurement.
const BURST: u32 = 10_000;

/// How many measurements of either kind there are: more than the least where other programs make them differ.
const ROUNDS: std::ops::RangeInclusive<usize> = 5..=25;

/// Where the device listens, and where nobody does.
const DEVICE: u16 = 51820;
const NOBODY: u16 = 9;

/// What a tunnel keeps of its throughput.
const KEPT: f64 = 0.8;

/// What the device may have grown by, in KiB.
const GROWTH: u64 = 8 << 10;

#[test]
fn a_flood_of_strangers_costs_a_tunnel_little_and_keeps_no_peer_out() {
    match role().as_deref() {
        Some("sink") => return sink(),
        Some("source") => return source(Duration::ZERO),
        Some("paced source") => return source(PACE),
        Some(_) => return flood(),
        None => {}
    }
    let Some(mut network) = Network::new() else { return };
    let (a, b, c, late) = (network.node(), network.node(), network.node(), network.node());
    let program = std::env::var(PROGRAM).ok();
    let start = |node: &Node| node.start_device_of(program.as_deref().unwrap_or(WARREN_WG));
    let (key_a, key_b) = (start(&a), start(&b));
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    a.expect_ping("10.5.2.1");
    // All the invented senders are behind the third node, which swallows what they are sent.
    a.sh("ip route add 10.66.0.0/16 via 192.0.2.3");
    c.sh("ip route add blackhole 10.66.0.0/16");

    let mut sink = Partner::new(&a, NAME, "sink");
    sink.wait_for("listening");
    let mut source = Partner::new(&b, NAME, program.as_ref().map_or("paced source", |_| "source"));
    source.wait_for("connected");
    let mut flooder = Partner::new(&c, NAME, "flooder");
    flooder.say(&hex(&key_a.public));
    flooder.wait_for("ready");
    let mut throughput = |port| {
        let (begin, before) = (Instant::now(), a.delivered().0);
        flooder.say(&format!("{port} {BURST}"));
        flooder.wait_for("sent");
        (a.delivered().0 - before) as f64 / begin.elapsed().as_secs_f64()
    };

    // Everything has been touched once before it is measured.
    throughput(DEVICE);
    let memory = a.resident();
    let mut shares = Vec::new();
    while shares.len() < *ROUNDS.start() || (median(&shares) < KEPT && shares.len() < *ROUNDS.end()) {
        let beside = throughput(NOBODY);
        shares.push(throughput(DEVICE) / beside);
        shares.sort_by(f64::total_cmp);
    }
    println!("shares of the throughput: {shares:.2?}");
    assert!(median(&shares) >= KEPT, "{shares:.2?}");

    // A peer that nobody has heard of for long finds its way in meanwhile.
    let limited = a.drops("rate_limited");
    let key_late = start(&late);
    flooder.say(&format!("{DEVICE} 0"));
    join((&a, &key_a), (&late, &key_late), "192.0.2.", "");
    let begin = Instant::now();
    late.expect_ping("10.5.1.1");
    println!("handshake during the flood after {:?}", begin.elapsed());
    flooder.say("enough");
    flooder.wait_for("sent");
    assert!(
        a.drops("rate_limited") > limited + 1000,
        "the device was under load: initiations without a cookie were not answered"
    );

    let grown = a.resident().saturating_sub(memory);
    println!("grown by {grown} KiB");
    assert!(grown <= GROWTH, "grown by {grown} KiB");
    for reason in ["bad_mac", "malformed", "too_short", "unknown_session"] {
        assert!(a.drops(reason) > 1000, "{reason}");
    }
    drop((sink, source, flooder));
    assert!(a.pings("10.5.2.1"));
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// Reads whatever comes.
fn sink() {
    let listener = TcpListener::bind("10.5.1.1:7000").unwrap();
    println!("listening");
    let (mut stream, _) = listener.accept().unwrap();
    let mut buffer = vec![0; 256 << 10];
    while stream.read(&mut buffer).unwrap() > 0 {}
}

/// Writes as much as it can, or less.
fn source(pace: Duration) {
    let mut stream = TcpStream::connect("10.5.1.1:7000").unwrap();
    println!("connected");
    let buffer = vec![0x5a; if pace.is_zero() { 256 << 10 } else { 8 << 10 }];
    while stream.write_all(&buffer).is_ok() {
        std::thread::sleep(pace);
    }
}

/// Does what the lines say: a port and how many datagrams go there, 0 for as many as until the next line.
fn flood() {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            sender.send(line.unwrap()).unwrap();
        }
    });
    let mut packets = packets(&lines.recv().unwrap());
    // Whole packets, with a source address that is not ours.
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).unwrap();
    println!("ready");
    while let Ok(line) = lines.recv() {
        let Some((port, count)) = line.split_once(' ') else {
            continue;
        };
        send_all(
            &socket,
            &mut packets,
            port.parse().unwrap(),
            count.parse().unwrap(),
            &lines,
        );
        println!("sent");
    }
}

fn send_all(socket: &Socket, packets: &mut [Vec<u8>], port: u16, count: u32, lines: &Receiver<String>) {
    let to = SockAddr::from(SocketAddr::from(([192, 0, 2, 1], 0)));
    let begin = Instant::now();
    let mut sent = 0;
    while (count == 0 || sent < count) && (count > 0 || lines.try_recv() == Err(TryRecvError::Empty)) {
        let due = begin.elapsed().as_micros() * u128::from(RATE) / 1_000_000;
        while u128::from(sent) < due && (count == 0 || sent < count) {
            let packet = &mut packets[sent as usize % PACKETS];
            // The port, and an address and a port of origin that change.
            packet[14..16].copy_from_slice(&OsRng.next_u32().to_le_bytes()[..2]);
            packet[20..22].copy_from_slice(&[0xc0, sent.to_le_bytes()[0]]);
            packet[22..24].copy_from_slice(&port.to_be_bytes());
            // A full queue loses one: it is a flood.
            let _ = socket.send_to(packet, &to);
            sent += 1;
        }
        // The rate, not the result, hangs on this.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How many different packets there are.
const PACKETS: usize = 4096;

/// Packets for the holder of a public key: a half of them initiations whose mac1 is right, a quarter initiations whose
/// mac1 is wrong, a quarter other things of all lengths.
fn packets(public: &str) -> Vec<Vec<u8>> {
    let public: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&public[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let key = Digest::chain_update(Blake2s256::new().chain_update(b"mac1----"), &public).finalize();
    let payload = |number: usize| {
        let initiation = number % 4 != 3;
        let mut payload = vec![0; if initiation { 148 } else { number % 1400 }];
        OsRng.fill_bytes(&mut payload);
        // Often something that looks like a message.
        let kind = if initiation {
            1
        } else {
            u8::try_from(number / 4 % 7).unwrap()
        };
        if payload.len() >= 4 && kind != 6 {
            payload[..4].copy_from_slice(&[kind, 0, 0, 0]);
        }
        if initiation && number.is_multiple_of(2) {
            let mut mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(&key).unwrap();
            Update::update(&mut mac, &payload[..116]);
            payload[116..132].copy_from_slice(&mac.finalize_fixed());
        }
        payload
    };
    (0..PACKETS).map(|number| packet(&payload(number))).collect()
}

/// An IPv4 packet from 10.66.0.0/16 to node 1, but for the ports.
fn packet(payload: &[u8]) -> Vec<u8> {
    let len = |len: usize| u16::try_from(len).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0];
    packet.extend(len(28 + payload.len()));
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]); // the kernel sums it
    packet.extend([10, 66, 0, 0]);
    packet.extend(Ipv4Addr::new(192, 0, 2, 1).octets());
    packet.extend([0; 4]);
    packet.extend(len(8 + payload.len()));
    packet.extend([0, 0]); // no checksum: it may be left out in IPv4
    packet.extend(payload);
    packet
}
