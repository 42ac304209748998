//! The threads of a device: one carries packets both ways, one takes the interface off it where there is much to carry, one
//! shakes hands and keeps time.
//!
//! They run until the process ends. A panic in one of them ends the process (see [`crate::process`]): half a device
//! would look alive and lose packets.

use std::io::{self, Write};
use std::sync::Arc;

use super::Device;
use super::carrier::Carrier;
use super::control::Control;
use super::outbound::Outbound;

/// Starts the threads. Something is written to `gone` when the interface has been deleted.
pub(crate) fn start(device: &Arc<Device>, gone: io::PipeWriter) -> io::Result<()> {
    let gone = Arc::new(gone);
    let tell = Arc::clone(&gone);
    spawn("wg-carrier", device, move |device| {
        let end = Carrier::new(device).map_or_else(|error| error, |mut carrier| carrier.carry());
        tell_the_end(&tell, &end);
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

/// Tells that no more packets are carried, nearly always because the interface is gone. The thread that waits for frames
/// learns of that.
fn tell_the_end(mut gone: &io::PipeWriter, error: &io::Error) {
    tracing::info!(%error, "the interface is gone");
    if let Err(error) = gone.write_all(&[1]) {
        tracing::debug!(%error, "nobody waits for the interface's end");
    }
}
