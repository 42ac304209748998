//! ICMP echo (RFC 792, RFC 4443) to many addresses at once, with packets of a given size.
//!
//! Raw sockets and not the `ping` program, which few images have; nor datagram ICMP sockets, which
//! `net.ipv4.ping_group_range` forbids even to root in most places.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use warren_model::Family;

/// How long is listened before it is looked whether to ask again.
const TICK: Duration = Duration::from_millis(50);
/// Those that have not answered are asked again.
const AGAIN: Duration = Duration::from_millis(900);
/// An ICMP header: type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;
/// The longest packet there is.
const LONGEST: usize = 65535;

/// Length of a small request, which every path takes.
pub const SMALL: usize = 84;
/// Lengths to try where full size does not come through: usual MTUs of paths, less the tunnel, and multiples of 16, to which
/// WireGuard pads.
pub const LADDER: [usize; 8] = [8912, 4064, 1424, 1376, 1328, 1232, 992, 576];

/// Which addresses answer packets of `length` bytes, the IP header among them. Returns when all have, or at the limit.
pub fn answering(addresses: &[IpAddr], length: usize, limit: Duration) -> io::Result<BTreeSet<IpAddr>> {
    let of_family = |family| {
        let mut targets = addresses.to_vec();
        targets.retain(|address| Family::of(*address) == family);
        if targets.is_empty() {
            return Ok(BTreeSet::new());
        }
        Echo::open(family, length)?.exchange(&targets, limit)
    };
    let (v4, v6) = thread::scope(|scope| {
        let v4 = scope.spawn(|| of_family(Family::V4));
        let v6 = of_family(Family::V6);
        let failed = || Err(io::Error::other("the thread that sends has failed"));
        (v4.join().unwrap_or_else(|_| failed()), v6)
    });
    let mut answered = v4?;
    answered.extend(v6?);
    Ok(answered)
}

struct Echo {
    /// A raw socket. The standard library's type gives it safe ways to send and receive with an address.
    socket: UdpSocket,
    family: Family,
    /// Of the ICMP message.
    length: usize,
    /// Tells our replies from those to others: the kernel gives every raw socket all of them.
    identifier: u16,
}

impl Echo {
    fn open(family: Family, length: usize) -> io::Result<Self> {
        let (domain, protocol, ip_header) = match family {
            Family::V4 => (Domain::IPV4, Protocol::ICMPV4, 20),
            Family::V6 => (Domain::IPV6, Protocol::ICMPV6, 40),
        };
        let any: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        send_whole(&socket, family)?;
        socket.bind(&SocketAddr::new(any, 0).into())?;
        socket.set_read_timeout(Some(TICK))?;
        let [.., high, low] = std::process::id().to_be_bytes();
        Ok(Self {
            socket: socket.into(),
            family,
            length: length.saturating_sub(ip_header).max(HEADER),
            identifier: u16::from_be_bytes([high, low]),
        })
    }

    fn exchange(&self, targets: &[IpAddr], limit: Duration) -> io::Result<BTreeSet<IpAddr>> {
        let wanted: BTreeSet<IpAddr> = targets.iter().copied().collect();
        let deadline = Instant::now() + limit;
        let mut answered = BTreeSet::new();
        let mut ask_at = Instant::now();
        let mut buffer = vec![0; LONGEST];
        while answered.len() < wanted.len() && Instant::now() < deadline {
            if Instant::now() >= ask_at {
                self.ask(wanted.difference(&answered));
                ask_at = Instant::now() + AGAIN;
            }
            if let Some(from) = self.receive(&mut buffer)?.filter(|from| wanted.contains(from)) {
                answered.insert(from);
            }
        }
        Ok(answered)
    }

    fn ask<'a>(&self, targets: impl Iterator<Item = &'a IpAddr>) {
        for (sequence, target) in (0..=u16::MAX).cycle().zip(targets) {
            let request = request(self.family, self.identifier, sequence, self.length);
            // One that cannot be sent to is one that does not answer.
            let _ = self.socket.send_to(&request, SocketAddr::new(*target, 0));
        }
    }

    /// Who has answered with a packet of our length; `None`: something else came, or nothing for a tick.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<IpAddr>> {
        match self.socket.recv_from(buffer) {
            Ok((length, from)) => {
                let message = message(self.family, &buffer[..length]);
                let ours = message.is_some_and(|message| {
                    message.len() == self.length && is_reply(self.family, self.identifier, message)
                });
                Ok(ours.then_some(from.ip()))
            }
            Err(error) if passes(error.kind()) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Has what is sent leave in one piece if the interface takes it, whatever a route or an earlier ICMP error says of the path
/// (ip(7), `IP_PMTUDISC_PROBE`).
fn send_whole(socket: &Socket, family: Family) -> io::Result<()> {
    let (level, option, probe) = match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
        Family::V6 => (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_PROBE,
        ),
    };
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the value is an int of the length that is told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&probe).cast(),
            size_of_val(&probe) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Nothing came in this tick, or an ICMP error about an earlier request, which is then simply not answered.
fn passes(error: io::ErrorKind) -> bool {
    matches!(
        error,
        io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::PermissionDenied
    )
}

/// An echo request. The kernel fills in the checksum of ICMPv6 itself, and only that one's (RFC 3542, section 3.1).
fn request(family: Family, identifier: u16, sequence: u16, length: usize) -> Vec<u8> {
    let mut message = vec![0; length.max(HEADER)];
    message[0] = match family {
        Family::V4 => 8,
        Family::V6 => 128,
    };
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    if family == Family::V4 {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// The ICMP message in what a raw socket gives: IPv4 sockets give the IP header, too.
fn message(family: Family, packet: &[u8]) -> Option<&[u8]> {
    match family {
        Family::V4 => packet.get(usize::from(packet.first()? & 0x0f) * 4..),
        Family::V6 => Some(packet),
    }
}

fn is_reply(family: Family, identifier: u16, message: &[u8]) -> bool {
    let kind = match family {
        Family::V4 => 0,
        Family::V6 => 129,
    };
    message.first() == Some(&kind) && message.get(4..6) == Some(&identifier.to_be_bytes())
}

/// RFC 1071.
fn checksum(message: &[u8]) -> u16 {
    let words = message
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_length_and_a_checksum_that_adds_up() {
        for length in [8, 9, 1420] {
            let request = request(Family::V4, 0xabcd, 7, length);
            assert_eq!(request.len(), length);
            assert_eq!(
                checksum(&request),
                0,
                "a message with its checksum in it sums to nothing"
            );
        }
    }

    #[test]
    fn only_replies_to_us_count() {
        let mut reply = request(Family::V4, 0xabcd, 7, 64);
        assert!(!is_reply(Family::V4, 0xabcd, &reply), "our own request");
        reply[0] = 0;
        assert!(is_reply(Family::V4, 0xabcd, &reply));
        assert!(!is_reply(Family::V4, 0xabce, &reply), "another program's");
        let packet = [&[0x46_u8; 24][..], &reply].concat();
        assert_eq!(
            message(Family::V4, &packet),
            Some(&reply[..]),
            "behind IP options"
        );
        assert_eq!(message(Family::V4, &[]), None);
    }

    #[test]
    fn the_machine_answers_itself_where_raw_sockets_are_allowed() {
        let own: IpAddr = Ipv4Addr::LOCALHOST.into();
        match answering(&[own], 1400, Duration::from_secs(5)) {
            Ok(answered) => assert!(answered.contains(&own)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                assert!(
                    std::env::var_os("WARREN_REQUIRE").is_none() || !nix::unistd::geteuid().is_root(),
                    "root must be allowed to"
                );
                eprintln!("skipped: raw sockets are root's");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
