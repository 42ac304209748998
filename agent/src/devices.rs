//! The node's WireGuard devices: of the kernel or userspace, observed and changed in the same terms.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use thiserror::Error;
use warren_dataplane::client::{ClientError, Userspace};
use warren_kernel::Kernel;
use warren_kernel::wireguard::{self, KernelWireguard, WireguardError};
use warren_keymgr::KeyStore;
use warren_model::{Lane, PrivateKey};
use warren_plan::{LaneChange, LaneObserved, LinkKind, Observed};

use crate::cni_conf::beside_this_program;
use crate::config::WireguardKind;

/// The program that is a userspace device.
pub const USERSPACE_PROGRAM: &str = "warren-wg";

/// Where userspace devices have their sockets; stock `wg` looks there.
pub const SOCKET_DIR: &str = "/var/run/wireguard";

/// How often in a row a device may fail to answer before it is made anew. Each time it is given 5 s.
const PATIENCE: u32 = 2;

/// The kind of device this node uses, and why.
#[derive(Debug)]
pub struct Devices {
    kind: Kind,
    reason: String,
    /// Whether the node is to do WireGuard; otherwise the devices that stand are only kept until no peer needs them.
    wanted: bool,
    /// How often in a row each lane's device has not answered.
    unanswered: [AtomicU32; 2],
}

#[derive(Debug)]
enum Kind {
    Kernel {
        kernel: Arc<Kernel>,
        wireguard: KernelWireguard,
        /// For devices from before the kernel had WireGuard.
        before: Userspace,
    },
    Userspace(Userspace),
    /// Neither: the node cannot do WireGuard, and says so to its peers.
    None,
}

/// What became of the question how a lane's device is.
enum Answer {
    Device(LaneObserved),
    /// There is an interface and nobody behind it, or it is a device of the other kind.
    Silence,
    NoInterface,
}

impl Devices {
    /// Chooses the kind of device. The choice holds until the agent ends.
    pub async fn choose(wanted: WireguardKind, kernel: &Arc<Kernel>) -> Self {
        match wanted {
            WireguardKind::Kernel => match of_kernel(kernel).await {
                Ok(kind) => Self::new(kind, "chosen by --wireguard kernel"),
                Err(why) => Self::new(Kind::None, format!("--wireguard kernel, but {why}")),
            },
            WireguardKind::Userspace => match userspace() {
                Ok(kind) => Self::new(kind, "chosen by --wireguard userspace"),
                Err(why) => Self::new(Kind::None, format!("--wireguard userspace, but {why}")),
            },
            WireguardKind::None => Self {
                wanted: false,
                ..Self::new(standing(kernel).await, "--wireguard none")
            },
            WireguardKind::Auto => match of_kernel(kernel).await {
                Ok(kind) => Self::new(kind, "the kernel has WireGuard"),
                Err(no_kernel) => match userspace() {
                    Ok(kind) => Self::new(kind, no_kernel.to_string()),
                    Err(no_userspace) => Self::new(Kind::None, format!("{no_kernel}, and {no_userspace}")),
                },
            },
        }
    }

    fn new(kind: Kind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
            wanted: true,
            unanswered: [AtomicU32::new(0), AtomicU32::new(0)],
        }
    }

    /// Whether this node can do WireGuard at all.
    pub fn available(&self) -> bool {
        self.wanted && !matches!(self.kind, Kind::None)
    }

    /// `kernel`, `userspace` or `none`.
    pub fn kind(&self) -> &'static str {
        match self.kind {
            _ if !self.wanted => "none",
            Kind::Kernel { .. } => "kernel",
            Kind::Userspace(_) => "userspace",
            Kind::None => "none",
        }
    }

    /// Why this kind.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Adds what the devices say to what the rest of the kernel says. A lane whose interface is there but whose device
    /// does not answer, or is of the other kind because the kernel has gained or lost WireGuard since, is taken out of the
    /// observation: it has to be made anew.
    pub async fn observe(&self, observed: &mut Observed) -> Result<(), DeviceError> {
        let present = |lane: Lane| {
            let link = observed.links.get(lane.interface());
            link.is_some_and(|link| link.kind == LinkKind::Lane(lane))
        };
        let [zero, one] = Lane::ALL.map(|lane| self.patiently(lane, present(lane)));
        // At once, and both before either's error counts: one that hangs must not hide the other.
        let (zero, one) = futures::join!(zero, one);
        for (lane, answer) in Lane::ALL.into_iter().zip([zero, one]) {
            match answer? {
                Answer::Device(device) => {
                    observed.lanes.insert(lane, device);
                }
                Answer::Silence => {
                    let interface = lane.interface();
                    tracing::warn!(
                        interface,
                        "the interface is there, but no device of this node's kind answers for it"
                    );
                    observed.remove_link(interface);
                }
                Answer::NoInterface => {}
            }
        }
        Ok(())
    }

    /// What the devices of these lanes have dropped since they started, by reason. Only userspace devices say. One that
    /// does not answer now is left out: that is for [`Self::observe`] to judge.
    pub async fn drops(&self, lanes: impl Iterator<Item = Lane>) -> BTreeMap<Lane, BTreeMap<String, u64>> {
        let Kind::Userspace(userspace) = &self.kind else {
            return BTreeMap::new();
        };
        let asked = lanes.map(|lane| async move { (lane, userspace.drops(lane.interface()).await) });
        let mut drops = BTreeMap::new();
        for (lane, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok(counts) => {
                    drops.insert(lane, counts);
                }
                Err(error) => {
                    tracing::debug!(interface = lane.interface(), %error, "no counts of dropped packets");
                }
            }
        }
        drops
    }

    /// Makes a lane's device, or fails; whatever was left of an earlier one, of either kind, goes first.
    pub async fn create(&self, lane: Lane, mtu: u32) -> Result<(), DeviceError> {
        match &self.kind {
            Kind::Kernel { kernel, before, .. } => {
                before.stop(lane.interface()).await?;
                wireguard::remove(lane.interface()).await?;
                Ok(wireguard::create(kernel, lane.interface(), mtu).await?)
            }
            Kind::Userspace(userspace) => {
                userspace.stop(lane.interface()).await?;
                // One of the kernel's own has no process that could be ended.
                wireguard::remove(lane.interface()).await?;
                Ok(userspace.start(lane.interface()).await?)
            }
            Kind::None => Err(DeviceError::None {
                reason: self.reason.clone(),
            }),
        }
    }

    /// Makes one change to a lane's device. The private key, where the change needs one, comes from the key store.
    pub async fn configure(
        &self,
        lane: Lane,
        change: &LaneChange,
        keys: &KeyStore,
    ) -> Result<(), DeviceError> {
        let private_key = match change {
            LaneChange::SetKey(Some(public)) => {
                Some(keys.private_key(public).ok_or_else(|| DeviceError::NoKey {
                    public: public.to_string(),
                })?)
            }
            LaneChange::SetKey(None)
            | LaneChange::SetPort(_)
            | LaneChange::AddPeer(..)
            | LaneChange::SetEndpoint(..)
            | LaneChange::SetKeepalive(..)
            | LaneChange::AddAllowedIp(..)
            | LaneChange::RemoveAllowedIp(..)
            | LaneChange::RemovePeer(_) => None,
        };
        match &self.kind {
            Kind::Kernel { wireguard, .. } => {
                Ok(wireguard.apply(lane.interface(), change, private_key).await?)
            }
            Kind::Userspace(userspace) => Ok(userspace.apply(lane.interface(), change, private_key).await?),
            Kind::None => Err(DeviceError::None {
                reason: self.reason.clone(),
            }),
        }
    }

    /// The private key that a lane's device has; `None` when there is none, neither key nor device.
    pub async fn private_key(&self, lane: Lane) -> Result<Option<PrivateKey>, DeviceError> {
        match &self.kind {
            Kind::Kernel { wireguard, .. } => Ok(wireguard.private_key(lane.interface()).await?),
            Kind::Userspace(userspace) => Ok(userspace.private_key(lane.interface()).await?),
            Kind::None => Ok(None),
        }
    }

    /// Ends a lane's device.
    pub async fn remove(&self, lane: Lane) -> Result<(), DeviceError> {
        match &self.kind {
            Kind::Kernel { .. } => Ok(wireguard::remove(lane.interface()).await?),
            Kind::Userspace(userspace) => Ok(userspace.stop(lane.interface()).await?),
            Kind::None => Ok(()),
        }
    }

    /// One lane's device. One that has failed to answer too often in a row counts as silent: a process that hangs holds its
    /// interface and socket, and only a new one helps.
    async fn patiently(&self, lane: Lane, present: bool) -> Result<Answer, DeviceError> {
        if !present {
            return Ok(Answer::NoInterface);
        }
        let unanswered = &self.unanswered[lane.index()];
        match self.observe_one(lane.interface()).await {
            Err(_) if unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= PATIENCE => Ok(Answer::Silence),
            Err(error) => Err(error),
            Ok(device) => {
                unanswered.store(0, Ordering::Relaxed);
                Ok(device.map_or(Answer::Silence, Answer::Device))
            }
        }
    }

    async fn observe_one(&self, interface: &str) -> Result<Option<LaneObserved>, DeviceError> {
        match &self.kind {
            Kind::Kernel { wireguard, .. } => Ok(wireguard.observe(interface, SystemTime::now()).await?),
            Kind::Userspace(userspace) => Ok(userspace.observe(interface).await?),
            Kind::None => Ok(None),
        }
    }
}

async fn of_kernel(kernel: &Arc<Kernel>) -> Result<Kind, WireguardError> {
    wireguard::probe(kernel).await?;
    Ok(Kind::Kernel {
        kernel: Arc::clone(kernel),
        wireguard: KernelWireguard::new()?,
        // Nothing is started by it.
        before: Userspace::new(SOCKET_DIR, USERSPACE_PROGRAM),
    })
}

/// The kind of device that stands, or could.
async fn standing(kernel: &Arc<Kernel>) -> Kind {
    if let Ok(Kind::Userspace(devices)) = userspace() {
        let answers = Lane::ALL.map(|lane| devices.observe(lane.interface()));
        let answers = futures::future::join_all(answers).await;
        if answers.iter().any(|answer| matches!(answer, Ok(Some(_)))) {
            return Kind::Userspace(devices);
        }
    }
    of_kernel(kernel).await.unwrap_or(Kind::None)
}

fn userspace() -> Result<Kind, String> {
    if !Path::new("/dev/net/tun").exists() {
        return Err("there is no /dev/net/tun for a userspace device: load the module tun".to_owned());
    }
    let program = beside_this_program(USERSPACE_PROGRAM).or_else(|| in_path(USERSPACE_PROGRAM));
    let program = program.ok_or(format!(
        "{USERSPACE_PROGRAM} is neither beside this program nor in PATH"
    ))?;
    Ok(Kind::Userspace(Userspace::new(SOCKET_DIR, program)))
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// A device could not be observed or changed. All but a missing key are worth a retry.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The kernel's device.
    #[error(transparent)]
    Kernel(#[from] WireguardError),
    /// A userspace device.
    #[error(transparent)]
    Userspace(#[from] ClientError),
    /// The node has no WireGuard of either kind.
    #[error("this node has no WireGuard device: {reason}")]
    None {
        /// Why not.
        reason: String,
    },
    /// A plan names a key that is not in the store.
    #[error("no private key for {public} in the key store: restart the agent")]
    NoKey {
        /// The public key.
        public: String,
    },
}
