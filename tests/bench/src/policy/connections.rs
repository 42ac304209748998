//! How many TCP connections are opened a second.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use socket2::{Domain, Socket, Type};

use crate::namespace::Hosts;

/// How long one measurement takes.
const TIME: Duration = Duration::from_secs(3);

/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many are being opened at the same time: enough that there is work while some wait to be woken.
const AT_ONCE: usize = 16;

/// From the near host to an address of the far one.
pub(super) fn measure(hosts: &Hosts, far: SocketAddr) -> anyhow::Result<f64> {
    let listener = hosts.far.inside(|| listen(far).context("listen"))?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| -> io::Result<()> {
            while !done.load(Ordering::SeqCst) {
                listener.accept()?;
            }
            Ok(())
        });
        let rate = hosts.near.inside(|| rate(far));
        // One more, for the server to see that it is done.
        done.store(true, Ordering::SeqCst);
        hosts.near.inside(|| open(far))?;
        let ended = server.join().map_err(|_| anyhow!("the server panicked"))?;
        ended.context("accept connections")?;
        rate
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // So that it ends whatever becomes of the other side.
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// Opened and closed a second.
fn rate(far: SocketAddr) -> anyhow::Result<f64> {
    let started = Instant::now();
    let opened = thread::scope(|scope| {
        let openers: Vec<_> = (0..AT_ONCE)
            .map(|_| scope.spawn(|| open_until(started + TIME, far)))
            .collect();
        let opened = openers
            .into_iter()
            .map(|it| it.join().unwrap_or_else(|_| Err(anyhow!("a panic"))));
        opened.sum::<anyhow::Result<u32>>()
    });
    Ok(f64::from(opened?) / started.elapsed().as_secs_f64())
}

/// How many.
fn open_until(end: Instant, far: SocketAddr) -> anyhow::Result<u32> {
    let mut opened = 0;
    while Instant::now() < end {
        // Closed by a reset, so that no port is left waiting.
        open(far)?.set_linger(Some(Duration::ZERO))?;
        opened += 1;
    }
    Ok(opened)
}

fn open(far: SocketAddr) -> anyhow::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).context("make a socket")?;
    socket.connect_timeout(&far.into(), PATIENCE).context("connect")?;
    Ok(socket)
}
