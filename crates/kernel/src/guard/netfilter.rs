//! What is asked of nf_tables by netlink and not by the nft program, because each ADD and DEL of a pod asks it: the
//! generation of the rules, the counters, and the elements of the sets of open pods (`nfnetlink.h`, `nf_tables.h`).
//!
//! Starting nft takes more milliseconds than all else that attaching a pod takes. The kernel numbers the generations of
//! its rules: while the number stands, nobody has changed anything, and what nft has listed once need not be listed again.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use warren_plan::OpenPod;

use super::DropCounter;
use super::message::socket::NetfilterSocket;
use super::message::{Batch, Message, Request};
use super::render::TABLE;
use crate::netlink::DUMP_ATTEMPTS;

/// What one look finds, all of one generation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// The generation of all rules of the network namespace, whoever's.
    pub(super) generation: u32,
    /// The counters of the table; empty without a table.
    pub(super) counters: Vec<DropCounter>,
    /// What is in the sets of open pods, empty without these sets; `None` if nothing has changed since the generation known.
    pub(super) pods: Option<BTreeSet<OpenPod>>,
}

/// A netlink socket of nf_tables in one network namespace. Requests go one at a time.
#[derive(Debug, Clone)]
pub(crate) struct Netfilter {
    socket: Arc<Mutex<Socket>>,
}

#[derive(Debug)]
struct Socket {
    netfilter: NetfilterSocket,
    sequence: u32,
}

/// The generation that the next transaction makes. Zero is left out.
pub(crate) fn next(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}

impl Netfilter {
    /// Opens a socket in the namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket {
            netfilter: NetfilterSocket::open()?,
            sequence: 0,
        };
        Ok(Self {
            socket: Arc::new(Mutex::new(socket)),
        })
    }

    /// The generation of the rules now.
    pub(crate) async fn generation(&self) -> io::Result<u32> {
        self.with(Socket::generation).await
    }

    /// The counters of a table; none without it.
    pub(crate) async fn counters(&self, table: &'static str) -> io::Result<Vec<DropCounter>> {
        self.with(move |socket| {
            for _ in 0..DUMP_ATTEMPTS {
                let mut counters = Vec::new();
                let asked = socket.ask(Request::counters(table), |message| {
                    counters.extend(message.counter())
                });
                match missing_is_empty(asked) {
                    Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                    other => return other.map(|()| counters),
                }
            }
            Err(Errno::EAGAIN.into())
        })
        .await
    }

    /// Looks at counters, and at the open pods unless the rules are of the generation known.
    pub(super) async fn look(&self, known: Option<u32>) -> io::Result<Look> {
        self.with(move |socket| socket.look(known)).await
    }

    /// Changes the open pods in one transaction, provided that the rules are still of this generation. Returns the
    /// generation after it, if nobody else has changed anything since; `None` if that cannot be said.
    ///
    /// # Errors
    /// `ERESTART`: the rules are of another generation; nothing was changed then, as after any error.
    pub(super) async fn change_pods(
        &self,
        generation: u32,
        open: Vec<OpenPod>,
        close: Vec<OpenPod>,
    ) -> io::Result<Option<u32>> {
        self.with(move |socket| {
            socket.change_pods(generation, &open, &close)?;
            let next = next(generation);
            Ok((socket.generation()? == next).then_some(next))
        })
        .await
    }

    /// A transaction that removes something waits for all processors, so it is not for the threads of the runtime.
    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Socket) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let socket = Arc::clone(&self.socket);
        // A panic elsewhere leaves the socket usable: answers are told apart by their sequence number.
        let act = move || act(&mut socket.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(act).await.map_err(io::Error::other)?
    }
}

impl Socket {
    fn generation(&mut self) -> io::Result<u32> {
        let mut generation = None;
        self.ask(Request::generation(), |message| {
            generation = generation.or(message.generation());
        })?;
        generation.ok_or_else(|| io::Error::from(Errno::ENOMSG))
    }

    fn look(&mut self, known: Option<u32>) -> io::Result<Look> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut look = Look {
                generation: self.generation()?,
                ..Look::default()
            };
            let counters = &mut look.counters;
            missing_is_empty(self.ask(Request::counters(TABLE), |message| {
                counters.extend(message.counter());
            }))?;
            if known != Some(look.generation) {
                let mut pods = BTreeSet::new();
                for v6 in [false, true] {
                    missing_is_empty(self.ask(Request::pods(v6), |message| pods.extend(message.pods(v6))))?;
                }
                look.pods = Some(pods);
            }
            if self.generation()? == look.generation {
                return Ok(look);
            }
        }
        Err(Errno::EAGAIN.into())
    }

    /// Sends a request and takes its answers, to the last.
    fn ask(&mut self, request: Request, mut each: impl FnMut(&Message<'_>)) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.netfilter.send(&request.bytes(sequence))?;
        self.netfilter.receive(|message| {
            if message.sequence() != sequence {
                return Ok(false);
            }
            if let Some(errno) = message.error() {
                return if errno == 0 {
                    Ok(true)
                } else {
                    Err(io::Error::from_raw_os_error(errno))
                };
            }
            if message.is_interrupted() {
                return Err(Errno::EAGAIN.into());
            }
            each(message);
            Ok(message.is_done() || !request.is_dump())
        })
    }

    fn change_pods(&mut self, generation: u32, open: &[OpenPod], close: &[OpenPod]) -> io::Result<()> {
        let first = self.sequence.wrapping_add(1);
        let mut batch = Batch::new(first, generation);
        batch.open(open);
        batch.close(close);
        let Some((bytes, last_change, last)) = batch.finish() else {
            return Ok(());
        };
        self.sequence = last;
        self.netfilter.send(&bytes)?;
        self.netfilter.receive(|message| {
            let of_batch = message.sequence().wrapping_sub(first) <= last.wrapping_sub(first);
            match message.error() {
                // Errors come before what the last change is answered, and mean that nothing was changed.
                Some(errno) if of_batch && errno != 0 => Err(io::Error::from_raw_os_error(errno)),
                Some(_) => Ok(message.sequence() == last_change),
                None => Ok(false),
            }
        })
    }
}

/// Without the table, or without the set, there is nothing in it.
fn missing_is_empty(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
