//! Both ways at once.

use std::io;
use std::sync::Arc;

use super::Device;
use super::inbound::Inbound;
use super::lending::Load;
use super::outbound::Outbound;
use super::turn::Turn;
use super::waiting::{Ready, Waiting};
use crate::noise::Millis;

/// Frames in a millisecond that are much, although they come one by one. Whoever waits for an answer before it asks again
/// stays below.
const MANY: u32 = 64;

/// The work of the thread that carries packets both ways, and lends the interface (see [`super::lending`]).
pub(super) struct Carrier<'d> {
    device: &'d Device,
    waiting: Waiting<'d>,
    inbound: Inbound<'d>,
    outbound: Outbound<'d>,
    /// Whether the second thread has the interface.
    lent: bool,
    /// How many frames there were in this millisecond.
    frames: (Millis, u32),
    turn: Turn,
}

impl<'d> Carrier<'d> {
    pub(super) fn new(device: &'d Device) -> io::Result<Self> {
        Ok(Self {
            device,
            waiting: Waiting::new(&device.tun, device.sockets.load_full())?,
            inbound: Inbound::new(device),
            outbound: Outbound::new(device),
            lent: false,
            frames: (0, 0),
            turn: Turn::begin(device.now()),
        })
    }

    /// Carries packets until the interface is gone. Gives the error that said so.
    pub(super) fn carry(&mut self) -> io::Error {
        loop {
            if let Err(error) = self.carry_what_comes() {
                return error;
            }
        }
    }

    /// Waits for packets and carries those that have come by then.
    ///
    /// # Errors
    /// The interface is gone.
    fn carry_what_comes(&mut self) -> io::Result<()> {
        // Whoever replaces sockets ends the wait for the old ones.
        let sockets = self.device.sockets.load();
        if !Arc::ptr_eq(&sockets, self.waiting.sockets()) {
            self.waiting.replace(Arc::clone(&sockets))?;
        }
        drop(sockets);
        if !self.lent {
            self.turn.look(self.device.now());
        }
        let ready = self.waiting.wait()?;
        let mut load = self.carry_datagrams(ready);
        let rested = || load == Load::Little && self.device.lending.has_rested(self.device.now());
        // Of a lent interface only its end is told.
        if self.lent && (ready.frames || rested()) {
            self.device.lending.take_back();
            self.lend(false)?;
        }
        if !self.lent {
            // Not only when a frame has woken us: datagrams may have been answered by now.
            load = load.max(self.carry_frame()?);
        }
        if load == Load::Much {
            self.device.lending.note_much(self.device.now());
            if !self.lent {
                self.lend(true)?;
                self.device.lending.lend();
            }
        }
        Ok(())
    }

    /// Carries what has come from peers.
    fn carry_datagrams(&mut self, ready: Ready) -> Load {
        let mut load = Load::Little;
        for socket in self.waiting.with_datagrams(ready) {
            match self.inbound.carry_messages(socket) {
                Ok(now) => load = load.max(now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // It reports on a datagram sent earlier (ICMP), which is not our affair; the next call receives.
                Err(error) => tracing::trace!(%error, "receiving"),
            }
        }
        load
    }

    /// Carries one frame of the interface, if there is one. Whether there are more is not asked: the next wait tells, and where
    /// there are none the answer to this one comes sooner.
    fn carry_frame(&mut self) -> io::Result<Load> {
        let carried = self.outbound.carry_batch(1)?;
        if carried.dry {
            return Ok(carried.load);
        }
        let now = self.device.now();
        if self.frames.0 != now {
            self.frames = (now, 0);
        }
        self.frames.1 += 1;
        Ok(if self.frames.1 > MANY {
            Load::Much
        } else {
            carried.load
        })
    }

    fn lend(&mut self, lent: bool) -> io::Result<()> {
        self.lent = lent;
        self.turn.set_busy(lent, self.device.now());
        self.waiting.set_frames(!lent)
    }
}
