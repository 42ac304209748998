//! `Noise_IKpsk2`: two messages make a key pair (the paper, sections 5.4.1 to 5.4.5).
//!
//! | the initiator | | the responder |
//! |---|---|---|
//! | [`Initiating::begin`] | initiation: index, ephemeral, sealed key, sealed time, macs | [`Local::open_initiation`]: who is it? |
//! | | | [`Initiation::open_time`]: is it really, and when was it? |
//! | [`Initiating::finish`] | response: both indices, ephemeral, sealed nothing, macs | [`Dated::respond`] |
//! | [`Keys`] | data | [`Keys`] |
//!
//! The responder looks up the peer after one Diffie-Hellman, and does the others only for one whose time is new.

use rand_core::{CryptoRng, RngCore};
use warren_model::{PrivateKey, PublicKey};
use x25519_dalek::{SharedSecret, StaticSecret};
use zeroize::Zeroizing;

use super::crypto::{self, NotAuthentic, Secret, agree, derive, hash};
use super::tai64n::Tai64n;
use super::{INITIATION_LEN, MessageKind, RESPONSE_LEN};
use crate::drops::DropReason;

impl From<NotAuthentic> for DropReason {
    fn from(_: NotAuthentic) -> Self {
        Self::BadHandshake
    }
}

/// Our own key pair. Erased when it is dropped.
pub struct Local {
    private: StaticSecret,
    public: [u8; 32],
}

/// What handshakes need to know of a peer: its key, and what it makes with ours.
pub struct Remote {
    public: [u8; 32],
    static_static: SharedSecret,
}

impl Local {
    /// Takes a copy of a private key.
    pub fn new(private: &PrivateKey) -> Self {
        let private = StaticSecret::from(*private.expose_bytes());
        Self {
            public: x25519_dalek::PublicKey::from(&private).to_bytes(),
            private,
        }
    }

    /// The public half.
    pub fn public_bytes(&self) -> &[u8; 32] {
        &self.public
    }

    /// A copy of the private half, for the configuration socket.
    pub fn private_key(&self) -> PrivateKey {
        PrivateKey::from_bytes(&mut self.private.to_bytes())
    }

    /// Finds out who made an initiation that [`super::Gate::admit`] has let pass.
    ///
    /// # Errors
    /// [`DropReason::BadHandshake`]; [`DropReason::Malformed`] for what is no initiation.
    pub fn open_initiation(&self, message: &[u8]) -> Result<Initiation, DropReason> {
        let message: &[u8; INITIATION_LEN] = message.try_into().map_err(|_| DropReason::Malformed)?;
        let ephemeral = field(message, 8);
        let mut noise = Transcript::to(&self.public);
        noise.ephemeral(&ephemeral);
        let key = noise.agreed(&agree(&self.private, &ephemeral)?);
        let initiator = noise.open(&key, &message[40..88])?;
        Ok(Initiation {
            sender: u32::from_le_bytes(field(message, 4)),
            ephemeral,
            initiator,
            sealed_time: field(message, 88),
            noise,
        })
    }
}

impl Remote {
    /// A peer under our key. Costs a Diffie-Hellman.
    pub fn new(local: &Local, peer: &PublicKey) -> Self {
        let public = x25519_dalek::PublicKey::from(*peer.as_bytes());
        Self {
            public: *peer.as_bytes(),
            static_static: local.private.diffie_hellman(&public),
        }
    }
}

/// The keys of a session. Erased when they are dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    /// For what we send.
    pub(super) sealing: Secret,
    /// For what we receive.
    pub(super) opening: Secret,
}

/// A handshake that we began. Erased when it is dropped.
pub(crate) struct Initiating {
    /// The index that its answer bears, and its session.
    pub(crate) local_index: u32,
    ephemeral: StaticSecret,
    noise: Transcript,
}

impl Initiating {
    /// Makes an initiation, up to its macs.
    ///
    /// # Errors
    /// The peer's key is of low order.
    pub(crate) fn begin(
        local: &Local,
        remote: &Remote,
        local_index: u32,
        time: Tai64n,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<(Self, [u8; INITIATION_LEN]), NotAuthentic> {
        let ephemeral = StaticSecret::random_from_rng(rng);
        let public = x25519_dalek::PublicKey::from(&ephemeral).to_bytes();
        let mut noise = Transcript::to(&remote.public);
        let mut message = [0; INITIATION_LEN];
        message[0] = 1;
        message[4..8].copy_from_slice(&local_index.to_le_bytes());
        message[8..40].copy_from_slice(&public);
        noise.ephemeral(&public);
        let key = noise.agreed(&agree(&ephemeral, &remote.public)?);
        message[40..72].copy_from_slice(&local.public);
        noise.seal(&key, &mut message[40..88]);
        let key = noise.agreed(remote.static_static()?);
        message[88..100].copy_from_slice(time.as_bytes());
        noise.seal(&key, &mut message[88..116]);
        let initiating = Self {
            local_index,
            ephemeral,
            noise,
        };
        Ok((initiating, message))
    }

    /// Takes the response. Gives the keys and the index that the responder wants to read. One that is not right changes
    /// nothing: the right one may still come.
    ///
    /// # Errors
    /// [`DropReason::BadHandshake`]; [`DropReason::UnknownSession`] for one that does not answer this;
    /// [`DropReason::Malformed`] for what is no response.
    pub(crate) fn finish(
        &self,
        local: &Local,
        preshared: &[u8; 32],
        message: &[u8],
    ) -> Result<(Keys, u32), DropReason> {
        let message: &[u8; RESPONSE_LEN] = message.try_into().map_err(|_| DropReason::Malformed)?;
        if MessageKind::Response.receiver(message) != Some(self.local_index) {
            return Err(DropReason::UnknownSession);
        }
        let ephemeral = field(message, 12);
        let mut noise = self.noise.clone();
        noise.ephemeral(&ephemeral);
        noise.agreed(&agree(&self.ephemeral, &ephemeral)?);
        noise.agreed(&agree(&local.private, &ephemeral)?);
        let key = noise.preshared(preshared);
        let [] = noise.open(&key, &message[44..60])?;
        let [sealing, opening] = noise.split();
        Ok((Keys { sealing, opening }, u32::from_le_bytes(field(message, 4))))
    }
}

/// An initiation that names [`Self::initiator`] as its maker. That is not proven yet: whoever knows both public keys can
/// name one. It takes the private one to seal the time.
pub struct Initiation {
    sender: u32,
    ephemeral: [u8; 32],
    initiator: [u8; 32],
    sealed_time: [u8; 28],
    noise: Transcript,
}

impl Initiation {
    /// The public key of who made it.
    pub fn initiator(&self) -> &[u8; 32] {
        &self.initiator
    }

    /// Finds out when it was made. It was the peer who did that, or it is a repetition.
    ///
    /// # Errors
    /// It was made by somebody else.
    pub(crate) fn open_time(mut self, remote: &Remote) -> Result<Dated, NotAuthentic> {
        if self.initiator != remote.public {
            return Err(NotAuthentic);
        }
        let key = self.noise.agreed(remote.static_static()?);
        let time = Tai64n::from_bytes(self.noise.open(&key, &self.sealed_time)?);
        Ok(Dated {
            initiation: self,
            time,
        })
    }
}

/// An initiation whose time is known.
pub(crate) struct Dated {
    initiation: Initiation,
    /// When it was made, by the initiator's clock.
    pub(crate) time: Tai64n,
}

impl Dated {
    /// Makes the response, up to its macs. Gives also the keys and the index that the initiator wants to read.
    ///
    /// # Errors
    /// The initiator's ephemeral key is of low order.
    pub(crate) fn respond(
        self,
        preshared: &[u8; 32],
        local_index: u32,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<([u8; RESPONSE_LEN], Keys, u32), NotAuthentic> {
        let Initiation {
            sender,
            ephemeral: theirs,
            initiator,
            mut noise,
            ..
        } = self.initiation;
        let ephemeral = StaticSecret::random_from_rng(rng);
        let public = x25519_dalek::PublicKey::from(&ephemeral).to_bytes();
        let mut message = [0; RESPONSE_LEN];
        message[0] = 2;
        message[4..8].copy_from_slice(&local_index.to_le_bytes());
        message[8..12].copy_from_slice(&sender.to_le_bytes());
        message[12..44].copy_from_slice(&public);
        noise.ephemeral(&public);
        noise.agreed(&agree(&ephemeral, &theirs)?);
        noise.agreed(&agree(&ephemeral, &initiator)?);
        let key = noise.preshared(preshared);
        noise.seal(&key, &mut message[44..60]);
        let [opening, sealing] = noise.split();
        Ok((message, Keys { sealing, opening }, sender))
    }
}

impl Remote {
    fn static_static(&self) -> Result<&SharedSecret, NotAuthentic> {
        let usable = self.static_static.was_contributory();
        usable.then_some(&self.static_static).ok_or(NotAuthentic)
    }
}

/// What both sides have said so far, and the key that follows from it.
#[derive(Clone)]
struct Transcript {
    chaining: Secret,
    hash: [u8; 32],
}

impl Transcript {
    /// The beginning of a handshake with the holder of this key.
    fn to(responder: &[u8; 32]) -> Self {
        let chaining = hash([b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s", &[]]);
        let protocol = hash([&chaining, b"WireGuard v1 zx2c4 Jason@zx2c4.com"]);
        Self {
            chaining: Zeroizing::new(chaining),
            hash: hash([&protocol, responder]),
        }
    }

    /// A side has sent its ephemeral key.
    fn ephemeral(&mut self, public: &[u8; 32]) {
        self.hash = hash([&self.hash, public]);
        let [chaining] = derive(&self.chaining, public);
        self.chaining = chaining;
    }

    /// Both sides have agreed on a secret. Gives the key of what is sealed next. (Where nothing is, the paper derives
    /// none; what goes on is the same.)
    fn agreed(&mut self, secret: &SharedSecret) -> Secret {
        let [chaining, key] = derive(&self.chaining, secret.as_bytes());
        self.chaining = chaining;
        key
    }

    /// The preshared key, all zero if there is none. Gives the key of what is sealed next.
    fn preshared(&mut self, preshared: &[u8; 32]) -> Secret {
        let [chaining, middle, key] = derive(&self.chaining, preshared);
        self.chaining = chaining;
        self.hash = hash([&self.hash, &*middle]);
        key
    }

    /// Seals in place: the text, then room for the authenticator.
    fn seal(&mut self, key: &Secret, place: &mut [u8]) {
        crypto::seal(key, &self.hash, place);
        self.hash = hash([&self.hash, place]);
    }

    fn open<const N: usize>(&mut self, key: &Secret, sealed: &[u8]) -> Result<[u8; N], NotAuthentic> {
        let text = crypto::open(key, &self.hash, sealed)?;
        self.hash = hash([&self.hash, sealed]);
        Ok(text)
    }

    /// The session's keys: of what the initiator sends, of what the responder sends.
    fn split(&self) -> [Secret; 2] {
        derive(&self.chaining, &[])
    }
}

/// Bytes of a message of fixed length, at a place that is within it.
fn field<const N: usize, const LEN: usize>(message: &[u8; LEN], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&message[at..at + N]);
    bytes
}
