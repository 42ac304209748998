//! The annotation in which a node publishes its keys: whoever may write a Node chooses its text.

#![no_main]

#[path = "../laws/annotation.rs"]
mod law;

libfuzzer_sys::fuzz_target!(|data: &[u8]| law::holds(data));
