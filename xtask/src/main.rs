//! Chores of the repository: `cargo xtask floors` and `cargo xtask generate`.

mod derived;
mod floors;
mod generate;
mod purity;
mod reference;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand};
use clap::Parser;

/// Chores of the Warren repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Chore {
    /// Check that crates depend only on lower floors and that the pure crates are pure.
    Floors,
    /// Write the files that are derived from the code: CRDs and the reference page.
    Generate {
        /// Write nothing; fail if a file is not current.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    match run(Chore::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Not returned from main, which would print a stack backtrace where RUST_BACKTRACE is set.
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    // Members only: what the crates of others depend on is no business of the floor rule.
    let metadata = MetadataCommand::new()
        .no_deps()
        .exec()
        .context("could not read the workspace")?;
    match chore {
        Chore::Floors => check_floors(&metadata),
        Chore::Generate { check } => generate_files(metadata.workspace_root.as_std_path(), check),
    }
}

fn check_floors(metadata: &Metadata) -> Result<()> {
    let members = floors::members(metadata);
    let mut breaches: Vec<String> = floors::check(&members, floors::ROOMS)
        .iter()
        .map(ToString::to_string)
        .collect();
    let bans = metadata.workspace_root.as_std_path().join(purity::BANS);
    let bans = fs::read_to_string(&bans).with_context(|| format!("could not read {}", bans.display()))?;
    for folder in pure_folders(metadata) {
        breaches.extend(
            purity::scan_folder(&folder.join("src"))?
                .iter()
                .map(ToString::to_string),
        );
        breaches.extend(purity::check_bans(folder, &bans));
    }
    if !breaches.is_empty() {
        bail!("the floor rule is broken:\n  {}", breaches.join("\n  "));
    }
    say(&format!("{} crates stand on their floors", members.len()));
    Ok(())
}

/// The folders of the members that must be pure.
fn pure_folders(metadata: &Metadata) -> impl Iterator<Item = &Path> {
    let is_pure = |name: &str| {
        floors::ROOMS
            .iter()
            .any(|r| r.name == name && r.kind == floors::Kind::Pure)
    };
    metadata
        .workspace_packages()
        .into_iter()
        .filter(move |package| is_pure(&package.name))
        .filter_map(|package| package.manifest_path.parent())
        .map(|folder| folder.as_std_path())
}

fn generate_files(root: &Path, check: bool) -> Result<()> {
    let files = derived::files()?;
    if check {
        generate::check(root, &files)?;
        say(&format!("{} generated files are current", files.len()));
        return Ok(());
    }
    for path in generate::write(root, &files)? {
        say(&format!("wrote {}", path.display()));
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what a command answers goes to stdout")]
fn say(line: &str) {
    println!("{line}");
}
