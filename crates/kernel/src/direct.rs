//! An rtnetlink socket without a runtime: a thread sends a request and has the answer, because the kernel works on it inside
//! the system call that sends it.
//!
//! For what takes the kernel long, which would hold up a thread of the runtime and all other requests of the shared socket;
//! and for a thread inside a pod's namespace, which lives no longer than a few requests.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums are foreign, open and dozens of variants long"
)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{MsgFlags, NetlinkAddr, recv, sendto};

use crate::netlink::{NetlinkError, open_socket};

/// The longest answer: one object, never a list.
const ANSWER_BYTES: usize = 32 << 10;

/// A socket of one network namespace.
#[derive(Debug)]
pub(crate) struct Direct {
    socket: OwnedFd,
    sequence: u32,
}

impl Direct {
    /// Opens a socket in the namespace of the calling thread.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let socket = open_socket().map_err(NetlinkError::Open)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends one request and waits until the kernel has done it.
    pub(crate) fn act(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        act: &str,
    ) -> Result<(), NetlinkError> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags)
            .map(drop)
            .map_err(|errno| refused(act, errno))
    }

    /// Asks for one object.
    pub(crate) fn get(
        &mut self,
        message: RouteNetlinkMessage,
        act: &str,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        self.exchange(message, NLM_F_REQUEST)
            .map_err(|errno| refused(act, errno))
    }

    fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        let socket = self.socket.as_raw_fd();
        sendto(socket, &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        // The answer is there when the call that sends returns.
        let mut buffer = vec![0; ANSWER_BYTES];
        let length = recv(socket, &mut buffer, MsgFlags::empty())?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&buffer[..length])
            .map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            NetlinkPayload::InnerMessage(object) => Ok(Some(object)),
            // An acknowledgement. The enum is open.
            _ => Ok(None),
        }
    }
}

fn refused(act: &str, errno: io::Error) -> NetlinkError {
    NetlinkError::Refused {
        act: act.to_owned(),
        errno,
    }
}
