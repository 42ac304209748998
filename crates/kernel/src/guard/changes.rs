//! Notices when somebody else changes a table of ours. nf_tables announces each transaction, object by object and the generation
//! that it made last (`NFNLGRP_NFTABLES`), so what concerns other tables costs no more than reading its names.
//!
//! No look finds each change: a rule replaced by another, or a network missing in a set, leaves the table's description of
//! itself as it was. So once a transaction has touched the table that is not known to be ours, the table counts as altered
//! until all of it is written anew.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::Stream;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
    sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::message::messages;
use super::netfilter::{Netfilter, next};

/// `NFNLGRP_NFTABLES`, as a bit of the groups that a socket is bound to.
const GROUP: u32 = 1 << (7 - 1);
/// Room for what other programs write at once, thousands of rules maybe, while a pass keeps us from reading.
const BUFFER_BYTES: usize = 8 << 20;
/// More than the kernel puts into one of its messages.
const READ_BYTES: usize = 64 << 10;

/// Who has changed a table, as far as is known. Cloned, it is the same one.
#[derive(Debug, Clone)]
pub(crate) struct Changes {
    table: &'static str,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether anybody listens; without, there is nothing to compare with.
    heard: bool,
    /// Generations that transactions of ours have made, not heard of yet.
    own: BTreeSet<u32>,
    /// The generation in which the whole table was as we wrote it, with pods opened and closed since.
    whole: Option<u32>,
    altered: bool,
}

impl Changes {
    /// Of the table of that name and family inet.
    pub(crate) fn of(table: &'static str) -> Self {
        Self {
            table,
            state: Arc::default(),
        }
    }

    /// Whether somebody else has changed the table since it was last written.
    pub(crate) fn altered(&self) -> bool {
        self.state().altered
    }

    /// Takes note that the table is about to be written anew, and tells whether it was altered. What somebody else changes
    /// from now on counts again.
    pub(crate) fn forget(&self) -> bool {
        std::mem::take(&mut self.state().altered)
    }

    /// Takes note that somebody else has changed the table, or that it was to be written anew for that and was not.
    pub(crate) fn suspect(&self) {
        self.state().altered = true;
    }

    /// Takes note that a transaction of ours has written the whole table and made this generation.
    pub(crate) fn wrote(&self, generation: u32) {
        let mut state = self.state();
        state.own(generation);
        state.whole = Some(generation);
    }

    /// Takes note that a transaction has led from one generation to the next and has not touched the table.
    pub(crate) fn passed_by(&self, before: u32, now: u32) {
        let mut state = self.state();
        if state.whole == Some(before) {
            state.whole = Some(now);
        }
    }

    /// Takes note that a transaction of ours has changed the pods of the generation `before`.
    pub(crate) fn changed_pods(&self, before: u32) {
        let mut state = self.state();
        let generation = next(before);
        state.own(generation);
        if state.whole == Some(before) {
            state.whole = Some(generation);
        }
    }

    /// A tick for each transaction that is not ours and has touched the table of the calling thread's namespace. Whoever
    /// takes them must be who changes the table, and between two changes: otherwise a change of ours looks like another's
    /// until it has returned.
    pub(crate) fn subscribe(
        &self,
        netfilter: Netfilter,
    ) -> io::Result<impl Stream<Item = ()> + Send + use<>> {
        // SAFETY: an `OwnedFd` is open, is the only owner, and names the same descriptor until it is dropped, which the
        // `AsyncFd` that owns it does last.
        let socket = unsafe { AsyncFd::register_with_interest(open()?, Interest::READABLE) }?;
        let listener = Listener {
            socket,
            changes: self.clone(),
            netfilter,
            heard: Transactions::of(self.table),
        };
        self.state().heard = true;
        Ok(futures::stream::unfold(listener, |mut listener| async {
            match listener.altered().await {
                Ok(()) => Some(((), listener)),
                Err(error) => {
                    tracing::warn!(%error, "changes of the nft rules are not heard of any longer");
                    None
                }
            }
        }))
    }

    /// A panic elsewhere leaves it whole: its parts stand for themselves.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn own(&mut self, generation: u32) {
        if self.heard {
            self.own.insert(generation);
        }
    }

    /// Whether a transaction heard of is ours. They come in order, so those before it do not come any more.
    fn is_own(&mut self, generation: u32) -> bool {
        let own = self.own.remove(&generation);
        self.own.retain(|other| *other > generation);
        own
    }
}

struct Listener {
    socket: AsyncFd<OwnedFd>,
    changes: Changes,
    netfilter: Netfilter,
    heard: Transactions,
}

impl Listener {
    /// Waits until somebody else has changed the table, and takes note of it.
    async fn altered(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = |socket: &OwnedFd| Ok(recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?);
            match self.socket.async_io(Interest::READABLE, read).await {
                Ok(length) => {
                    let mut foreign = None;
                    // In order and to the end: each takes itself and the older ones off the list.
                    for made in self.heard.take(&buffer[..length]) {
                        if !self.changes.state().is_own(made.generation) {
                            foreign = Some(made);
                        }
                    }
                    if let Some(Made { process, .. }) = foreign {
                        tracing::warn!(
                            process,
                            table = self.changes.table,
                            "somebody else has changed a table of ours; writing it anew"
                        );
                        self.changes.suspect();
                        return Ok(());
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.heard = Transactions::of(self.changes.table);
                    let now = self.netfilter.generation().await?;
                    // What was lost may be no more than what we have written ourselves.
                    if self.changes.state().whole != Some(now) {
                        tracing::debug!(
                            table = self.changes.table,
                            "changes of the nft rules were missed; writing the table anew"
                        );
                        self.changes.suspect();
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Puts what is heard together again: whether the transaction under way has touched the table.
#[derive(Debug)]
struct Transactions {
    table: &'static str,
    touched: bool,
}

/// A transaction that has touched the table.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    generation: u32,
    /// Name of the process.
    process: Option<String>,
}

impl Transactions {
    fn of(table: &'static str) -> Self {
        Self {
            table,
            touched: false,
        }
    }

    /// Those that end in what one read gave.
    fn take(&mut self, bytes: &[u8]) -> Vec<Made> {
        let mut made = Vec::new();
        for message in messages(bytes) {
            match message.generation() {
                Some(generation) if std::mem::take(&mut self.touched) => made.push(Made {
                    generation,
                    process: message.process(),
                }),
                Some(_) => {}
                None => self.touched |= message.is_about_table(self.table),
            }
        }
        made
    }
}

fn open() -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkNetFilter,
    )?;
    // Beyond the system's limit only with rights that not every namespace gives. What does not fit is known to be missing.
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER_BYTES)?;
    }
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_of_ours_are_forgotten_once_heard_of() {
        let changes = Changes::of("warren");
        changes.wrote(7);
        assert!(!changes.state().is_own(7), "nobody listens yet");
        changes.state().heard = true;
        changes.wrote(8);
        changes.changed_pods(8);
        changes.changed_pods(20);
        assert_eq!(changes.state().whole, Some(9), "20 is not known to be whole");
        assert!(changes.state().is_own(9));
        assert!(!changes.state().is_own(10));
        assert!(changes.state().is_own(21));
        assert_eq!(changes.state().own, BTreeSet::new());
    }

    #[test]
    fn zero_is_no_generation() {
        assert_eq!((next(1), next(u32::MAX)), (2, 1));
    }
}
