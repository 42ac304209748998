//! Everything at once, and for long: two devices that are configured anew all the time while traffic of both families
//! and both transports crosses them in both directions and a third node sends nonsense.
//!
//! `hack/soak.sh` runs this for minutes with a device that is watched by the address sanitizer; by itself it takes
//! some seconds.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rand_core::{OsRng, RngCore};

use super::nodes::{DEVICES, Key, Network, Node, WARREN_WG, eventually, hex, join, role};
use super::partners::Partner;

const NAME: &str = "soak::everything_at_once_and_for_long";

/// How long it takes, in seconds, and which program it is to be; `hack/soak.sh` sets them.
const SECONDS: &str = "WARREN_SOAK_SECONDS";
const PROGRAM: &str = "WARREN_SOAK_PROGRAM";

/// What a device may have grown by since a quarter of the time was over, in KiB.
const GROWTH: u64 = 16 << 10;

/// How long a sender waits between two pieces: what is soaked is the device, not the machine.
const PACE: Duration = Duration::from_millis(20);

#[test]
fn everything_at_once_and_for_long() {
    if let Some(role) = role() {
        return play(&role);
    }
    let Some(mut network) = Network::new() else { return };
    let [a, b, c] = [(); 3].map(|()| network.node());
    let seconds = std::env::var(SECONDS).map_or(0, |seconds| seconds.parse().unwrap());
    let (key_a, key_b) = (start(&a), start(&b));
    let mut pair = Pair {
        a,
        b,
        key_a,
        key_b,
        address: 2,
    };
    pair.join();
    pair.is_connected();
    let pids = pair.each().map(|node| node.sh(DEVICES));
    let _traffic: Vec<Partner> = [
        (&pair.a, "serve"),
        (&pair.b, "serve"),
        (&pair.a, "send 10.5.2.1"),
        (&pair.b, "send 10.5.1.1"),
        (&pair.a, "send fd05::2"),
        (&pair.b, "send fd05::1"),
        (&c, "nonsense"),
    ]
    .map(|(node, role)| {
        let mut player = Partner::new(node, NAME, role);
        player.wait_for("begun");
        player
    })
    .into();

    let (begin, time) = (Instant::now(), Duration::from_secs(seconds));
    let (mut rounds, mut warm) = (0, [u64::MAX; 2]);
    // One round at least.
    while rounds == 0 || begin.elapsed() < time {
        for (name, step) in STEPS {
            println!("{:.1?}: {name}", begin.elapsed());
            step(&mut pair, rounds);
            pair.is_connected();
        }
        rounds += 1;
        let memory = pair.each().map(Node::resident);
        println!("{:.0?}: round {rounds}, resident {memory:?} KiB", begin.elapsed());
        if begin.elapsed() < time / 4 || rounds <= 2 {
            warm = memory;
        }
        for (now, before) in memory.into_iter().zip(warm) {
            assert!(
                now <= before.saturating_add(GROWTH),
                "{memory:?} KiB, after {warm:?}"
            );
        }
    }
    assert_eq!(
        pair.each().map(|node| node.sh(DEVICES)),
        pids,
        "the same processes"
    );
    for node in pair.each() {
        node.sh(&format!("kill -TERM $({DEVICES})"));
        eventually("the device has ended", || node.path("/run/status").exists());
        let status = std::fs::read_to_string(node.path("/run/status")).unwrap();
        let log = std::fs::read_to_string(node.path("/run/wg0.log")).unwrap();
        assert_eq!(status.trim(), "0", "{log}");
        assert!(!log.contains("Sanitizer") && !log.contains("panicked"), "{log}");
    }
}

/// What is done in each round, one after the other; after each of them the two must reach each other again.
const STEPS: [(&str, Step); 9] = [
    ("take peer away", Pair::take_peer_away),
    ("change private key", Pair::change_private_key),
    ("change port", Pair::change_port),
    ("change address", Pair::change_address),
    ("change family", Pair::change_family),
    ("change mtu", Pair::change_mtu),
    ("change preshared key", Pair::change_preshared_key),
    ("churn peers", Pair::churn_peers),
    ("ask at once", Pair::ask_at_once),
];

/// Something done to the two in one of the rounds.
type Step = fn(&mut Pair, usize);

/// Two nodes with a device each.
struct Pair {
    a: Node,
    b: Node,
    key_a: Key,
    key_b: Key,
    /// The last byte of B's address on the underlay.
    address: u8,
}

impl Pair {
    fn each(&self) -> [&Node; 2] {
        [&self.a, &self.b]
    }

    fn join(&self) {
        join((&self.a, &self.key_a), (&self.b, &self.key_b), "192.0.2.", "");
        // A peer that was removed has lost its preshared key, and the other side has not.
        self.share("");
        if self.address != 2 {
            let (key, address) = (&self.key_b.public, self.address);
            self.a
                .sh(&format!("wg set wg0 peer {key} endpoint 192.0.2.{address}:51820"));
        }
    }

    fn is_connected(&self) {
        self.a.expect_ping("10.5.2.1");
        self.b.expect_ping("10.5.1.1");
        self.a.expect_ping("fd05::2");
        self.b.expect_ping("fd05::1");
    }

    fn take_peer_away(&mut self, _: usize) {
        self.a
            .sh(&format!("wg set wg0 peer {} remove", self.key_b.public));
        self.join();
    }

    fn change_private_key(&mut self, round: usize) {
        let (node, key, other) = if round.is_multiple_of(2) {
            (&self.a, &mut self.key_a, &self.b)
        } else {
            (&self.b, &mut self.key_b, &self.a)
        };
        other.sh(&format!("wg set wg0 peer {} remove", key.public));
        key.private = node.sh("umask 077; wg genkey | tee /run/key").trim().to_owned();
        node.sh("wg set wg0 private-key /run/key");
        key.public = node.sh("wg show wg0 public-key").trim().to_owned();
        self.join();
    }

    fn change_port(&mut self, round: usize) {
        let port = 52_000 + round % 1000;
        self.b.sh(&format!("wg set wg0 listen-port {port}"));
        self.b.expect_ping("10.5.1.1");
        self.b.sh("wg set wg0 listen-port 51820");
        self.b.expect_ping("fd05::1");
    }

    fn change_address(&mut self, round: usize) {
        let next = u8::try_from(100 + round % 100).unwrap();
        let (old, new) = (self.address, next);
        self.b.sh(&format!(
            "ip addr del 192.0.2.{old}/24 dev eth0; ip addr add 192.0.2.{new}/24 dev eth0"
        ));
        self.address = next;
        self.b.expect_ping("10.5.1.1");
    }

    fn change_family(&mut self, _: usize) {
        join((&self.a, &self.key_a), (&self.b, &self.key_b), "[fd99::", "]");
        self.is_connected();
        self.join();
    }

    fn change_mtu(&mut self, round: usize) {
        for node in self.each() {
            let mtu = 1280 + (round * 37 + usize::from(node.n) * 11) % 140;
            node.sh(&format!("ip link set wg0 mtu {mtu}"));
        }
    }

    fn change_preshared_key(&mut self, round: usize) {
        let preshared = if round.is_multiple_of(2) {
            self.a.sh("wg genpsk")
        } else {
            String::new()
        };
        self.share(preshared.trim());
    }

    /// Sets a preshared key, or none, on both sides.
    fn share(&self, preshared: &str) {
        for (node, peer) in [(&self.a, &self.key_b), (&self.b, &self.key_a)] {
            node.sh(&format!(
                "umask 077; printf '{preshared}' > /run/psk; wg set wg0 peer {} preshared-key /run/psk",
                peer.public
            ));
        }
    }

    /// Two hundred peers come and go; each has addresses, and some are sent to.
    fn churn_peers(&mut self, round: usize) {
        let (mut come, mut go) = (String::from("set=1\n"), String::from("set=1\n"));
        for number in 0..200_usize {
            let mut key = [0; 32];
            OsRng.fill_bytes(&mut key);
            let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            let (high, low) = (number / 200 + 100 + round % 50, number);
            writeln!(
                come,
                "public_key={key}\nreplace_allowed_ips=true\nallowed_ip=10.5.{high}.{low}/32"
            )
            .unwrap();
            writeln!(
                come,
                "allowed_ip=fd05:0:0:1::{low:x}/128\nendpoint=192.0.2.3:{}",
                6000 + low
            )
            .unwrap();
            writeln!(go, "public_key={key}\nremove=true").unwrap();
        }
        assert_eq!(self.a.ask(&format!("{come}\n")), "errno=0\n\n");
        let high = 100 + round % 50;
        self.a.try_sh(&format!(
            "for low in 1 5 9; do ping -n -q -c 1 -W 0.1 10.5.{high}.$low; done"
        ));
        assert_eq!(self.a.ask(&format!("{go}\n")), "errno=0\n\n");
        // One that is no peer any more has no allowed IPs either.
        assert!(!self.a.ask("get=1\n\n").contains("fd05:0:0:1::"));
        assert!(self.a.ask("get=1\n\n").contains(&hex(&self.key_b.public)));
    }

    fn ask_at_once(&mut self, _: usize) {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        assert!(self.a.ask("get=1\n\n").contains("listen_port=51820"));
                        assert!(self.b.ask("get=drops\n\n").contains("replayed="));
                    }
                });
            }
        });
    }
}

/// Starts the device in the foreground of a shell that notes how it has ended.
fn start(node: &Node) -> Key {
    let program = std::env::var(PROGRAM).unwrap_or_else(|_| WARREN_WG.to_owned());
    node.sh(&format!(
        "{{ {program} -f --log info wg0 >/run/wg0.log 2>&1; echo $? >/run/ended; mv /run/ended /run/status; }} >&- 2>&- &"
    ));
    eventually("the device answers", || {
        node.try_sh("wg show wg0").status.success()
    });
    node.configure_device()
}

fn play(role: &str) {
    match role.split_once(' ') {
        Some((_, to)) => send(to),
        None if role == "serve" => serve(),
        None => nonsense(),
    }
}

/// Reads what comes by TCP and sends back what comes by UDP.
fn serve() {
    let (listener, socket) = (
        TcpListener::bind("[::]:7000").unwrap(),
        UdpSocket::bind("[::]:7001").unwrap(),
    );
    println!("begun");
    std::thread::spawn(move || {
        let mut datagram = [0; 2048];
        loop {
            // What does not arrive is lost: there is not always a peer.
            if let Ok((len, from)) = socket.recv_from(&mut datagram) {
                let _ = socket.send_to(&datagram[..len], from);
            }
        }
    });
    for stream in listener.incoming() {
        std::thread::spawn(move || {
            let (mut stream, mut buffer) = (stream.unwrap(), vec![0; 64 << 10]);
            while stream.read(&mut buffer).is_ok_and(|len| len > 0) {}
        });
    }
}

/// Sends by TCP and UDP, whatever becomes of it.
fn send(to: &str) {
    println!("begun");
    let to: std::net::IpAddr = to.parse().unwrap();
    std::thread::spawn(move || {
        let local = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(local).unwrap();
        let payload = [0x5a; 1400];
        for number in 0_usize.. {
            for piece in 0..20 {
                let _ = socket.send_to(&payload[..(number * 20 + piece) % 1400], (to, 7001));
            }
            std::thread::sleep(PACE);
        }
    });
    let piece = vec![0xa5; 64 << 10];
    loop {
        let stream = TcpStream::connect_timeout(&(to, 7000).into(), Duration::from_secs(2));
        let Ok(mut stream) = stream else { continue };
        let _ = stream.set_write_timeout(Some(Duration::from_secs(2)));
        while stream.write_all(&piece).is_ok() {
            std::thread::sleep(PACE);
        }
    }
}

/// Sends what looks like messages to both devices.
fn nonsense() {
    let socket = UdpSocket::bind("192.0.2.3:0").unwrap();
    println!("begun");
    let mut datagram = vec![0; 1500];
    for number in 0_usize.. {
        OsRng.fill_bytes(&mut datagram);
        datagram[..4].copy_from_slice(&[number.to_le_bytes()[0] % 6, 0, 0, 0]);
        let len = [148, 92, 64, 32, number % 1500][number % 5];
        for to in ["192.0.2.1:51820", "192.0.2.2:51820"] {
            let _ = socket.send_to(&datagram[..len], to);
        }
        if number.is_multiple_of(10) {
            std::thread::sleep(PACE);
        }
    }
}
