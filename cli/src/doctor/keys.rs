//! The key store: whose it is, and who else may read it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::agent::AgentFacts;
use super::finding::Finding;
use super::settings::Settings;

const CHECK: &str = "key-files";

/// The folder and what is in it; `None`: there is no folder.
pub(super) type KeyFacts = Option<io::Result<Vec<Owned>>>;

/// What is said where there is nothing to look at.
const IN_MEMORY: &str = "the agent keeps its keys in memory alone";

/// One file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owned {
    /// Where.
    pub(super) path: PathBuf,
    /// User number.
    pub(super) owner: u32,
    /// Permissions.
    pub(super) mode: u32,
    /// What it is.
    pub(super) is_dir: bool,
}

/// Looks at the folder and at each key in it, never into one.
pub(super) fn gather(settings: &Settings) -> KeyFacts {
    let dir = settings.state_dir.join("keys");
    let list = || -> io::Result<Vec<Owned>> {
        let mut found = vec![look(&dir)?];
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "key") {
                found.push(look(&path)?);
            }
        }
        Ok(found)
    };
    match list() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        other => Some(other),
    }
}

fn look(path: &Path) -> io::Result<Owned> {
    let metadata = path.symlink_metadata()?;
    Ok(Owned {
        path: path.to_owned(),
        owner: metadata.uid(),
        mode: metadata.mode() & 0o7777,
        is_dir: metadata.is_dir(),
    })
}

/// What it means. The key store itself refuses all of this when the agent starts.
pub(super) fn judge(dir: &Path, facts: KeyFacts, agent: &AgentFacts, in_memory: bool) -> Finding {
    let found = match facts {
        Some(Ok(found)) => found,
        Some(Err(error)) => {
            return Finding::fail(
                CHECK,
                format!("cannot look at {}: {error}", dir.display()),
                "it must be a folder of root's on a disk that works",
            );
        }
        None if in_memory => return Finding::ok(CHECK, IN_MEMORY),
        None if agent.status.is_ok() => {
            return Finding::fail(
                CHECK,
                format!("{} is gone while the agent uses its keys", dir.display()),
                "restart the agent: it makes a new key and publishes it; peers take it up at once",
            );
        }
        None => return Finding::skipped(CHECK, format!("there is no {}", dir.display())),
    };
    let me = geteuid().as_raw();
    let mut wrong = Vec::new();
    for it in &found {
        let (path, may) = (it.path.display(), if it.is_dir { 0o700 } else { 0o600 });
        if it.owner != me {
            wrong.push(format!("{path} belongs to user {}, not to {me}", it.owner));
        }
        if it.mode & !may != 0 {
            wrong.push(format!("{path} has mode {:04o}, more than {may:04o}", it.mode));
        }
    }
    if wrong.is_empty() {
        let keys = found.iter().filter(|it| !it.is_dir).count();
        return Finding::ok(
            CHECK,
            format!("{} private to root", crate::units::count(keys, "key")),
        );
    }
    Finding::fail(
        CHECK,
        wrong.join("; "),
        format!(
            "an agent does not start with such keys. If others may have read them: stop the agent, remove the files of {dir}, \
             start it, and it makes a new key. Else: chown -R root {dir}; chmod 0700 {dir}; chmod 0600 {dir}/*.key",
            dir = dir.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::agent::tests::healthy;
    use crate::doctor::finding::Verdict;

    fn judged(owner: u32, dir_mode: u32, key_mode: u32) -> Finding {
        let it = |path: &str, mode, is_dir| Owned {
            path: path.into(),
            owner,
            mode,
            is_dir,
        };
        let found = vec![it("/k", dir_mode, true), it("/k/epoch-1.key", key_mode, false)];
        judge(Path::new("/k"), Some(Ok(found)), &AgentFacts::stopped(), false)
    }

    #[test]
    fn keys_others_can_read_are_found() {
        let me = geteuid().as_raw();
        assert_eq!(judged(me, 0o700, 0o600).result, Verdict::Ok);
        for (owner, dir, key, named) in [
            (me, 0o755, 0o600, "/k has mode 0755"),
            (me, 0o700, 0o644, "/k/epoch-1.key has mode 0644"),
            (me + 1, 0o700, 0o600, "/k belongs to"),
        ] {
            let finding = judged(owner, dir, key);
            assert_eq!(finding.result, Verdict::Fail);
            assert!(finding.found.contains(named), "{finding:?}");
        }
    }

    #[test]
    fn keys_may_only_be_absent_where_no_agent_uses_them() {
        let absent = |agent: &AgentFacts, in_memory| judge(Path::new("/k"), None, agent, in_memory).result;
        assert_eq!(absent(&AgentFacts::stopped(), false), Verdict::Skipped);
        assert_eq!(absent(&AgentFacts::answering(healthy()), false), Verdict::Fail);
        assert_eq!(absent(&AgentFacts::answering(healthy()), true), Verdict::Ok);
    }
}
