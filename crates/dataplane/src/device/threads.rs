//! The threads of a device: one reads the interface, one reads the sockets, one keeps time.
//!
//! They run until the process ends. A panic in one of them ends the process (see [`crate::process`]): half a device
//! would look alive and lose packets.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Device;
use crate::drops::DropReason;
use crate::old_noise::BUFFER_LEN;
use crate::tun;

/// How often timers are looked at. They are meant in seconds.
const TICK: Duration = Duration::from_millis(200);

/// Datagrams taken from one socket before the other gets its turn.
const BURST: usize = 64;

/// Starts the threads. `gone` is dropped when the interface has been deleted.
pub(crate) fn start(device: &Arc<Device>, rebound: io::PipeReader, gone: io::PipeWriter) -> io::Result<()> {
    spawn("wg-interface", device, move |device| {
        let error = device.read_interface();
        tracing::info!(%error, "the interface is gone");
        drop(gone);
    })?;
    spawn("wg-network", device, move |device| device.read_network(&rebound))?;
    spawn("wg-timers", device, |device| device.keep_time())
}

fn spawn(name: &str, device: &Arc<Device>, run: impl FnOnce(&Device) + Send + 'static) -> io::Result<()> {
    let device = Arc::clone(device);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || run(&device))
        .map(drop)
}

impl Device {
    /// Carries packets from the interface until it is gone. Gives the error that said so.
    fn read_interface(&self) -> io::Error {
        let mut packet = vec![0; BUFFER_LEN];
        let mut out = vec![0; BUFFER_LEN];
        loop {
            match self.tun.read(&mut packet[..usize::from(u16::MAX)]) {
                Ok(len) => self.carry_outbound(&mut packet, len, &mut out),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = wait_readable(&mut [PollFd::new(self.tun.as_fd(), PollFlags::POLLIN)])
                    {
                        return error;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if tun::is_gone(&error) => return error,
                Err(error) => {
                    tracing::debug!(%error, "reading the interface");
                    self.drops.count(DropReason::InterfaceRefused);
                }
            }
        }
    }

    /// Takes in datagrams from the sockets, and from those that replace them.
    fn read_network(&self, rebound: &io::PipeReader) {
        let mut datagram = vec![0; BUFFER_LEN];
        let mut out = vec![0; BUFFER_LEN];
        loop {
            let sockets = self.sockets();
            let mut quiet = true;
            for socket in sockets.each() {
                for _ in 0..BURST {
                    match socket.recv_from(&mut datagram) {
                        Ok((len, source)) => {
                            quiet = false;
                            self.carry_inbound(&datagram[..len], without_flow(source), &mut out);
                        }
                        // Errors other than "nothing there" report on datagrams sent earlier (ICMP): not our affair.
                        Err(_) => break,
                    }
                }
            }
            if quiet {
                let mut waiting: Vec<PollFd<'_>> = sockets
                    .each()
                    .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
                    .collect();
                waiting.push(PollFd::new(rebound.as_fd(), PollFlags::POLLIN));
                let woken = wait_readable(&mut waiting).is_ok()
                    && waiting.last().and_then(PollFd::any).unwrap_or_default();
                if woken {
                    // However often it was written: the sockets in use now are looked up next.
                    let _ = (&*rebound).read(&mut [0; 64]);
                }
            }
        }
    }

    /// Lets the protocol do what is due, begins each second of the handshake limit, follows the interface's MTU.
    fn keep_time(&self) {
        let mut out = vec![0; BUFFER_LEN];
        let mut second = Instant::now();
        loop {
            std::thread::sleep(TICK);
            let now = Instant::now();
            let peers: Vec<_> = self.tables().by_key.values().cloned().collect();
            for peer in peers {
                self.tick_peer(&peer, now, &mut out);
            }
            if now.duration_since(second) >= Duration::from_secs(1) {
                second = now;
                if let Some(gate) = self.gate() {
                    gate.next_second();
                }
                if let Ok(mtu) = self.tun.mtu() {
                    self.mtu.store(mtu, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Waits for input on any of the descriptors, without a time limit.
fn wait_readable(waiting: &mut [PollFd<'_>]) -> io::Result<()> {
    match poll(waiting, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A source address without flow label: what is not part of an endpoint must not make two of it.
fn without_flow(source: SocketAddr) -> SocketAddr {
    match source {
        SocketAddr::V4(_) => source,
        SocketAddr::V6(mut v6) => {
            v6.set_flowinfo(0);
            v6.into()
        }
    }
}
