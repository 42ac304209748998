//! Frames of the TUN interface, with what the kernel says of them: header and length of each are looked at anew.

#![no_main]

#[path = "../laws/tun_frame.rs"]
mod law;

libfuzzer_sys::fuzz_target!(|data: &[u8]| law::holds(data));
