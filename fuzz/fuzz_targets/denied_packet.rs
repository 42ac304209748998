//! The headers of packets that policy denies, which the agent reads to log them: any pod may send what it likes.

#![no_main]

#[path = "../laws/denied_packet.rs"]
mod law;

libfuzzer_sys::fuzz_target!(|data: &[u8]| law::holds(data));
