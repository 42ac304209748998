//! A pair of sessions, without peers.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::atomic::AtomicUsize;

use zeroize::Zeroizing;

use super::*;

/// The initiator's session and the responder's.
fn pair() -> [Session; 2] {
    let keys = |sealing, opening| Keys {
        sealing: Zeroizing::new([sealing; 32]),
        opening: Zeroizing::new([opening; 32]),
    };
    [
        Session::new(&keys(1, 2), 10, 20, true, 0),
        Session::new(&keys(2, 1), 20, 10, false, 0),
    ]
}

fn message(session: &Session, packet: &[u8]) -> Vec<u8> {
    let mut slot = [&[0; 16], packet, &[0; 16]].concat();
    session.seal(session.reserve(1).unwrap(), &mut slot).unwrap();
    slot
}

#[test]
fn what_one_side_seals_the_other_opens_in_place() {
    let [ours, theirs] = pair();
    for (counter, packet) in [&b"a packet"[..], b"", &[7; 1500]].into_iter().enumerate() {
        let mut datagram = message(&ours, packet);
        assert_eq!(datagram[..8], [4, 0, 0, 0, 20, 0, 0, 0]);
        let opened = theirs.open(0, &mut datagram).unwrap();
        assert_eq!(opened.counter, counter as u64);
        assert_eq!(&datagram[opened.packet], packet);
    }
}

#[test]
fn each_bit_of_a_message_counts() {
    let [ours, theirs] = pair();
    let datagram = message(&ours, b"a packet");
    for bit in 0..datagram.len() * 8 {
        let mut forged = datagram.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            0..4 => DropReason::Malformed,
            4..8 => DropReason::UnknownSession,
            // The highest bits make a counter that there is not.
            _ => DropReason::DecryptFailed,
        };
        assert_eq!(theirs.open(0, &mut forged), Err(expected), "bit {bit}");
    }
    for len in 0..datagram.len() {
        assert!(
            theirs.open(0, &mut datagram[..len].to_vec()).is_err(),
            "{len} bytes"
        );
    }
    assert!(theirs.open(0, &mut datagram.clone()).is_ok());
    assert!(
        ours.open(0, &mut datagram.clone()).is_err(),
        "a session's own message"
    );
}

#[test]
fn a_repetition_is_refused_before_opening_or_at_marking() {
    let [ours, theirs] = pair();
    let datagrams: Vec<_> = (0..10_000_u32)
        .map(|number| message(&ours, &number.to_le_bytes()))
        .collect();
    let mut window = theirs.window();
    for datagram in &datagrams {
        let opened = theirs.open(0, &mut datagram.clone()).unwrap();
        assert_eq!(window.accept(opened.counter), Ok(()));
    }
    drop(window);
    let again = |number: usize| theirs.open(0, &mut datagrams[number].clone());
    assert_eq!(again(0), Err(DropReason::Replayed), "too old for sure");
    let opened = again(9_999).unwrap();
    assert_eq!(theirs.accept(opened.counter), Err(DropReason::Replayed));
}

#[test]
fn threads_that_open_the_same_messages_accept_each_once() {
    let [ours, theirs] = pair();
    let datagrams: Vec<_> = (0..2_000_u32)
        .map(|number| message(&ours, &number.to_le_bytes()))
        .collect();
    let accepted: Vec<_> = datagrams.iter().map(|_| AtomicUsize::new(0)).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for run in datagrams.chunks(64) {
                    let opened = run
                        .iter()
                        .map(|datagram| theirs.open(0, &mut datagram.clone()).unwrap());
                    let counters: Vec<_> = opened.map(|opened| opened.counter).collect();
                    let mut window = theirs.window();
                    for counter in counters {
                        if window.accept(counter).is_ok() {
                            accepted[usize::try_from(counter).unwrap()].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    assert!(accepted.iter().all(|times| times.load(Ordering::Relaxed) == 1));
}

#[test]
fn threads_never_get_the_same_counter() {
    let [ours, _] = pair();
    let mut firsts: Vec<u64> = std::thread::scope(|scope| {
        let reserve = || (0..1000).map(|_| ours.reserve(3).unwrap()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(reserve)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    firsts.sort_unstable();
    let expected: Vec<u64> = (0..4000).map(|run| run * 3).collect();
    assert_eq!(firsts, expected);
}

#[test]
fn a_key_seals_no_more_than_it_may_however_often_it_is_asked() {
    let [ours, theirs] = pair();
    ours.skip_to(REJECT_AFTER_MESSAGES - 3);
    assert_eq!(ours.reserve(4), None);
    assert_eq!(ours.reserve(2), Some(REJECT_AFTER_MESSAGES - 3));
    assert!(ours.may_send(0));
    let mut last = message(&ours, b"the last");
    assert!(!ours.may_send(0));
    for count in [1, 64, u64::MAX] {
        assert_eq!(ours.reserve(count), None);
    }
    let opened = theirs.open(0, &mut last).unwrap();
    assert_eq!(opened.counter, REJECT_AFTER_MESSAGES - 1);
    assert_eq!(theirs.accept(opened.counter), Ok(()));

    let mut beyond = [0; 40];
    ours.seal(REJECT_AFTER_MESSAGES, &mut beyond).unwrap();
    assert_eq!(theirs.open(0, &mut beyond), Err(DropReason::SessionExpired));
}

#[test]
fn another_session_is_wanted_when_this_one_is_old_by_its_initiator_or_worn_by_either() {
    let [ours, theirs] = pair();
    assert!(!ours.wants_next_after_sending(REKEY_AFTER_TIME - 1));
    assert!(ours.wants_next_after_sending(REKEY_AFTER_TIME));
    assert!(!theirs.wants_next_after_sending(REKEY_AFTER_TIME));
    for session in [&ours, &theirs] {
        session.skip_to(REKEY_AFTER_MESSAGES);
        assert!(!session.wants_next_after_sending(0));
        session.skip_to(REKEY_AFTER_MESSAGES + 1);
        assert!(session.wants_next_after_sending(0));
    }
    assert!(!ours.wants_next_after_receiving(164_999));
    assert!(ours.wants_next_after_receiving(165_000));
    assert!(!ours.wants_next_after_receiving(165_001), "once");
    assert!(!theirs.wants_next_after_receiving(165_000));
}

#[test]
fn an_old_session_and_one_that_has_ended_are_of_no_use() {
    let [ours, theirs] = pair();
    let datagram = message(&ours, b"late");
    assert!(ours.may_send(REJECT_AFTER_TIME - 1) && !ours.may_send(REJECT_AFTER_TIME));
    assert!(theirs.open(REJECT_AFTER_TIME - 1, &mut datagram.clone()).is_ok());
    let refused = theirs.open(REJECT_AFTER_TIME, &mut datagram.clone());
    assert_eq!(refused, Err(DropReason::SessionExpired));
    for session in [&ours, &theirs] {
        session.end();
        assert!(!session.may_send(0));
    }
    assert_eq!(
        theirs.open(0, &mut datagram.clone()),
        Err(DropReason::SessionExpired)
    );
}

#[test]
fn a_slot_without_room_is_no_message() {
    let [ours, _] = pair();
    for len in 0..32 {
        assert_eq!(ours.seal(0, &mut vec![0; len]), Err(BadSlot { len }));
    }
    assert_eq!(ours.seal(0, &mut [0; 32]), Ok(()));
}

#[test]
fn two_at_once_are_as_one_after_the_other() {
    let [ours, theirs] = pair();
    for len in [0, 16, 1424] {
        let first = ours.reserve(2).unwrap();
        let (mut one, mut other) = (vec![1; 32 + len], vec![2; 32 + len]);
        ours.seal_two(first, [&mut one, &mut other]).unwrap();
        let (mut alone, mut second) = (one.clone(), other.clone());
        let alone = theirs.open(0, &mut alone).unwrap();
        assert_eq!(theirs.open(0, &mut second).unwrap().counter, first + 1);
        let both = theirs.open_two(0, [&mut one, &mut other]);
        assert_eq!(both[0], Ok(alone));
        assert!(both[1].is_ok());
        assert!(one[16..16 + len].iter().all(|byte| *byte == 1), "{len} bytes");
        assert!(other[16..16 + len].iter().all(|byte| *byte == 2), "{len} bytes");
    }
}

#[test]
fn of_two_each_is_judged_by_itself() {
    let [ours, theirs] = pair();
    let sealed = |counter| {
        let mut message = vec![0; 32 + 1424];
        ours.seal(counter, &mut message).unwrap();
        message
    };
    let (mut forged, mut good) = (sealed(0), sealed(1));
    forged[100] ^= 1;
    let opened = theirs.open_two(0, [&mut forged, &mut good]);
    assert_eq!(opened[0], Err(DropReason::DecryptFailed));
    assert!(opened[1].is_ok());
    let (mut others, mut good) = (sealed(2), sealed(3));
    others[4] ^= 1;
    let opened = theirs.open_two(0, [&mut others, &mut good]);
    assert_eq!(opened[0], Err(DropReason::UnknownSession));
    assert!(opened[1].is_ok());
    let short = theirs.open_two(0, [&mut [4, 0, 0, 0], &mut sealed(4)]);
    assert_eq!(short[0], Err(DropReason::TooShort));
    assert!(short[1].is_ok());
    assert_eq!(
        ours.seal_two(5, [&mut [0; 32], &mut [0; 3]]),
        Err(BadSlot { len: 3 })
    );
}
