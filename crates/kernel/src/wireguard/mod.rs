//! The kernel's own WireGuard, through generic netlink (`include/uapi/linux/wireguard.h`).
//!
//! Changes are deltas: nothing here ever replaces all peers or all allowed IPs.
//!
//! Private keys pass through messages of the netlink crates, which print every message at log level TRACE: never let a
//! log show TRACE of `netlink_proto`.

mod messages;

use std::io;
use std::time::SystemTime;

use futures::{StreamExt, pin_mut};
use genetlink::{GenetlinkError, GenetlinkHandle};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_generic::GenlMessage;
use netlink_packet_wireguard::{WireguardAttribute, WireguardCmd, WireguardMessage};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::timeout;
use warren_model::{PrivateKey, PublicKey};
use warren_plan::{LaneChange, LaneObserved};

use crate::kernel::Kernel;
use crate::links;
use crate::netlink::{ANSWER_TIMEOUT, DUMP_ATTEMPTS, NetlinkError};

/// The interface that is made, and deleted at once, to find out whether the kernel has WireGuard.
const PROBE: &str = "wrnprobe";

/// A kernel device that cannot be made, read or changed.
#[derive(Debug, Error)]
pub enum WireguardError {
    /// The kernel has no WireGuard.
    #[error(
        "this kernel has no WireGuard: load its module (modprobe wireguard, Linux 5.6 or newer) or use the \
         userspace device"
    )]
    Unsupported(#[source] NetlinkError),
    /// The interface cannot be made or removed.
    #[error(transparent)]
    Link(#[from] NetlinkError),
    /// No socket.
    #[error("cannot open a generic netlink socket: check the number of open files of this process")]
    Open(#[source] io::Error),
    /// The kernel said no.
    #[error("the kernel refuses to {act}")]
    Refused {
        /// What was asked for.
        act: String,
        /// Its error number.
        #[source]
        errno: io::Error,
    },
    /// The request could not be sent, or its answer not be read.
    #[error("cannot {act}: {reason}; try again")]
    Lost {
        /// What was asked for.
        act: String,
        /// What went wrong.
        reason: String,
    },
    /// The list of peers changed under every attempt to read it.
    #[error(
        "cannot read WireGuard device {0}: it changed during each of {DUMP_ATTEMPTS} attempts; try again"
    )]
    Interrupted(String),
    /// A change of key without the private half.
    #[error("cannot set key {0}: its private half was not handed over with the change")]
    NoPrivateKey(PublicKey),
}

impl WireguardError {
    /// Whether the same may succeed later without a change elsewhere.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::Interrupted(_) => true,
            Self::Link(error) => error.is_transient(),
            Self::Unsupported(_) | Self::Open(_) | Self::Refused { .. } | Self::NoPrivateKey(_) => false,
        }
    }
}

/// Finds out whether the kernel has WireGuard by making an interface of that kind, which also loads its module where it
/// is one. The error says why not.
pub async fn probe(kernel: &Kernel) -> Result<(), WireguardError> {
    // A probe that was killed halfway left one.
    links::remove(PROBE).await?;
    match links::create_wireguard(kernel.netlink(), PROBE, 1420).await {
        Ok(()) => Ok(links::remove(PROBE).await?),
        Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => Err(WireguardError::Unsupported(error)),
        Err(error) => Err(error.into()),
    }
}

/// Makes a WireGuard interface, down and without a key.
pub async fn create(kernel: &Kernel, name: &str, mtu: u32) -> Result<(), WireguardError> {
    match links::create_wireguard(kernel.netlink(), name, mtu).await {
        Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => Err(WireguardError::Unsupported(error)),
        other => Ok(other?),
    }
}

/// Deletes a WireGuard interface; gone already is fine.
pub async fn remove(name: &str) -> Result<(), WireguardError> {
    Ok(links::remove(name).await?)
}

/// A generic netlink socket for the WireGuard devices of one network namespace.
#[derive(Debug)]
pub struct KernelWireguard {
    handle: Mutex<GenetlinkHandle>,
}

impl KernelWireguard {
    /// Opens a socket in the namespace of the calling thread. Needs a tokio runtime.
    pub fn new() -> Result<Self, WireguardError> {
        let (connection, handle, _) = genetlink::new_connection().map_err(WireguardError::Open)?;
        tokio::spawn(connection);
        Ok(Self {
            handle: Mutex::new(handle),
        })
    }

    /// How a device is; `None` if there is no such interface, or it is not one of the kernel's WireGuard. `now` is the time that ages of handshakes are reckoned
    /// from.
    pub async fn observe(&self, name: &str, now: SystemTime) -> Result<Option<LaneObserved>, WireguardError> {
        let messages = self.read(name).await?;
        Ok(messages.map(|messages| messages::merge(messages, now)))
    }

    /// The private key that a device has; `None` when there is none, neither key nor device.
    pub async fn private_key(&self, name: &str) -> Result<Option<PrivateKey>, WireguardError> {
        let messages = self.read(name).await?;
        Ok(messages.and_then(messages::take_private_key))
    }

    /// What the kernel says of a device; `None` if there is no such interface, or it is not one of the kernel's WireGuard.
    async fn read(&self, name: &str) -> Result<Option<Vec<WireguardMessage>>, WireguardError> {
        let act = format!("read WireGuard device {name}");
        for _ in 0..DUMP_ATTEMPTS {
            let request = WireguardMessage {
                cmd: WireguardCmd::GetDevice,
                attributes: vec![WireguardAttribute::IfName(name.to_owned())],
            };
            match self.exchange(request, NLM_F_REQUEST | NLM_F_DUMP, &act).await {
                Ok(answer) if answer.interrupted => {}
                Ok(answer) => return Ok(Some(answer.messages)),
                Err(WireguardError::Refused { errno, .. })
                    if matches!(errno.raw_os_error(), Some(libc::ENODEV | libc::EOPNOTSUPP)) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        Err(WireguardError::Interrupted(name.to_owned()))
    }

    /// Makes one change to a device. A change to a key takes the key's private half; that it belongs to the public half
    /// in the change is the caller's to know.
    pub async fn apply(
        &self,
        name: &str,
        change: &LaneChange,
        key: Option<&PrivateKey>,
    ) -> Result<(), WireguardError> {
        let act = format!("set WireGuard device {name} {change}");
        if let LaneChange::SetKey(Some(public)) = change
            && key.is_none()
        {
            return Err(WireguardError::NoPrivateKey(*public));
        }
        let mut done = self.send_all(messages::of_change(name, change, key), &act).await;
        if let (LaneChange::RemoveAllowedIp(_, net), Err(WireguardError::Refused { errno, .. })) =
            (change, &done)
            && matches!(errno.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
        {
            // Before Linux 6.16 there is no flag to remove one allowed IP.
            done = self
                .send_all(vec![messages::removal_by_parking(name, net)], &act)
                .await;
        }
        done
    }

    async fn send_all(&self, requests: Vec<WireguardMessage>, act: &str) -> Result<(), WireguardError> {
        for request in requests {
            self.exchange(request, NLM_F_REQUEST | NLM_F_ACK, act).await?;
        }
        Ok(())
    }

    async fn exchange(
        &self,
        request: WireguardMessage,
        flags: u16,
        act: &str,
    ) -> Result<Answer, WireguardError> {
        let mut message = NetlinkMessage::from(GenlMessage::from_payload(request));
        message.header.flags = flags;
        let mut handle = self.handle.lock().await;
        let answer = async {
            let stream = handle
                .request(message)
                .await
                .map_err(|error| refused(error, act))?;
            pin_mut!(stream);
            let mut answer = Answer::default();
            while let Some(message) = stream.next().await {
                answer.take(message.map_err(|error| lost(&error, act))?, act)?;
            }
            Ok(answer)
        };
        timeout(ANSWER_TIMEOUT, answer)
            .await
            .map_err(|elapsed| lost(&elapsed, act))?
    }
}

#[derive(Default)]
struct Answer {
    messages: Vec<WireguardMessage>,
    interrupted: bool,
}

impl Answer {
    fn take(
        &mut self,
        message: NetlinkMessage<GenlMessage<WireguardMessage>>,
        act: &str,
    ) -> Result<(), WireguardError> {
        self.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "fillers and ends of dumps carry nothing; the enum is open"
        )]
        match message.payload {
            NetlinkPayload::InnerMessage(inner) => self.messages.push(inner.payload),
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Err(WireguardError::Refused {
                    act: act.to_owned(),
                    errno: error.to_io(),
                });
            }
            NetlinkPayload::Overrun(_) => self.interrupted = true,
            _ => {}
        }
        Ok(())
    }
}

fn lost(reason: &dyn std::error::Error, act: &str) -> WireguardError {
    WireguardError::Lost {
        act: act.to_owned(),
        reason: reason.to_string(),
    }
}

/// The family itself is looked up with the first request; a kernel without WireGuard does not have it.
fn refused(error: GenetlinkError, act: &str) -> WireguardError {
    match error {
        GenetlinkError::NetlinkError(errno) => WireguardError::Refused {
            act: act.to_owned(),
            errno,
        },
        other @ (GenetlinkError::ProtocolError(_)
        | GenetlinkError::DecodeError(_)
        | GenetlinkError::AttributeNotFound(_)
        | GenetlinkError::NoMessageReceived) => lost(&other, act),
    }
}
