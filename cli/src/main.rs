//! `warren`: the operator's command. By the name `kubectl-warren` it is a plugin of kubectl.

use std::process::ExitCode;

fn main() -> ExitCode {
    warren::run(std::env::args_os())
}
