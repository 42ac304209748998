//! Where the programs are that a lab runs.

use std::path::PathBuf;

use anyhow::{Context, ensure};

/// The folder with `warren-agent`, `warren-cni`, `warren-wg`, `warren` and `warren-lab`.
#[derive(Debug, Clone)]
pub(crate) struct Binaries(PathBuf);

impl Binaries {
    /// `$WARREN_BIN_DIR`, else the folder of this program; for a test, which cargo puts one deeper, the folder above.
    pub(crate) fn find() -> anyhow::Result<Self> {
        if let Some(dir) = std::env::var_os("WARREN_BIN_DIR") {
            let dir = PathBuf::from(dir);
            let dir = dir
                .canonicalize()
                .with_context(|| format!("WARREN_BIN_DIR={}", dir.display()))?;
            return Ok(Self(dir));
        }
        let exe = std::env::current_exe().context("find out where this program is")?;
        let dir = exe.parent().context("this program is in no folder")?;
        let dir = if dir.ends_with("deps") {
            dir.parent().unwrap_or(dir)
        } else {
            dir
        };
        Ok(Self(dir.to_owned()))
    }

    /// The path of one program; the error says how to get it.
    pub(crate) fn get(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.join(name);
        ensure!(
            path.is_file(),
            "no {name} in {}. Build all programs with `cargo build --workspace --bins`, or set WARREN_BIN_DIR to the \
             folder that holds them",
            self.0.display()
        );
        Ok(path)
    }

    /// `PATH` of processes in the lab: our programs first, and the administrator's folders, which Debian leaves out of
    /// a user's.
    pub(crate) fn search_path(&self) -> std::ffi::OsString {
        let mut path = self.0.clone().into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        path.push(":/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin");
        path
    }
}
