//! What a benchmark ran on: hardware, system, and the versions of the programs. Not whose machine it is.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::read_to_string;
use std::process::Command;
use std::thread::available_parallelism;

use serde::Serialize;

/// A machine.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    system: String,
    /// Of the peers and of what Warren calls, by Debian package; and ours.
    versions: BTreeMap<&'static str, String>,
}

impl Machine {
    /// This one, with the versions of these Debian packages; what cannot be found out is said to be unknown.
    pub(crate) fn look(packages: &[&'static str]) -> Self {
        let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = read_to_string("/proc/meminfo").unwrap_or_default();
        let release = read_to_string("/etc/os-release").unwrap_or_default();
        let kib = field(&meminfo, "MemTotal", ':').and_then(|it| it.split(' ').next()?.parse::<u64>().ok());
        let mut versions = BTreeMap::from([("warren", env!("CARGO_PKG_VERSION").to_owned())]);
        versions.extend(packages.iter().map(|name| (*name, package_version(name))));
        Self {
            cpu: known(field(&cpuinfo, "model name", ':')),
            cores: available_parallelism().map_or(0, usize::from),
            memory_mib: kib.unwrap_or(0) / 1024,
            kernel: known(
                read_to_string("/proc/sys/kernel/osrelease")
                    .ok()
                    .as_deref()
                    .map(str::trim),
            ),
            system: known(field(&release, "PRETTY_NAME", '=')),
            versions,
        }
    }

    /// Adds the version of something that is no Debian package of this system.
    pub(crate) fn with_version(mut self, name: &'static str, version: String) -> Self {
        self.versions.insert(name, version);
        self
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} cores, {} MiB; Linux {}; {}",
            self.cpu, self.cores, self.memory_mib, self.kernel, self.system
        )?;
        for (name, version) in &self.versions {
            write!(f, "; {name} {version}")?;
        }
        Ok(())
    }
}

fn package_version(name: &str) -> String {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Version}", name])
        .output();
    let version = output.ok().filter(|it| it.status.success());
    known(
        version
            .map(|it| String::from_utf8_lossy(&it.stdout).into_owned())
            .as_deref(),
    )
}

/// The value of a line `name SEPARATOR value`, the first of that name.
fn field<'t>(text: &'t str, name: &str, separator: char) -> Option<&'t str> {
    let (_, value) = text
        .lines()
        .filter_map(|line| line.split_once(separator))
        .find(|(found, _)| found.trim() == name)?;
    Some(value.trim().trim_matches('"'))
}

fn known(value: Option<&str>) -> String {
    value.filter(|it| !it.is_empty()).unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name_and_without_quotes() {
        let text = "VERSION_ID=12\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n";
        assert_eq!(field(text, "PRETTY_NAME", '='), Some("Debian GNU/Linux 12"));
        assert_eq!(field(text, "NAME", '='), None);
        assert_eq!(
            field("model name\t: A\nmodel name\t: B\n", "model name", ':'),
            Some("A")
        );
    }

    #[test]
    fn a_package_that_is_not_installed_has_an_unknown_version() {
        assert_eq!(package_version("warren-bench-no-such-package"), "unknown");
    }
}
