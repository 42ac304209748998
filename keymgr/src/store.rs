//! The keys of all epochs on this node.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand_core::{OsRng, RngCore};
use warren_model::{Epoch, KeyError, PrivateKey, PublicKey};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::directory::{FILE_LENGTH, KeyDirectory};
use crate::error::KeyStoreError;

/// The private keys of this node, one an epoch, in memory and on disk. Two epochs may be there at once, which is what
/// a rotation needs; nothing here depends on how many.
///
/// It can also be [in memory alone](KeyStore::in_memory). On disk, the key of epoch N is the file `epoch-N.key` in the format of `wg genkey`. A store locks its directory, so
/// that there is one at a time. Like [`PrivateKey`] it has neither `Debug`, `Clone` nor `Serialize`.
pub struct KeyStore {
    /// `None`: in memory alone.
    directory: Option<KeyDirectory>,
    keys: BTreeMap<Epoch, KeyPair>,
}

impl KeyStore {
    /// Opens the directory, creating it (mode 0700) if it is absent, reads all keys, and clears away what a crash left
    /// half done: a key that was not finished is removed, a retirement is completed.
    ///
    /// # Errors
    /// When the directory or a key file is open to anyone but its owner, belongs to another user or is not what it
    /// should be, when a key file cannot be understood, and when another process has the store open. An unreadable key
    /// is never replaced by a new one in silence, because every peer would have to learn it.
    pub fn open(dir: &Path) -> Result<Self, KeyStoreError> {
        let directory = KeyDirectory::open(dir)?;
        directory.clear_left_overs()?;
        let mut keys = BTreeMap::new();
        for epoch in directory.epochs()? {
            let text = directory.read(epoch)?;
            let pair = KeyPair::from_text(&text).map_err(|source| KeyStoreError::Corrupt {
                path: directory.path_of(epoch),
                source,
            })?;
            keys.insert(epoch, pair);
        }
        tracing::debug!(dir = %dir.display(), keys = keys.len(), "key store opened");
        Ok(Self {
            directory: Some(directory),
            keys,
        })
    }

    /// A store in memory alone, whose keys end with this process, unless the next one [adopts](Self::adopt) them from the devices that
    /// hold them too. Those of a store on disk in that directory are taken over, and destroyed there.
    ///
    /// # Errors
    /// As [`KeyStore::open`] and [`KeyStore::retire`], where there is such a directory.
    pub fn in_memory(dir: &Path) -> Result<Self, KeyStoreError> {
        let keys = match dir.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            // What cannot be looked at is for the opening to tell.
            Ok(_) | Err(_) => {
                let store = Self::open(dir)?;
                if let Some(directory) = &store.directory {
                    for epoch in store.keys.keys() {
                        directory.destroy(*epoch)?;
                        tracing::info!(%epoch, "a key is kept in memory from now on, and destroyed on disk");
                    }
                }
                store.keys
            }
        };
        Ok(Self {
            directory: None,
            keys,
        })
    }

    /// The public key of that epoch. If there is none yet, a private key is made from the system's random numbers, and
    /// is durable on disk when this returns.
    ///
    /// # Errors
    /// When the system has no random numbers, when the key cannot be written, and when a file of that epoch has
    /// appeared since the store was opened. Nothing has changed then.
    pub fn ensure(&mut self, epoch: Epoch) -> Result<PublicKey, KeyStoreError> {
        if let Some(pair) = self.keys.get(&epoch) {
            return Ok(pair.public);
        }
        let mut bytes = Zeroizing::new([0; 32]);
        OsRng
            .try_fill_bytes(bytes.as_mut())
            .map_err(|source| KeyStoreError::Randomness { source })?;
        let public = self.add(epoch, &mut bytes)?;
        tracing::info!(%epoch, key = public.short(), "made a new key");
        Ok(public)
    }

    /// Takes the key that a device has for the one of an epoch, as [`KeyStore::ensure`] takes a new one: an earlier store has made it.
    /// `public`: what its public half must be. Says whether that is the epoch's key now. One of that epoch that is there already stays.
    ///
    /// # Errors
    /// When the key cannot be written. Nothing has changed then.
    pub fn adopt(
        &mut self,
        epoch: Epoch,
        public: &PublicKey,
        key: PrivateKey,
    ) -> Result<bool, KeyStoreError> {
        if let Some(there) = self.keys.get(&epoch) {
            return Ok(there.public == *public);
        }
        let Some(pair) = KeyPair::new(key).ok().filter(|pair| pair.public == *public) else {
            return Ok(false);
        };
        self.insert(epoch, pair)?;
        tracing::info!(%epoch, key = public.short(), "found a key again in its device");
        Ok(true)
    }

    /// Whether it keeps keys in memory alone.
    pub fn is_in_memory(&self) -> bool {
        self.directory.is_none()
    }

    /// All public keys, in ascending order of their epochs.
    pub fn public_keys(&self) -> Vec<(Epoch, PublicKey)> {
        self.keys
            .iter()
            .map(|(epoch, pair)| (*epoch, pair.public))
            .collect()
    }

    /// The private key that belongs to a public one, of whichever epoch.
    pub fn private_key(&self, public: &PublicKey) -> Option<&PrivateKey> {
        self.keys
            .values()
            .find(|pair| pair.public == *public)
            .map(|pair| &pair.private)
    }

    /// Keeps the key of one epoch for another too: for a node that a rotation does not name. The new epoch has a file
    /// of its own, so that the old one can be retired. Doing it again changes nothing.
    ///
    /// # Errors
    /// When `from` has no key, when `to` has another one, and as [`KeyStore::ensure`].
    pub fn carry_over(&mut self, from: Epoch, to: Epoch) -> Result<PublicKey, KeyStoreError> {
        let pair = self.keys.get(&from).ok_or(KeyStoreError::NoKey { epoch: from })?;
        match self.keys.get(&to) {
            Some(there) if there.public == pair.public => Ok(there.public),
            Some(_) => Err(KeyStoreError::Occupied {
                path: self.path_of(to),
            }),
            None => {
                let mut bytes = Zeroizing::new([0; 32]);
                bytes.copy_from_slice(pair.private.expose_bytes());
                let public = self.add(to, &mut bytes)?;
                tracing::info!(%from, %to, key = public.short(), "carried a key over");
                Ok(public)
            }
        }
    }

    /// Destroys the key of an epoch: its file is overwritten and removed, durably, and its memory overwritten. Without
    /// such a key this does nothing.
    ///
    /// Overwriting reaches the blocks the file has now. A drive that remaps its blocks and a file system that copies
    /// on write may keep older ones: where that matters, the disk itself has to be encrypted.
    ///
    /// # Errors
    /// When the disk fails. The key stays in the store then, and to retire it again goes on where this stopped; so does
    /// the next [`KeyStore::open`].
    pub fn retire(&mut self, epoch: Epoch) -> Result<(), KeyStoreError> {
        let Some(public) = self.keys.get(&epoch).map(|pair| pair.public) else {
            return Ok(());
        };
        if let Some(directory) = &self.directory {
            directory.destroy(epoch)?;
        }
        self.keys.remove(&epoch);
        tracing::info!(%epoch, key = public.short(), "destroyed a key");
        Ok(())
    }

    /// Destroys the key of an epoch and makes another one, for a key that is not to be believed any more.
    ///
    /// # Errors
    /// As [`KeyStore::retire`] and [`KeyStore::ensure`]. The epoch may be without a key then.
    pub fn replace(&mut self, epoch: Epoch) -> Result<PublicKey, KeyStoreError> {
        self.retire(epoch)?;
        self.ensure(epoch)
    }

    /// Writes a key and then takes it into the store. The caller's bytes are overwritten.
    fn add(&mut self, epoch: Epoch, bytes: &mut [u8; 32]) -> Result<PublicKey, KeyStoreError> {
        let pair = KeyPair::new(PrivateKey::from_bytes(bytes)).map_err(|source| KeyStoreError::Corrupt {
            path: self.path_of(epoch),
            source,
        })?;
        self.insert(epoch, pair)
    }

    fn insert(&mut self, epoch: Epoch, pair: KeyPair) -> Result<PublicKey, KeyStoreError> {
        if let Some(directory) = &self.directory {
            directory.create(epoch, pair.to_text().as_slice())?;
        }
        let public = pair.public;
        self.keys.insert(epoch, pair);
        Ok(public)
    }

    /// Where the key of an epoch is, for messages.
    fn path_of(&self, epoch: Epoch) -> PathBuf {
        match &self.directory {
            Some(directory) => directory.path_of(epoch),
            None => PathBuf::from(format!("the key of epoch {epoch} in memory")),
        }
    }
}

/// A private key with its public one, which takes a multiplication on the curve to find.
struct KeyPair {
    public: PublicKey,
    private: PrivateKey,
}

impl KeyPair {
    fn new(private: PrivateKey) -> Result<Self, KeyError> {
        let secret = StaticSecret::from(*private.expose_bytes());
        let public = PublicKey::from_bytes(x25519_dalek::PublicKey::from(&secret).to_bytes())?;
        Ok(Self { public, private })
    }

    /// Takes the text of a key file. The newline at its end may be missing: `echo -n` is no reason to lose a key.
    fn from_text(text: &[u8]) -> Result<Self, KeyError> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        // base64 wants room for the bytes it may find, which is one more than a key has.
        let mut decoded = Zeroizing::new([0; 33]);
        let length = STANDARD
            .decode_slice(text, decoded.as_mut())
            .map_err(|_| KeyError::Malformed)?;
        if text.len() != FILE_LENGTH - 1 || length != 32 {
            return Err(KeyError::Malformed);
        }
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.copy_from_slice(&decoded[..32]);
        Self::new(PrivateKey::from_bytes(&mut bytes))
    }

    /// The text of a key file.
    fn to_text(&self) -> Zeroizing<[u8; FILE_LENGTH]> {
        let mut text = Zeroizing::new([b'\n'; FILE_LENGTH]);
        STANDARD
            .encode_slice(self.private.expose_bytes(), text.as_mut())
            .expect("44 characters of base64 fit into 45 bytes");
        text
    }
}

#[cfg(test)]
mod tests;
