//! UDP: datagrams of one size, counted where they arrive. iperf3 makes a system call for each and would be what is
//! measured.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use nix::errno::Errno;
use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt::RcvBuf, sockopt::RcvBufForce,
};

use super::rate::{self, BATCH, Counted};
use crate::namespace::{Hosts, Namespace};

/// Room for what arrives while the counter is not running: a loss there would not be the tunnel's.
const RECEIVE_BUFFER: usize = 16 << 20;

/// How long after the last one was sent one may still arrive.
const LATE: Duration = Duration::from_millis(100);

/// Datagrams of one size from near to far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Datagrams<'a> {
    pub(super) hosts: &'a Hosts,
    /// The far host's address.
    pub(super) far: Ipv4Addr,
    /// Bytes of payload.
    pub(super) size: usize,
}

impl Datagrams<'_> {
    /// One attempt at this rate, or as fast as it goes.
    pub(super) fn offer(self, rate: Option<f64>) -> anyhow::Result<Counted> {
        let counter = bind(&self.hosts.far, SocketAddrV4::new(self.far, 0))?;
        let to = counter.local_addr().context("ask for an address")?;
        let sender = bind(&self.hosts.near, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
        self.hosts
            .near
            .inside(|| Ok(sender.connect(to)?))
            .context("connect a UDP socket")?;
        let payload = vec![0x57; self.size];
        let mut headers = MultiHeaders::preallocate(BATCH, None);
        while_counting(
            |ended| count(&counter, ended),
            || rate::send(rate, |due| send(&sender, &mut headers, &payload, None, due)),
        )
    }
}

/// Counts in a thread of its own while this one sends. The counter is told when sending has ended.
pub(super) fn while_counting(
    count: impl FnOnce(&AtomicBool) -> anyhow::Result<Counted> + Send,
    send: impl FnOnce() -> anyhow::Result<u64>,
) -> anyhow::Result<Counted> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let counting = scope.spawn(|| count(&ended));
        let sent = send();
        ended.store(true, Ordering::Release);
        let counted = counting.join().unwrap_or_else(|_| Err(anyhow!("a panic")));
        Ok(Counted {
            sent: sent?,
            ..counted?
        })
    })
}

/// A UDP socket of a host with room for much, from which reading ends [`LATE`] after the last datagram.
pub(super) fn bind(host: &Namespace, to: SocketAddrV4) -> anyhow::Result<UdpSocket> {
    let open = || {
        let socket = UdpSocket::bind(to)?;
        // The first wants more rights than a user namespace has, the second gives what it may.
        if setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, RcvBuf, &RECEIVE_BUFFER)?;
        }
        socket.set_read_timeout(Some(LATE))?;
        Ok(socket)
    };
    host.inside(open).context("open a UDP socket")
}

/// Sends a payload `due` times, to where the socket is connected or to this address, and returns how many were offered.
pub(super) fn send(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<SockaddrIn>,
    payload: &[u8],
    to: Option<SocketAddrV4>,
    due: usize,
) -> anyhow::Result<usize> {
    let slices = vec![[IoSlice::new(payload)]; due];
    let addresses = vec![to.map(SockaddrIn::from); due];
    let flags = MsgFlags::empty();
    match sendmmsg(socket.as_raw_fd(), headers, &slices, addresses, [], flags) {
        Ok(results) => Ok(results.count()),
        // Dropped on the way out: offered all the same.
        Err(Errno::ENOBUFS) => Ok(due),
        Err(Errno::EINTR) => Ok(0),
        Err(error) => Err(error).context("send datagrams"),
    }
}

/// Counts what arrives, until sending has ended and nothing arrives any more.
pub(super) fn count(socket: &UdpSocket, ended: &AtomicBool) -> anyhow::Result<Counted> {
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    // Nobody reads the payload: it is cut off, not copied.
    let mut buffers = [[0; 16]; BATCH];
    let mut tally = Tally::default();
    loop {
        let mut slices: Vec<_> = buffers.iter_mut().map(|it| [IoSliceMut::new(it)]).collect();
        let flags = MsgFlags::MSG_WAITFORONE | MsgFlags::MSG_TRUNC;
        match recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, flags, None) {
            Ok(results) => tally.add(results.count() as u64),
            Err(Errno::EAGAIN) if ended.load(Ordering::Acquire) => return Ok(tally.counted()),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error).context("receive datagrams"),
        }
    }
}

/// What has arrived, and between when.
#[derive(Debug, Default)]
pub(super) struct Tally {
    received: u64,
    between: Option<(Instant, Instant)>,
}

impl Tally {
    /// So many have arrived now.
    pub(super) fn add(&mut self, more: u64) {
        if more > 0 {
            let now = Instant::now();
            self.received += more;
            self.between = Some((self.between.map_or(now, |it| it.0), now));
        }
    }

    /// As a measurement, of which the sender's part is not known yet.
    pub(super) fn counted(&self) -> Counted {
        Counted {
            sent: 0,
            received: self.received,
            seconds: self
                .between
                .map_or(0.0, |(first, last)| (last - first).as_secs_f64()),
        }
    }
}
