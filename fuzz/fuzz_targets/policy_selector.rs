//! The selectors of policies: whoever may write a NetworkPolicy in one namespace chooses their text.

#![no_main]

#[path = "../laws/policy_selector.rs"]
mod law;

libfuzzer_sys::fuzz_target!(|data: &[u8]| law::holds(data));
