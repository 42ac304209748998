//! A thousand peers of one device. Each has a key, a session and an address of its own; all are played by one thread of
//! this program with `boringtun::noise`, because a thousand devices on one machine would measure the machine. What the
//! peers cost is the same whether traffic is over all or over one.

use std::collections::BTreeSet;
use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use boringtun::noise::{Tunn, TunnResult};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use x25519_dalek::PublicKey;

use super::datagrams::{Tally, bind, count, send, while_counting};
use super::device::Device;
use super::figures::{Figure, Figures};
use super::packet::udp_packet;
use super::rate::{self, BATCH, Counted};
use super::system::{Key, PORT, System};
use crate::namespace::{Hosts, UNDERLAY};

/// How many there are.
const PEERS: u16 = 1000;

/// Bytes of payload.
const SIZE: usize = 1200;

/// How many datagrams go to a peer before it is the next one's turn: about what TCP sends at once.
const BURST: usize = 32;

/// The device's address in the tunnel.
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 204, 255, 254);

/// UDP port of the inner datagrams.
const INNER_PORT: u16 = 7000;

/// How long all handshakes together may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many initiations go out before their answers are read. More would look like a flood.
const AT_ONCE: usize = 20;

/// Room for a datagram with all around it.
const ROOM: usize = 2048;

/// Measures one peer and a thousand, each with a fresh device, and the device's memory with a thousand.
pub(super) fn measure(system: System, figures: &mut Figures) -> anyhow::Result<()> {
    let Some(program) = system.program()? else {
        return Ok(());
    };
    for (peers, to, from) in [
        (1, Figure::OnePeer, Figure::FromOnePeer),
        (PEERS, Figure::ManyPeers, Figure::FromManyPeers),
    ] {
        let hosts = Hosts::new()?;
        let mut swarm = Swarm::new(&hosts, peers)?;
        let device = Device::start(&hosts.near, system, &program, "swarm")?;
        device.configure(&hosts.near, &swarm.configuration())?;
        device.set_up(&hosts.near, &format!("{NEAR}/16"))?;
        swarm.shake_hands()?;
        swarm.hear_all(&hosts)?;
        let gigabits = |rate: f64| rate * 8.0 * 1200.0 / 1e9;
        let arrived = rate::most(|rate| swarm.receive(&hosts, rate))?;
        figures.add(to, system, gigabits(arrived));
        let arrived = rate::most(|rate| swarm.send(&hosts, rate))?;
        figures.add(from, system, gigabits(arrived));
        if peers == PEERS {
            figures.add(Figure::ManyMemory, system, device.resident()?);
        }
    }
    Ok(())
}

/// All peers.
struct Swarm {
    /// The device's key.
    device: Key,
    /// Listens on all addresses of the far host.
    socket: UdpSocket,
    peers: Vec<Peer>,
}

/// One peer.
struct Peer {
    key: Key,
    noise: Tunn,
    /// On the cable.
    endpoint: Ipv4Addr,
    /// In the tunnel.
    inner: Ipv4Addr,
    /// What it sends, unsealed.
    packet: Vec<u8>,
}

impl Swarm {
    fn new(hosts: &Hosts, peers: u16) -> anyhow::Result<Self> {
        // Addresses of the far host, all of the network at once.
        hosts.far.ip("route add local 10.203.0.0/16 dev lo")?;
        hosts
            .near
            .ip(&format!("route add 10.203.0.0/16 via {}", UNDERLAY[1]))?;
        let device = Key::random();
        let peers = (1..=peers).map(|number| Peer::new(number, &device)).collect();
        let socket = bind(&hosts.far, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT))?;
        Ok(Self {
            device,
            socket,
            peers,
        })
    }

    /// The device's, in the format of `wg setconf`.
    fn configuration(&self) -> String {
        let mut text = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {PORT}\n",
            self.device.private()
        );
        for peer in &self.peers {
            text += &format!(
                "[Peer]\nPublicKey = {}\nAllowedIPs = {}/32\nEndpoint = {}:{PORT}\n",
                peer.key.public(),
                peer.inner,
                peer.endpoint
            );
        }
        text
    }

    /// Every peer opens a session.
    fn shake_hands(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut waiting: BTreeSet<usize> = (0..self.peers.len()).collect();
        while !waiting.is_empty() {
            ensure!(
                Instant::now() < deadline,
                "{} of {} peers got no answer to their handshake",
                waiting.len(),
                self.peers.len()
            );
            let some: Vec<usize> = waiting.iter().copied().take(AT_ONCE).collect();
            for index in &some {
                let mut buffer = [0; ROOM];
                let peer = &mut self.peers[*index];
                if let TunnResult::WriteToNetwork(message) =
                    peer.noise.format_handshake_initiation(&mut buffer, true)
                {
                    send_from(&self.socket, peer.endpoint, &[message])?;
                }
            }
            // Until all have answered, or none has for a while.
            let mut buffer = [0; ROOM];
            while some.iter().any(|it| waiting.contains(it)) {
                let Some(length) = self.next(&mut buffer)? else {
                    break;
                };
                if let Heard::Session(index) = self.hear(&buffer[..length])? {
                    waiting.remove(&index);
                }
            }
        }
        Ok(())
    }

    /// Waits until the device has sent something to every peer, so that what is measured is traffic over all.
    fn hear_all(&mut self, hosts: &Hosts) -> anyhow::Result<()> {
        let sender = bind(&hosts.near, SocketAddrV4::new(NEAR, 0))?;
        let deadline = Instant::now() + PATIENCE;
        let mut waiting: BTreeSet<usize> = (0..self.peers.len()).collect();
        let mut buffer = [0; ROOM];
        while !waiting.is_empty() {
            ensure!(Instant::now() < deadline, "{} peers hear nothing", waiting.len());
            let some: Vec<usize> = waiting.iter().copied().take(AT_ONCE).collect();
            for index in &some {
                let to = SocketAddrV4::new(self.peers[*index].inner, INNER_PORT);
                sender.send_to(&[0x57; SIZE], to).context("send to a peer")?;
            }
            while some.iter().any(|it| waiting.contains(it)) {
                let Some(length) = self.next(&mut buffer)? else {
                    break;
                };
                if let Heard::Data(index) = self.hear(&buffer[..length])? {
                    waiting.remove(&index);
                }
            }
        }
        Ok(())
    }

    /// The next datagram; `None` if none comes.
    fn next(&self, buffer: &mut [u8]) -> anyhow::Result<Option<usize>> {
        match self.socket.recv(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("receive a datagram"),
        }
    }

    /// Takes a datagram as the peer would for whom it is, and answers where it must be.
    fn hear(&mut self, datagram: &[u8]) -> anyhow::Result<Heard> {
        let Some((index, peer)) =
            addressee(datagram).and_then(|index| Some((index, self.peers.get_mut(index)?)))
        else {
            return Ok(Heard::Nothing);
        };
        let mut buffer = [0; ROOM];
        Ok(match peer.noise.decapsulate(None, datagram, &mut buffer) {
            TunnResult::WriteToTunnelV4(packet, _) if packet.len() == peer.packet.len() => Heard::Data(index),
            TunnResult::WriteToNetwork(answer) => {
                send_from(&self.socket, peer.endpoint, &[answer])?;
                Heard::Session(index)
            }
            TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..)
            | TunnResult::Done
            | TunnResult::Err(_) => Heard::Nothing,
        })
    }

    /// The device sends to all peers in turn.
    fn receive(&mut self, hosts: &Hosts, rate: Option<f64>) -> anyhow::Result<Counted> {
        let sender = bind(&hosts.near, SocketAddrV4::new(NEAR, 0))?;
        let payload = [0x57; SIZE];
        let mut headers = MultiHeaders::preallocate(BATCH, None);
        let inner: Vec<Ipv4Addr> = self.peers.iter().map(|it| it.inner).collect();
        let mut turn = Turn::default();
        while_counting(
            |ended| self.count(ended),
            || {
                rate::send(rate, |due| {
                    let (peer, due) = turn.take(inner.len(), due);
                    let to = SocketAddrV4::new(inner[peer], INNER_PORT);
                    let sent = send(&sender, &mut headers, &payload, Some(to), due)?;
                    turn.done(sent);
                    Ok(sent)
                })
            },
        )
    }

    /// Counts the datagrams that the device has sealed for the right peer.
    fn count(&mut self, ended: &AtomicBool) -> anyhow::Result<Counted> {
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let mut buffers = vec![[0; ROOM]; BATCH];
        let mut tally = Tally::default();
        loop {
            let mut slices: Vec<_> = buffers.iter_mut().map(|it| [IoSliceMut::new(it)]).collect();
            let flags = MsgFlags::MSG_WAITFORONE;
            let lengths: Vec<usize> =
                match recvmmsg(self.socket.as_raw_fd(), &mut headers, &mut slices, flags, None) {
                    Ok(results) => results.map(|it| it.bytes).collect(),
                    Err(Errno::EAGAIN) if ended.load(Ordering::Acquire) => return Ok(tally.counted()),
                    Err(Errno::EAGAIN | Errno::EINTR) => continue,
                    Err(error) => return Err(error).context("receive datagrams"),
                };
            let mut data = 0;
            for (buffer, length) in buffers.iter().zip(lengths) {
                if matches!(self.hear(&buffer[..length])?, Heard::Data(_)) {
                    data += 1;
                }
            }
            tally.add(data);
        }
    }

    /// All peers in turn send to the device.
    fn send(&mut self, hosts: &Hosts, rate: Option<f64>) -> anyhow::Result<Counted> {
        let counter = bind(&hosts.near, SocketAddrV4::new(NEAR, INNER_PORT))?;
        let mut turn = Turn::default();
        let mut buffers = vec![[0; ROOM]; BURST];
        while_counting(
            |ended| count(&counter, ended),
            || {
                rate::send(rate, |due| {
                    let (peer, due) = turn.take(self.peers.len(), due);
                    let Peer {
                        noise,
                        packet,
                        endpoint,
                        ..
                    } = &mut self.peers[peer];
                    let mut sealed: Vec<&[u8]> = Vec::with_capacity(due);
                    for buffer in buffers.iter_mut().take(due) {
                        let TunnResult::WriteToNetwork(datagram) = noise.encapsulate(packet, buffer) else {
                            bail!("a peer cannot seal what it wants to send");
                        };
                        sealed.push(datagram);
                    }
                    send_from(&self.socket, *endpoint, &sealed)?;
                    turn.done(due);
                    Ok(due)
                })
            },
        )
    }
}

/// What a datagram was.
enum Heard {
    /// A message that this peer has answered: it has a session now.
    Session(usize),
    /// A packet for this peer.
    Data(usize),
    Nothing,
}

/// Whose turn it is.
#[derive(Default)]
struct Turn {
    peer: usize,
    /// Of the burst.
    sent: usize,
}

impl Turn {
    /// Who sends now, and how many of those that are due.
    fn take(&mut self, peers: usize, due: usize) -> (usize, usize) {
        if self.sent >= BURST {
            self.peer += 1;
            self.sent = 0;
        }
        self.peer %= peers;
        (self.peer, due.min(BURST - self.sent))
    }

    fn done(&mut self, sent: usize) {
        self.sent += sent;
    }
}

impl Peer {
    fn new(number: u16, device: &Key) -> Self {
        let key = Key::random();
        let [_, _, high, low] = u32::from(number).to_be_bytes();
        let (endpoint, inner) = (
            Ipv4Addr::new(10, 203, high, low),
            Ipv4Addr::new(10, 204, high, low),
        );
        let index = u32::from(number - 1);
        let noise = Tunn::new(key.0.clone(), PublicKey::from(&device.0), None, None, index, None);
        Self {
            key,
            noise,
            endpoint,
            inner,
            packet: udp_packet(
                SocketAddrV4::new(inner, INNER_PORT),
                SocketAddrV4::new(NEAR, INNER_PORT),
                &[0x57; SIZE],
            ),
        }
    }
}

/// The number of the peer that a datagram is for, by the receiver index that it was told by us: messages 2 to 4 of the
/// paper, section 5.4. boringtun puts the number above eight bits that count sessions. A device that opens a session
/// itself (message 1) is not answered: the peers do that.
fn addressee(datagram: &[u8]) -> Option<usize> {
    let receiver = match datagram.first()? {
        2 => datagram.get(8..12)?,
        3 | 4 => datagram.get(4..8)?,
        _ => return None,
    };
    usize::try_from(u32::from_le_bytes(receiver.try_into().ok()?) >> 8).ok()
}

/// Sends datagrams to the device, from one address of the far host.
fn send_from(socket: &UdpSocket, from: Ipv4Addr, datagrams: &[&[u8]]) -> anyhow::Result<()> {
    let to = Some(SockaddrIn::from(SocketAddrV4::new(UNDERLAY[0], PORT)));
    let info = nix::libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: nix::libc::in_addr {
            s_addr: u32::from(from).to_be(),
        },
        ipi_addr: nix::libc::in_addr { s_addr: 0 },
    };
    let slices: Vec<_> = datagrams.iter().map(|it| [IoSlice::new(it)]).collect();
    let space = nix::cmsg_space!(nix::libc::in_pktinfo);
    let mut headers = MultiHeaders::preallocate(datagrams.len(), Some(space));
    let from = [ControlMessage::Ipv4PacketInfo(&info)];
    let flags = MsgFlags::empty();
    match sendmmsg(
        socket.as_raw_fd(),
        &mut headers,
        &slices,
        vec![to; datagrams.len()],
        from,
        flags,
    ) {
        Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => Ok(()),
        Err(error) => Err(anyhow!(error).context("send datagrams of a peer")),
    }
}
