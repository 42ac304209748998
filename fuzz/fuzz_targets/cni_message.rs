//! The messages between plugin and agent, in both directions.

#![no_main]

#[path = "../laws/cni_message.rs"]
mod law;

libfuzzer_sys::fuzz_target!(|data: &[u8]| law::holds(data));
