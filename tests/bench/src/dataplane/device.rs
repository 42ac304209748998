//! A WireGuard device of any implementation: a process with an interface, configured with `wg`.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::system::{System, quiet};
use crate::namespace::Namespace;
use crate::probe::Process;

/// How long a device may take until it answers to `wg`.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// What 1,500 bytes leave for a packet, over IPv6 too: the usual MTU of all implementations.
const MTU: u32 = 1420;

/// A device that runs. Dropped, it is killed, and its interface and its socket go with it.
#[derive(Debug)]
pub(super) struct Device {
    process: Child,
    name: String,
}

impl Device {
    /// Starts a system's program, and returns when it answers.
    pub(super) fn start(
        host: &Namespace,
        system: System,
        program: &Path,
        name: &str,
    ) -> anyhow::Result<Self> {
        let path = log_path(name);
        let start = || {
            let log = fs::File::create(&path).with_context(|| format!("make {path}"))?;
            Ok(quiet(program)
                .args(system.arguments())
                .arg(name)
                // wireguard-go complains here, others there.
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()?)
        };
        let process = host
            .inside(start)
            .with_context(|| format!("run {}", program.display()))?;
        let mut device = Self {
            process,
            name: name.to_owned(),
        };
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = host.run("wg", &["show", name]) {
            if let Some(status) = device.process.try_wait().context("look for a device")? {
                let said = fs::read_to_string(&path).unwrap_or_default();
                bail!("{} has ended: {status}: {}", system.name(), said.trim());
            }
            if Instant::now() > deadline {
                return Err(error.context(format!("{} does not answer", system.name())));
            }
            thread::sleep(LOOK);
        }
        Ok(device)
    }

    /// Gives it a configuration, in the format of `wg setconf`.
    pub(super) fn configure(&self, host: &Namespace, text: &str) -> anyhow::Result<()> {
        // In the benchmark's own /run, which nobody else sees.
        let file = format!("/run/{}.conf", self.name);
        fs::write(&file, text).with_context(|| format!("write {file}"))?;
        host.run("wg", &["setconf", &self.name, &file]).map(drop)
    }

    /// Gives its interface an address and brings it up.
    pub(super) fn set_up(&self, host: &Namespace, address: &str) -> anyhow::Result<()> {
        host.ip(&format!("address add {address} dev {}", self.name))?;
        host.ip(&format!("link set {} mtu {MTU} up", self.name)).map(drop)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Resident memory, 10^6 bytes.
    pub(super) fn resident(&self) -> anyhow::Result<f64> {
        let kib = u32::try_from(Process::of(self.pid())?.resident_kib).unwrap_or(u32::MAX);
        Ok(f64::from(kib) * 1024.0 / 1e6)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // One that was killed leaves its socket behind. The next device of the name would find it, and `wg`, which
        // takes away what does not answer, may do so while that device does the same: wireguard-go ends then.
        let _ = fs::remove_file(format!("/run/wireguard/{}.sock", self.name));
    }
}

/// Where what a device says is kept, in the benchmark's own /run.
fn log_path(name: &str) -> String {
    format!("/run/{name}.log")
}
