//! Removal of the agent's folders, and of nothing that is not the agent's in them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A folder is left.
#[derive(Debug, Error)]
pub(super) enum FolderError {
    /// The system refused.
    #[error("cannot remove {}: check that its file system is writable, and do this again", path.display())]
    Refused {
        /// What could not be removed.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was asked to stay stays.
    #[error("its {name} stays until it is not needed any more; all else in it is removed")]
    Kept {
        /// The file in it.
        name: String,
    },
    /// It holds what is not ours.
    #[error(
        "Warren's files in it are removed, but it also holds {names}: look at them and remove it by hand"
    )]
    Foreign {
        /// Some of what it holds.
        names: String,
    },
}

/// Removes a folder; says whether there was one. `contents` is what the agent has in it. A folder whose own name says
/// that it is Warren's goes with all it holds; from another one, which an operator may have chosen among things of their
/// own, only the agent's files do, and the folder when nothing else is in it. A file named `kept` stays in either. What
/// cannot be removed does not keep the rest; the first of such is told.
pub(super) fn remove(path: &Path, contents: &[&str], kept: Option<&str>) -> Result<bool, FolderError> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| FolderError::Refused { path, source }
    };
    let folder = match path.canonicalize() {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(refused(path)(error)),
    };
    let is_warrens = folder
        .file_name()
        .is_some_and(|name| name.to_string_lossy().contains("warren"));
    let (mut foreign, mut first_refused, mut is_kept) = (Vec::new(), None, None);
    for entry in fs::read_dir(&folder).map_err(refused(&folder))? {
        let entry = entry.map_err(refused(&folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if kept == Some(name.as_str()) {
            is_kept = Some(name);
        } else if is_warrens || is_agents(&name, contents) {
            let removed = remove_entry(&entry.path()).map_err(refused(&entry.path()));
            first_refused = first_refused.or(removed.err());
        } else {
            foreign.push(name);
        }
    }
    if let Some(refused) = first_refused {
        return Err(refused);
    }
    if !foreign.is_empty() {
        foreign.sort();
        let names = crate::units::first_few(&foreign, 3);
        return Err(FolderError::Foreign { names });
    }
    if let Some(name) = is_kept {
        return Err(FolderError::Kept { name });
    }
    match fs::remove_dir(&folder) {
        // In a container it is a mount of the node's, and all it held is gone.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
        result => result.map_err(refused(&folder))?,
    }
    if path.is_symlink() {
        fs::remove_file(path).map_err(refused(path))?;
    }
    Ok(true)
}

/// One of the agent's files, or the file beside it that an interrupted write has left.
fn is_agents(name: &str, contents: &[&str]) -> bool {
    contents.iter().any(|ours| {
        name == *ours
            || name
                .strip_prefix('.')
                .and_then(|rest| rest.strip_prefix(ours))
                .is_some_and(|end| end.starts_with('.'))
    })
}

fn remove_entry(path: &Path) -> io::Result<()> {
    let removed = if path.symlink_metadata()?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    const CONTENTS: [&str; 2] = ["keys", "guard.json"];

    fn filled(folder: &Path) {
        fs::create_dir_all(folder.join("keys")).unwrap();
        fs::write(folder.join("keys/epoch-1.key"), "").unwrap();
        fs::write(folder.join("guard.json"), "").unwrap();
        fs::write(folder.join(".guard.json.new"), "").unwrap();
    }

    #[test]
    fn a_folder_of_ours_goes_with_all_it_holds() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("warren");
        filled(&folder);
        fs::write(folder.join("of-a-later-release"), "").unwrap();
        assert!(remove(&folder, &CONTENTS, None).unwrap());
        assert!(!folder.exists());
        assert!(!remove(&folder, &CONTENTS, None).unwrap(), "again, there is none");
    }

    #[test]
    fn from_a_folder_with_others_things_only_ours_go() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("state");
        filled(&folder);
        fs::write(folder.join("letters"), "").unwrap();
        let error = remove(&folder, &CONTENTS, None).unwrap_err();
        assert!(error.to_string().contains("letters"), "{error}");
        let names: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["letters"]);
        fs::remove_file(folder.join("letters")).unwrap();
        assert!(remove(&folder, &CONTENTS, None).unwrap());
        assert!(!folder.exists());
    }

    #[test]
    fn what_is_still_needed_stays_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["warren", "state"] {
            let folder = temp.path().join(name);
            filled(&folder);
            let error = remove(&folder, &CONTENTS, Some("guard.json")).unwrap_err();
            assert!(error.to_string().contains("guard.json stays"), "{error}");
            let left: Vec<_> = fs::read_dir(&folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert_eq!(left, ["guard.json"]);
        }
    }

    #[test]
    fn behind_a_link_the_folder_goes_and_not_only_the_link() {
        let temp = tempfile::tempdir().unwrap();
        let (folder, link) = (temp.path().join("warren-keys"), temp.path().join("link"));
        filled(&folder);
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(remove(&link, &CONTENTS, None).unwrap());
        assert!(!folder.exists() && !link.is_symlink());
    }
}
