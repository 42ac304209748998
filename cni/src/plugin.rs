//! One call of the plugin, from environment and stdin to what goes to stdout.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use warren_cni_wire::{
    AddResult, CniError, Command, ErrorCode, MAX_CONF_BYTES, NetConf, NetnsPath, Outcome, PrevResult,
    Request, SpecVersion, VersionReply,
};

use crate::agent;
use crate::check;
use crate::environment::{Asked, Environment, Verb};
use crate::failure::Failure;

/// Runs the call; gives back what to print, which is nothing for commands that have no result.
pub(crate) fn run(
    variable: &dyn Fn(&str) -> Option<OsString>,
    stdin: impl Read,
) -> Result<Vec<u8>, CniError> {
    let environment = Environment::new(variable);
    let in_newest = |failure: Failure| failure.in_version(SpecVersion::NEWEST);
    // Read before stdin, which may be a terminal if there is no command.
    let asked = environment.asked().map_err(in_newest)?;
    let stdin = read(stdin);
    let verb = match asked {
        // VERSION cannot fail: with it a runtime finds out how to talk to us.
        Asked::Version => {
            return print(&VersionReply::to_stdin(&stdin.unwrap_or_default())).map_err(in_newest);
        }
        Asked::Agent(verb) => verb,
    };
    let stdin = stdin.map_err(in_newest)?;
    let conf = NetConf::parse(&stdin).map_err(|error| {
        let version = error.version();
        Failure::from(error).in_version(version)
    })?;
    answer(verb, &environment, &conf).map_err(|failure| failure.in_version(conf.cni_version))
}

fn answer(verb: Verb, environment: &Environment<'_>, conf: &NetConf) -> Result<Vec<u8>, Failure> {
    refuse_before_its_version(verb, conf.cni_version)?;
    let command = environment.command(verb, conf)?;
    let prev_result = match &command {
        Command::Add { netns, .. } => {
            refuse_after_another_plugin(conf.prev_result()?.as_ref(), environment)?;
            refuse_own_namespace(netns)?;
            None
        }
        Command::Check { .. } => Some(conf.prev_result()?.ok_or_else(|| {
            Failure::new(
                ErrorCode::INVALID_NETWORK_CONFIG,
                "CHECK needs \"prevResult\", the result of ADD, in the network configuration; the runtime has to pass it",
            )
        })?),
        // DEL has to work whatever the runtime remembers; the agent knows what there is.
        Command::Del { .. } | Command::Gc { .. } | Command::Status => None,
    };
    let request = Request {
        network: conf.name.clone(),
        command,
    };
    let outcome = agent::ask(&conf.socket(), conf.timeout, &request)
        .map_err(|error| error.failure(&request.command))?;
    match (&request.command, outcome) {
        (_, Outcome::Error { code, msg, details }) => Err(Failure { code, msg, details }),
        (Command::Add { .. }, Outcome::Added(result)) => print_result(result, conf),
        (
            Command::Check {
                netns, attachment, ..
            },
            Outcome::Added(result),
        ) => {
            check::compare(attachment, netns, &result, &prev_result.unwrap_or_default())?;
            Ok(Vec::new())
        }
        (Command::Del { .. } | Command::Gc { .. } | Command::Status, Outcome::Done) => Ok(Vec::new()),
        (command, Outcome::Added(_) | Outcome::Done) => Err(Failure::new(
            ErrorCode::AGENT_PROTOCOL,
            format!(
                "warren-agent gave {} the answer to another command; run warren-cni and warren-agent of one release \
                 on the node",
                command.verb()
            ),
        )),
    }
}

/// Stdin to its end, but not without bound. One byte too many is kept, so that the configuration's own check sees it.
fn read(stdin: impl Read) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let most = MAX_CONF_BYTES as u64 + 1;
    stdin
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure {
            details: error.to_string(),
            ..Failure::new(
                ErrorCode::IO_FAILURE,
                "cannot read the network configuration from stdin",
            )
        })?;
    Ok(bytes)
}

fn refuse_before_its_version(verb: Verb, version: SpecVersion) -> Result<(), Failure> {
    let since = match verb {
        Verb::Add | Verb::Del => SpecVersion::V0_3_0,
        Verb::Check => SpecVersion::V0_4_0,
        Verb::Gc | Verb::Status => SpecVersion::V1_1_0,
    };
    if version >= since {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::INCOMPATIBLE_VERSION,
        format!(
            "CNI version {version} has no {verb}; set cniVersion in the network configuration to {since} or newer"
        ),
    ))
}

/// We make the pod's interface, so nothing can have been made before us.
fn refuse_after_another_plugin(
    prev_result: Option<&PrevResult>,
    environment: &Environment<'_>,
) -> Result<(), Failure> {
    let Some(prev) = prev_result.filter(|prev| !prev.interfaces.is_empty() || !prev.ips.is_empty()) else {
        return Ok(());
    };
    let if_name = environment.if_name()?;
    let ours = |name: &str, sandbox: Option<&str>| {
        name == if_name.as_str() && sandbox.is_some_and(|sandbox| !sandbox.is_empty())
    };
    let what = if prev
        .interfaces
        .iter()
        .any(|made| ours(&made.name, made.sandbox.as_deref()))
    {
        format!("interface {if_name} was already made by a plugin before warren-cni")
    } else {
        "warren-cni was called after another plugin".to_owned()
    };
    Err(Failure::new(
        ErrorCode::INVALID_NETWORK_CONFIG,
        format!("{what}; put warren-cni first in \"plugins\" of the network configuration"),
    ))
}

/// A pod's address and default route in the node's own namespace would cut the node off. A path that leads nowhere is
/// the agent's to refuse.
fn refuse_own_namespace(netns: &NetnsPath) -> Result<(), Failure> {
    let identity = |path: &Path| fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
    let own = identity(Path::new("/proc/self/ns/net"));
    if own.is_none() || identity(netns.as_path()) != own {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::INVALID_NETNS,
        format!(
            "CNI_NETNS {netns} is the node's own network namespace; pass the container's, and no CNI call at all for \
             one that shares the node's"
        ),
    ))
}

fn print_result(mut result: AddResult, conf: &NetConf) -> Result<Vec<u8>, Failure> {
    if !conf.dns.is_empty() {
        result.dns = conf.dns.clone();
    }
    print(&result.for_version(conf.cni_version))
}

fn print(value: &impl serde::Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| Failure {
        details: error.to_string(),
        ..Failure::new(ErrorCode::IO_FAILURE, "cannot write the result as JSON")
    })
}
