//! Replays a corpus without a fuzzer, for the test suites of the crates.

use std::panic::{RefUnwindSafe, catch_unwind};
use std::path::Path;

/// Holds every file of `fuzz/corpus/TARGET` to a law, and names those for which it does not hold.
#[allow(
    clippy::disallowed_methods,
    reason = "a test may read files even of a pure crate; the others do not forbid it"
)]
pub(crate) fn corpus(target: &str, law: impl Fn(&[u8]) + RefUnwindSafe) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("read {}: {error}", folder.display()));
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    let broken: Vec<_> = files
        .iter()
        .filter(|path| {
            let bytes =
                std::fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
            catch_unwind(|| law(&bytes)).is_err()
        })
        .collect();
    assert!(broken.is_empty(), "the law does not hold for {broken:#?}");
}
