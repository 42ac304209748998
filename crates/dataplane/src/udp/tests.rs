//! Real sockets on the loopback interface.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::UdpSocket;
use std::ops::Range;

use nix::poll::{PollFd, PollFlags, poll};

use super::receive::Inbox;
use super::send::{Batch, Outbox, Run, Trouble};
use super::*;
use crate::endpoint::Endpoint;

/// How long the loopback interface may take, in milliseconds.
const PATIENCE: u16 = 5_000;

/// A batch of datagrams of the given lengths, each filled with its number.
fn datagrams(lengths: &[usize]) -> (Vec<u8>, Vec<Range<usize>>) {
    let (mut memory, mut places) = (Vec::new(), Vec::new());
    for (number, len) in lengths.iter().enumerate() {
        let start = memory.len();
        memory.resize(start + len, u8::try_from(number).unwrap());
        places.push(start..start + len);
        // What lies between datagrams is not sent.
        memory.extend([0xee; 24]);
    }
    (memory, places)
}

/// Waits for a datagram, or for the end of the socket's use. Gives how many sockets have something to tell.
fn wait(socket: &UdpSocket) -> nix::Result<i32> {
    poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PATIENCE)
}

/// Takes in messages until `count` datagrams have come, each as length and first byte.
fn receive(inbox: &mut Inbox, socket: &UdpSocket, count: usize) -> Vec<(usize, u8)> {
    let mut received = Vec::new();
    while received.len() < count {
        assert_eq!(wait(socket), Ok(1), "only {received:?} arrived");
        inbox.receive(socket).unwrap();
        for at in 0..inbox.len() {
            let message = inbox.message(at).unwrap();
            for place in message.datagrams() {
                let bytes = &inbox.memory()[place];
                assert!(bytes.iter().all(|byte| *byte == bytes[0]));
                received.push((bytes.len(), bytes[0]));
            }
        }
    }
    received
}

#[test]
fn any_port_is_the_same_port_in_both_families() {
    let sockets = Sockets::bind(0, 0).unwrap();
    assert_ne!(sockets.port(), 0);
    for socket in sockets.each() {
        assert_eq!(socket.local_addr().unwrap().port(), sockets.port());
    }
}

#[test]
fn a_port_in_use_is_refused() {
    let first = Sockets::bind(0, 0).unwrap();
    let error = Sockets::bind(first.port(), 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
}

#[test]
fn datagrams_arrive_in_order_and_as_they_were_cut_or_not() {
    let lengths: Vec<usize> = [148, 1452, 1452, 1452, 700, 92, 32, 32, 33]
        .into_iter()
        .chain([1452; 100])
        .chain([96; 70])
        .collect();
    let (memory, places) = datagrams(&lengths);
    let expected: Vec<(usize, u8)> = lengths.iter().copied().zip(0..).collect();
    for to in ["127.0.0.1", "::1"] {
        for segments in [true, false] {
            let (sender, receiver) = (Sockets::bind(0, 0).unwrap(), Sockets::bind(0, 0).unwrap());
            let to = SocketAddr::new(to.parse().unwrap(), receiver.port());
            let Ok(socket) = receiver.towards(to) else {
                continue;
            };
            sender
                .segments
                .store(segments, std::sync::atomic::Ordering::Relaxed);
            let run = Run {
                endpoint: to.into(),
                class: 0,
                datagrams: 0..places.len(),
            };
            let batch = Batch {
                memory: &memory,
                datagrams: &places,
                runs: &[run],
            };
            Outbox::new().send(&sender, batch, |_, trouble| panic!("{trouble:?}"));
            assert_eq!(receive(&mut Inbox::new(), socket, lengths.len()), expected);
        }
    }
}

#[test]
fn class_and_addresses_go_with_the_datagrams() {
    let (sender, receiver) = (Sockets::bind(0, 0).unwrap(), Sockets::bind(0, 0).unwrap());
    let (memory, places) = datagrams(&[100, 100]);
    let to = SocketAddr::new("127.0.0.9".parse().unwrap(), receiver.port());
    let run = Run {
        endpoint: Endpoint {
            to,
            from: Some("127.0.0.7".parse().unwrap()),
        },
        class: 0x8a,
        datagrams: 0..2,
    };
    let batch = Batch {
        memory: &memory,
        datagrams: &places,
        runs: &[run],
    };
    Outbox::new().send(&sender, batch, |_, trouble| panic!("{trouble:?}"));
    let mut inbox = Inbox::new();
    let receiver = receiver.towards(to).unwrap();
    assert_eq!(wait(receiver), Ok(1));
    inbox.receive(receiver).unwrap();
    let message = inbox.message(0).unwrap();
    assert_eq!(
        message.source,
        SocketAddr::new("127.0.0.7".parse().unwrap(), sender.port())
    );
    assert_eq!(message.details.local, Some(to.ip()));
    assert_eq!(message.details.ecn, 2);
}

#[test]
fn a_source_address_that_is_gone_is_done_without_and_told() {
    let (sender, receiver) = (Sockets::bind(0, 0).unwrap(), Sockets::bind(0, 0).unwrap());
    let (memory, places) = datagrams(&[100, 100, 60]);
    let to = SocketAddr::new("127.0.0.1".parse().unwrap(), receiver.port());
    let run = Run {
        endpoint: Endpoint {
            to,
            from: Some("203.0.113.9".parse().unwrap()),
        },
        class: 0,
        datagrams: 0..3,
    };
    let batch = Batch {
        memory: &memory,
        datagrams: &places,
        runs: &[run],
    };
    let mut told = Vec::new();
    Outbox::new().send(&sender, batch, |run, trouble| told.push((run, trouble)));
    assert_eq!(told, [(0, Trouble::SourceGone)]);
    let received = receive(&mut Inbox::new(), receiver.towards(to).unwrap(), 3);
    assert_eq!(received, [(100, 0), (100, 1), (60, 2)]);
}

#[test]
fn what_cannot_be_sent_is_counted_and_the_rest_goes() {
    let (sender, receiver) = (Sockets::bind(0, 0).unwrap(), Sockets::bind(0, 0).unwrap());
    let (memory, places) = datagrams(&[100, 100, 100]);
    let to = SocketAddr::new("127.0.0.1".parse().unwrap(), receiver.port());
    // Port 0 is nobody's.
    let nowhere = SocketAddr::new("127.0.0.1".parse().unwrap(), 0);
    let run = |to: SocketAddr, datagrams| Run {
        endpoint: to.into(),
        class: 0,
        datagrams,
    };
    let batch = Batch {
        memory: &memory,
        datagrams: &places,
        runs: &[run(to, 0..1), run(nowhere, 1..2), run(to, 2..3)],
    };
    let mut told = Vec::new();
    Outbox::new().send(&sender, batch, |run, trouble| told.push((run, trouble)));
    assert_eq!(told, [(1, Trouble::Lost(1))]);
    let received = receive(&mut Inbox::new(), receiver.towards(to).unwrap(), 2);
    assert_eq!(received, [(100, 0), (100, 2)]);
}

#[test]
fn retired_sockets_end_a_wait_for_datagrams() {
    let sockets = Sockets::bind(0, 0).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(sockets.each().next().unwrap()));
        sockets.retire();
        assert_eq!(waiting.join().unwrap(), Ok(1), "nothing ended the wait");
    });
}
