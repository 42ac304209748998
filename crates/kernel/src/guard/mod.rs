//! The fail-closed guard: the nft table `inet warren`. It outlives the agent.
//!
//! The table is only ever changed in one transaction, so that there is no instant without it. Its own description (a
//! fingerprint of the content and the number of rules in each chain) is kept inside, as the comment of the one rule
//! of chain `fingerprint`: a table that was changed by hand no longer fits its description and counts as missing.
//!
//! The open pods are the elements of two sets. They are read back and changed one by one, by netlink and in a transaction
//! that the kernel refuses if anybody has changed any rule since the look that it is based on.
//!
//! What somebody else does to the table is heard of at once, and answered by writing all of it anew.

pub(crate) mod changes;
mod listing;
pub(crate) mod message;
pub(crate) mod netfilter;
mod render;
mod rules;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::Stream;
use nix::sys::memfd::{MFdFlags, memfd_create};
use thiserror::Error;
use tokio::process::Command;
use warren_plan::{Guard, OpenPod};

use changes::Changes;
use listing::Listing;
use netfilter::{Netfilter, next};
pub use render::COUNTERS;
use render::render;

/// What cannot be done to the guard.
#[derive(Debug, Error)]
pub enum GuardError {
    /// No such program.
    #[error("cannot run {program}: install nftables, or name its nft program in the agent's configuration")]
    Program {
        /// The program as configured.
        program: PathBuf,
        /// Why it does not run.
        #[source]
        source: io::Error,
    },
    /// It ran and refused.
    #[error("nft cannot {act}: {message}")]
    Refused {
        /// What was asked for.
        act: &'static str,
        /// What it printed, first lines.
        message: String,
    },
    /// The kernel does not answer about its rules.
    #[error("cannot ask the kernel's nf_tables: this takes CAP_NET_ADMIN and a kernel that has it")]
    Netlink(#[source] io::Error),
    /// It printed something else than the listing asked for.
    #[error("cannot read nft's list of table inet warren: nft 1.0 or newer with JSON support is needed")]
    Listing(#[source] serde_json::Error),
}

impl GuardError {
    /// Whether the same may succeed later without a change elsewhere: nft refuses when another program changed the
    /// rules at the same time, and a look ends when it does so all the time.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Netlink(_))
    }
}

/// What one reason to drop has dropped since the table was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropCounter {
    /// The counter's name, which is the reason: one of [`COUNTERS`].
    pub reason: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The table of one network namespace, and what was last seen of it.
#[derive(Debug)]
pub(crate) struct Table {
    nft: PathBuf,
    netfilter: Netfilter,
    seen: Mutex<Option<Seen>>,
    changes: Changes,
}

/// The table as one look shows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// The generation of the rules that this was seen in: while the kernel names the same, nothing has changed.
    generation: u32,
    /// Of what is installed; `None` if there is no table or it was changed by hand.
    pub(crate) fingerprint: Option<u64>,
    /// Whether there is nothing in it that [`render`] does not make.
    tidy: bool,
    /// The pods that are open.
    pub(crate) pods: BTreeSet<OpenPod>,
}

impl Table {
    /// The table of the namespace of the calling thread.
    pub(crate) fn new(nft: PathBuf) -> Result<Self, GuardError> {
        Ok(Self {
            nft,
            netfilter: Netfilter::open().map_err(GuardError::Netlink)?,
            seen: Mutex::new(None),
            changes: Changes::of(render::TABLE),
        })
    }

    /// A tick for each time that somebody else has changed the table: the next look then finds it not whole, whatever it
    /// looks like. To be taken by who installs it, between two installations.
    pub(crate) fn alterations(&self) -> Result<impl Stream<Item = ()> + Send + use<>, GuardError> {
        self.changes
            .subscribe(self.netfilter.clone())
            .map_err(GuardError::Netlink)
    }

    /// Looks at the table, and at what was dropped so far, by reason. The nft program runs only if the kernel says that
    /// some rule was changed since the last look.
    pub(crate) async fn observe(&self) -> Result<(Seen, Vec<DropCounter>), GuardError> {
        let before = self.seen().take();
        let known = before.as_ref().map(|seen| seen.generation);
        let look = self.netfilter.look(known).await.map_err(GuardError::Netlink)?;
        let (seen, lasting) = match (before, look.pods) {
            // As it was.
            (Some(seen), None) => (seen, true),
            (_, pods) => {
                let listing = list(&self.nft).await?.unwrap_or_default();
                let seen = Seen {
                    generation: look.generation,
                    fingerprint: listing.fingerprint(),
                    tidy: listing.removal_of_what_is_not(&render::objects()).is_empty(),
                    pods: pods.unwrap_or_default(),
                };
                // Nobody knows what nft has listed of which generation if there was another in between.
                let now = self.netfilter.generation().await.map_err(GuardError::Netlink)?;
                (seen, now == look.generation)
            }
        };
        *self.seen() = lasting.then(|| seen.clone());
        let fingerprint = seen.fingerprint.filter(|_| !self.changes.altered());
        Ok((Seen { fingerprint, ..seen }, look.counters))
    }

    /// Puts the table's content in place, in one transaction. Counters keep counting. Where only the pods are others than
    /// those last seen, and the rules are still those, only these pods are opened and closed.
    pub(crate) async fn install(&self, guard: &Guard) -> Result<(), GuardError> {
        let seen = self.seen().take().filter(|_| !self.changes.altered());
        let same_rules = |seen: &Seen| seen.tidy && seen.fingerprint == Some(guard.fingerprint());
        let seen = match seen {
            Some(seen) if same_rules(&seen) => seen,
            other => return self.write(guard, other).await,
        };
        let open: Vec<OpenPod> = guard.pods.difference(&seen.pods).cloned().collect();
        let close: Vec<OpenPod> = seen.pods.difference(&guard.pods).cloned().collect();
        if open.is_empty() && close.is_empty() {
            *self.seen() = Some(seen);
            return Ok(());
        }
        match self.netfilter.change_pods(seen.generation, open, close).await {
            Ok(generation) => {
                self.changes.changed_pods(seen.generation);
                *self.seen() = generation.map(|generation| Seen {
                    generation,
                    pods: guard.pods.clone(),
                    ..seen
                });
                Ok(())
            }
            Err(error) => {
                tracing::debug!(%error, "the rules have changed since the last look; writing the whole table");
                self.write(guard, None).await
            }
        }
    }

    /// Writes the whole table. If nobody else has changed any rule meanwhile, the change is known to be ours and what is in
    /// the table needs no look. `seen`: what the table is, if that is known.
    async fn write(&self, guard: &Guard, seen: Option<Seen>) -> Result<(), GuardError> {
        let before = self.netfilter.generation().await.map_err(GuardError::Netlink)?;
        let seen = seen.filter(|seen| seen.generation == before);
        let altered = self.changes.forget();
        let written = install(&self.nft, guard, seen.as_ref()).await;
        if altered && written.is_err() {
            self.changes.suspect();
        }
        written?;
        let now = self.netfilter.generation().await.map_err(GuardError::Netlink)?;
        if now == next(before) {
            self.changes.wrote(now);
        }
        Ok(())
    }

    /// Takes note that a transaction that has not touched the table has led from one generation to the next: what was last
    /// seen of the table still holds. Not to be called while the table is looked at or written.
    pub(crate) fn passed_by(&self, before: u32, now: u32) {
        self.changes.passed_by(before, now);
        if let Some(seen) = self.seen().as_mut().filter(|seen| seen.generation == before) {
            seen.generation = now;
        }
    }

    /// A panic elsewhere leaves it whole: it is replaced in one assignment.
    fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the table's whole content in place, in one transaction. `seen`: what a look of just now says of it; without, what has
/// to be removed is looked up.
async fn install(nft: &Path, guard: &Guard, seen: Option<&Seen>) -> Result<(), GuardError> {
    let mut text = render(guard, seen.map(|seen| &seen.pods));
    if !seen.is_some_and(|seen| seen.tidy) {
        let present = list(nft).await?.unwrap_or_default();
        text += &present.removal_of_what_is_not(&render::objects());
    }
    match run_script(nft, &text).await {
        // A chain or set of one of our names but another make, which cannot be changed in place: in one transaction
        // still, but the counters start again.
        Err(GuardError::Refused { message, .. }) => {
            tracing::warn!(
                message,
                "table inet warren was changed by somebody else; replacing all of it"
            );
            run_script(nft, &format!("{REMOVE}{}", render(guard, None))).await
        }
        other => other,
    }
}

/// What was dropped so far, by reason; empty without a table.
pub(crate) async fn counters(nft: &Path) -> Result<Vec<DropCounter>, GuardError> {
    Ok(list(nft)
        .await?
        .map(|listing| listing.counters)
        .unwrap_or_default())
}

/// Removes the table; says whether there was one.
pub(crate) async fn remove(nft: &Path) -> Result<bool, GuardError> {
    if list(nft).await?.is_none() {
        return Ok(false);
    }
    run_script(nft, REMOVE).await.map(|()| true)
}

/// Adding first makes the removal of what is not there no error.
const REMOVE: &str = "add table inet warren\ndelete table inet warren\n";

async fn list(nft: &Path) -> Result<Option<Listing>, GuardError> {
    // Terse: the elements, maybe thousands, are not read.
    let output = run(nft, &["--json", "--terse", "list", "table", "inet", "warren"], "").await?;
    if !output.status.success() {
        let message = first_lines(&output.stderr);
        return if message.contains("No such file or directory") {
            Ok(None)
        } else {
            Err(GuardError::Refused {
                act: "list table inet warren",
                message,
            })
        };
    }
    serde_json::from_slice::<listing::Root>(&output.stdout)
        .map(Listing::from)
        .map(Some)
        .map_err(GuardError::Listing)
}

pub(crate) async fn run_script(nft: &Path, text: &str) -> Result<(), GuardError> {
    accepted(run(nft, &["--file", "-"], text).await?, "change the rules")
}

/// Whether nft and the kernel would take a script; nothing is changed.
pub(crate) async fn check_script(nft: &Path, text: &str, act: &'static str) -> Result<(), GuardError> {
    accepted(run(nft, &["--check", "--file", "-"], text).await?, act)
}

fn accepted(output: Output, act: &'static str) -> Result<(), GuardError> {
    if output.status.success() {
        return Ok(());
    }
    Err(GuardError::Refused {
        act,
        message: first_lines(&output.stderr),
    })
}

async fn run(nft: &Path, arguments: &[&str], input: &str) -> Result<Output, GuardError> {
    let failed = |source| GuardError::Program {
        program: nft.to_owned(),
        source,
    };
    let child = Command::new(nft)
        .args(arguments)
        // Its messages are read, and they are translated otherwise.
        .env("LC_ALL", "C")
        .stdin(whole(input).map_err(failed)?)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    child.wait_with_output().await.map_err(failed)
}

/// A text as a file in memory, all of it there before anyone reads. Through a pipe, whoever kills this process in the middle
/// would leave nft the first half, which may be valid: chains emptied, and their rules still to come.
fn whole(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("nft", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

fn first_lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().take(3).map(str::trim).collect::<Vec<_>>().join("; ")
}
