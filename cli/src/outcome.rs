//! Exit status and standard output.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;

/// How a command that worked has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As asked: exit status 0.
    Done,
    /// The answer is no: the mesh is not whole, or something is left. Exit status 1.
    Short,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Short => Self::from(1),
        }
    }
}

/// The exit status of a command that could not do its work, which is clap's for arguments that make no sense, too.
pub(crate) fn failed() -> ExitCode {
    ExitCode::from(2)
}

/// Writes to standard output. That nobody reads to the end, as in `warren status | head`, is no error.
pub(crate) fn print(text: &[u8]) -> anyhow::Result<Outcome> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(Outcome::Done),
    }
}

/// The same with a value as JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<Outcome> {
    let text = serde_json::to_string_pretty(value).context("cannot write the answer as JSON")?;
    print(format!("{text}\n").as_bytes())
}
