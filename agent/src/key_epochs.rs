//! Which key is of which epoch, where keys are kept in memory alone: their public halves, in the state folder.
//!
//! The devices that carry the traffic outlive the agent, and each holds the private key of its lane. The agent that starts next takes the
//! keys from there, so that it is this file and no secret that it needs from the disk. After a reboot there are no devices, and new keys
//! are made. The file is written before a key is given to a device or told to anybody, so a key in use is always in it.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use atomic_write_file::AtomicWriteFile;
use warren_keymgr::KeyStore;
use warren_model::{Epoch, PublicKey};

use crate::devices::Devices;

/// The file's name in the state folder.
pub const FILE_NAME: &str = "key-epochs.json";

/// How often a device is asked for its key before another is made. Each time it is given 5 s.
const ATTEMPTS: usize = 2;

type Epochs = BTreeMap<Epoch, PublicKey>;

/// The epochs of the keys in memory.
#[derive(Debug)]
pub struct KeyEpochs {
    path: PathBuf,
    /// What the file holds; `None`: there is none, or it makes no sense.
    kept: Option<Epochs>,
}

impl KeyEpochs {
    /// Reads what was kept. A file that cannot be read or understood counts as none.
    pub fn open(path: PathBuf) -> Self {
        let read = std::fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
        let kept = match read {
            Ok(kept) => Some(kept),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "cannot read which epochs the keys in memory are of");
                }
                None
            }
        };
        Self { path, kept }
    }

    /// Takes into the store the keys that the agent before this one has left in the devices.
    ///
    /// # Errors
    /// When the store does not take a key. A device that does not answer is not an error: the node gets another key then.
    pub async fn adopt(&self, keys: &mut KeyStore, devices: &Devices) -> anyhow::Result<()> {
        for (epoch, public) in self.kept.iter().flatten() {
            let lane = epoch.lane();
            let mut answer = devices.private_key(lane).await;
            for _ in 1..ATTEMPTS {
                if answer.is_err() {
                    answer = devices.private_key(lane).await;
                }
            }
            let adopted = match answer {
                Ok(Some(key)) => keys
                    .adopt(*epoch, public, key)
                    .with_context(|| format!("cannot take the key of epoch {epoch} from its device"))?,
                Ok(None) => false,
                Err(error) => {
                    tracing::warn!(%epoch, %error, "cannot ask a device for its key");
                    false
                }
            };
            if !adopted {
                tracing::info!(%epoch, key = public.short(), "a key that was kept in memory is gone with its device");
            }
        }
        Ok(())
    }

    /// Writes which epochs the store's keys are of; of keys on the disk nothing. A failure is logged, and tried again with the next pass.
    pub fn keep(&mut self, keys: &KeyStore) {
        let wanted = keys
            .is_in_memory()
            .then(|| keys.public_keys().into_iter().collect::<Epochs>());
        if wanted == self.kept {
            return;
        }
        let written = tokio::task::block_in_place(|| match &wanted {
            Some(epochs) => self.write(epochs),
            None => std::fs::remove_file(&self.path),
        });
        match written {
            Err(error) if wanted.is_some() || error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(
                    path = %self.path.display(), %error,
                    "cannot keep which epochs the keys in memory are of: the agent's next start would make new ones"
                );
            }
            Ok(()) | Err(_) => self.kept = wanted,
        }
    }

    fn write(&self, epochs: &Epochs) -> io::Result<()> {
        let mut file = AtomicWriteFile::open(&self.path)?;
        file.write_all(&serde_json::to_vec(epochs)?)?;
        file.commit()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_kept_follows_a_store_in_memory_and_ends_with_one_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (path, store) = (dir.path().join(FILE_NAME), dir.path().join("keys"));
        let mut keys = KeyStore::in_memory(&store).unwrap();
        let public = keys.ensure(Epoch::FIRST).unwrap();
        KeyEpochs::open(path.clone()).keep(&keys);
        let mut found = KeyEpochs::open(path.clone());
        assert_eq!(found.kept, Some(Epochs::from([(Epoch::FIRST, public)])));
        keys.retire(Epoch::FIRST).unwrap();
        found.keep(&keys);
        assert_eq!(KeyEpochs::open(path.clone()).kept, Some(Epochs::new()));
        found.keep(&KeyStore::open(&store).unwrap());
        assert!(!path.exists());
        std::fs::write(&path, "{").unwrap();
        assert_eq!(KeyEpochs::open(path).kept, None);
    }
}
