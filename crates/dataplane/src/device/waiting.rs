//! Waiting for frames of the interface and for datagrams at once.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::tun::Tun;
use crate::udp::{Family, Sockets};

/// What an event is about, beside the sockets.
const INTERFACE: u64 = 0;

/// The sockets, and what an event about one of them has for a number.
const SOCKETS: [(Family, u64); 2] = [(Family::V4, 1), (Family::V6, 2)];

/// What is waited for. The kernel keeps the list, so that a wake-up costs no more than what it is about.
pub(super) struct Waiting<'d> {
    epoll: Epoll,
    tun: &'d Tun,
    sockets: Arc<Sockets>,
}

/// What there is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready {
    datagrams: [bool; SOCKETS.len()],
    pub(super) frames: bool,
}

impl<'d> Waiting<'d> {
    /// Waits for frames and for datagrams of these sockets.
    pub(super) fn new(tun: &'d Tun, sockets: Arc<Sockets>) -> io::Result<Self> {
        let waiting = Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            tun,
            sockets,
        };
        waiting
            .epoll
            .add(tun, EpollEvent::new(EpollFlags::EPOLLIN, INTERFACE))?;
        waiting.add_sockets()?;
        Ok(waiting)
    }

    /// Waits for datagrams of these sockets from now on, instead of those before.
    pub(super) fn replace(&mut self, sockets: Arc<Sockets>) -> io::Result<()> {
        for socket in self.sockets.each() {
            self.epoll.delete(socket)?;
        }
        self.sockets = sockets;
        self.add_sockets()
    }

    fn add_sockets(&self) -> io::Result<()> {
        for (family, number) in SOCKETS {
            if let Some(socket) = self.sockets.of(family) {
                self.epoll
                    .add(socket, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
            }
        }
        Ok(())
    }

    /// The sockets that are waited for.
    pub(super) fn sockets(&self) -> &Arc<Sockets> {
        &self.sockets
    }

    /// Those that have datagrams.
    pub(super) fn with_datagrams(&self, ready: Ready) -> impl Iterator<Item = &UdpSocket> {
        let families = SOCKETS.iter().zip(ready.datagrams).filter(|(_, ready)| *ready);
        families.filter_map(|((family, _), _)| self.sockets.of(*family))
    }

    /// Whether to wait for frames, too.
    pub(super) fn set_frames(&self, wanted: bool) -> io::Result<()> {
        let events = if wanted {
            EpollFlags::EPOLLIN
        } else {
            EpollFlags::empty()
        };
        Ok(self
            .epoll
            .modify(self.tun.as_fd(), &mut EpollEvent::new(events, INTERFACE))?)
    }

    /// Waits until there is something, or nothing more to be expected of the sockets.
    pub(super) fn wait(&self) -> io::Result<Ready> {
        let mut events = [EpollEvent::empty(); SOCKETS.len() + 1];
        let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            result => result?,
        };
        let mut ready = Ready::default();
        for event in &events[..count] {
            match SOCKETS.iter().position(|(_, number)| *number == event.data()) {
                Some(at) => ready.datagrams[at] = true,
                None => ready.frames = true,
            }
        }
        Ok(ready)
    }
}
