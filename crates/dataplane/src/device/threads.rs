//! The threads of a device: one carries packets both ways, one takes the interface off it where there is much to carry (see
//! [`super::lending`]), one shakes hands and keeps time.
//!
//! They run until the process ends. A panic in one of them ends the process (see [`crate::process`]): half a device
//! would look alive and lose packets.

use std::io::{self, Write};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Device;
use super::control::Control;
use super::inbound::Inbound;
use super::outbound::Outbound;
use crate::udp::{Family, Sockets};

/// How much was carried at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Load {
    /// At most one datagram.
    Little,
    /// More.
    Much,
}

/// Starts the threads. Something is written to `gone` when the interface has been deleted.
pub(crate) fn start(device: &Arc<Device>, gone: io::PipeWriter) -> io::Result<()> {
    let gone = Arc::new(gone);
    let tell = Arc::clone(&gone);
    spawn("wg-carrier", device, move |device| {
        tell_the_end(&tell, &Carrier::new(device).carry());
    })?;
    spawn("wg-outbound", device, move |device| {
        tell_the_end(&gone, &Outbound::new(device).carry_frames());
    })?;
    spawn("wg-control", device, |device| Control::new(device).work())
}

fn spawn(name: &str, device: &Arc<Device>, run: impl FnOnce(&Device) + Send + 'static) -> io::Result<()> {
    let device = Arc::clone(device);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || run(&device))
        .map(drop)
}

/// Tells that the interface is gone. The thread that waits for frames learns of it.
fn tell_the_end(mut gone: &io::PipeWriter, error: &io::Error) {
    tracing::info!(%error, "the interface is gone");
    if let Err(error) = gone.write_all(&[1]) {
        tracing::debug!(%error, "nobody waits for the interface's end");
    }
}

/// The thread that carries packets both ways.
struct Carrier<'d> {
    device: &'d Device,
    inbound: Inbound<'d>,
    outbound: Outbound<'d>,
    /// Whether the second thread has the interface.
    lent: bool,
}

impl<'d> Carrier<'d> {
    fn new(device: &'d Device) -> Self {
        Self {
            device,
            inbound: Inbound::new(device),
            outbound: Outbound::new(device),
            lent: false,
        }
    }

    /// Carries packets until the interface is gone. Gives the error that said so.
    fn carry(&mut self) -> io::Error {
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
