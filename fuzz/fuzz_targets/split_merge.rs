//! Packets that are merged to frames and split again: whoever sends through the tunnel chooses them.

#![no_main]

#[path = "../laws/split_merge.rs"]
mod law;

libfuzzer_sys::fuzz_target!(|data: &[u8]| law::holds(data));
