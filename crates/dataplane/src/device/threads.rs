//! The threads of a device: one carries frames from the interface, one for each IP family carries datagrams to it, one
//! shakes hands and keeps time.
//!
//! They run until the process ends. A panic in one of them ends the process (see [`crate::process`]): half a device
//! would look alive and lose packets.

use std::io;
use std::sync::Arc;

use super::Device;
use super::control::Control;
use super::inbound::{Inbound, Load};
use super::outbound::Outbound;
use crate::udp::Family;

/// Starts the threads. `gone` is dropped when the interface has been deleted.
pub(crate) fn start(device: &Arc<Device>, gone: io::PipeWriter) -> io::Result<()> {
    spawn("wg-outbound", device, move |device| {
        let error = Outbound::new(device).carry_frames();
        tracing::info!(%error, "the interface is gone");
        drop(gone);
    })?;
    spawn("wg-inbound4", device, |device| device.receive(Family::V4))?;
    spawn("wg-inbound6", device, |device| device.receive(Family::V6))?;
    spawn("wg-control", device, |device| Control::new(device).work())
}

fn spawn(name: &str, device: &Arc<Device>, run: impl FnOnce(&Device) + Send + 'static) -> io::Result<()> {
    let device = Arc::clone(device);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || run(&device))
        .map(drop)
}

impl Device {
    /// Takes in datagrams from the socket of a family, and from those that replace it.
    fn receive(&self, family: Family) {
        let mut inbound = Inbound::new(self);
        let mut outbound = Outbound::new(self);
        loop {
            let sockets = self.sockets.load_full();
            let Some(socket) = sockets.of(family) else {
                self.await_other_sockets(&sockets);
                continue;
            };
            while Arc::ptr_eq(&sockets, &self.sockets.load()) {
                // An error reports on a datagram sent earlier (ICMP), which is not our affair; the next call receives.
                match inbound.carry_messages(socket) {
                    // What is written to the interface is often answered before the call returns. Where little arrives, this
                    // thread has carried the answer before the one whose work it is has woken up.
                    Ok(Load::Little) => outbound.help(),
                    Ok(Load::Much) => {}
                    Err(error) => tracing::trace!(%error, "receiving"),
                }
            }
        }
    }
}
