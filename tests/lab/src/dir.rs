//! A lab's directory: what is where, who keeps it, and whether that process still lives.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

/// Longest path of a Unix socket, from `sun_path` of unix(7) without its final zero.
const MAX_SOCKET_PATH: usize = 107;

/// The files of one lab. Two labs with different directories know nothing of each other.
#[derive(Debug, Clone)]
pub(crate) struct LabDir(PathBuf);

/// `lab.json`: the process that a lab lives and dies with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// As the host counts.
    pub(crate) pid: i32,
    /// Clock ticks after boot, from `/proc/PID/stat`: tells the process from a later one with its number.
    pub(crate) start_time: u64,
}

impl LabDir {
    /// The directory people use who name none: `$WARREN_LAB_DIR`, else one in `/tmp` for each user.
    ///
    /// Not `$XDG_RUNTIME_DIR`: that is below `/run`, which a lab covers with one of its own.
    pub(crate) fn default_path() -> PathBuf {
        std::env::var_os("WARREN_LAB_DIR").map_or_else(
            || PathBuf::from(format!("/tmp/warren-lab-{}", nix::unistd::getuid())),
            PathBuf::from,
        )
    }

    /// Names a directory that may or may not exist.
    pub(crate) fn at(path: &Path) -> anyhow::Result<Self> {
        let path = std::path::absolute(path).with_context(|| format!("lab directory {}", path.display()))?;
        for covered in ["/run", "/var/run", "/proc", "/sys"] {
            ensure!(
                !path.starts_with(covered),
                "a lab directory cannot be below {covered}: the lab has a {covered} of its own. Name another with --dir"
            );
        }
        let dir = Self(path);
        ensure!(
            dir.control().as_os_str().len() <= MAX_SOCKET_PATH,
            "the path of the lab directory {} is too long for the control socket in it. Name another with --dir",
            dir.0.display()
        );
        Ok(dir)
    }

    /// Makes the directory, for its user only. What a dead lab left there is removed; a living one is an error.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        if self.0.exists() {
            ensure!(
                self.owner()?.is_none_or(|it| !it.alive()),
                "there is a lab in {} already. Take it down with `warren-lab --dir {0} down`, or name another --dir",
                self.0.display()
            );
            self.remove()?;
        }
        fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&self.0)
            .with_context(|| format!("make the lab directory {}", self.0.display()))?;
        // In a shared /tmp someone else may have been faster.
        let meta = fs::symlink_metadata(&self.0)?;
        ensure!(
            meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o077 == 0,
            "{} is not a directory of this user alone. Name another with --dir",
            self.0.display()
        );
        Ok(())
    }

    /// Removes the directory, if it is a lab's: nothing is removed that a lab did not make.
    pub(crate) fn remove(&self) -> anyhow::Result<()> {
        let mut entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("read {}", self.0.display())),
        };
        let of_a_lab = self.lab_json().exists() || self.keeper_log().exists();
        if !of_a_lab && entries.next().is_some() {
            bail!("{} holds files but no lab: not removed", self.0.display());
        }
        fs::remove_dir_all(&self.0).with_context(|| format!("remove {}", self.0.display()))
    }

    /// Who keeps the lab; `None`: there is none.
    pub(crate) fn owner(&self) -> anyhow::Result<Option<Owner>> {
        match fs::read(self.lab_json()) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .with_context(|| format!("{} is not a lab's", self.lab_json().display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", self.lab_json().display())),
        }
    }

    pub(crate) fn set_owner(&self, owner: &Owner) -> anyhow::Result<()> {
        let json = serde_json::to_vec(owner)?;
        fs::write(self.lab_json(), json).with_context(|| format!("write {}", self.lab_json().display()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn lab_json(&self) -> PathBuf {
        self.0.join("lab.json")
    }

    /// The keeper's socket.
    pub(crate) fn control(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    pub(crate) fn keeper_log(&self) -> PathBuf {
        self.0.join("keeper.log")
    }

    pub(crate) fn pcap(&self) -> PathBuf {
        self.0.join("underlay.pcap")
    }

    /// Of an administrator on the host.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// Of an administrator inside the lab.
    pub(crate) fn inside_kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig.inside")
    }

    /// Certificates, keys, tokens and logs of the API.
    pub(crate) fn api(&self) -> PathBuf {
        self.0.join("api")
    }

    /// A node's disk.
    pub(crate) fn node(&self, name: &str) -> NodeDir {
        NodeDir(self.0.join("nodes").join(name))
    }
}

/// What a node keeps over a reboot.
#[derive(Debug, Clone)]
pub(crate) struct NodeDir(PathBuf);

impl NodeDir {
    /// Makes all the directories.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        for dir in [self.state(), self.cni_conf(), self.cni_bin()] {
            fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    pub(crate) fn cni_conf(&self) -> PathBuf {
        self.0.join("cni/net.d")
    }

    pub(crate) fn cni_bin(&self) -> PathBuf {
        self.0.join("cni/bin")
    }

    pub(crate) fn agent_log(&self) -> PathBuf {
        self.0.join("agent.log")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    pub(crate) fn steward_token(&self) -> PathBuf {
        self.0.join("token.steward")
    }

    pub(crate) fn publish_kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig.publish")
    }
}

impl Owner {
    /// The process with this number, as it is now; `None`: there is none, or it waits to be collected.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the command in brackets and may hold anything; the state is next, proc_pid_stat(5).
        let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
        if fields.next()? == "Z" {
            return None;
        }
        let start_time = fields.nth(18)?.parse().ok()?;
        Some(Self { pid, start_time })
    }

    pub(crate) fn alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_another_with_its_number() {
        let me = Owner::of(std::process::id().cast_signed()).unwrap();
        assert!(me.alive());
        assert!(
            !Owner {
                start_time: me.start_time + 1,
                ..me
            }
            .alive()
        );
    }

    #[test]
    fn a_directory_that_is_not_a_labs_is_not_removed() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.txt"), "years of work").unwrap();
        LabDir::at(temp.path()).unwrap().create().unwrap_err();
        assert!(temp.path().join("thesis.txt").exists());
    }

    #[test]
    fn a_directory_that_the_labs_own_run_would_cover_is_refused() {
        let error = LabDir::at(Path::new("/run/user/0/lab")).unwrap_err().to_string();
        assert!(error.contains("/run"), "{error}");
    }
}
