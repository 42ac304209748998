//! What SECURITY.md says is shown by tests is named by tests that exist.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Below it a name between backticks is that of a test; other words there are shorter.
const WORDS: usize = 4;

#[test]
fn every_test_that_security_md_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let named = named(&text);
    assert!(named.len() >= 25, "{named:?}");
    let tests = tests_below(&root);
    let missing: Vec<_> = named.difference(&tests).collect();
    assert!(
        missing.is_empty(),
        "SECURITY.md names tests that do not exist: {missing:#?}"
    );
}

#[test]
fn what_an_attacker_cannot_do_is_never_said_without_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let claims: Vec<&str> = text.lines().filter(|line| line.starts_with("| cannot")).collect();
    assert!(claims.len() >= 10, "{claims:?}");
    let bare: Vec<_> = claims.iter().filter(|line| named(line).is_empty()).collect();
    assert!(bare.is_empty(), "{bare:#?}");
}

#[test]
fn names_are_found_where_they_are_and_nowhere_else() {
    let text = "`a_test_of_four_words` and `two_words`, not `a-b-c-d` nor a_word_without_any_ticks";
    assert_eq!(named(text), BTreeSet::from(["a_test_of_four_words".to_owned()]));
    let code = "#[test]\nfn one() {}\n\nfn two() {}\n    #[tokio::test]\n    async fn three() {}\n";
    assert_eq!(tests_in(code).collect::<Vec<_>>(), ["one", "three"]);
}

/// The names of tests between backticks.
fn named(text: &str) -> BTreeSet<String> {
    let is_name = |part: &str| {
        let letters = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_';
        part.chars().all(letters) && part.split('_').count() >= WORDS
    };
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|part| is_name(part)).map(str::to_owned).collect()
}

/// The names of all tests in the repository's code.
fn tests_below(root: &Path) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    let mut folders: Vec<PathBuf> = ["agent", "cli", "cni", "crates", "keymgr", "tests", "xtask"]
        .map(|name| root.join(name))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let code = fs::read_to_string(path).unwrap();
                tests.extend(tests_in(&code).map(str::to_owned));
            }
        }
    }
    tests
}

/// The names of the functions that follow a test's attribute.
fn tests_in(code: &str) -> impl Iterator<Item = &str> {
    let mut lines = code.lines().map(str::trim);
    std::iter::from_fn(move || {
        loop {
            let line = lines.next()?;
            if line != "#[test]" && !line.starts_with("#[tokio::test") {
                continue;
            }
            let function = lines.by_ref().find(|it| it.contains("fn "))?;
            let (_, rest) = function.split_once("fn ")?;
            return rest.split_once('(').map(|(name, _)| name);
        }
    })
}
