//! `warren-cni`: the plugin a container runtime calls for each pod.
//!
//! It does not touch the network. It turns one call of the
//! [CNI specification](https://www.cni.dev/docs/spec/) (environment and stdin) into one message to `warren-agent`,
//! and the agent's answer into what the specification wants on stdout. It holds no state, so whatever goes wrong,
//! calling it again is right.

mod agent;
mod check;
mod environment;
mod failure;
mod plugin;

use std::io::{self, Write};
use std::process::ExitCode;

use warren_cni_wire::SpecVersion;

fn main() -> ExitCode {
    let variable = |name: &str| std::env::var_os(name);
    if variable("CNI_COMMAND").is_none_or(|value| value.is_empty()) {
        // Somebody has called it by hand.
        eprintln!("{}", about());
    }
    let (answer, exit) = match plugin::run(&variable, io::stdin()) {
        Ok(answer) => (answer, ExitCode::SUCCESS),
        Err(error) => (serde_json::to_vec(&error).unwrap_or_default(), ExitCode::FAILURE),
    };
    let mut stdout = io::stdout().lock();
    match stdout.write_all(&answer).and_then(|()| stdout.flush()) {
        Ok(()) => exit,
        Err(error) => {
            // The runtime has not heard of what was done; failing makes it call DEL.
            eprintln!("warren-cni: cannot write to stdout: {error}");
            ExitCode::FAILURE
        }
    }
}

fn about() -> String {
    let versions = SpecVersion::ALL.map(SpecVersion::as_str).join(", ");
    format!(
        "warren-cni {}: CNI plugin of the Warren network (CNI versions {versions})\n\
         It is called by a container runtime, with CNI_COMMAND set and a network configuration on stdin.",
        env!("CARGO_PKG_VERSION")
    )
}
