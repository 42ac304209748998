//! A cgroup for a device, beside that of the agent's container: what runs in the container's own ends with it.
//!
//! Best effort: it takes the machine's `/sys/fs/cgroup`, writable. Without it a device works just as well, until the
//! container that it was started from is stopped.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Where the machine's hierarchies are.
pub(super) const ROOT: &str = "/sys/fs/cgroup";

/// The parent of the devices' cgroups.
const SLICE: &str = "warren.slice";

/// How often a cgroup that is in use is tried to be removed.
const ATTEMPTS: usize = 20;

/// Makes the cgroup in each hierarchy and opens the files that a process joins it by. Hierarchies that refuse are left
/// out.
pub(super) fn make(root: &Path, interface: &str) -> Vec<File> {
    hierarchies(root)
        .iter()
        .filter_map(|hierarchy| make_in(hierarchy, interface).ok())
        .collect()
}

/// Removes the cgroup wherever no process is in it. One that is just ending is waited for a moment.
pub(super) async fn remove(root: &Path, interface: &str) {
    for _ in 0..ATTEMPTS {
        if remove_now(root, interface) {
            return;
        }
        tokio::time::sleep(super::LOOK_AGAIN).await;
    }
}

/// Says whether it is gone everywhere.
fn remove_now(root: &Path, interface: &str) -> bool {
    let mut gone = true;
    for hierarchy in hierarchies(root) {
        let slice = hierarchy.join(SLICE);
        // A cgroup with processes or children refuses to go.
        let removed = fs::remove_dir(cgroup(&slice, interface));
        gone &= removed.is_ok() || !cgroup(&slice, interface).exists();
        let _ = fs::remove_dir(slice);
    }
    gone
}

/// The one hierarchy of cgroup v2, or one for each controller of v1 (kernel documentation, admin-guide/cgroup-v2 and
/// cgroup-v1).
fn hierarchies(root: &Path) -> Vec<PathBuf> {
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    // Links are second names of a hierarchy.
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories
        .map(|entry| entry.path())
        .filter(|path| path.join("cgroup.procs").exists())
        .collect()
}

fn make_in(hierarchy: &Path, interface: &str) -> io::Result<File> {
    let slice = hierarchy.join(SLICE);
    let cgroup = cgroup(&slice, interface);
    fs::create_dir_all(&cgroup)?;
    for (parent, child) in [(hierarchy, &slice), (&slice, &cgroup)] {
        // A v1 cpuset takes no process before it has been given processors and memory.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if child.join(file).exists() && hierarchy.join("cpuset.mems").exists() {
                fs::write(child.join(file), fs::read(parent.join(file))?)?;
            }
        }
    }
    File::options().write(true).open(cgroup.join("cgroup.procs"))
}

fn cgroup(slice: &Path, interface: &str) -> PathBuf {
    slice.join(format!("warren-wg-{interface}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn file(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn the_unified_hierarchy_is_the_root_itself() {
        let root = tempfile::tempdir().unwrap();
        file(&root.path().join("cgroup.controllers"));
        file(&root.path().join("system.slice/cgroup.procs"));
        assert_eq!(hierarchies(root.path()), [root.path()]);
    }

    #[test]
    fn each_controller_of_the_old_kind_has_a_hierarchy() {
        let root = tempfile::tempdir().unwrap();
        file(&root.path().join("memory/cgroup.procs"));
        file(&root.path().join("not-a-hierarchy/readme"));
        std::os::unix::fs::symlink("memory", root.path().join("alias")).unwrap();
        assert_eq!(hierarchies(root.path()), [root.path().join("memory")]);
    }

    #[test]
    fn nothing_is_made_where_there_are_no_cgroups() {
        let root = tempfile::tempdir().unwrap();
        assert!(make(root.path(), "warren0").is_empty());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_cgroup_is_removed_with_its_slice_when_it_was_the_last() {
        let root = tempfile::tempdir().unwrap();
        file(&root.path().join("cgroup.controllers"));
        for interface in ["warren0", "warren1"] {
            // An ordinary directory has no cgroup.procs to open.
            assert!(make(root.path(), interface).is_empty());
        }
        assert!(remove_now(root.path(), "warren0"));
        assert!(root.path().join("warren.slice/warren-wg-warren1").exists());
        assert!(remove_now(root.path(), "warren1"));
        assert!(!root.path().join("warren.slice").exists());
    }
}
