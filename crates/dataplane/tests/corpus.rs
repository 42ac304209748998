//! Replays what was fuzzed as a request to a device, and as its answer.

#[path = "../../../fuzz/laws/device_configuration.rs"]
mod device_configuration;
#[path = "../../../fuzz/laws/replay.rs"]
mod replay;

#[test]
fn requests_and_answers_of_any_kind_are_understood_or_refused() {
    replay::corpus("device_configuration", device_configuration::holds);
}
