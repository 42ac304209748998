//! The thread that shakes hands and keeps time. Floods of handshake messages keep this one busy, not the workers.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand_core::OsRng;

use super::Device;
use super::mailbox::{Letter, MESSAGES};
use super::member::Member;
use super::outbound::Outbound;
use crate::drops::DropReason;
use crate::endpoint::Endpoint;
use crate::noise::{Admission, Gate, MessageKind, Millis, Tai64n};
use crate::udp::send::{Batch, Outbox, Run, Trouble};

/// How often timers are looked at. They are meant in seconds.
const TICK: Duration = Duration::from_millis(200);

/// How often the interface's MTU is looked at, in ticks.
const LOOK_AT_MTU: u32 = 5;

/// How long it rests between two helpings of handshake messages under load. What comes meanwhile costs no wake-up, and
/// however much comes, it takes no more than a part of a processor from the workers.
const REST: Duration = Duration::from_millis(1);

/// TOS or traffic class of handshake messages: AF41, as the kernel's.
const HANDSHAKE_CLASS: u8 = 0x88;

/// What the thread keeps.
pub(super) struct Control<'d> {
    device: &'d Device,
    outbox: Outbox,
    outbound: Outbound<'d>,
    cookies: Cookies,
}

/// Cookies on their way out. Under a flood there is one for almost each message: they leave together.
#[derive(Default)]
struct Cookies {
    memory: Vec<u8>,
    datagrams: Vec<Range<usize>>,
    runs: Vec<Run>,
}

impl<'d> Control<'d> {
    pub(super) fn new(device: &'d Device) -> Self {
        Self {
            device,
            outbox: Outbox::new(),
            outbound: Outbound::new(device),
            cookies: Cookies::default(),
        }
    }

    /// Works until the process ends.
    pub(super) fn work(&mut self) -> ! {
        let mut ticks = 0_u32;
        let mut next_tick = Instant::now() + TICK;
        let mut letters = Vec::new();
        loop {
            let (wanted, left) = self.device.mailbox.take(next_tick, &mut letters);
            let now = self.device.now();
            for member in wanted {
                self.look_after(&member, now);
            }
            let mut left = left + letters.len();
            for letter in letters.drain(..) {
                left -= 1;
                if let Err(reason) = self.take_in(&letter, now, left) {
                    tracing::trace!(source = %letter.from.to, reason = reason.name(), "handshake message dropped");
                    self.device.drops.count(reason);
                }
            }
            self.send_cookies();
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                ticks = ticks.wrapping_add(1);
                if ticks.is_multiple_of(LOOK_AT_MTU) {
                    self.device.look_at_mtu();
                }
                self.tick();
            }
            if self.is_under_load() {
                std::thread::sleep(REST);
            }
        }
    }

    fn is_under_load(&self) -> bool {
        let now = self.device.now();
        self.device
            .gate()
            .is_some_and(|gate| gate.under_load(now, 0, MESSAGES))
    }

    /// Does what is due at each peer.
    fn tick(&mut self) {
        let now = self.device.now();
        let tables = self.device.tables.load_full();
        for member in tables.by_key.values() {
            let due = member.tick(now);
            self.device.indices.release(&due.retired);
            if due.gave_up {
                let dropped = member.take_staged(&self.device.staged).len();
                self.device.drops.count_many(DropReason::NoSession, dropped);
                member.set_waiting(false);
            }
            if due.initiate {
                self.initiate(member, now);
            }
            if due.keepalive {
                self.keep_alive(member, now);
            }
        }
        self.outbound.flush(now);
    }

    /// Begins a handshake that a peer wants, and sends what waits for it if there is a session by now.
    fn look_after(&mut self, member: &Arc<Member>, now: Millis) {
        self.send_waiting(member, now);
        self.initiate(member, now);
    }

    /// Sends an initiation if one is wanted and due.
    fn initiate(&mut self, member: &Arc<Member>, now: Millis) {
        let Some(gate) = self.device.gate() else { return };
        let Some(endpoint) = member.endpoint() else { return };
        let index = self.device.indices.reserve(member);
        let wall_clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let initiation = member.begin_handshake(
            now,
            gate.local(),
            index,
            Tai64n::from_unix(wall_clock),
            &mut OsRng,
        );
        match initiation {
            Some(initiation) => {
                tracing::debug!(peer = %member.key().short(), endpoint = %endpoint.to, "handshake begun");
                self.send(&initiation, endpoint, Some(member));
            }
            None => self.device.indices.release(&[index]),
        }
        self.device.forget_stranger(member);
    }

    /// Sends an empty message.
    fn keep_alive(&mut self, member: &Arc<Member>, now: Millis) {
        // A session that has ended meanwhile needs none, and a peer that cannot be reached gets none.
        if self.outbound.add(now, member, &[]).is_ok() {
            tracing::trace!(peer = %member.key().short(), "keepalive");
        }
    }

    /// Sends what waited for a session, if there is one, and then lets later packets go directly.
    fn send_waiting(&mut self, member: &Arc<Member>, now: Millis) {
        while member.is_waiting() && member.sending(now).is_some() {
            let mut staged = member.take_staged(&self.device.staged);
            if staged.is_empty() {
                member.set_waiting(false);
                // One that was put there just before it was said that none waits.
                staged = member.take_staged(&self.device.staged);
                if staged.is_empty() {
                    return;
                }
                member.set_waiting(true);
            }
            for packet in staged {
                if let Err(reason) = self.outbound.add(now, member, &packet) {
                    self.device.drops.count(reason);
                }
            }
            self.outbound.flush(now);
        }
    }

    /// Takes in a handshake message. `left`: how many more wait.
    fn take_in(&mut self, letter: &Letter, now: Millis, left: usize) -> Result<(), DropReason> {
        let gate = self.device.gate().ok_or(DropReason::NoPrivateKey)?;
        let message = letter.message();
        let kind = MessageKind::of(message)?;
        match kind {
            MessageKind::Initiation | MessageKind::Response => {
                let under_load = gate.under_load(now, left, MESSAGES);
                match gate.admit(now, letter.from.to, message, under_load, &mut OsRng)? {
                    Admission::Pass => gate.count(now),
                    Admission::Cookie(cookie) => {
                        self.cookies.add(&cookie, letter.from);
                        return Err(DropReason::RateLimited);
                    }
                }
                if kind == MessageKind::Initiation {
                    self.answer(&gate, letter, now)
                } else {
                    self.complete(&gate, letter, now)
                }
            }
            MessageKind::CookieReply => self.addressed(kind, message)?.take_cookie(now, message),
            MessageKind::Data => Err(DropReason::Malformed),
        }
    }

    /// Answers an initiation.
    fn answer(&mut self, gate: &Gate, letter: &Letter, now: Millis) -> Result<(), DropReason> {
        let initiation = gate.local().open_initiation(letter.message())?;
        let key = warren_model::PublicKey::from_bytes(*initiation.initiator()).ok();
        let tables = self.device.tables.load();
        let member = key
            .and_then(|key| tables.by_key.get(&key))
            .ok_or(DropReason::UnknownPeer)?;
        let index = self.device.indices.reserve(member);
        let answer = member
            .take_initiation(now, initiation, index, &mut OsRng)
            .inspect_err(|_| self.device.indices.release(&[index]))?;
        self.device.indices.establish(&answer.session);
        tracing::debug!(peer = %member.key().short(), from = %letter.from.to, "handshake answered");
        // To where the initiation came from, which is no endpoint until the session is confirmed.
        self.send(&answer.response, letter.from, Some(member));
        self.device.forget_stranger(member);
        Ok(())
    }

    /// Completes a handshake that we began.
    fn complete(&mut self, gate: &Gate, letter: &Letter, now: Millis) -> Result<(), DropReason> {
        let member = self.addressed(MessageKind::Response, letter.message())?;
        let session = member.take_response(now, gate.local(), letter.message())?;
        self.device.indices.establish(&session);
        member.set_endpoint(letter.from);
        tracing::debug!(peer = %member.key().short(), endpoint = %letter.from.to, "handshake completed");
        // The peer uses the session only once it has heard something by it.
        if member.is_waiting() {
            self.send_waiting(&member, now);
        } else {
            self.keep_alive(&member, now);
            self.outbound.flush(now);
        }
        self.device.forget_stranger(&member);
        Ok(())
    }

    /// The peer that a message is addressed to.
    fn addressed(&self, kind: MessageKind, message: &[u8]) -> Result<Arc<Member>, DropReason> {
        let holder = kind
            .receiver(message)
            .and_then(|index| self.device.indices.find(index));
        holder
            .map(|holder| holder.member)
            .ok_or(DropReason::UnknownSession)
    }

    /// Sends the cookies that have come together.
    fn send_cookies(&mut self) {
        let Cookies {
            memory,
            datagrams,
            runs,
        } = &mut self.cookies;
        if runs.is_empty() {
            return;
        }
        let batch = Batch {
            memory,
            datagrams,
            runs,
        };
        let device = self.device;
        self.outbox.send(&device.sockets.load(), batch, |_, trouble| {
            if let Trouble::Lost(count) = trouble {
                device.drops.count_many(DropReason::SendFailed, count);
            }
        });
        memory.clear();
        datagrams.clear();
        runs.clear();
    }

    /// Sends a handshake message.
    fn send(&mut self, message: &[u8], endpoint: Endpoint, member: Option<&Arc<Member>>) {
        let run = Run {
            endpoint,
            class: HANDSHAKE_CLASS,
            datagrams: 0..1,
        };
        let place = 0..message.len();
        let batch = Batch {
            memory: message,
            datagrams: std::slice::from_ref(&place),
            runs: &[run],
        };
        let device = self.device;
        self.outbox
            .send(&device.sockets.load(), batch, |_, trouble| match trouble {
                Trouble::Lost(count) => device.drops.count_many(DropReason::SendFailed, count),
                Trouble::SourceGone => {
                    if let Some(member) = member {
                        member.forget_source();
                    }
                }
            });
    }
}

impl Cookies {
    fn add(&mut self, cookie: &[u8], to: Endpoint) {
        let (start, number) = (self.memory.len(), self.datagrams.len());
        self.memory.extend_from_slice(cookie);
        self.datagrams.push(start..self.memory.len());
        self.runs.push(Run {
            endpoint: to,
            class: HANDSHAKE_CLASS,
            datagrams: number..number + 1,
        });
    }
}

impl Device {
    /// Takes back what a peer was given that has been removed meanwhile.
    fn forget_stranger(&self, member: &Arc<Member>) {
        let tables = self.tables.load();
        let known = tables.by_key.get(member.key());
        if known.is_none_or(|known| !Arc::ptr_eq(known, member)) {
            member.forget_sessions();
            self.indices.release_all(member);
        }
    }
}
