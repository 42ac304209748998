//! What a killed agent leaves of a file it was about to replace.
//!
//! A file is written under another name beside its own, `.NAME.RANDOM`, and renamed into place. Whoever is killed in between
//! leaves that other one, and nobody else would ever remove it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Removes from a folder what was left of these files, and of nothing else. A file that cannot be removed is in nobody's
/// way: that is logged.
pub fn sweep(dir: &Path, names: &[&str]) {
    for entry in dir.read_dir().into_iter().flatten().flatten() {
        if !names.iter().any(|name| is_half_of(&entry.file_name(), name)) {
            continue;
        }
        let path = entry.path();
        match std::fs::remove_file(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what a killed agent left half written"),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot remove what a killed agent left half written");
            }
        }
    }
}

/// Where to write what is to replace a file of which there is one writer.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".writer");
    path.with_file_name(name)
}

/// `.NAME.` and the six letters and digits of `atomic-write-file`.
fn is_half_of(file: &OsStr, name: &str) -> bool {
    let random = file
        .to_str()
        .and_then(|file| file.strip_prefix('.')?.strip_prefix(name)?.strip_prefix('.'));
    random.is_some_and(|random| random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::io::Write as _;

    use atomic_write_file::AtomicWriteFile;

    use super::*;

    #[test]
    fn what_was_left_half_written_goes_and_everything_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut half = AtomicWriteFile::open(dir.path().join("guard.json")).unwrap();
        half.write_all(b"{").unwrap();
        // As if it had been killed: neither renamed nor removed.
        std::mem::forget(half);
        std::fs::write(beside(&dir.path().join("guard.json")), "{").unwrap();
        let others = [
            "guard.json",
            ".guard.json.bak",
            ".other.json.abcdef",
            ".guard.json.a-b-c-",
        ];
        for name in others {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(dir.path().read_dir().unwrap().count(), others.len() + 2);
        sweep(dir.path(), &["guard.json"]);
        assert_eq!(dir.path().read_dir().unwrap().count(), others.len());
        assert!(others.iter().all(|name| dir.path().join(name).exists()));
    }
}
