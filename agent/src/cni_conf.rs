//! The CNI configuration and the plugin's binary: what makes the container runtime call us.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use atomic_write_file::AtomicWriteFile;
use serde_json::json;
use thiserror::Error;

use crate::config::Config;

/// Our configuration's file name: early in the alphabet, because runtimes take the first.
pub const FILE_NAME: &str = "10-warren.conflist";

/// The plugin's file name.
pub const PLUGIN: &str = "warren-cni";

/// Writes the CNI configuration, if it is not there already as it should be. Done only when ADD can be served: a runtime
/// takes the file's presence for the network being ready.
pub fn install_conf(config: &Config) -> Result<bool, CniConfError> {
    let path = config.cni_conf_dir.join(FILE_NAME);
    let failed = |source| CniConfError::Write {
        path: path.clone(),
        source,
    };
    let wanted = conflist(config);
    if std::fs::read_to_string(&path).is_ok_and(|found| found == wanted) {
        return Ok(false);
    }
    std::fs::create_dir_all(&config.cni_conf_dir).map_err(failed)?;
    let write = || {
        let mut file = AtomicWriteFile::open(&path)?;
        file.write_all(wanted.as_bytes())?;
        file.commit()?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))
    };
    write().map_err(failed)?;
    Ok(true)
}

/// Copies the plugin that came with this program into `dir`, if the one there is not the same. The file is replaced by a
/// rename, so that a runtime never runs half a plugin.
pub fn install_plugin(dir: &Path) -> Result<bool, CniConfError> {
    let source = beside_this_program(PLUGIN).ok_or(CniConfError::NoPlugin)?;
    let target = dir.join(PLUGIN);
    let failed = |source| CniConfError::Write {
        path: target.clone(),
        source,
    };
    let binary = std::fs::read(&source).map_err(|error| CniConfError::Read {
        path: source.clone(),
        source: error,
    })?;
    if std::fs::read(&target).is_ok_and(|found| found == binary) {
        return Ok(false);
    }
    let write = || {
        std::fs::create_dir_all(dir)?;
        let mut file = AtomicWriteFile::open(&target)?;
        file.write_all(&binary)?;
        file.as_file()
            .set_permissions(std::fs::Permissions::from_mode(0o755))?;
        file.commit()
    };
    write().map_err(failed)?;
    Ok(true)
}

/// A program installed next to this one.
pub fn beside_this_program(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.parent()?.join(name);
    beside.is_file().then_some(beside)
}

fn conflist(config: &Config) -> String {
    let mut plugins = vec![json!({
        "type": PLUGIN,
        "runDir": config.run_dir,
    })];
    if config.cni_bin_dir.join("portmap").is_file() {
        plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}));
    }
    let conflist = json!({"cniVersion": "1.0.0", "name": "warren", "plugins": plugins});
    format!("{conflist:#}\n")
}

/// The runtime cannot be told about us.
#[derive(Debug, Error)]
pub enum CniConfError {
    /// A file could not be written.
    #[error("cannot write {path}: check that the folder is there and writable")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The plugin that came with this program could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// There is no plugin beside this program.
    #[error("there is no {PLUGIN} beside this program: install both into one folder")]
    NoPlugin,
}
