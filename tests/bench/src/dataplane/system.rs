//! What is measured: a tunnel between two hosts with the same implementation at both ends, or no tunnel.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use rand_core::OsRng;
use x25519_dalek::{PublicKey, StaticSecret};

use super::device::Device;
use super::echo;
use crate::namespace::{Hosts, UNDERLAY};
use crate::report::WARREN;

/// The near and the far host's addresses in the tunnel.
const INSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 202, 0, 1), Ipv4Addr::new(10, 202, 0, 2)];

/// Where every device listens.
pub(super) const PORT: u16 = 51820;

/// How long a tunnel may take to its first answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An implementation of WireGuard, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum System {
    /// Ours, `warren-wg`.
    Warren,
    /// The authors' own, in Go.
    WireguardGo,
    /// Mullvad's, in Rust.
    Gotatun,
    /// Cloudflare's, in Rust.
    Boringtun,
    /// No tunnel: the ceiling.
    Veth,
}

impl System {
    /// What ours must beat.
    pub(super) const PEERS: [Self; 3] = [Self::WireguardGo, Self::Gotatun, Self::Boringtun];

    /// In rows.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Warren => WARREN,
            Self::WireguardGo => "wireguard-go",
            Self::Gotatun => "gotatun",
            Self::Boringtun => "boringtun",
            Self::Veth => "veth",
        }
    }

    /// The program; ours from `$WARREN_BIN_DIR` or beside this one, others from `PATH`.
    pub(super) fn program(self) -> anyhow::Result<Option<PathBuf>> {
        let name = match self {
            Self::Veth => return Ok(None),
            Self::Warren => return ours("warren-wg").map(Some),
            Self::WireguardGo => "wireguard-go",
            Self::Gotatun => "gotatun",
            Self::Boringtun => "boringtun-cli",
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path)
            .map(|dir| dir.join(name))
            .find(|it| it.is_file());
        found
            .with_context(|| format!("no {name} on PATH; hack/peers.sh gets it"))
            .map(Some)
    }

    /// The version, as the file `versions` beside the program has it, else as the program says itself.
    pub(super) fn version(self) -> anyhow::Result<Option<String>> {
        let Some(program) = self.program()? else {
            return Ok(None);
        };
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let noted = std::fs::read_to_string(program.with_file_name("versions")).unwrap_or_default();
        let noted = noted
            .lines()
            .filter_map(|it| it.split_once(' '))
            .find(|it| it.0 == name);
        if let Some((_, version)) = noted {
            return Ok(Some(version.to_owned()));
        }
        let output = Command::new(&program).arg("--version").output();
        let output = output.with_context(|| format!("run {}", program.display()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        Ok(said.lines().next().map(str::to_owned))
    }

    /// What its program is told, beside the interface: to stay in the foreground, and to leave user ids alone.
    pub(super) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Veth => &[],
            Self::Warren | Self::WireguardGo => &["--foreground"],
            Self::Gotatun | Self::Boringtun => &["--foreground", "--disable-drop-privileges"],
        }
    }
}

fn ours(name: &str) -> anyhow::Result<PathBuf> {
    let dir = match std::env::var_os("WARREN_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let this = std::env::current_exe().context("find this program")?;
            this.parent().unwrap_or(Path::new("/")).to_owned()
        }
    };
    let program = dir.join(name);
    program
        .canonicalize()
        .with_context(|| format!("no {}: set WARREN_BIN_DIR", program.display()))
}

/// One end's key.
pub(super) struct Key(pub(super) StaticSecret);

impl Key {
    pub(super) fn random() -> Self {
        Self(StaticSecret::random_from_rng(OsRng))
    }

    /// As `wg` reads it.
    pub(super) fn private(&self) -> String {
        STANDARD.encode(self.0.as_bytes())
    }

    /// As `wg` reads it.
    pub(super) fn public(&self) -> String {
        STANDARD.encode(PublicKey::from(&self.0).as_bytes())
    }
}

/// A system that is up between two hosts of its own.
pub(super) struct Tunnel {
    pub(super) system: System,
    pub(super) hosts: Hosts,
    /// The far host's address, in the tunnel if there is one.
    pub(super) far: Ipv4Addr,
    /// Near and far; none without a tunnel.
    pub(super) devices: Vec<Device>,
}

impl Tunnel {
    /// Brings one up, until the far host has answered through it. `number` is one that no other tunnel has.
    pub(super) fn up(system: System, number: usize) -> anyhow::Result<Self> {
        let hosts = Hosts::new()?;
        let mut devices = Vec::new();
        let mut far = UNDERLAY[1];
        if let Some(program) = system.program()? {
            far = INSIDE[1];
            let keys = [Key::random(), Key::random()];
            for (end, host) in [&hosts.near, &hosts.far].into_iter().enumerate() {
                let other = 1 - end;
                let name = format!("wg{number}{}", ["near", "far"][end]);
                let device = Device::start(host, system, &program, &name)?;
                device.configure(
                    host,
                    &format!(
                        "[Interface]\nPrivateKey = {}\nListenPort = {PORT}\n\
                         [Peer]\nPublicKey = {}\nAllowedIPs = {}/32\nEndpoint = {}:{PORT}\n",
                        keys[end].private(),
                        keys[other].public(),
                        INSIDE[other],
                        UNDERLAY[other]
                    ),
                )?;
                device.set_up(host, &format!("{}/24", INSIDE[end]))?;
                devices.push(device);
            }
        }
        let tunnel = Self {
            system,
            hosts,
            far,
            devices,
        };
        tunnel.wake()?;
        Ok(tunnel)
    }

    /// Waits for an answer of the far host, so that a measurement does not begin with a handshake.
    pub(super) fn wake(&self) -> anyhow::Result<()> {
        echo::wait_for(&self.hosts.near, self.far, PATIENCE).with_context(|| self.system.name())
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.devices.iter().map(Device::pid).collect()
    }
}

/// A command whose output nobody reads.
pub(super) fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}
