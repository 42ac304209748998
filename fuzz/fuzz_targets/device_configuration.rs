//! The configuration protocol of a WireGuard device, in both directions.

#![no_main]

#[path = "../laws/device_configuration.rs"]
mod law;

libfuzzer_sys::fuzz_target!(|data: &[u8]| law::holds(data));
