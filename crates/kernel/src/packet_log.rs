//! The packets that rules log (`nfnetlink_log.h`): the end of [`render_logged`](crate::policy::render_logged) that is read.
//!
//! The kernel numbers the logs by groups, one set for each network namespace, and a group has one reader. Without one a rule that
//! logs costs next to nothing, and packets go where they go anyway.

use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use warren_policy::{Flow, packet};

use crate::guard::message::attributes::{Attributes, find};
use crate::guard::message::socket::NetfilterSocket;
use crate::guard::message::{Message, messages};

/// The group that policy's rules log to.
pub const GROUP: u16 = 87;

/// More than the kernel puts into one of its messages.
const READ_BYTES: usize = 64 << 10;
/// For how long the kernel gathers packets before it tells of them, in hundredths of a second.
const GATHERED_FOR: u32 = 20;

const NFNL_SUBSYS_ULOG: u16 = 4;
const NFULNL_MSG_PACKET: u16 = NFNL_SUBSYS_ULOG << 8;
const NFULNL_MSG_CONFIG: u16 = NFNL_SUBSYS_ULOG << 8 | 1;
const NFULA_CFG_CMD: u16 = 1;
const NFULA_CFG_MODE: u16 = 2;
const NFULA_CFG_TIMEOUT: u16 = 4;
const NFULA_PAYLOAD: u16 = 9;
const NFULA_PREFIX: u16 = 10;
const NFULNL_CFG_CMD_BIND: u8 = 1;
const NFULNL_COPY_PACKET: u8 = 2;

/// A packet that a rule has logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedPacket {
    /// What the rule calls it: of a denial, the name of its counter.
    pub prefix: String,
    /// What it was; `None` if its headers could not be read.
    pub flow: Option<Flow>,
}

/// The reader of the group. Once it is dropped there is none.
#[derive(Debug)]
pub struct PacketLog {
    socket: AsyncFd<NetfilterSocket>,
    buffer: Vec<u8>,
}

impl PacketLog {
    /// Becomes the reader, in the namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = NetfilterSocket::open()?;
        socket.send(&bind())?;
        // Packets may come ahead of the answer.
        socket.receive(|message| match message.error() {
            Some(0) => Ok(true),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(false),
        })?;
        // SAFETY: the descriptor that a `NetfilterSocket` gives is open, is its own alone, and the same until it is dropped, which
        // the `AsyncFd` that owns it does last.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self {
            socket,
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Waits for packets; of those that came faster than they were taken some are lost. Nothing is lost if it is not waited for
    /// to the end.
    ///
    /// # Errors
    /// The kernel's, after which there is nothing more to come.
    pub async fn read(&mut self) -> io::Result<Vec<LoggedPacket>> {
        let Self { socket, buffer } = self;
        loop {
            let take = |socket: &NetfilterSocket| socket.take(buffer);
            match socket.async_io(Interest::READABLE, take).await {
                Ok(length) => {
                    let packets: Vec<_> = messages(&buffer[..length]).filter_map(logged).collect();
                    if !packets.is_empty() {
                        return Ok(packets);
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A rule of the kind that logs, to see whether nft and the kernel take one.
pub(crate) fn trial() -> String {
    const TRIAL: &str = "inet warren-trial";
    format!(
        "add table {TRIAL}\nadd chain {TRIAL} try\nadd rule {TRIAL} try limit rate 1/second log prefix \"trial\" group {GROUP}\n"
    )
}

/// Asks for the group: the headers of its packets, soon after they were logged.
fn bind() -> Vec<u8> {
    let mut attributes = Attributes::default();
    attributes.bytes(NFULA_CFG_CMD, &[NFULNL_CFG_CMD_BIND]);
    // struct nfulnl_msg_config_mode: how many bytes, the mode, and one of padding.
    let mut mode = u32::try_from(packet::HEADER_BYTES)
        .unwrap_or(u32::MAX)
        .to_be_bytes()
        .to_vec();
    mode.extend([NFULNL_COPY_PACKET, 0]);
    attributes.bytes(NFULA_CFG_MODE, &mode);
    attributes.number(NFULA_CFG_TIMEOUT, GATHERED_FOR);
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    let mut bytes = vec![0; 16];
    // struct nfgenmsg: family, version, and the group.
    bytes.extend([0, 0]);
    bytes.extend(GROUP.to_be_bytes());
    bytes.extend(&attributes.0);
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&NFULNL_MSG_CONFIG.to_ne_bytes());
    bytes[6..8].copy_from_slice(&u16::try_from(flags).unwrap_or_default().to_ne_bytes());
    bytes
}

fn logged(message: Message<'_>) -> Option<LoggedPacket> {
    if message.kind() != NFULNL_MSG_PACKET {
        return None;
    }
    let attributes = message.attributes();
    let prefix = find(attributes, NFULA_PREFIX)?;
    let prefix = prefix.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(LoggedPacket {
        prefix: String::from_utf8_lossy(prefix).into_owned(),
        flow: find(attributes, NFULA_PAYLOAD).and_then(packet::flow),
    })
}
