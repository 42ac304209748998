//! Replays what was fuzzed as a selector, and as a packet.

#[path = "../../../fuzz/laws/denied_packet.rs"]
mod denied_packet;
#[path = "../../../fuzz/laws/policy_selector.rs"]
mod policy_selector;
#[path = "../../../fuzz/laws/replay.rs"]
mod replay;

#[test]
fn selectors_of_any_kind_are_understood_or_refused() {
    replay::corpus("policy_selector", policy_selector::holds);
}

#[test]
fn packets_of_any_kind_are_read_as_far_as_they_go() {
    replay::corpus("denied_packet", denied_packet::holds);
}
