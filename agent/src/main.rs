//! The program `warren-agent`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use warren_agent::config::{Cli, Command};
use warren_agent::{cni_conf, run};

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("warren-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> Result<()> {
    warren_telemetry::logs::init(&cli.config.log, cli.config.log_format)?;
    match cli.command {
        Some(Command::InstallCni { cni_bin_dir }) => {
            cni_conf::install_plugin(&cni_bin_dir)?;
            tracing::info!(dir = %cni_bin_dir.display(), "the CNI plugin is installed");
            Ok(())
        }
        None => {
            warren_keymgr::forbid_core_dumps().context("cannot keep keys out of core dumps")?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .context("cannot start the async runtime")?;
            runtime.block_on(run(cli.config))
        }
    }
}
