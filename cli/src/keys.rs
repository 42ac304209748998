//! `warren keys`: the keys of the mesh.
//!
//! | module | what it is about |
//! |---|---|
//! | `list` | every node's keys |
//! | `progress` | where a rotation stands, and what waits for an operator |
//! | `verify` | what devices hold, against what nodes publish |
//! | `rotate` | raising the Mesh's epoch |
//! | `listed` | the Mesh's lists of accepted and revoked keys |

mod list;
mod listed;
mod progress;
mod rotate;
mod verify;

use crate::arguments::KeysCommand;
use crate::outcome::Outcome;

/// Does what is asked for.
pub(crate) async fn keys(command: KeysCommand) -> anyhow::Result<Outcome> {
    match command {
        KeysCommand::List(arguments) => list::list(arguments).await,
        KeysCommand::Rotate(arguments) => rotate::rotate(arguments).await,
        KeysCommand::Status(arguments) => progress::progress(arguments).await,
        KeysCommand::Verify(arguments) => verify::verify(arguments).await,
        KeysCommand::Accept(arguments) => listed::accept(arguments).await,
        KeysCommand::Revoke(arguments) => listed::revoke(arguments).await,
    }
}
