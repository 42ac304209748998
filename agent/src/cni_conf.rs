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

/// The plugin of the CNI project that leads ports of the node to pods: chained where it is installed.
const PORTMAP: &str = "portmap";

/// The one that limits the rates of pods: chained where the operator asks for it.
const BANDWIDTH: &str = "bandwidth";

/// Writes the CNI configuration, if it is not there already as it should be. Done only when ADD can be served: a runtime
/// takes the file's presence for the network being ready.
///
/// # Errors
/// Also where a plugin is asked for that is not there: with it in the chain no pod could be attached.
pub fn install_conf(config: &Config) -> Result<bool, CniConfError> {
    if config.cni_bandwidth && !has_plugin(config, BANDWIDTH) {
        return Err(CniConfError::NoBandwidth {
            dir: config.cni_bin_dir.clone(),
        });
    }
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

fn has_plugin(config: &Config, name: &str) -> bool {
    config.cni_bin_dir.join(name).is_file()
}

fn conflist(config: &Config) -> String {
    let mut plugins = vec![json!({
        "type": PLUGIN,
        "runDir": config.run_dir,
    })];
    if has_plugin(config, PORTMAP) {
        plugins.push(json!({"type": PORTMAP, "capabilities": {"portMappings": true}, "snat": true}));
    }
    if config.cni_bandwidth {
        plugins.push(json!({"type": BANDWIDTH, "capabilities": {"bandwidth": true}}));
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
    /// The operator asks for `bandwidth`, which is not installed.
    #[error(
        "--cni-bandwidth is set but there is no {BANDWIDTH} in {dir}: install the CNI project's plugins there, or remove the flag"
    )]
    NoBandwidth {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// There is no plugin beside this program.
    #[error("there is no {PLUGIN} beside this program: install both into one folder")]
    NoPlugin,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::fs;

    use clap::Parser as _;
    use serde_json::Value;

    use super::*;
    use crate::config::Cli;

    /// Folders of a node with these plugins installed, and a configuration that names them.
    fn node(plugins: &[&str], flags: &[&str]) -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        let [bin, conf] = ["bin", "net.d"].map(|it| dir.path().join(it).to_str().unwrap().to_owned());
        fs::create_dir(&bin).unwrap();
        for plugin in plugins {
            fs::write(Path::new(&bin).join(plugin), "").unwrap();
        }
        let fixed = ["warren-agent", "--cni-bin-dir", &bin, "--cni-conf-dir", &conf];
        let cli = Cli::parse_from(fixed.iter().chain(flags));
        (dir, cli.config)
    }

    fn chain(config: &Config) -> Vec<Value> {
        let text = fs::read(config.cni_conf_dir.join(FILE_NAME)).unwrap();
        let list: Value = serde_json::from_slice(&text).unwrap();
        list["plugins"].as_array().unwrap().clone()
    }

    fn types(chain: &[Value]) -> Vec<&str> {
        chain.iter().map(|it| it["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn portmap_is_chained_where_it_is_and_bandwidth_where_it_is_asked_for() {
        for (plugins, flags, expected) in [
            (vec!["bandwidth"], vec![], vec!["warren-cni"]),
            (
                vec!["portmap", "bandwidth"],
                vec![],
                vec!["warren-cni", "portmap"],
            ),
            (
                vec!["portmap", "bandwidth"],
                vec!["--cni-bandwidth"],
                vec!["warren-cni", "portmap", "bandwidth"],
            ),
        ] {
            let (_dir, config) = node(&plugins, &flags);
            assert!(install_conf(&config).unwrap());
            let chain = chain(&config);
            assert_eq!(types(&chain), expected);
            for plugin in &chain[1..] {
                let capability = plugin["capabilities"].as_object().unwrap().values().next();
                assert_eq!(capability, Some(&json!(true)), "{plugin}");
            }
            assert!(!install_conf(&config).unwrap(), "written once");
        }
    }

    #[test]
    fn bandwidth_that_is_asked_for_but_not_there_is_named_and_nothing_is_written() {
        let (_dir, config) = node(&["portmap"], &["--cni-bandwidth"]);
        let error = install_conf(&config).unwrap_err().to_string();
        assert!(
            error.contains("--cni-bandwidth") && error.contains(config.cni_bin_dir.to_str().unwrap()),
            "{error}"
        );
        assert!(!config.cni_conf_dir.join(FILE_NAME).exists());
    }
}
