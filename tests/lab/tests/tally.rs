//! What is counted as lost between pods is what the network has lost, and not what a busy machine has kept from the processor.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use support::{a_pod_on_each_of_two_nodes, lab};
use warren_lab::switch::{self, RATE};
use warren_lab::{LabOptions, tally_during};

/// Stops the pod's process of the tally for as long as a machine with thirty processes a processor has been seen to stand still.
const STAND_STILL: &str =
    "pid=$(pgrep --ns $$ --nslist net --exact warren-lab) && kill -STOP $pid && sleep 10 && kill -CONT $pid";

#[tokio::test]
async fn a_pod_that_gets_no_processor_for_seconds_counts_nothing_as_lost_for_that() {
    let options = LabOptions {
        nodes: 2,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    let (from, _) = a_pod_on_each_of_two_nodes(&lab).await;
    switch::begin_with(&lab, &serde_json::json!({})).await.unwrap();
    let stand_still = lab.run(from, &["sh", "-c", STAND_STILL]);
    let (tally, stopped) = tally_during(&lab, RATE, stand_still).await.unwrap();
    let stopped = stopped.unwrap();
    assert!(stopped.success(), "{stopped:?}");
    let sent = |pod: &str| -> u64 {
        let streams = tally.streams.iter().filter(|stream| stream.from == pod);
        streams.map(|stream| stream.sent).sum()
    };
    // It was stopped, and has not made up for it.
    assert!(sent("from") < sent("to") / 2, "{} {}", sent("from"), sent("to"));
    assert_eq!((tally.lost(), tally.overflowed), (0, 0), "{:#?}", tally.lossy());
}
