//! Round trips, by ICMP echo: the far kernel answers, so that no program of the far host has to wake up.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;

/// How long an answer is waited for; what has not come by then took that long.
const LOST: Duration = Duration::from_secs(1);

/// Tells our requests from others in a namespace where there are no others.
const IDENTIFIER: u16 = 0x5752;

/// ICMP types, RFC 792.
const ECHO_REPLY: u8 = 0;
const ECHO: u8 = 8;

/// Sends a request and takes the time to its answer, then rests for `pause`, for as long as `time`. ms, one a request.
pub(super) fn round_trips(
    near: &Namespace,
    to: Ipv4Addr,
    time: Duration,
    pause: Duration,
) -> anyhow::Result<Vec<f64>> {
    let socket = open(near, to)?;
    let (started, mut all) = (Instant::now(), Vec::new());
    for sequence in 0..=u16::MAX {
        if started.elapsed() >= time {
            break;
        }
        all.push(ask(&socket, sequence)?.unwrap_or(LOST).as_secs_f64() * 1000.0);
        thread::sleep(pause);
    }
    ensure!(
        all.iter().any(|it| *it < LOST.as_secs_f64() * 1000.0),
        "{to} has not answered one echo request"
    );
    Ok(all)
}

/// Waits until an address answers.
pub(super) fn wait_for(near: &Namespace, to: Ipv4Addr, patience: Duration) -> anyhow::Result<()> {
    let socket = open(near, to)?;
    let deadline = Instant::now() + patience;
    for sequence in 0..=u16::MAX {
        if ask(&socket, sequence)?.is_some() {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{to} has not answered within {patience:?}"
        );
    }
    Ok(())
}

fn open(near: &Namespace, to: Ipv4Addr) -> anyhow::Result<Socket> {
    near.inside(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        socket.connect(&SocketAddrV4::new(to, 0).into())?;
        Ok(socket)
    })
    .context("open a socket for echo requests")
}

/// One request; `None` if no answer comes.
fn ask(mut socket: &Socket, sequence: u16) -> anyhow::Result<Option<Duration>> {
    let asked = Instant::now();
    socket
        .write_all(&request(sequence))
        .context("send an echo request")?;
    let mut answer = [0; 128];
    while let Some(left) = LOST.checked_sub(asked.elapsed()).filter(|it| !it.is_zero()) {
        socket.set_read_timeout(Some(left)).context("set a timeout")?;
        match socket.read(&mut answer) {
            Ok(length) if is_answer(&answer[..length], sequence) => return Ok(Some(asked.elapsed())),
            // The answer to an earlier one, or nothing in time.
            _ => {}
        }
    }
    Ok(None)
}

fn request(sequence: u16) -> [u8; 64] {
    let mut message = [0; 64];
    message[0] = ECHO;
    message[4..6].copy_from_slice(&IDENTIFIER.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    let mut sum: u32 = message
        .chunks_exact(2)
        .map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = u16::try_from(sum).unwrap_or_default();
    message[2..4].copy_from_slice(&(!sum).to_be_bytes());
    message
}

/// Raw sockets give the IPv4 header too.
fn is_answer(packet: &[u8], sequence: u16) -> bool {
    let header = packet.first().map_or(0, |it| usize::from(it & 0xf) * 4);
    packet.get(header..header + 8).is_some_and(|it| {
        it[0] == ECHO_REPLY && it[4..6] == IDENTIFIER.to_be_bytes() && it[6..8] == sequence.to_be_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_checksum_of_rfc_792() {
        let sum: u32 = request(7)
            .chunks_exact(2)
            .map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])))
            .sum();
        assert_eq!(sum % 0xffff, 0);
    }

    #[test]
    fn only_the_answer_to_this_request_is_its_answer() {
        let mut packet = [0; 84];
        packet[0] = 0x45;
        packet[20..].copy_from_slice(&request(7));
        assert!(!is_answer(&packet, 7));
        packet[20] = ECHO_REPLY;
        assert!(is_answer(&packet, 7));
        assert!(!is_answer(&packet, 8));
        assert!(!is_answer(&packet[..20], 7));
        assert!(!is_answer(&[], 7));
    }
}
