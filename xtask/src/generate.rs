//! Files that are derived from the code and committed, so that people can read them and installers can use them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// A file as it should be.
#[derive(Debug)]
pub(crate) struct Generated {
    /// Below the root of the repository.
    pub(crate) path: PathBuf,
    pub(crate) content: String,
}

/// Writes the files that differ and returns their paths.
pub(crate) fn write(root: &Path, files: &[Generated]) -> Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for file in files {
        if is_current(root, file)? {
            continue;
        }
        let path = root.join(&file.path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
        }
        fs::write(&path, &file.content).with_context(|| format!("could not write {}", path.display()))?;
        written.push(file.path.clone());
    }
    Ok(written)
}

/// Fails with the names of all files that are missing or differ.
pub(crate) fn check(root: &Path, files: &[Generated]) -> Result<()> {
    let mut stale = Vec::new();
    for file in files {
        if !is_current(root, file)? {
            stale.push(file.path.display().to_string());
        }
    }
    if !stale.is_empty() {
        bail!(
            "not what the code says: {}; run `cargo xtask generate` and commit the result",
            stale.join(", ")
        );
    }
    Ok(())
}

fn is_current(root: &Path, file: &Generated) -> Result<bool> {
    let path = root.join(&file.path);
    match fs::read_to_string(&path) {
        Ok(found) => Ok(found == file.content),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("could not read {}", path.display())),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn files() -> Vec<Generated> {
        let file = |path: &str, content: &str| Generated {
            path: path.into(),
            content: content.into(),
        };
        vec![file("deep/down/one.yaml", "a: 1\n"), file("two.md", "# Two\n")]
    }

    #[test]
    fn what_was_written_is_current_and_is_not_written_again() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(write(root.path(), &files()).unwrap().len(), 2);
        check(root.path(), &files()).unwrap();
        assert!(write(root.path(), &files()).unwrap().is_empty());
    }

    #[test]
    fn a_stale_file_is_named_with_the_remedy_and_left_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &files()).unwrap();
        fs::write(root.path().join("two.md"), "edited by hand").unwrap();
        let error = check(root.path(), &files()).unwrap_err().to_string();
        assert!(error.contains("two.md") && !error.contains("one.yaml"), "{error}");
        assert!(error.contains("cargo xtask generate"), "{error}");
        assert_eq!(
            fs::read_to_string(root.path().join("two.md")).unwrap(),
            "edited by hand"
        );
    }

    #[test]
    fn a_missing_file_is_stale() {
        let root = tempfile::tempdir().unwrap();
        assert!(
            check(root.path(), &files())
                .unwrap_err()
                .to_string()
                .contains("one.yaml, two.md")
        );
    }
}
