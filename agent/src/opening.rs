//! The state folder at the start: made, and the keys in it opened, as soon as its disk takes that.
//!
//! A disk that is read-only or full may be so for a while. An agent that ended for it would be restarted ever more seldom,
//! and nobody could ask it what is wrong. So it waits, with the guard in force and nothing else made, says in `/readyz` and
//! its log what for, and goes on once it can.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use warren_keymgr::{KeyStore, KeyStoreError};
use warren_telemetry::{AdminConfig, Gate, Liveness, Readiness, Registry};

use crate::config::{Config, KeyStoreKind};

/// How often it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Makes the state folder, if it is not there, and opens its keys. Waits for a disk that refuses.
///
/// # Errors
/// What does not pass by itself: a key that is damaged or open to others, a second agent.
pub async fn open_keys(config: &Config) -> Result<KeyStore> {
    let mut waiting: Option<Waiting> = None;
    loop {
        let refusal = match try_open(config)? {
            Opened::Keys(keys) => {
                if let Some(waiting) = waiting {
                    waiting.end().await?;
                    tracing::info!(dir = %config.state_dir.display(), "the state folder can be used now");
                }
                return Ok(keys);
            }
            Opened::Refused(error) => format!("{error:#}"),
        };
        match &mut waiting {
            Some(waiting) => waiting.say(refusal),
            None => waiting = Some(Waiting::begin(config, refusal).await?),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// What came of trying.
enum Opened {
    Keys(KeyStore),
    /// The disk does not take it.
    Refused(anyhow::Error),
}

fn try_open(config: &Config) -> Result<Opened> {
    if let Err(error) = make_dir(&config.state_dir, 0o700) {
        return Ok(Opened::Refused(error));
    }
    let opened = match config.key_store {
        KeyStoreKind::Disk => KeyStore::open(&config.keys_dir()),
        KeyStoreKind::Memory => KeyStore::in_memory(&config.keys_dir()),
    };
    match opened {
        Ok(keys) => Ok(Opened::Keys(keys)),
        Err(error @ KeyStoreError::Io { .. }) => Ok(Opened::Refused(error.into())),
        Err(error) => Err(error.into()),
    }
}

/// An admin server for the time being.
struct Waiting {
    gate: Gate,
    refusal: String,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Waiting {
    async fn begin(config: &Config, refusal: String) -> Result<Self> {
        let readiness = Readiness::new();
        let gate = readiness.gate("state-folder");
        let admin = AdminConfig {
            addr: Some(config.admin_addr()),
            unix: Some(config.admin_socket()),
        };
        let admin = admin
            .build(Arc::new(Registry::new()), Liveness::new(), readiness)
            .await?;
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(admin.serve(async {
            // Dropping the sender stops it as well.
            let _ = stopped.await;
        }));
        let mut waiting = Self {
            gate,
            refusal: String::new(),
            stop,
            server,
        };
        waiting.say(refusal);
        Ok(waiting)
    }

    /// Says what is waited for: in the log once, it is tried often.
    fn say(&mut self, refusal: String) {
        if self.refusal == refusal {
            return;
        }
        tracing::warn!(
            error = refusal,
            "waiting for the state folder; no pod can be attached"
        );
        self.gate.close(refusal.clone());
        self.refusal = refusal;
    }

    /// Makes room for the agent's own server.
    async fn end(self) -> Result<()> {
        drop(self.stop);
        self.server.await.context("the admin server failed")
    }
}

/// Makes a folder, if it is not there, and takes away from others what the mode does not give them.
pub(crate) fn make_dir(dir: &Path, mode: u32) -> Result<()> {
    let cannot = || {
        format!(
            "cannot make the folder {}: check that its disk is there, writable and not full",
            dir.display()
        )
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(dir)
        .with_context(cannot)?;
    let found = fs::metadata(dir).with_context(cannot)?.permissions().mode() & 0o777;
    if found & !mode != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(mode)).with_context(cannot)?;
    }
    Ok(())
}
