//! Replays what was fuzzed as a configuration from a runtime, and as a message from either end of the socket.

#[path = "../../../fuzz/laws/cni_message.rs"]
mod cni_message;
#[path = "../../../fuzz/laws/cni_stdin.rs"]
mod cni_stdin;
#[path = "../../../fuzz/laws/replay.rs"]
mod replay;

#[test]
fn messages_of_any_kind_are_understood_or_refused() {
    replay::corpus("cni_message", cni_message::holds);
}

#[test]
fn configurations_of_any_kind_are_understood_or_refused() {
    replay::corpus("cni_stdin", cni_stdin::holds);
}
