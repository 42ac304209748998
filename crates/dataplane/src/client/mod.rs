//! The agent's side of a userspace device: starting, observing, changing and stopping `warren-wg`.
//!
//! Nothing is remembered between calls: whether there is a device is asked of its socket each time, so that a restarted
//! agent finds the one that its predecessor started.

mod cgroup;
mod change;
mod error;
mod exchange;
mod start;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use warren_model::{PrivateKey, PublicKey};
use warren_plan::lane::{LaneChange, LaneObserved, PeerObserved};

use crate::uapi::{self, DeviceState, PeerState};

pub use error::ClientError;
use exchange::Exchange;

/// What a device's process is called (`/proc/PID/comm`).
const DEVICE_NAME: &str = "warren-wg";

/// How long a process may take to end once it has been told or killed. It has little to do for that.
const ENDING: Duration = Duration::from_secs(2);

/// Time between two looks at something that the kernel does not tell of.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Userspace WireGuard devices of one node.
#[derive(Debug, Clone)]
pub struct Userspace {
    run_dir: PathBuf,
    warren_wg: PathBuf,
    log_dir: Option<PathBuf>,
}

impl Userspace {
    /// `run_dir` is where devices have their sockets (`/var/run/wireguard`, where `wg` looks for them too), `warren_wg`
    /// the program.
    pub fn new(run_dir: impl Into<PathBuf>, warren_wg: impl Into<PathBuf>) -> Self {
        Self {
            run_dir: run_dir.into(),
            warren_wg: warren_wg.into(),
            log_dir: None,
        }
    }

    /// Devices started from now on append their log to `INTERFACE.log` in this directory. Without it they keep none.
    pub fn with_log_dir(mut self, log_dir: impl Into<PathBuf>) -> Self {
        self.log_dir = Some(log_dir.into());
        self
    }

    /// The socket of a device.
    pub fn socket(&self, interface: &str) -> PathBuf {
        self.run_dir.join(format!("{interface}.sock"))
    }

    /// How a device is; `None` when there is none, which includes one whose process has died.
    pub async fn observe(&self, interface: &str) -> Result<Option<LaneObserved>, ClientError> {
        let mut exchange = match Exchange::connect(self.socket(interface)).await {
            Ok(exchange) => exchange,
            Err(ClientError::NotRunning { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let state = exchange.ask("get=1\n\n", uapi::parse_device).await?;
        Ok(Some(observed(state, SystemTime::now())))
    }

    /// The private key that a device has; `None` when there is none, neither key nor device.
    pub async fn private_key(&self, interface: &str) -> Result<Option<PrivateKey>, ClientError> {
        let mut exchange = match Exchange::connect(self.socket(interface)).await {
            Ok(exchange) => exchange,
            Err(ClientError::NotRunning { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let state = exchange.ask("get=1\n\n", uapi::parse_device).await?;
        Ok(state.private_key)
    }

    /// What a device has dropped since it started, by reason.
    pub async fn drops(&self, interface: &str) -> Result<BTreeMap<String, u64>, ClientError> {
        let mut exchange = Exchange::connect(self.socket(interface)).await?;
        let drops = exchange.ask("get=drops\n\n", uapi::parse_drops).await?;
        Ok(drops.into_iter().collect())
    }

    /// Makes sure that a device runs, in a session and, where the agent may make one, a cgroup of its own, so that the
    /// end of the agent does not end it. Returns when it answers. One that runs already is left alone.
    pub async fn start(&self, interface: &str) -> Result<(), ClientError> {
        if self.observe(interface).await?.is_some() {
            return Ok(());
        }
        let spawned = start::spawn(self, interface).await;
        match (self.observe(interface).await?, spawned) {
            // Even if it was somebody else who started it in the meantime.
            (Some(_), _) => Ok(()),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => Err(ClientError::NotRunning {
                socket: self.socket(interface),
            }),
        }
    }

    /// Makes one change. `private_key` is looked at for [`LaneChange::SetKey`] only.
    pub async fn apply(
        &self,
        interface: &str,
        change: &LaneChange,
        private_key: Option<&PrivateKey>,
    ) -> Result<(), ClientError> {
        self.apply_all(interface, std::slice::from_ref(change), private_key)
            .await
    }

    /// Makes several changes in one exchange. The device's key and port are changed first, then the peers in the order
    /// given; if the device refuses the port, nothing is changed.
    pub async fn apply_all(
        &self,
        interface: &str,
        changes: &[LaneChange],
        private_key: Option<&PrivateKey>,
    ) -> Result<(), ClientError> {
        let request = change::request(changes, private_key)?.to_text();
        let mut exchange = Exchange::connect(self.socket(interface)).await?;
        exchange.ask(&request, uapi::parse_status).await
    }

    /// Ends a device, and returns when its process, and with it the interface, is gone. No device: nothing to do.
    pub async fn stop(&self, interface: &str) -> Result<(), ClientError> {
        let socket = self.socket(interface);
        let connected = Exchange::connect(socket.clone()).await;
        match tokio::fs::remove_file(&socket).await {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(ClientError::Socket {
                    act: "remove",
                    socket,
                    source,
                });
            }
            _ => {}
        }
        let mut exchange = match connected {
            Ok(exchange) => exchange,
            Err(ClientError::NotRunning { .. }) => {
                cgroup::remove(Path::new(cgroup::ROOT), interface).await;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        // The device ends when its socket's file goes, and the connection ends with it. One that hangs is killed: it holds
        // the interface and the port, and nothing else would free them.
        if !has_ended(&mut exchange, interface).await {
            kill(interface);
            if !has_ended(&mut exchange, interface).await {
                return Err(ClientError::StillThere {
                    interface: interface.to_owned(),
                });
            }
        }
        cgroup::remove(Path::new(cgroup::ROOT), interface).await;
        Ok(())
    }
}

/// Waits for the process behind a connection to end, and for its interface to be gone; `false` if it has not in time.
async fn has_ended(exchange: &mut Exchange, interface: &str) -> bool {
    let ended = tokio::time::timeout(ENDING, async {
        let _ended = exchange.stream().read(&mut [0]).await.unwrap_or_default();
        // The kernel removes the interface within the same exit, in no certain order.
        while nix::net::if_::if_nametoindex(interface).is_ok() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    });
    ended.await.is_ok()
}

/// Kills the processes that are this interface's device in this network namespace. They are looked for among all: the one
/// that listens on the socket is not who the kernel names there, because a daemon has forked since.
fn kill(interface: &str) {
    let own = std::fs::read_link("/proc/self/ns/net").ok();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let dir = process.path();
        let is_device = std::fs::read_to_string(dir.join("comm"))
            .is_ok_and(|comm| comm.trim_end() == DEVICE_NAME)
            && std::fs::read_link(dir.join("ns/net")).ok() == own
            && std::fs::read(dir.join("cmdline")).is_ok_and(|line| names(&line, interface));
        if is_device {
            tracing::warn!(interface, pid, "the device hangs and is killed");
            // It may have ended by itself just now.
            let _ended = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Whether the last argument of a command line (as in `/proc/PID/cmdline`) is this.
fn names(command_line: &[u8], interface: &str) -> bool {
    let line = command_line.strip_suffix(b"\0").unwrap_or(command_line);
    line.rsplit(|byte| *byte == 0).next() == Some(interface.as_bytes())
}

fn observed(state: DeviceState, now: SystemTime) -> LaneObserved {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    LaneObserved {
        public_key: state.private_key.as_ref().and_then(public_half),
        port: state.listen_port,
        peers: state
            .peers
            .into_iter()
            .map(|peer| (peer.public_key, observed_peer(peer, now)))
            .collect(),
    }
}

fn observed_peer(peer: PeerState, now: Duration) -> PeerObserved {
    PeerObserved {
        endpoint: peer.endpoint,
        allowed_ips: peer.allowed_ips.into_iter().collect(),
        keepalive: peer.persistent_keepalive,
        // A clock set back makes a handshake one of the future: it is taken as one of this moment.
        handshake_age: peer.last_handshake.map(|at| now.saturating_sub(at)),
        rx_bytes: peer.rx_bytes,
        tx_bytes: peer.tx_bytes,
    }
}

/// The public half of a private key.
fn public_half(key: &PrivateKey) -> Option<PublicKey> {
    let secret = x25519_dalek::StaticSecret::from(*key.expose_bytes());
    PublicKey::from_bytes(*x25519_dalek::PublicKey::from(&secret).as_bytes()).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_observed_by_its_public_key_and_the_age_of_its_handshakes() {
        let peer = PublicKey::from_bytes([7; 32]).unwrap();
        let state = DeviceState {
            private_key: Some(PrivateKey::from_bytes(&mut [9; 32])),
            listen_port: 51820,
            fwmark: 0,
            peers: vec![PeerState {
                last_handshake: Some(Duration::from_secs(100)),
                ..PeerState::new(peer)
            }],
        };
        let observed = observed(state, UNIX_EPOCH + Duration::from_secs(130));
        // What `wg pubkey` says of that key, clamped.
        assert_eq!(
            observed.public_key.unwrap().to_string(),
            "V9tLNZ8jrl4Ubk4lEgVnBHIlBjSMFQwUdT0Mkz0E1CE="
        );
        assert_eq!(observed.peers[&peer].handshake_age, Some(Duration::from_secs(30)));
    }

    #[test]
    fn a_handshake_of_the_future_is_one_of_this_moment() {
        let mut peer = PeerState::new(PublicKey::from_bytes([7; 32]).unwrap());
        peer.last_handshake = Some(Duration::from_secs(100));
        assert_eq!(
            observed_peer(peer, Duration::from_secs(10)).handshake_age,
            Some(Duration::ZERO)
        );
    }
}
