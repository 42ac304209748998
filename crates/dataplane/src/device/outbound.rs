//! From the interface to peers.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;
use std::sync::Arc;

use super::Device;
use super::lending::Load;
use super::member::Member;
use super::reading::{Arrival, ReadError, Reader};
use super::slots::Slots;
use super::tables::Tables;
use crate::drops::DropReason;
use crate::endpoint::Endpoint;
use crate::ip;
use crate::noise::{Millis, Session, padded_len};
use crate::peer::Wish;
use crate::tun;
use crate::udp::send::{Batch, Outbox, Run, Trouble};

/// Datagrams on their way out, of one worker.
pub(super) struct Outbound<'d> {
    device: &'d Device,
    reader: Reader,
    slots: Slots,
    /// Slots in use: the first ones. Each has a datagram.
    datagrams: Vec<Range<usize>>,
    runs: Vec<Run>,
    /// Whose the runs are, in the same order.
    senders: Vec<Sender>,
    /// How the last packet went.
    route: Option<Route>,
    outbox: Outbox,
}

/// Who sends a run.
struct Sender {
    member: Arc<Member>,
    session: Arc<Session>,
    bytes: usize,
    /// Something in it is no keepalive.
    data: bool,
}

/// What a batch looks at again and again.
struct Scene {
    now: Millis,
    mtu: usize,
    tables: arc_swap::Guard<Arc<Tables>>,
}

impl Scene {
    fn of(device: &Device) -> Self {
        Self {
            now: device.now(),
            mtu: device.mtu(),
            tables: device.tables.load(),
        }
    }
}

/// How to reach a peer: valid for one batch.
struct Route {
    /// For packets to this address with this ECN field.
    key: (IpAddr, u8),
    member: Arc<Member>,
    session: Arc<Session>,
    endpoint: Endpoint,
}

/// Why a frame cannot be sent now.
enum NoRoute {
    /// It never will.
    Drop(DropReason),
    /// There is no session yet, or earlier packets still wait for one.
    Wait(Arc<Member>),
}

/// What a batch was.
pub(super) struct Carried {
    pub(super) load: Load,
    /// There was no frame more.
    pub(super) dry: bool,
}

impl<'d> Outbound<'d> {
    pub(super) fn new(device: &'d Device) -> Self {
        Self {
            slots: Slots::new(device.mtu()),
            reader: Reader::new(),
            device,
            datagrams: Vec::new(),
            runs: Vec::new(),
            senders: Vec::new(),
            route: None,
            outbox: Outbox::new(),
        }
    }

    /// Carries frames of the interface whenever it is lent, until it is gone. Gives the error that said so.
    pub(super) fn carry_frames(&mut self) -> io::Error {
        let device = self.device;
        loop {
            device.lending.await_loan();
            if let Err(error) = device.tun.wait() {
                tracing::debug!(%error, "waiting for the interface");
            }
            while let Some(_turn) = device.lending.turn() {
                match self.carry_batch(usize::MAX) {
                    Ok(batch) => {
                        if batch.load == Load::Much {
                            device.lending.note_much(device.now());
                        }
                        if batch.dry {
                            break;
                        }
                    }
                    Err(gone) => return gone,
                }
            }
        }
    }

    /// Carries one batch of what waits in the interface, at most so many frames. One caller at a time.
    ///
    /// # Errors
    /// The interface is gone.
    pub(super) fn carry_batch(&mut self, frames: usize) -> io::Result<Carried> {
        let mut scene: Option<Scene> = None;
        let mut carried = Carried {
            load: Load::Little,
            dry: false,
        };
        for _ in 0..frames {
            if !self.datagrams.is_empty()
                && self.datagrams.len() + self.reader.slots_wanted() > self.slots.count()
            {
                break;
            }
            match self
                .reader
                .read(&self.device.tun, &mut self.slots, self.datagrams.len())
            {
                Ok(arrival) => {
                    let scene = scene.get_or_insert_with(|| Scene::of(self.device));
                    self.carry(scene, &arrival);
                }
                Err(ReadError::Bad(error)) => {
                    tracing::debug!(%error, "frame of the interface");
                    self.device.drops.count(DropReason::NotIp);
                }
                Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    carried.dry = true;
                    break;
                }
                Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(ReadError::Io(error)) if tun::is_gone(&error) => return Err(error),
                Err(ReadError::Io(error)) => {
                    tracing::debug!(%error, "reading the interface");
                    self.device.drops.count(DropReason::InterfaceRefused);
                    break;
                }
            }
        }
        if let Some(scene) = scene {
            if self.datagrams.len() > 1 {
                carried.load = Load::Much;
            }
            self.flush(scene.now);
            self.route = None;
        }
        Ok(carried)
    }

    /// Makes data messages of a frame, or keeps its packets, or drops it.
    fn carry(&mut self, scene: &mut Scene, arrival: &Arrival) {
        let frame = &arrival.frame;
        let longest = frame.longest_packet();
        if longest > self.slots.room() {
            self.make_room(scene, longest);
        }
        let count = frame.segments();
        match self.find_route(scene) {
            Ok(()) => {}
            Err(NoRoute::Drop(reason)) => return self.device.drops.count_many(reason, count),
            Err(NoRoute::Wait(member)) => {
                let first = self.datagrams.len();
                for segment in 0..count {
                    let slot = if arrival.in_place { first + segment } else { first };
                    let device = self.device;
                    device.stage(&member, self.packet(arrival, segment, slot));
                }
                return self.device.after_staging(&member, scene.now);
            }
        }
        let first = self
            .route
            .as_ref()
            .and_then(|route| route.session.reserve(count as u64));
        let Some(first) = first else {
            // The key has sealed all it may. The handshake that replaces it began long ago.
            self.route = None;
            return self.device.drops.count_many(DropReason::NoSession, count);
        };
        let mut segments = 0..count;
        let mut counter = first;
        while let Some(segment) = segments.next() {
            if self.datagrams.len() == self.slots.count() {
                self.flush(scene.now);
            }
            let slot = self.datagrams.len();
            let len = self.packet(arrival, segment, slot).len();
            // A second one where there is room: two are sealed faster than one after the other.
            let second = (slot + 1 < self.slots.count()).then(|| segments.next()).flatten();
            if let Some(segment) = second {
                let second = self.packet(arrival, segment, slot + 1).len();
                self.seal(scene.mtu, &[len, second], counter);
                counter += 2;
            } else {
                self.seal(scene.mtu, &[len], counter);
                counter += 1;
            }
        }
    }

    /// Completes a packet of a frame in a slot.
    fn packet(&mut self, arrival: &Arrival, segment: usize, slot: usize) -> &[u8] {
        let frame = &arrival.frame;
        let payload = frame.segment_payload(segment);
        let header_len = frame.header_len();
        let packet = &mut self.slots.packet(slot)[..header_len + payload.len()];
        if !arrival.in_place {
            packet[header_len..].copy_from_slice(&self.reader.whole()[payload]);
        }
        frame.finish_segment(segment, self.reader.headers(), packet);
        packet
    }

    /// Makes data messages of the packets of these lengths, one or two, in the first free slots, by the present route.
    fn seal(&mut self, mtu: usize, lens: &[usize], first_counter: u64) {
        let Some(route) = &self.route else { return };
        let first = self.datagrams.len();
        for (slot, len) in (first..).zip(lens) {
            self.slots.packet(slot)[*len..padded_len(*len, mtu)].fill(0);
        }
        let sealed = match *lens {
            [one, other] => {
                let padded = [one, other].map(|len| padded_len(len, mtu));
                let messages = self.slots.two_messages(first, padded);
                route.session.seal_two(first_counter, messages)
            }
            _ => (first..)
                .zip(first_counter..)
                .zip(lens)
                .try_for_each(|((slot, counter), len)| {
                    let message = self.slots.message(slot, padded_len(*len, mtu));
                    route.session.seal(counter, message)
                }),
        };
        if let Err(error) = sealed {
            debug_assert!(false, "{error}");
            return self.device.drops.count_many(DropReason::SendFailed, lens.len());
        }
        for len in lens {
            self.queue(*len, padded_len(*len, mtu));
        }
    }

    /// Takes the message in the first free slot, of a packet of `len` bytes without padding, up into what is sent.
    fn queue(&mut self, len: usize, padded: usize) {
        let Some(route) = &self.route else { return };
        let slot = self.datagrams.len();
        let place = self.slots.place(slot, padded);
        let bytes = place.len();
        self.datagrams.push(place);
        match (self.runs.last_mut(), self.senders.last_mut()) {
            (Some(run), Some(sender))
                if Arc::ptr_eq(&sender.session, &route.session)
                    && (run.endpoint, run.class) == (route.endpoint, route.key.1) =>
            {
                run.datagrams.end += 1;
                sender.bytes += bytes;
                sender.data |= len > 0;
            }
            _ => {
                self.runs.push(Run {
                    endpoint: route.endpoint,
                    class: route.key.1,
                    datagrams: slot..slot + 1,
                });
                self.senders.push(Sender {
                    member: Arc::clone(&route.member),
                    session: Arc::clone(&route.session),
                    bytes,
                    data: len > 0,
                });
            }
        }
    }

    /// Finds out how the packet with these headers goes.
    fn find_route(&mut self, scene: &Scene) -> Result<(), NoRoute> {
        let header = ip::Header::of(self.reader.headers()).ok_or(NoRoute::Drop(DropReason::NotIp))?;
        let key = (header.destination, header.ecn);
        if self.route.as_ref().is_some_and(|route| route.key == key) {
            return Ok(());
        }
        self.route = None;
        let member = scene
            .tables
            .allowed_ips
            .lookup(header.destination)
            .ok_or(NoRoute::Drop(DropReason::NoPeerForDestination))?;
        if self.device.gate.load().is_none() {
            return Err(NoRoute::Drop(DropReason::NoPrivateKey));
        }
        // Asked before anything is kept: what cannot be sent must not begin a handshake.
        let endpoint = member.endpoint().ok_or(NoRoute::Drop(DropReason::NoEndpoint))?;
        let session = member
            .sending(scene.now)
            .filter(|_| !member.is_waiting())
            .ok_or_else(|| NoRoute::Wait(Arc::clone(member)))?;
        self.route = Some(Route {
            key,
            member: Arc::clone(member),
            session,
            endpoint,
        });
        Ok(())
    }

    /// Sends what was sealed, and empties the batch.
    pub(super) fn flush(&mut self, now: Millis) {
        let batch = Batch {
            memory: self.slots.memory(),
            datagrams: &self.datagrams,
            runs: &self.runs,
        };
        let sockets = self.device.sockets.load();
        let (device, senders) = (self.device, &self.senders);
        self.outbox.send(&sockets, batch, |run, trouble| match trouble {
            Trouble::Lost(count) => device.drops.count_many(DropReason::SendFailed, count),
            Trouble::SourceGone => {
                if let Some(sender) = senders.get(run) {
                    sender.member.forget_source();
                }
            }
        });
        for sender in self.senders.drain(..) {
            let wish = sender
                .member
                .sent_run(now, &sender.session, sender.bytes, sender.data);
            if wish == Wish::Initiate {
                device.mailbox.want(&sender.member);
            }
        }
        self.runs.clear();
        self.datagrams.clear();
    }

    /// Adds a packet that lies elsewhere to the batch; an empty one is a keepalive.
    pub(super) fn add(&mut self, now: Millis, member: &Arc<Member>, packet: &[u8]) -> Result<(), DropReason> {
        if packet.len() > self.slots.room() {
            self.flush(now);
            self.slots = Slots::new(self.device.mtu().max(packet.len()));
        }
        if self.datagrams.len() == self.slots.count() {
            self.flush(now);
        }
        let header = ip::Header::of(packet);
        let endpoint = member.endpoint().ok_or(DropReason::NoEndpoint)?;
        let session = member.sending(now).ok_or(DropReason::NoSession)?;
        let counter = session.reserve(1).ok_or(DropReason::NoSession)?;
        self.route = Some(Route {
            key: header.map_or((Ipv6Addr::UNSPECIFIED.into(), 0), |header| {
                (header.destination, header.ecn)
            }),
            member: Arc::clone(member),
            session,
            endpoint,
        });
        self.slots.packet(self.datagrams.len())[..packet.len()].copy_from_slice(packet);
        self.seal(self.device.mtu(), &[packet.len()], counter);
        Ok(())
    }

    /// Makes the slots larger: the interface's MTU has grown since it was last looked at.
    fn make_room(&mut self, scene: &mut Scene, longest: usize) {
        self.flush(scene.now);
        self.device.look_at_mtu();
        scene.mtu = self.device.mtu();
        self.slots = Slots::new(scene.mtu.max(longest));
    }
}
