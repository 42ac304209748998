//! Replays what was fuzzed: requests to a device and its answers, frames of its interface, packets that
//! it merges, datagrams from the network.

#[path = "../../../fuzz/laws/datagram.rs"]
mod datagram;
#[path = "../../../fuzz/laws/device_configuration.rs"]
mod device_configuration;
#[path = "../../../fuzz/laws/replay.rs"]
mod replay;
#[path = "../../../fuzz/laws/split_merge.rs"]
mod split_merge;

#[test]
fn requests_and_answers_of_any_kind_are_understood_or_refused() {
    replay::corpus("device_configuration", device_configuration::holds);
}

#[test]
fn frames_of_any_kind_are_split_to_right_packets_or_refused() {
    replay::corpus("tun_frame", split_merge::tun_frame::holds);
}

#[test]
fn packets_of_any_kind_are_merged_without_loss() {
    replay::corpus("split_merge", split_merge::holds);
}

#[test]
fn of_all_datagrams_those_made_with_the_keys_are_taken() {
    replay::corpus("datagram", datagram::holds);
}
