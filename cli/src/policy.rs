//! `warren policy`: what network policy means.

mod explain;
mod list;
mod look;
mod show;

use crate::arguments::PolicyCommand;
use crate::outcome::Outcome;

/// Does what is asked for.
pub(crate) async fn policy(command: PolicyCommand) -> anyhow::Result<Outcome> {
    match command {
        PolicyCommand::List(arguments) => list::list(arguments).await,
        PolicyCommand::Explain(arguments) => explain::explain(arguments).await,
        PolicyCommand::Show(arguments) => show::show(arguments).await,
    }
}
