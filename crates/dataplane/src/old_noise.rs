//! The WireGuard protocol of one peer: handshakes, sessions and timers.
//!
//! The only module that names `boringtun`. What that crate leaves to its user is done here or by the callers:
//! plaintext is padded ([`padded_len`]), a flood of handshakes is answered with cookies by one limiter for the whole
//! device ([`Gate`]), and a session that the other side began counts only once it has proven that it holds the key
//! ([`Received::confirmed`]), so that a replayed initiation neither moves an endpoint nor looks like a handshake.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use warren_model::{PrivateKey, PublicKey};
use x25519_dalek::StaticSecret;

use crate::drops::DropReason;
use crate::uapi::PresharedKey;

/// Bytes a data message has beyond its (padded) packet: header 16, authenticator 16 (WireGuard paper, section 5.4.6).
pub(crate) const DATA_OVERHEAD: usize = 32;

/// Room that every output buffer has at least: the largest handshake message, an initiation.
const HANDSHAKE_ROOM: usize = 148;

/// Handshake messages a second that are answered without asking for a cookie first.
const HANDSHAKES_PER_SECOND: u64 = 256;

/// Sessions with one peer that exist at once.
const SESSIONS: usize = 8;

/// Length of the buffer that [`Tunnel`] writes its answers to.
pub(crate) const BUFFER_LEN: usize = 65_535 + DATA_OVERHEAD + HANDSHAKE_ROOM;

/// The device's own key, and the limiter that belongs to it.
pub(crate) struct Gate {
    private: StaticSecret,
    public: x25519_dalek::PublicKey,
    limiter: RateLimiter,
    /// Handed to every tunnel, which checks a message again that has passed this gate: it must not count it again.
    pass_all: Arc<RateLimiter>,
}

/// What a datagram turned out to be, before the peer it is about has been asked.
pub(crate) enum Admitted<'b> {
    /// A handshake initiation by the holder of this public key, or by someone who repeats its message.
    Initiation([u8; 32]),
    /// A message to the session with this local index.
    Session(u32),
    /// Too many handshakes: send this cookie back, and drop the message.
    Cookie(&'b [u8]),
}

impl Gate {
    /// Takes a copy of the device's private key.
    pub(crate) fn new(private: &PrivateKey) -> Self {
        let private = StaticSecret::from(*private.expose_bytes());
        let public = x25519_dalek::PublicKey::from(&private);
        Self {
            limiter: RateLimiter::new(&public, HANDSHAKES_PER_SECOND),
            pass_all: Arc::new(RateLimiter::new(&public, u64::MAX)),
            private,
            public,
        }
    }

    /// The public half of the key.
    pub(crate) fn public_bytes(&self) -> &[u8; 32] {
        self.public.as_bytes()
    }

    /// The private half, for the configuration socket.
    pub(crate) fn private_key(&self) -> PrivateKey {
        PrivateKey::from_bytes(&mut self.private.to_bytes())
    }

    /// Begins the next second of the handshake limit. To be called about once a second.
    pub(crate) fn next_second(&self) {
        self.limiter.reset_count();
    }

    /// Says whom a datagram is for. A handshake message has been made by someone who knows our public key (mac1) and,
    /// when there are too many, who receives at the address it comes from (mac2).
    pub(crate) fn admit<'b>(
        &self,
        source: IpAddr,
        datagram: &[u8],
        cookie: &'b mut [u8],
    ) -> Result<Admitted<'b>, DropReason> {
        let packet = match self.limiter.verify_packet(Some(source), datagram, cookie) {
            Ok(packet) => packet,
            Err(TunnResult::WriteToNetwork(cookie)) => return Ok(Admitted::Cookie(cookie)),
            Err(TunnResult::Err(WireGuardError::InvalidPacket)) if datagram.len() < DATA_OVERHEAD => {
                return Err(DropReason::TooShort);
            }
            Err(TunnResult::Err(error)) => return Err(drop_reason(&error)),
            Err(TunnResult::Done | TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..)) => {
                return Err(DropReason::Malformed);
            }
        };
        Ok(match packet {
            Packet::HandshakeInit(initiation) => {
                let half = parse_handshake_anon(&self.private, &self.public, &initiation)
                    .map_err(|error| drop_reason(&error))?;
                Admitted::Initiation(half.peer_static_public)
            }
            Packet::HandshakeResponse(message) => Admitted::Session(message.receiver_idx),
            Packet::PacketCookieReply(message) => Admitted::Session(message.receiver_idx),
            Packet::PacketData(message) => Admitted::Session(message.receiver_idx),
        })
    }
}

/// The protocol's state towards one peer.
pub(crate) struct Tunnel {
    tunn: Tunn,
    /// Local indices of the sessions that the peer began and has not yet used, the newest last.
    unconfirmed: VecDeque<u32>,
}

/// What came of a message that was authentic.
pub(crate) struct Received<'b> {
    /// What to do now.
    pub(crate) output: Output<'b>,
    /// The sender holds the peer's private key and sent this now (no replay): its address may be remembered.
    pub(crate) fresh: bool,
    /// A handshake has just completed.
    pub(crate) confirmed: bool,
}

/// What a tunnel wants done.
pub(crate) enum Output<'b> {
    /// Nothing.
    Nothing,
    /// Send this datagram to the peer.
    Send(&'b [u8]),
    /// An IP packet came out, without its padding, from this source address.
    Packet(&'b [u8], IpAddr),
    /// An authentic message that holds no IP packet.
    NotIp,
}

impl Tunnel {
    /// A tunnel without a session. `index` (24 bits) becomes the upper part of all its local session indices.
    pub(crate) fn new(gate: &Gate, peer: &PublicKey, preshared: Option<&PresharedKey>, index: u32) -> Self {
        let tunn = Tunn::new(
            gate.private.clone(),
            x25519_dalek::PublicKey::from(*peer.as_bytes()),
            preshared.map(|key| *key.expose_bytes()),
            None, // keepalives are sent by the device, which can change their interval without a new session
            index,
            Some(Arc::clone(&gate.pass_all)),
        );
        Self {
            tunn,
            unconfirmed: VecDeque::new(),
        }
    }

    /// Encrypts a packet that is padded already, or keeps it and begins a handshake. An empty one is a keepalive.
    /// `out` has [`BUFFER_LEN`] bytes.
    pub(crate) fn send<'b>(&mut self, packet: &[u8], out: &'b mut [u8]) -> Result<Output<'b>, DropReason> {
        output(self.tunn.encapsulate(packet, out))
    }

    /// Takes in a datagram that [`Gate::admit`] has let through for this peer.
    pub(crate) fn receive<'b>(
        &mut self,
        datagram: &[u8],
        out: &'b mut [u8],
    ) -> Result<Received<'b>, DropReason> {
        let kind = Kind::of(datagram);
        let output = output(self.tunn.decapsulate(None, datagram, out))?;
        let confirmed = match kind {
            Kind::Initiation => {
                if let Output::Send(response) = &output {
                    if self.unconfirmed.len() == SESSIONS {
                        self.unconfirmed.pop_front();
                    }
                    self.unconfirmed.extend(u32_at(response, 4));
                }
                false
            }
            Kind::Response => true,
            Kind::Data => self.confirm(u32_at(datagram, 4)),
            Kind::Cookie => false,
        };
        Ok(Received {
            output,
            fresh: matches!(kind, Kind::Response | Kind::Data),
            confirmed,
        })
    }

    /// Notes that the peer has used a session. Says whether that is news.
    fn confirm(&mut self, index: Option<u32>) -> bool {
        let Some(at) = self
            .unconfirmed
            .iter()
            .position(|unconfirmed| Some(*unconfirmed) == index)
        else {
            return false;
        };
        // The peer has given up the ones before it.
        self.unconfirmed.drain(..=at);
        true
    }

    /// The next packet that waited for a session, encrypted. To be called after a handshake has completed until it
    /// says [`Output::Nothing`].
    pub(crate) fn next_waiting<'b>(&mut self, out: &'b mut [u8]) -> Result<Output<'b>, DropReason> {
        output(self.tunn.decapsulate(None, &[], out))
    }

    /// Does what is due now: repeats a handshake, begins one because keys grow old, answers silence with a keepalive.
    pub(crate) fn tick<'b>(&mut self, out: &'b mut [u8]) -> Output<'b> {
        // A tunnel that gave up says so on every tick until there is a packet to send: nothing to report.
        output(self.tunn.update_timers(out)).unwrap_or(Output::Nothing)
    }
}

/// Length of a packet with its padding: a multiple of 16, but not beyond the MTU (WireGuard paper, section 5.4.6).
pub(crate) fn padded_len(len: usize, mtu: usize) -> usize {
    len.next_multiple_of(16).min(mtu.max(len))
}

enum Kind {
    Initiation,
    Response,
    Cookie,
    Data,
}

impl Kind {
    fn of(admitted: &[u8]) -> Self {
        match admitted.first() {
            Some(1) => Self::Initiation,
            Some(2) => Self::Response,
            Some(3) => Self::Cookie,
            _ => Self::Data,
        }
    }
}

fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

fn output(result: TunnResult<'_>) -> Result<Output<'_>, DropReason> {
    match result {
        TunnResult::Done => Ok(Output::Nothing),
        TunnResult::WriteToNetwork(datagram) => Ok(Output::Send(datagram)),
        TunnResult::WriteToTunnelV4(packet, source) => Ok(Output::Packet(packet, source.into())),
        TunnResult::WriteToTunnelV6(packet, source) => Ok(Output::Packet(packet, source.into())),
        // The gate has checked the message's own form, so it is the decrypted packet that is not one.
        TunnResult::Err(WireGuardError::InvalidPacket) => Ok(Output::NotIp),
        TunnResult::Err(error) => Err(drop_reason(&error)),
    }
}

fn drop_reason(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::InvalidAeadTag | WireGuardError::WrongKey => DropReason::DecryptFailed,
        WireGuardError::InvalidCounter
        | WireGuardError::DuplicateCounter
        | WireGuardError::InvalidTai64nTimestamp
        | WireGuardError::WrongTai64nTimestamp => DropReason::Replayed,
        WireGuardError::NoCurrentSession
        | WireGuardError::WrongIndex
        | WireGuardError::UnexpectedPacket
        | WireGuardError::ConnectionExpired => DropReason::UnknownSession,
        WireGuardError::InvalidMac => DropReason::BadMac,
        WireGuardError::UnderLoad => DropReason::RateLimited,
        WireGuardError::InvalidPacket
        | WireGuardError::WrongPacketType
        | WireGuardError::IncorrectPacketLength
        | WireGuardError::DestinationBufferTooSmall
        | WireGuardError::LockFailed => DropReason::Malformed,
    }
}

#[cfg(test)]
mod tests;
