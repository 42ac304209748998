//! A datagram from the network.

#![no_main]

#[path = "../laws/datagram.rs"]
mod law;

libfuzzer_sys::fuzz_target!(|data: &[u8]| law::holds(data));
