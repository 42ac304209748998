//! `warren keys`: the keys of the mesh, and rotating them.

mod list;
mod rotate;

use crate::arguments::KeysCommand;
use crate::outcome::Outcome;

/// Does what is asked for.
pub(crate) async fn keys(command: KeysCommand) -> anyhow::Result<Outcome> {
    match command {
        KeysCommand::List(arguments) => list::list(arguments).await,
        KeysCommand::Rotate(arguments) => rotate::rotate(arguments).await,
    }
}
