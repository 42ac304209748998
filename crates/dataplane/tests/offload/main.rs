//! Splitting and merging of frames, against packets that are made and judged without the code under test.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../../../../fuzz/laws/split_merge.rs"]
mod law;

mod laws;
mod merging;
mod refusals;
mod splitting;
