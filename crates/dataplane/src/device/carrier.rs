//! Both ways at once.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Device;
use super::inbound::Inbound;
use super::lending::Load;
use super::outbound::Outbound;
use crate::udp::{Family, Sockets};

/// The work of the thread that carries packets both ways, and lends the interface (see [`super::lending`]).
pub(super) struct Carrier<'d> {
    device: &'d Device,
    inbound: Inbound<'d>,
    outbound: Outbound<'d>,
    /// Whether the second thread has the interface.
    lent: bool,
}

impl<'d> Carrier<'d> {
    pub(super) fn new(device: &'d Device) -> Self {
        Self {
            device,
            inbound: Inbound::new(device),
            outbound: Outbound::new(device),
            lent: false,
        }
    }

    /// Carries packets until the interface is gone. Gives the error that said so.
    pub(super) fn carry(&mut self) -> io::Error {
        loop {
            // Whoever replaces them ends the wait for the old ones.
            let sockets = self.device.sockets.load_full();
            if let Err(error) = self.carry_what_comes(&sockets) {
                return error;
            }
        }
    }

    /// Waits for packets and carries those that have come by then.
    ///
    /// # Errors
    /// The interface is gone.
    fn carry_what_comes(&mut self, sockets: &Sockets) -> io::Result<()> {
        let mut load = Load::Little;
        for socket in self.wait(sockets)?.into_iter().flatten() {
            load = load.max(self.take_in(socket));
        }
        let device = self.device;
        if self.lent && load == Load::Little && device.lending.has_rested(device.now()) {
            device.lending.take_back();
            self.lent = false;
        }
        if !self.lent {
            // Not only when there was a frame before: datagrams may have been answered by now.
            load = load.max(self.outbound.carry_batch()?.load);
        }
        if load == Load::Much {
            device.lending.note_much(device.now());
            if !self.lent {
                device.lending.lend();
                self.lent = true;
            }
        }
        Ok(())
    }

    /// Waits for datagrams, and for frames unless the interface is lent. Gives the sockets that have datagrams.
    fn wait<'s>(&self, sockets: &'s Sockets) -> io::Result<[Option<&'s UdpSocket>; 2]> {
        // Stands for a socket that there is not, too: of what is not asked for nothing is told.
        let interface = |events| PollFd::new(self.device.tun.as_fd(), events);
        let sockets = [Family::V4, Family::V6].map(|family| sockets.of(family));
        let [v4, v6] = sockets.map(|socket| {
            socket.map_or_else(
                || interface(PollFlags::empty()),
                |socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            )
        });
        let frames = if self.lent {
            PollFlags::empty()
        } else {
            PollFlags::POLLIN
        };
        let mut waiting = [v4, v6, interface(frames)];
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [v4, v6, _] = waiting.map(|it| it.any() == Some(true));
        Ok([sockets[0].filter(|_| v4), sockets[1].filter(|_| v6)])
    }

    /// Carries datagrams of a socket to the interface.
    fn take_in(&mut self, socket: &UdpSocket) -> Load {
        self.inbound.carry_messages(socket).unwrap_or_else(|error| {
            // It may report on a datagram sent earlier (ICMP), which is not our affair; the next call receives.
            if error.kind() != io::ErrorKind::WouldBlock {
                tracing::trace!(%error, "receiving");
            }
            Load::Little
        })
    }
}
