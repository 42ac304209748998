//! Replays what was fuzzed as a selector.

#[path = "../../../fuzz/laws/policy_selector.rs"]
mod policy_selector;
#[path = "../../../fuzz/laws/replay.rs"]
mod replay;

#[test]
fn selectors_of_any_kind_are_understood_or_refused() {
    replay::corpus("policy_selector", policy_selector::holds);
}
