//! The operator's command: `warren`, or as a plugin of kubectl `kubectl warren`.
//!
//! Floor 5. It changes nothing but what `uninstall-node` removes and, for `keys`, the Mesh's epoch and lists of keys; all it shows is what agents
//! answer on `/status` and `/plan`, reached through the API server's node proxy or, on the node itself, through the agent's Unix socket; and what
//! the policies in the API mean.
//!
//! | module | what it is about |
//! |---|---|
//! | `arguments` | the command line |
//! | `survey` | asking many agents at once |
//! | `admin_socket`, `node_proxy`, `answer` | asking one of them, and what its answer means |
//! | `status` | `warren status`: the mesh as all agents see it |
//! | `plan` | `warren plan`: what agents would change now |
//! | `keys` | `warren keys`: the mesh's keys: shown, compared, rotated, accepted and revoked |
//! | `policy` | `warren policy`: what network policy means for a connection and a pod |
//! | `doctor` | `warren doctor`: what is wrong on this node, and what to do about it |
//! | `uninstall` | `warren uninstall-node` |
//! | `outcome` | exit status and standard output |
//! | `table`, `units`, `printable` | text for people |

mod admin_socket;
mod answer;
mod arguments;
mod doctor;
mod keys;
mod node_proxy;
mod outcome;
mod plan;
mod policy;
mod printable;
mod status;
mod survey;
mod table;
mod uninstall;
mod units;

use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches};

use crate::arguments::{Arguments, Command};
use crate::outcome::Outcome;

/// The name under which kubectl finds its plugin `warren`.
const PLUGIN: &str = "kubectl-warren";

/// The command line of `warren`, for its reference page.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Does what the arguments say, the program's name first among them. Arguments that make no sense, and `--help`, end
/// the process here.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = arguments.first().map(OsString::as_os_str).unwrap_or_default();
    let matches = command_called(name).get_matches_from(&arguments);
    let parsed = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match execute(parsed.command) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            eprintln!("warren: {error:#}");
            outcome::failed()
        }
    }
}

/// The command by the name it was called: kubectl calls a plugin by its file name, and people call it through kubectl.
fn command_called(name: &OsStr) -> clap::Command {
    if Path::new(name).file_name() == Some(OsStr::new(PLUGIN)) {
        command().bin_name("kubectl warren")
    } else {
        command()
    }
}

fn execute(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Status(arguments) => in_runtime(status::status(arguments)),
        Command::Plan(arguments) => in_runtime(plan::plan(arguments)),
        Command::Keys(command) => in_runtime(keys::keys(command)),
        Command::Policy(command) => in_runtime(policy::policy(command)),
        Command::Doctor(arguments) => in_runtime(doctor::doctor(arguments)),
        Command::UninstallNode(arguments) => in_runtime(uninstall::uninstall(arguments)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut self::command(), "warren", &mut script);
            outcome::print(&script)
        }
        Command::Version => outcome::print(concat!("warren ", env!("CARGO_PKG_VERSION"), "\n").as_bytes()),
    }
}

fn in_runtime(work: impl Future<Output = anyhow::Result<Outcome>>) -> anyhow::Result<Outcome> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start: the system has no descriptors left")?
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn usage_is_that_of_the_name_it_was_called_by() {
        let usage = |name: &str| {
            let error =
                command_called(OsStr::new(name)).try_get_matches_from([name, "plan", "--no-such-flag"]);
            error.expect_err("there is no such flag").to_string()
        };
        assert!(usage("/usr/local/bin/kubectl-warren").contains("Usage: kubectl warren plan"));
        assert!(usage("/usr/local/bin/warren").contains("Usage: warren plan"));
    }
}
