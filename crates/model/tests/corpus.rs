//! Replays what was fuzzed as an annotation.

#[path = "../../../fuzz/laws/annotation.rs"]
mod annotation;
#[path = "../../../fuzz/laws/replay.rs"]
mod replay;

#[test]
fn annotations_of_any_kind_are_understood_or_refused() {
    replay::corpus("annotation", annotation::holds);
}
