//! The table in the kernel: written whole once, then by what differs.

use std::path::PathBuf;

use futures::Stream;
use tokio::sync::Mutex;

use super::table::{TABLE, Table};
use crate::guard::changes::Changes;
use crate::guard::netfilter::{self, Netfilter};
use crate::guard::{self, DropCounter, GuardError};

/// The table of one network namespace, and what is known to be in it.
///
/// A process that starts knows nothing of what is there, and writes all of it in one transaction: until then what is there
/// holds, and no packet comes between. So it does when somebody else has changed it.
#[derive(Debug)]
pub(crate) struct Installed {
    nft: PathBuf,
    netfilter: Netfilter,
    changes: Changes,
    known: Mutex<Option<Table>>,
}

/// What it took to make the table what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Nothing: it was that already.
    Nothing,
    /// The difference, of so many bytes of text.
    Difference(usize),
    /// All of it.
    Whole,
}

/// Two generations of the rules, if a transaction of ours is all that is between them.
pub(crate) type Step = Option<(u32, u32)>;

impl Installed {
    /// The table of the namespace of the calling thread.
    pub(crate) fn new(nft: PathBuf) -> Result<Self, GuardError> {
        Ok(Self {
            nft,
            netfilter: Netfilter::open().map_err(GuardError::Netlink)?,
            changes: Changes::of(TABLE),
            known: Mutex::new(None),
        })
    }

    /// A tick for each time that somebody else has changed the table: the next [`Self::install`] then writes all of it. To be
    /// taken by who installs, between two installations.
    pub(crate) fn alterations(&self) -> Result<impl Stream<Item = ()> + Send + use<>, GuardError> {
        self.changes
            .subscribe(self.netfilter.clone())
            .map_err(GuardError::Netlink)
    }

    /// Makes the table this, in one transaction.
    pub(crate) async fn install(&self, table: Table) -> Result<(Written, Step), GuardError> {
        let mut known = self.known.lock().await;
        let altered = self.changes.forget();
        if let Some(before) = known.take().filter(|_| !altered) {
            let text = table.difference(&before);
            if text.is_empty() {
                *known = Some(table);
                return Ok((Written::Nothing, None));
            }
            match self.write(&text).await {
                Ok(step) => {
                    *known = Some(table);
                    return Ok((Written::Difference(text.len()), step));
                }
                Err(error) => {
                    tracing::warn!(%error, "nft refuses a difference; writing the whole policy table");
                }
            }
        }
        match self.write(&table.text()).await {
            Ok(step) => {
                *known = Some(table);
                Ok((Written::Whole, step))
            }
            Err(error) => {
                // What is there is not what it should be, and nobody knows what it is.
                self.changes.suspect();
                Err(error)
            }
        }
    }

    /// What was denied, by counter.
    pub(crate) async fn counters(&self) -> Result<Vec<DropCounter>, GuardError> {
        self.netfilter.counters(TABLE).await.map_err(GuardError::Netlink)
    }

    async fn write(&self, text: &str) -> Result<Step, GuardError> {
        let before = self.netfilter.generation().await.map_err(GuardError::Netlink)?;
        guard::run_script(&self.nft, text).await?;
        let now = self.netfilter.generation().await.map_err(GuardError::Netlink)?;
        if now != netfilter::next(before) {
            return Ok(None);
        }
        self.changes.wrote(now);
        Ok(Some((before, now)))
    }
}

/// Adding first makes the removal of what is not there no error.
const REMOVE: &str = "add table inet warren-policy\ndelete table inet warren-policy\n";

/// Removes the table, if it is there.
pub(crate) async fn remove(nft: &std::path::Path) -> Result<(), GuardError> {
    guard::run_script(nft, REMOVE).await
}
