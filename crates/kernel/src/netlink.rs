//! One rtnetlink socket. Requests go one at a time, because the kernel runs one dump per socket; an interrupted dump
//! is repeated, so that what is returned was true at one moment.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums are foreign, open and dozens of variants long"
)]

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::Handle;
use rtnetlink::proto::sys::TokioSocket;
use thiserror::Error;
use tokio::sync::Mutex;

/// How long the kernel may take for one answer. It answers in microseconds; what takes this long was lost.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a dump is begun again before we give up: each time somebody else changed what was being dumped.
pub(crate) const DUMP_ATTEMPTS: usize = 10;

/// A request that failed.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("cannot open a netlink socket: check the number of open files of this process")]
    Open(#[source] io::Error),
    /// The kernel said no.
    #[error("the kernel refuses to {act}")]
    Refused {
        /// What was asked for, as one would type it.
        act: String,
        /// Its error number.
        #[source]
        errno: io::Error,
    },
    /// The list changed under every attempt to read it.
    #[error("cannot {act}: it changed during each of {DUMP_ATTEMPTS} attempts; try again")]
    Interrupted {
        /// What was asked for.
        act: String,
    },
    /// No answer, or the connection is closed.
    #[error("no answer from the kernel to {act} (netlink message lost or socket closed); try again")]
    Silent {
        /// What was asked for.
        act: String,
    },
    /// No interface of that name.
    #[error("cannot {act}: there is no interface {link}")]
    NoLink {
        /// What was asked for.
        act: String,
        /// The interface.
        link: String,
    },
}

impl NetlinkError {
    /// The kernel's error number, if it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } | Self::Open(errno) => errno.raw_os_error(),
            Self::NoLink { .. } => Some(libc::ENODEV),
            Self::Interrupted { .. } | Self::Silent { .. } => None,
        }
    }

    /// Whether the same request may succeed later without a change of plan.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Interrupted { .. } | Self::Silent { .. } => true,
            Self::Open(_) | Self::Refused { .. } | Self::NoLink { .. } => {
                matches!(
                    self.errno(),
                    Some(libc::EBUSY | libc::EAGAIN | libc::ENOMEM | libc::ENOBUFS)
                )
            }
        }
    }
}

/// Makes "it is already so" a success: the errors listed count as done.
pub(crate) fn accept(result: Result<(), NetlinkError>, errnos: &[i32]) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.errno().is_some_and(|errno| errnos.contains(&errno)) => Ok(()),
        other => other,
    }
}

/// A netlink socket of one network namespace.
#[derive(Debug)]
pub struct Netlink {
    handle: Mutex<Handle>,
}

impl Netlink {
    /// Opens a socket in the namespace of the calling thread. Needs a running tokio runtime, which drives it.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::Open)?;
        tokio::spawn(connection);
        Ok(Self {
            handle: Mutex::new(handle),
        })
    }

    /// Takes a socket that was opened in another namespace with [`open_socket`].
    pub(crate) fn from_socket(socket: OwnedFd) -> Self {
        // SAFETY: the descriptor is an open netlink socket that nobody else owns: `OwnedFd` gave it up.
        let socket = unsafe { TokioSocket::from_raw_fd(socket.into_raw_fd()) };
        let (connection, handle, _) = rtnetlink::from_socket(socket);
        tokio::spawn(connection);
        Self {
            handle: Mutex::new(handle),
        }
    }

    /// Sends one request and waits until the kernel has done it.
    pub(crate) async fn act(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        act: &str,
    ) -> Result<(), NetlinkError> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags, act)
            .await
            .map(drop)
    }

    /// Asks for one object; an empty answer is possible.
    pub(crate) async fn get(
        &self,
        message: RouteNetlinkMessage,
        act: &str,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        Ok(self.exchange(message, NLM_F_REQUEST, act).await?.messages.pop())
    }

    /// Asks for all objects of a kind, as they were at one moment.
    pub(crate) async fn dump(
        &self,
        message: RouteNetlinkMessage,
        act: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let answer = self
                .exchange(message.clone(), NLM_F_REQUEST | NLM_F_DUMP, act)
                .await?;
            if !answer.interrupted {
                return Ok(answer.messages);
            }
        }
        Err(NetlinkError::Interrupted { act: act.to_owned() })
    }

    async fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        act: &str,
    ) -> Result<Answer, NetlinkError> {
        let silent = || NetlinkError::Silent { act: act.to_owned() };
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let mut handle = self.handle.lock().await;
        let stream = handle.request(request).map_err(|_| silent())?;
        tokio::time::timeout(ANSWER_TIMEOUT, collect(stream, act))
            .await
            .map_err(|_| silent())?
    }
}

struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    interrupted: bool,
}

async fn collect(
    stream: impl futures::Stream<Item = NetlinkMessage<RouteNetlinkMessage>>,
    act: &str,
) -> Result<Answer, NetlinkError> {
    let mut answer = Answer {
        messages: Vec::new(),
        interrupted: false,
    };
    pin_mut!(stream);
    while let Some(message) = stream.next().await {
        answer.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
        match message.payload {
            NetlinkPayload::InnerMessage(inner) => answer.messages.push(inner),
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Err(NetlinkError::Refused {
                    act: act.to_owned(),
                    errno: error.to_io(),
                });
            }
            NetlinkPayload::Overrun(_) => answer.interrupted = true,
            // An acknowledgement, the end of a dump and fillers carry nothing; the enum is open.
            _ => {}
        }
    }
    Ok(answer)
}

/// Opens a netlink socket in the namespace of the calling thread, to be driven elsewhere.
pub(crate) fn open_socket() -> io::Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
    socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )
    .map_err(io::Error::from)
}
