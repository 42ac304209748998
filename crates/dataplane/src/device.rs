//! A WireGuard device: its key, its sockets, its interface and its peers, and the way of a packet through them.
//!
//! ```text
//!   interface ─> reading ─> slots ─> outbound ─> UDP ─> peers
//!                                        ^
//!                        control: handshakes, timers <─ mailbox
//!                                        ^
//!   interface <────────── inbound <─ UDP <┴─────────── peers
//! ```
//!
//! | module | what it is about |
//! |---|---|
//! | `threads`, `carrier`, `lending`, `waiting`, `turn` | who runs what, and who waits for what |
//! | `reading`, `slots`, `outbound` | frames of the interface become datagrams to peers |
//! | `inbound` | datagrams become frames on the interface |
//! | `mailbox`, `control` | handshakes and timers, away from the way of the packets |
//! | `tables`, `member`, `indices` | peers, by address and key; their sessions, by index |
//! | `configure` | changing and describing the device while packets flow |
//!
//! A worker thread carries packets in batches. For each batch it reads the clock once and takes one look at the
//! tables, which are never changed but replaced. Locks (a peer's endpoint, a session's window) are taken for a run of packets,
//! not for each; only a packet that has to wait for a session is copied into memory of its own.

mod carrier;
mod configure;
mod control;
mod inbound;
mod indices;
mod lending;
mod mailbox;
mod member;
mod outbound;
mod reading;
mod slots;
mod tables;
pub(crate) mod threads;
mod turn;
mod waiting;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};

use self::configure::Configured;
use self::indices::Indices;
use self::lending::Lending;
use self::mailbox::Mailbox;
use self::member::Member;
use self::tables::Tables;
use crate::drops::{DropCounters, DropReason};
use crate::noise::{Gate, Millis};
use crate::offload::VnetHeader;
use crate::peer::Wish;
use crate::peer::staged::StagedBudget;
use crate::tun::Tun;
use crate::udp::Sockets;

/// Bytes of packets that wait for sessions, of all peers together.
const STAGED_BYTES: usize = 8 << 20;

/// A device.
pub struct Device {
    tun: Tun,
    started: Instant,
    /// The interface's MTU as last seen.
    mtu: AtomicUsize,
    merging: Merging,
    sockets: ArcSwap<Sockets>,
    gate: ArcSwapOption<Gate>,
    tables: ArcSwap<Tables>,
    indices: Indices,
    mailbox: Mailbox,
    staged: StagedBudget,
    drops: DropCounters,
    lending: Lending,
    /// Held by whoever changes the device.
    configuring: Mutex<Configured>,
}

/// Which long frames the kernel takes from us.
struct Merging {
    streams: AtomicBool,
    datagrams: AtomicBool,
}

impl Merging {
    /// The kernel has refused a frame of this kind.
    fn refused(&self, header: &VnetHeader) {
        let kind = if header.gso_type == VnetHeader::GSO_UDP_L4 {
            &self.datagrams
        } else {
            &self.streams
        };
        if kind.swap(false, Ordering::Relaxed) {
            tracing::info!(
                kind = header.gso_type,
                "the kernel refuses long frames of this kind: writing packets one by one"
            );
        }
    }
}

impl Device {
    /// A device on an open interface, without key and peers, listening on any free port.
    pub fn new(tun: Tun) -> io::Result<Self> {
        Ok(Self {
            started: Instant::now(),
            mtu: AtomicUsize::new(tun.mtu()?),
            merging: Merging {
                streams: AtomicBool::new(tun.has_headers()),
                datagrams: AtomicBool::new(tun.takes_datagrams()),
            },
            tun,
            sockets: ArcSwap::from_pointee(Sockets::bind(0, 0)?),
            gate: ArcSwapOption::empty(),
            tables: ArcSwap::default(),
            indices: Indices::default(),
            mailbox: Mailbox::default(),
            staged: StagedBudget::new(STAGED_BYTES),
            drops: DropCounters::default(),
            lending: Lending::default(),
            configuring: Mutex::default(),
        })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        self.tun.name()
    }

    /// What was dropped.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// The time since the device started.
    fn now(&self) -> Millis {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn gate(&self) -> Option<Arc<Gate>> {
        self.gate.load_full()
    }

    fn mtu(&self) -> usize {
        self.mtu.load(Ordering::Relaxed)
    }

    fn look_at_mtu(&self) {
        if let Ok(mtu) = self.tun.mtu() {
            self.mtu.store(mtu, Ordering::Relaxed);
        }
    }

    /// Keeps a packet until its peer has a session.
    fn stage(&self, member: &Member, packet: &[u8]) {
        member.set_waiting(true);
        let dropped = member.stage(packet.into(), &self.staged);
        self.drops.count_many(DropReason::NoSession, dropped);
    }

    /// Sees to it that packets just staged will be sent.
    fn after_staging(&self, member: &Arc<Member>, now: Millis) {
        // There may be a session by now whose establishment has missed them.
        if member.want_handshake(now) == Wish::Initiate || member.sending(now).is_some() {
            self.mailbox.want(member);
        }
    }
}
