//! Everything that nodes send on the underlay: kept in a file and counted by kind.
//!
//! Listens on the ports of the underlay's bridges, in the direction from the node, so that each frame is seen once and
//! where the node puts it on the wire.

mod classify;
mod pcap;
mod socket;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;

pub use classify::Counts;
use pcap::Pcap;
use socket::PortSocket;

/// How long [`Capture::counts`] waits for frames that were sent before it was asked.
const CATCH_UP: Duration = Duration::from_secs(2);

/// A running capture. Cloned, it is the same one.
#[derive(Clone)]
pub(crate) struct Capture(Arc<Mutex<Taken>>);

struct Taken {
    counts: Counts,
    pcap: Pcap,
    ports: Vec<Port>,
}

struct Port {
    socket: Arc<PortSocket>,
    queued: u64,
    handled: u64,
}

impl Capture {
    /// Starts with no port; `path` is the pcap file.
    pub(crate) fn start(path: &Path) -> anyhow::Result<Self> {
        let pcap = Pcap::create(path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(Arc::new(Mutex::new(Taken {
            counts: Counts::default(),
            pcap,
            ports: Vec::new(),
        }))))
    }

    /// Adds a port. Returns once everything it lets in is seen; ends with the interface.
    pub(crate) fn watch(&self, port: &str) -> anyhow::Result<()> {
        let socket = Arc::new(PortSocket::open(port).with_context(|| format!("capture on {port}"))?);
        self.lock().ports.push(Port {
            socket: Arc::clone(&socket),
            queued: 0,
            handled: 0,
        });
        let (capture, port) = (self.clone(), port.to_owned());
        thread::Builder::new()
            .name(format!("capture-{port}"))
            .spawn(move || capture.follow(&socket, &port))
            .context("start a capture thread")?;
        Ok(())
    }

    /// What was sent before this was called, or more. The file holds all of it when this returns.
    pub(crate) fn counts(&self) -> Counts {
        let deadline = Instant::now() + CATCH_UP;
        loop {
            let mut taken = self.lock();
            if taken.caught_up() || Instant::now() > deadline {
                if let Err(error) = taken.pcap.flush() {
                    tracing::warn!(%error, "the capture file is incomplete");
                }
                return taken.counts.clone();
            }
            drop(taken);
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn follow(&self, socket: &Arc<PortSocket>, port: &str) {
        let mut buffer = vec![0; pcap::SNAP_LENGTH];
        loop {
            match socket.receive(&mut buffer) {
                Ok(length) => self
                    .lock()
                    .take(socket, &buffer[..length.min(buffer.len())], length),
                // The link is gone.
                Err(error) if nix::net::if_::if_nametoindex(port).ok() != Some(socket.index()) => {
                    tracing::debug!(port, %error, "capture ends");
                    self.lock().ports.retain(|it| !Arc::ptr_eq(&it.socket, socket));
                    return;
                }
                // It went down: what it lets in later is seen again.
                Err(error) => tracing::debug!(port, %error, "capture goes on"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // A thread that panicked has left whole counts: they are single additions.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn take(&mut self, socket: &Arc<PortSocket>, frame: &[u8], length: usize) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.counts.add(classify::classify(frame));
        if let Err(error) = self.pcap.write(time, frame, length) {
            tracing::warn!(%error, "the capture file is incomplete");
        }
        if let Some(port) = self.ports.iter_mut().find(|it| Arc::ptr_eq(&it.socket, socket)) {
            port.handled += 1;
        }
    }

    /// Whether every frame that was queued is counted.
    fn caught_up(&mut self) -> bool {
        for port in &mut self.ports {
            let (queued, missed) = port.socket.statistics();
            port.queued += queued;
            self.counts.missed += missed;
        }
        self.ports.iter().all(|port| port.handled >= port.queued)
    }
}
