//! The network configuration that a container runtime writes to the plugin's stdin.

#![no_main]

#[path = "../laws/cni_stdin.rs"]
mod law;

libfuzzer_sys::fuzz_target!(|data: &[u8]| law::holds(data));
