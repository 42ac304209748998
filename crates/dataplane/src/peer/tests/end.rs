//! One end: a device with one peer, without sockets and threads. Does with a peer what a device does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::drops::DropReason;
use crate::endpoint::Endpoint;
use crate::noise::testing::{TestRng, gate, public};
use crate::noise::{Admission, Gate, MessageKind, Millis, Session, Tai64n, padded_len};
use crate::peer::staged::StagedBudget;
use crate::peer::{Peer, Wish};

/// Its datagrams.
pub(super) type Datagrams = Vec<Vec<u8>>;

pub(super) struct End {
    pub(super) gate: Gate,
    pub(super) peer: Peer,
    pub(super) budget: StagedBudget,
    pub(super) rng: TestRng,
    /// Sessions by local index; `None`: a handshake.
    pub(super) by_index: BTreeMap<u32, Option<Arc<Session>>>,
    next_index: u32,
    /// What the clock on the wall said when this end's own time began.
    pub(super) wall_at_start: Duration,
    pub(super) under_load: bool,
    /// Where the other end's datagrams come from.
    pub(super) source: SocketAddr,
    pub(super) received: Vec<Vec<u8>>,
    pub(super) drops: Vec<DropReason>,
    /// When it has sent initiations.
    pub(super) initiations: Vec<Millis>,
    /// When it has sent keepalives.
    pub(super) keepalives: Vec<Millis>,
    /// Sessions that it has confirmed or completed.
    pub(super) handshakes: usize,
    pub(super) gave_up: usize,
    pub(super) dropped_staged: usize,
}

const MTU: usize = 1420;

impl End {
    /// An end whose private key is made of one byte, as the other's.
    pub(super) fn new(own: u8, other: u8, seed: u64) -> Self {
        let own_gate = gate(own);
        let source = "192.0.2.1:51820".parse().unwrap();
        let peer = Peer::new(public(&gate(other)), Some(own_gate.local()));
        peer.set_endpoint(Endpoint {
            to: source,
            from: None,
        });
        Self {
            gate: own_gate,
            peer,
            budget: StagedBudget::new(1 << 20),
            rng: TestRng::new(seed),
            by_index: BTreeMap::new(),
            next_index: u32::from(own) << 16,
            wall_at_start: Duration::from_secs(1_700_000_000),
            under_load: false,
            source,
            received: Vec::new(),
            drops: Vec::new(),
            initiations: Vec::new(),
            keepalives: Vec::new(),
            handshakes: 0,
            gave_up: 0,
            dropped_staged: 0,
        }
    }

    /// Sends a packet, or keeps it and begins a handshake.
    pub(super) fn send(&mut self, now: Millis, packet: &[u8]) -> Datagrams {
        let Some(session) = self.peer.sending(now) else {
            self.dropped_staged += self.peer.stage(packet.into(), &self.budget);
            return match self.peer.want_handshake(now) {
                Wish::Initiate => self.initiate(now),
                Wish::Nothing => Vec::new(),
            };
        };
        self.seal(now, &session, packet)
    }

    /// Takes in a datagram. Gives the answers.
    pub(super) fn receive(&mut self, now: Millis, datagram: &[u8]) -> Datagrams {
        self.try_receive(now, datagram).unwrap_or_else(|reason| {
            self.drops.push(reason);
            Vec::new()
        })
    }

    pub(super) fn try_receive(&mut self, now: Millis, datagram: &[u8]) -> Result<Datagrams, DropReason> {
        let kind = MessageKind::of(datagram)?;
        if matches!(kind, MessageKind::Initiation | MessageKind::Response) {
            let admission = self
                .gate
                .admit(now, self.source, datagram, self.under_load, &mut self.rng)?;
            if let Admission::Cookie(reply) = admission {
                self.drops.push(DropReason::RateLimited);
                return Ok(vec![reply.to_vec()]);
            }
        }
        match kind {
            MessageKind::Initiation => {
                let initiation = self.gate.local().open_initiation(datagram)?;
                if initiation.initiator() != self.peer.key().as_bytes() {
                    return Err(DropReason::UnknownPeer);
                }
                let index = self.index();
                let answer = self.peer.take_initiation(now, initiation, index, &mut self.rng)?;
                self.by_index.insert(index, Some(answer.session));
                Ok(vec![answer.response.to_vec()])
            }
            MessageKind::Response => {
                let index = kind.receiver(datagram).unwrap();
                let session = self.peer.take_response(now, self.gate.local(), datagram)?;
                self.by_index.insert(index, Some(Arc::clone(&session)));
                self.handshakes += 1;
                Ok(self.send_staged(now, &session))
            }
            MessageKind::CookieReply => self.peer.take_cookie(now, datagram).map(|()| Vec::new()),
            MessageKind::Data => self.take_data(now, datagram),
        }
    }

    fn take_data(&mut self, now: Millis, datagram: &[u8]) -> Result<Datagrams, DropReason> {
        let index = MessageKind::Data.receiver(datagram).unwrap();
        let session = self.by_index.get(&index).cloned().flatten();
        let session = session.ok_or(DropReason::UnknownSession)?;
        let mut datagram = datagram.to_vec();
        let opened = session.open(now, &mut datagram)?;
        session.accept(opened.counter)?;
        let data = !opened.packet.is_empty();
        let heard = self.peer.received_run(now, &session, datagram.len(), data);
        if data {
            self.received.push(datagram[opened.packet].to_vec());
        }
        let mut out = Vec::new();
        if heard.confirmed {
            self.handshakes += 1;
            let session = self.peer.sending(now).unwrap();
            for packet in self.peer.take_staged(&self.budget) {
                out.extend(self.seal(now, &session, &packet));
            }
        }
        if heard.initiate {
            out.extend(self.initiate(now));
        }
        Ok(out)
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Millis) -> Datagrams {
        let due = self.peer.tick(now);
        for index in due.retired {
            assert!(self.by_index.remove(&index).is_some(), "an index that never was");
        }
        let mut out = Vec::new();
        if due.keepalive {
            let session = self.peer.sending(now).unwrap();
            out.extend(self.seal(now, &session, &[]));
        }
        if due.gave_up {
            self.gave_up += 1;
            self.dropped_staged += self.peer.take_staged(&self.budget).len();
        }
        if due.initiate {
            out.extend(self.initiate(now));
        }
        out
    }

    /// The packets it has received, with their padding.
    pub(super) fn take_received(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.received)
    }

    pub(super) fn initiate(&mut self, now: Millis) -> Datagrams {
        let index = self.index();
        let wall = Tai64n::from_unix(self.wall_at_start + Duration::from_millis(now));
        let message = self
            .peer
            .begin_handshake(now, self.gate.local(), index, wall, &mut self.rng);
        if message.is_some() {
            self.by_index.insert(index, None);
            self.initiations.push(now);
        }
        message.into_iter().map(|message| message.to_vec()).collect()
    }

    fn send_staged(&mut self, now: Millis, session: &Arc<Session>) -> Datagrams {
        let mut staged = self.peer.take_staged(&self.budget);
        if staged.is_empty() {
            staged.push_back(Box::default());
        }
        staged
            .into_iter()
            .flat_map(|packet| self.seal(now, session, &packet))
            .collect()
    }

    fn seal(&mut self, now: Millis, session: &Session, packet: &[u8]) -> Datagrams {
        let counter = session.reserve(1).unwrap();
        let mut slot = vec![0; 16];
        slot.extend(packet);
        slot.resize(16 + padded_len(packet.len(), MTU) + 16, 0);
        session.seal(counter, &mut slot).unwrap();
        if packet.is_empty() {
            self.keepalives.push(now);
        }
        let wish = self.peer.sent_run(now, session, slot.len(), !packet.is_empty());
        let mut out = vec![slot];
        if wish == Wish::Initiate {
            out.extend(self.initiate(now));
        }
        out
    }

    fn index(&mut self) -> u32 {
        self.next_index += 1;
        self.next_index
    }
}
