//! Streams and numbered datagrams between nodes: what one end says of them must be what the other end says.
//!
//! The ends are copies of this program that run inside nodes. Every test that uses them begins with [`plays`].

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::nodes::{Node, Player, Sayings, end_with_owner, play_until_ready, role, say};

/// Plays the role that this copy of the program has, if it has one and it is one of these.
pub(crate) fn plays() -> bool {
    let Some(role) = role() else { return false };
    let words: Vec<&str> = role.split(' ').collect();
    if words[0] != "number" {
        end_with_owner();
    }
    match words[..] {
        ["take", at] => take(at.parse().unwrap()),
        ["give", to, len] => give(to.parse().unwrap(), len.parse().unwrap()),
        ["fill", to] => fill(to.parse().unwrap()),
        ["count", at] => count(at.parse().unwrap()),
        ["number", to, a_second] => number(to.parse().unwrap(), a_second.parse().unwrap()),
        _ => return false,
    }
    true
}

/// Carries `len` bytes in a stream from one node to an address of the other, and compares what was sent with what
/// has arrived.
pub(crate) fn expect_stream(test: &str, from: &Node, to: &Node, address: &str, len: usize) {
    let (_taking, mut taken) = play_until_ready(to, test, &format!("take {address}"));
    let (_giving, mut given) = play_until_ready(from, test, &format!("give {address} {len}"));
    let given = given.next_of("gave");
    assert!(given.starts_with(&format!("{len} ")), "{given}");
    assert_eq!(taken.next_of("took"), given, "to {address}");
}

/// Datagrams with numbers on their way from one node to another.
pub(crate) struct Numbered {
    sending: (Player, Sayings),
    counting: (Player, Sayings),
}

/// What has become of numbered datagrams.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    /// Came after one with a higher number, or twice.
    pub(crate) misplaced: u64,
}

impl Numbered {
    /// Begins to send so many datagrams a second to an address of the other node.
    pub(crate) fn begin(test: &str, from: &Node, to: &Node, address: &str, a_second: u32) -> Self {
        Self {
            counting: play_until_ready(to, test, &format!("count {address}")),
            sending: play_until_ready(from, test, &format!("number {address} {a_second}")),
        }
    }

    /// Ends it, and counts.
    pub(crate) fn end(mut self) -> Counted {
        self.sending.0.tell_to_end();
        let sent: u64 = self.sending.1.next_of("sent").parse().unwrap();
        let counted = self.counting.1.next_of("counted");
        let (received, misplaced) = counted.split_once(' ').unwrap();
        Counted {
            sent,
            lost: sent - received.parse::<u64>().unwrap(),
            misplaced: misplaced.parse().unwrap(),
        }
    }
}

/// Fills the way from one node to an address of another with a stream until it is dropped.
pub(crate) fn load(test: &str, from: &Node, to: &Node, address: &str) -> [(Player, Sayings); 2] {
    [
        play_until_ready(to, test, &format!("take {address}")),
        play_until_ready(from, test, &format!("fill {address}")),
    ]
}

/// Length and checksum (FNV-1a) of what has passed.
struct Sum {
    len: usize,
    hash: u64,
}

impl Sum {
    const EMPTY: Self = Self {
        len: 0,
        hash: 0xcbf2_9ce4_8422_2325,
    };

    fn add(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn say(&self, topic: &str) {
        say(topic, &format!("{} {:x}", self.len, self.hash));
    }
}

fn take(at: SocketAddr) {
    let listener = TcpListener::bind(at).unwrap();
    say("ready", "");
    let (mut stream, _) = listener.accept().unwrap();
    let (mut sum, mut buffer) = (Sum::EMPTY, vec![0; 1 << 16]);
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            len => sum.add(&buffer[..len]),
        }
    }
    sum.say("took");
}

fn give(to: SocketAddr, len: usize) {
    say("ready", "");
    let mut stream = TcpStream::connect(to).unwrap();
    let (mut sum, mut state) = (Sum::EMPTY, 88_172_645_463_325_252_u64);
    // Pieces of all lengths, so that segments end anywhere.
    let mut piece = 1;
    while sum.len < len {
        piece = (piece * 5 + 3) % 70_001;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .take(piece.min(len - sum.len))
        .collect();
        stream.write_all(&bytes).unwrap();
        sum.add(&bytes);
    }
    stream.shutdown(Shutdown::Write).unwrap();
    sum.say("gave");
    // The other end closes when it has had all.
    let _ = stream.read(&mut [0]);
}

fn fill(to: SocketAddr) {
    let mut stream = TcpStream::connect(to).unwrap();
    let bytes = vec![7; 1 << 18];
    stream.write_all(&bytes).unwrap();
    say("ready", "");
    while stream.write_all(&bytes).is_ok() {}
}

/// The number of the datagram that ends the series.
const END: u64 = u64::MAX;

fn number(to: SocketAddr, a_second: u32) {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(to).unwrap();
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = std::sync::Arc::clone(&over);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        told.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    say("ready", "");
    let (begin, mut sent) = (Instant::now(), 0_u64);
    while !over.load(std::sync::atomic::Ordering::Relaxed) {
        let mut datagram = vec![0; 200 + usize::try_from(sent % 1000).unwrap()];
        datagram[..8].copy_from_slice(&sent.to_be_bytes());
        socket.send(&datagram).unwrap();
        sent += 1;
        let due = begin + Duration::from_secs(sent) / a_second;
        std::thread::sleep(due.saturating_duration_since(Instant::now())); // the rate
    }
    // Behind all others, and so often that one arrives: then whoever counts leaves, and the rest is refused.
    for _ in 0..5 {
        match socket.send(&END.to_be_bytes()) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
            sent => sent.unwrap(),
        };
    }
    say("sent", &sent.to_string());
}

fn count(at: SocketAddr) {
    let socket = UdpSocket::bind(at).unwrap();
    // What this program is too slow to read is not lost on the way. Without the right to force it, less is had.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20));
    say("ready", "");
    let (mut datagram, mut received, mut misplaced, mut expected) = (vec![0; 2048], 0_u64, 0_u64, 0);
    loop {
        let len = socket.recv(&mut datagram).unwrap();
        let number = u64::from_be_bytes(*datagram[..len].first_chunk().unwrap());
        if number == END {
            break;
        }
        received += 1;
        if number < expected {
            misplaced += 1;
        }
        expected = expected.max(number + 1);
    }
    say("counted", &format!("{received} {misplaced}"));
}
