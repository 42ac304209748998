//! The paper's rules about time (section 6), one by one.

use std::sync::{Arc, Weak};

use super::end::End;
use super::network::{Network, PACKET, TICK, connected, talk};
use crate::drops::DropReason;
use crate::noise::{
    KEEPALIVE_TIMEOUT, Millis, REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT, REKEY_TIMEOUT_JITTER,
};

/// No times.
const NONE: [Millis; 0] = [];

#[test]
fn the_initiator_renews_the_session_every_two_minutes_and_nothing_is_lost() {
    let mut network = connected(5);
    let sent = talk(&mut network, 1_000_000);
    network.run(1000);
    for end in 0..2 {
        assert_eq!(network.ends[end].take_received().len(), sent);
        assert_eq!(network.ends[end].drops, []);
    }
    let initiations = &network.ends[0].initiations;
    assert_eq!(initiations.len(), 9, "{initiations:?}");
    for pair in initiations.windows(2) {
        let apart = pair[1] - pair[0];
        assert!(
            (REKEY_AFTER_TIME..REKEY_AFTER_TIME + 200).contains(&apart),
            "{apart}"
        );
    }
    assert_eq!(
        network.ends[1].initiations, NONE,
        "the responder leaves it to the initiator"
    );
}

#[test]
fn an_initiator_that_only_hears_renews_the_session_in_time() {
    let mut network = connected(6);
    for _ in 0..1000 {
        network.send(1, PACKET);
        network.run(1000);
    }
    let end = &network.ends[0];
    assert_eq!((end.received.len(), end.drops.as_slice()), (1000, &[][..]));
    // It answers with keepalives, and those too are sent.
    for pair in end.initiations.windows(2) {
        let apart = pair[1] - pair[0];
        assert!((REKEY_AFTER_TIME..140_000).contains(&apart), "{apart}");
    }
    assert_eq!(network.ends[1].initiations, NONE);
}

#[test]
fn a_session_that_is_old_when_something_comes_is_renewed_before_the_answer_is_due() {
    let mut network = connected(7);
    let born = network.ends[0].initiations[0];
    network.run_until(born + 165_100);
    assert_eq!(network.ends[0].initiations.len(), 1, "nobody had anything to say");
    network.send(1, PACKET);
    network.run(100);
    assert_eq!(network.ends[0].initiations.len(), 2);
    assert_eq!(network.ends[0].take_received(), [PACKET]);
}

#[test]
fn what_is_not_answered_in_ten_seconds_is_answered_by_a_keepalive_and_that_is_all() {
    let mut network = connected(8);
    network.run(10_000_000);
    let [a, b] = &network.ends;
    assert_eq!(a.keepalives, NONE);
    let [keepalive] = b.keepalives[..] else {
        panic!("{:?}", b.keepalives)
    };
    let after = keepalive - a.initiations[0];
    assert!(
        (KEEPALIVE_TIMEOUT..KEEPALIVE_TIMEOUT + 2 * TICK).contains(&after),
        "{after}"
    );
    assert_eq!(
        (a.initiations.len(), b.initiations.len()),
        (1, 0),
        "silence is no reason to talk"
    );
}

#[test]
fn a_peer_that_does_not_answer_is_tried_for_ninety_seconds() {
    let mut network = Network::new(9);
    network.reachable[1] = false;
    network.send(0, PACKET);
    network.run(1_000_000);
    let end = &network.ends[0];
    let first = end.initiations[0];
    let last = *end.initiations.last().unwrap();
    assert!(
        (first + 80_000..first + REKEY_ATTEMPT_TIME).contains(&last),
        "{last}"
    );
    let apart: Vec<Millis> = end.initiations.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let most = REKEY_TIMEOUT + REKEY_TIMEOUT_JITTER + TICK;
    assert!(
        apart.iter().all(|apart| (REKEY_TIMEOUT..=most).contains(apart)),
        "{apart:?}"
    );
    let late = |apart: &Millis| *apart > REKEY_TIMEOUT + TICK;
    assert!(
        apart.iter().any(late) && !apart.iter().all(late),
        "no jitter: {apart:?}"
    );
    assert_eq!((end.gave_up, end.dropped_staged), (1, 1));
    assert!(end.by_index.is_empty(), "its index is free again");
    let before = end.initiations.len();
    network.reachable[1] = true;
    network.send(0, PACKET);
    network.run(100);
    assert_eq!(
        network.ends[0].initiations.len(),
        before + 1,
        "another packet, another try"
    );
    assert_eq!(network.ends[1].take_received(), [PACKET]);
}

#[test]
fn as_long_as_there_is_something_to_send_it_is_tried() {
    let mut network = Network::new(10);
    network.reachable[1] = false;
    for _ in 0..400 {
        network.send(0, PACKET);
        network.run(1000);
    }
    let end = &network.ends[0];
    assert_eq!(end.gave_up, 0);
    let tries = end.initiations.len();
    assert!((70..=80).contains(&tries), "{tries}");
    assert_eq!(end.dropped_staged, 400 - 128, "the newest wait");
}

#[test]
fn silence_where_there_should_be_an_answer_begins_a_handshake() {
    let mut network = connected(11);
    network.run(60_000);
    network.reachable[1] = false;
    let from = network.now;
    network.send(0, PACKET);
    network.run(30_000);
    let begun = network.ends[0].initiations[1] - from;
    let expected = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT;
    let range = expected..=expected + REKEY_TIMEOUT_JITTER + TICK;
    assert!(range.contains(&begun), "{begun}");
}

#[test]
fn a_peer_that_has_lost_its_keys_is_found_again_by_either_side() {
    for speaker in 0..2 {
        let mut network = connected(12);
        talk(&mut network, 30_000);
        let wall = network.ends[1].wall_at_start;
        network.ends[1] = End::new(16, 8, 77);
        network.ends[1].wall_at_start = wall;
        let mut first = None;
        for second in 0..30 {
            network.send(speaker, PACKET);
            network.run(1000);
            let heard = !network.ends[1 - speaker].take_received().is_empty();
            first = first.or(heard.then_some(second)).filter(|_| second < 1 || heard);
        }
        // The one that has lost its keys begins at once; the other has to become suspicious.
        let range = if speaker == 1 { 0..=1 } else { 14..=16 };
        assert!(range.contains(&first.unwrap()), "{speaker}: {first:?}");
    }
}

#[test]
fn nothing_goes_over_a_session_of_three_minutes_and_its_keys_are_erased() {
    let mut network = connected(15);
    let sessions: Vec<Weak<_>> = network
        .ends
        .iter()
        .map(|end| Arc::downgrade(&end.peer.sending(network.now).unwrap()))
        .collect();
    let late = {
        let session = network.ends[0].peer.sending(network.now).unwrap();
        let mut slot = [0; 48];
        session.seal(session.reserve(1).unwrap(), &mut slot).unwrap();
        slot
    };
    let born = network.ends[0].peer.last_handshake().unwrap();
    // No tick in between: age alone decides.
    let at = born + REJECT_AFTER_TIME;
    assert!(network.ends[0].peer.sending(at - 1).is_some());
    assert!(network.ends[0].peer.sending(at).is_none());
    assert_eq!(
        network.ends[1].try_receive(at, &late),
        Err(DropReason::SessionExpired)
    );
    network.run(REJECT_AFTER_TIME + TICK);
    assert!(sessions.iter().all(|session| session.upgrade().is_none()));
    assert!(network.ends.iter().all(|end| end.by_index.is_empty()));
}

#[test]
fn a_worn_key_is_renewed_by_whoever_wore_it() {
    for end in 0..2 {
        let mut network = connected(16);
        network.run(10_000);
        let session = network.ends[end].peer.sending(network.now).unwrap();
        session.skip_to(REKEY_AFTER_MESSAGES);
        let before = network.ends[end].initiations.len();
        network.send(end, PACKET);
        network.run(1000);
        assert_eq!(network.ends[end].initiations.len(), before + 1);
        // One that may seal nothing more is as good as none.
        let session = network.ends[end].peer.sending(network.now).unwrap();
        session.skip_to(REJECT_AFTER_MESSAGES);
        network.run(10_000);
        network.ends[1 - end].received.clear();
        network.send(end, PACKET);
        network.run(1000);
        assert_eq!(network.ends[1 - end].take_received(), [PACKET]);
    }
}

#[test]
fn a_persistent_keepalive_keeps_a_session_and_tries_for_ever() {
    let mut network = Network::new(17);
    network.ends[0].peer.set_keepalive(25);
    network.run(1000);
    assert_eq!(network.ends[0].initiations.len(), 1, "at once");
    network.run(3_600_000);
    let end = &network.ends[0];
    assert!(
        end.keepalives
            .windows(2)
            .all(|pair| pair[1] - pair[0] <= 25_000 + TICK)
    );
    assert!(
        (23..=30).contains(&end.initiations.len()),
        "{}",
        end.initiations.len()
    );
    network.reachable[1] = false;
    network.run(3_600_000);
    network.reachable[1] = true;
    network.run(60_000);
    let now = network.now;
    assert!(network.ends.iter().all(|end| end.peer.sending(now).is_some()));
}
