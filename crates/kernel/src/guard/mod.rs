//! The fail-closed guard: the nft table `inet warren`. It outlives the agent.
//!
//! The table is only ever changed in one transaction, so that there is no instant without it. Its own description (a
//! fingerprint of the content and the number of rules in each chain) is kept inside, as the comment of the one rule
//! of chain `fingerprint`: a table that was changed by hand no longer fits its description and counts as missing.

mod listing;
mod render;

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use nix::sys::memfd::{MFdFlags, memfd_create};
use thiserror::Error;
use tokio::process::Command;
use warren_plan::Guard;

use listing::Listing;
pub use render::{COUNTERS, render};

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
    /// It printed something else than the listing asked for.
    #[error("cannot read nft's list of table inet warren: nft 1.0 or newer with JSON support is needed")]
    Listing(#[source] serde_json::Error),
}

impl GuardError {
    /// Whether the same may succeed later without a change elsewhere: nft refuses when another program changed the
    /// rules at the same time.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Refused { .. })
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

/// Puts the table's content in place, in one transaction. Counters keep counting. `tidy`: nothing is in the table that
/// has to be removed, as a [`Seen`] of just now says; otherwise that is looked up.
pub(crate) async fn install(nft: &Path, guard: &Guard, tidy: bool) -> Result<(), GuardError> {
    let mut text = render(guard);
    if !tidy {
        let present = list(nft).await?.unwrap_or_default();
        text += &present.removal_of_what_is_not(&render::objects(guard));
    }
    match run_script(nft, &text).await {
        // A chain or set of one of our names but another make, which cannot be changed in place: in one transaction
        // still, but the counters start again.
        Err(GuardError::Refused { message, .. }) => {
            tracing::warn!(
                message,
                "table inet warren was changed by somebody else; replacing all of it"
            );
            run_script(nft, &format!("{REMOVE}{}", render(guard))).await
        }
        other => other,
    }
}

/// The table as one listing shows it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Of what is installed; `None` if there is no table or it was changed by hand.
    pub(crate) fingerprint: Option<u64>,
    /// Whether there is nothing in it that [`render`] does not make.
    pub(crate) tidy: bool,
    /// What was dropped so far, by reason; empty without a table.
    pub(crate) counters: Vec<DropCounter>,
}

/// Looks at the table. Each look runs a program, so all that is asked of it is answered by one.
pub(crate) async fn observe(nft: &Path) -> Result<Seen, GuardError> {
    let listing = list(nft).await?.unwrap_or_default();
    // Every guard is made of the same objects.
    let objects = render::objects(&Guard::default());
    Ok(Seen {
        fingerprint: listing.fingerprint(),
        tidy: listing.removal_of_what_is_not(&objects).is_empty(),
        counters: listing.counters,
    })
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

async fn run_script(nft: &Path, text: &str) -> Result<(), GuardError> {
    let output = run(nft, &["--file", "-"], text).await?;
    if output.status.success() {
        return Ok(());
    }
    Err(GuardError::Refused {
        act: "change table inet warren",
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
