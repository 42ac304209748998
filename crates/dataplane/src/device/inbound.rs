//! From peers to the interface.

use std::io::{self, IoSlice};
use std::net::{IpAddr, UdpSocket};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Device;
use super::indices::Holder;
use super::lending::Load;
use super::mailbox::Letter;
use super::member::Member;
use super::tables::Tables;
use crate::drops::DropReason;
use crate::endpoint::Endpoint;
use crate::ip::{self, Decapsulated};
use crate::noise::{MessageKind, Millis, Opened, Session};
use crate::offload::merge::MAX_PIECES;
use crate::offload::{Merge, VnetHeader, unmerge};
use crate::udp::receive::{Inbox, Message};

/// Datagrams on their way in, of one worker.
pub(super) struct Inbound<'d> {
    device: &'d Device,
    inbox: Inbox,
    flows: Flows,
    /// The session that the last datagram was for; forgotten after each batch.
    session: Option<Established>,
    /// Where the data messages of a run are.
    sealed: Vec<Range<usize>>,
    /// What was opened of a run: counter, and the packet's place.
    opened: Vec<(u64, Range<usize>)>,
}

/// A session and whose it is.
#[derive(Clone)]
struct Established {
    member: Arc<Member>,
    session: Arc<Session>,
}

/// Packets on their way to the interface.
struct Flows {
    merge: Merge,
    /// The source address that was looked up last, and whether it was this peer's.
    last_source: Option<(IpAddr, Arc<Member>, bool)>,
}

/// What a batch looks at again and again.
struct Scene {
    now: Millis,
    tables: arc_swap::Guard<Arc<Tables>>,
}

impl<'d> Inbound<'d> {
    pub(super) fn new(device: &'d Device) -> Self {
        Self {
            device,
            inbox: Inbox::new(),
            flows: Flows {
                merge: Merge::new(device.merging.datagrams.load(Ordering::Relaxed)),
                last_source: None,
            },
            session: None,
            sealed: Vec::new(),
            opened: Vec::new(),
        }
    }

    /// Receives what waits in a socket and carries it to the interface.
    ///
    /// # Errors
    /// WouldBlock where nothing waits. What the kernel says of the socket; it may be about a datagram sent earlier.
    pub(super) fn carry_messages(&mut self, socket: &UdpSocket) -> io::Result<Load> {
        self.inbox.receive(socket)?;
        let scene = Scene {
            now: self.device.now(),
            tables: self.device.tables.load(),
        };
        let load = match self.inbox.message(0) {
            Some(message) if self.inbox.len() == 1 && message.datagrams().nth(1).is_none() => Load::Little,
            _ => Load::Much,
        };
        for at in 0..self.inbox.len() {
            if let Some(message) = self.inbox.message(at) {
                self.take(&scene, &message);
            }
        }
        self.session = None;
        self.flows.last_source = None;
        self.write();
        Ok(load)
    }

    /// Takes in the datagrams of one message.
    fn take(&mut self, scene: &Scene, message: &Message) {
        let mut run: Option<Established> = None;
        for place in message.datagrams() {
            let datagram = &mut self.inbox.memory()[place.clone()];
            let kind = MessageKind::of(datagram);
            let index = match kind.map(|kind| (kind, kind.receiver(datagram))) {
                Ok((MessageKind::Data, Some(index))) => index,
                Ok(_) => {
                    self.device.post(datagram, endpoint_of(message));
                    continue;
                }
                Err(reason) => {
                    self.device.drops.count(reason);
                    continue;
                }
            };
            if run.as_ref().is_none_or(|run| run.session.local_index() != index) {
                if let Some(run) = run.take() {
                    self.finish_run(scene, message, &run);
                }
                run = self.established(index);
            }
            if run.is_some() {
                self.sealed.push(place);
            } else {
                self.device.drops.count(DropReason::UnknownSession);
            }
        }
        if let Some(run) = run {
            self.finish_run(scene, message, &run);
        }
    }

    /// Opens what came for one session. Gives the bytes of what is authentic.
    fn open_run(&mut self, now: Millis, session: &Session) -> usize {
        let memory = self.inbox.memory();
        let mut bytes = 0;
        let mut take = |place: &Range<usize>, opened: Result<Opened, DropReason>| match opened {
            Ok(opened) => {
                bytes += place.len();
                let start = place.start + opened.packet.start;
                self.opened
                    .push((opened.counter, start..start + opened.packet.len()));
            }
            Err(reason) => self.device.drops.count(reason),
        };
        // Two are opened faster than one after the other.
        let (pairs, last) = self.sealed.as_chunks::<2>();
        for [place, other] in pairs {
            let (before, after) = memory.split_at_mut(other.start);
            let datagrams = [&mut before[place.clone()], &mut after[..other.len()]];
            let [one, second] = session.open_two(now, datagrams);
            take(place, one);
            take(other, second);
        }
        for place in last {
            take(place, session.open(now, &mut memory[place.clone()]));
        }
        self.sealed.clear();
        bytes
    }

    /// The session with a local index, if there is one.
    fn established(&mut self, index: u32) -> Option<Established> {
        let last = self.session.as_ref();
        if let Some(last) = last.filter(|last| last.session.local_index() == index) {
            return Some(last.clone());
        }
        let Holder { member, session } = self.device.indices.find(index)?;
        let established = Established {
            member,
            session: session?,
        };
        self.session = Some(established.clone());
        Some(established)
    }

    /// Opens and judges what came for one session, and passes on what is good.
    fn finish_run(&mut self, scene: &Scene, message: &Message, run: &Established) {
        let bytes = self.open_run(scene.now, &run.session);
        if self.opened.is_empty() {
            return;
        }
        let device = self.device;
        let mut window = run.session.window();
        self.opened.retain(|(counter, _)| {
            let fresh = window.accept(*counter);
            fresh.inspect_err(|reason| device.drops.count(*reason)).is_ok()
        });
        drop(window);
        if self.opened.is_empty() {
            return;
        }
        let data = self.opened.iter().any(|(_, packet)| !packet.is_empty());
        let heard = run.member.received_run(scene.now, &run.session, bytes, data);
        run.member.set_endpoint(endpoint_of(message));
        if heard.confirmed || heard.initiate {
            device.mailbox.want(&run.member);
        }
        for (_, packet) in self.opened.drain(..) {
            if packet.is_empty() {
                continue;
            }
            let memory = self.inbox.memory();
            let bytes = &mut memory[packet.clone()];
            match self
                .flows
                .judge(&scene.tables, &run.member, bytes, message.details.ecn)
            {
                Ok(len) => self.flows.push(device, memory, packet.start..packet.start + len),
                Err(reason) => device.drops.count(reason),
            }
        }
    }

    /// Hands everything over to the kernel.
    fn write(&mut self) {
        let device = self.device;
        let memory = self.inbox.memory();
        self.flows.merge.flush(memory, |header, pieces, memory| {
            if !device.write_frame(header, pieces, memory) {
                unmerge(header, pieces, memory, |packet, memory| {
                    device.write_packet(memory, packet);
                });
            }
        });
        self.flows
            .merge
            .set_datagrams(device.merging.datagrams.load(Ordering::Relaxed));
    }
}

impl Flows {
    /// Whether a packet may be passed on, and its length without padding. Its ECN field tells then what the datagram's
    /// did.
    fn judge(
        &mut self,
        tables: &Tables,
        member: &Arc<Member>,
        packet: &mut [u8],
        outer_ecn: u8,
    ) -> Result<usize, DropReason> {
        let header = ip::Header::of(packet).ok_or(DropReason::BadPacket)?;
        if header.len > packet.len() {
            return Err(DropReason::BadPacket);
        }
        if !self.belongs(tables, member, header.source) {
            tracing::debug!(
                peer = %member.key().short(),
                from = %header.source,
                "packet with a source address that is not the peer's"
            );
            return Err(DropReason::BadSource);
        }
        if outer_ecn != 0 {
            match ip::decapsulated_ecn(outer_ecn, header.ecn) {
                Decapsulated::AsItIs => {}
                Decapsulated::Becomes(ecn) => ip::set_ecn(packet, ecn),
                Decapsulated::Drop => return Err(DropReason::Congestion),
            }
        }
        Ok(header.len)
    }

    /// Whether an address is among a peer's allowed IPs, and no other peer has a longer prefix of it.
    fn belongs(&mut self, tables: &Tables, member: &Arc<Member>, source: IpAddr) -> bool {
        if let Some((address, whose, belongs)) = &self.last_source
            && *address == source
            && Arc::ptr_eq(whose, member)
        {
            return *belongs;
        }
        let owner = tables.allowed_ips.lookup(source);
        let belongs = owner.is_some_and(|owner| Arc::ptr_eq(owner, member));
        self.last_source = Some((source, Arc::clone(member), belongs));
        belongs
    }

    /// Takes a packet up into a frame, or writes it at once where the kernel takes no frames.
    fn push(&mut self, device: &Device, memory: &mut [u8], packet: Range<usize>) {
        if device.merging.streams.load(Ordering::Relaxed) {
            self.merge.push(memory, packet);
        } else {
            device.write_packet(memory, packet);
        }
    }
}

impl Device {
    /// Leaves a handshake message to the thread that shakes hands.
    fn post(&self, message: &[u8], from: Endpoint) {
        let posted = Letter::new(message, from).is_some_and(|letter| self.mailbox.post(letter));
        if !posted {
            self.drops.count(DropReason::RateLimited);
        }
    }

    /// Writes a frame to the interface. `false`: it is a long one and the kernel does not take such; its packets are to
    /// be written one by one.
    fn write_frame(&self, header: &VnetHeader, pieces: &[Range<usize>], memory: &[u8]) -> bool {
        let vnet = header.encode();
        let mut parts: [IoSlice<'_>; MAX_PIECES + 1] = [IoSlice::new(&[]); MAX_PIECES + 1];
        parts[0] = IoSlice::new(&vnet);
        for (part, piece) in parts[1..].iter_mut().zip(pieces) {
            *part = IoSlice::new(&memory[piece.clone()]);
        }
        match self.tun.write(&parts[..=pieces.len()]) {
            Ok(()) => true,
            Err(error)
                if error.raw_os_error() == Some(libc::EINVAL) && header.gso_type != VnetHeader::GSO_NONE =>
            {
                self.merging.refused(header);
                false
            }
            Err(error) => {
                tracing::trace!(%error, "frame not written");
                self.drops.count_many(DropReason::InterfaceRefused, pieces.len());
                true
            }
        }
    }

    /// Writes one packet to the interface.
    fn write_packet(&self, memory: &[u8], packet: Range<usize>) {
        let vnet = VnetHeader::default().encode();
        let packet = IoSlice::new(&memory[packet]);
        let written = if self.tun.has_headers() {
            self.tun.write(&[IoSlice::new(&vnet), packet])
        } else {
            self.tun.write(&[packet])
        };
        if written.is_err() {
            self.drops.count(DropReason::InterfaceRefused);
        }
    }
}

/// Where a message came from, and the address of ours that it was sent to.
fn endpoint_of(message: &Message) -> Endpoint {
    Endpoint {
        to: message.source,
        from: message.details.local,
    }
}
