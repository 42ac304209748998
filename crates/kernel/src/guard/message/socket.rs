//! A socket to the kernel's netfilter: messages out, messages in.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::{Message, messages};
use crate::netlink::ANSWER_TIMEOUT;

/// One request at a time: answers are told apart by their sequence numbers only.
#[derive(Debug)]
pub(crate) struct NetfilterSocket(OwnedFd);

impl NetfilterSocket {
    /// Opens a socket in the namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let descriptor = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        let patience = i64::try_from(ANSWER_TIMEOUT.as_secs()).unwrap_or(i64::MAX);
        setsockopt(&descriptor, sockopt::ReceiveTimeout, &TimeVal::seconds(patience))?;
        Ok(Self(descriptor))
    }

    /// Takes what is there, without waiting.
    ///
    /// # Errors
    /// `EWOULDBLOCK`: there is nothing; `ENOBUFS`: there was more than there is room for, and it is lost.
    pub(crate) fn take(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.0.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?)
    }

    /// Sends a message, or a batch of them.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let kernel = NetlinkAddr::new(0, 0);
        let sent = sendto(self.0.as_raw_fd(), bytes, &kernel, MsgFlags::empty())?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(Errno::EMSGSIZE.into())
        }
    }

    /// Takes messages until one is said to be the last.
    pub(crate) fn receive(&self, mut last: impl FnMut(&Message<'_>) -> io::Result<bool>) -> io::Result<()> {
        // The kernel fills dumps to 32 KiB at most.
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            for message in messages(&buffer[..length]) {
                if last(&message)? {
                    return Ok(());
                }
            }
        }
    }
}

impl AsRawFd for NetfilterSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
