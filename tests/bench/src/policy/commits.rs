//! When a transaction of nf_tables is in force.
//!
//! That is some time before the nft that made it ends: as it closes its socket, the kernel lets it wait until nobody can be looking
//! any more at what was removed.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use crate::namespace::Namespace;

/// `NFNLGRP_NFTABLES`, as a bit of the groups that a socket is bound to.
const GROUP: u32 = 1 << (7 - 1);
/// `NFT_MSG_NEWGEN` of nf_tables: the last that is announced of a transaction, by which time it is in force.
const NEW_GENERATION: u16 = 10 << 8 | 15;
/// Room for what one change announces, thousands of elements maybe.
const BUFFER_BYTES: usize = 32 << 20;
/// After so long without a word there is nothing to hear.
const PATIENCE: TimeVal = TimeVal::new(2, 0);

/// Hears of the transactions of one network namespace.
pub(super) struct Commits(OwnedFd);

impl Commits {
    /// Those of a namespace, from now on.
    pub(super) fn listen(node: &Namespace) -> anyhow::Result<Self> {
        node.inside(Self::here)
    }

    /// Those of this one.
    pub(super) fn here() -> anyhow::Result<Self> {
        let open = || -> anyhow::Result<Self> {
            let socket = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkNetFilter,
            )?;
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &PATIENCE)?;
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
            Ok(Self(socket))
        };
        open().context("listen to nf_tables")
    }

    /// Waits for the next transaction, and says when it was in force; `None` if nothing is announced for some time.
    pub(super) fn next(&self) -> anyhow::Result<Option<Instant>> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Ok(None),
                other => other.context("hear of nf_tables")?,
            };
            let now = Instant::now();
            if kinds(&buffer[..length]).any(|kind| kind == NEW_GENERATION) {
                return Ok(Some(now));
            }
        }
    }
}

/// The types of the messages in what one read gave: `struct nlmsghdr` begins with the length, then the type.
fn kinds(mut bytes: &[u8]) -> impl Iterator<Item = u16> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let kind = u16::from_ne_bytes(*rest.first_chunk()?);
        let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
        bytes = bytes
            .get(length.max(16).next_multiple_of(4)..)
            .unwrap_or_default();
        Some(kind)
    })
}
