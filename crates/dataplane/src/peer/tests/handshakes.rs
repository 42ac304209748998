//! How sessions come about: who may begin, who is refused, who has to wait.

use std::time::Duration;

use super::end::End;
use super::network::{Network, PACKET, connected, talk};
use crate::drops::DropReason;
use crate::noise::{MessageKind, REKEY_TIMEOUT, REKEY_TIMEOUT_JITTER};
use crate::uapi::PresharedKey;

/// No times.
const NONE: [crate::noise::Millis; 0] = [];

fn preshared(byte: u8) -> Option<PresharedKey> {
    PresharedKey::from_bytes(&mut [byte; 32])
}

#[test]
fn packets_wait_for_the_handshake_and_arrive_in_order() {
    let mut network = Network::new(1);
    let packets: Vec<[u8; 16]> = (0..5).map(|number| [number; 16]).collect();
    for packet in &packets {
        network.send(0, packet);
    }
    network.run(100);
    assert_eq!(network.ends[1].take_received(), packets);
    assert_eq!(network.ends[0].initiations.len(), 1);
    network.send(1, PACKET);
    network.run(100);
    assert_eq!(network.ends[0].take_received(), [PACKET]);
    assert!(network.ends.iter().all(|end| end.drops.is_empty()));
    let [a, b] = network.ends.each_ref().map(|end| end.peer.traffic());
    assert_eq!((a.tx_bytes, a.rx_bytes), (b.rx_bytes, b.tx_bytes));
    assert_eq!(a.tx_bytes, 148 + 5 * 48);
    assert!(network.ends.iter().all(|end| end.peer.last_handshake().is_some()));
}

#[test]
fn the_responder_sends_nothing_before_the_initiator_has_shown_its_keys() {
    let mut network = Network::new(2);
    let (initiation, now) = (network.ends[0].send(0, PACKET).remove(0), 0);
    let response = network.ends[1].try_receive(now, &initiation).unwrap().remove(0);
    assert!(network.ends[1].peer.sending(now).is_none());
    assert!(
        network.ends[1].send(now, PACKET).is_empty(),
        "it waits, and begins no handshake of its own"
    );
    let first = network.ends[0].receive(now, &response).remove(0);
    let waiting = network.ends[1].receive(now, &first);
    assert_eq!(waiting.len(), 1, "what waited goes out");
    assert_eq!(network.ends[1].handshakes, 1);
}

#[test]
fn a_repeated_initiation_is_refused_and_moves_nothing() {
    let mut network = Network::new(3);
    let initiation = network.ends[0].send(0, PACKET).remove(0);
    let response = network.ends[1].receive(0, &initiation).remove(0);
    let refused = network.ends[1].try_receive(1000, &initiation);
    assert_eq!(refused, Err(DropReason::Replayed));
    let data = network.ends[0].receive(0, &response).remove(0);
    let refused = network.ends[0].try_receive(0, &response);
    assert_eq!(
        refused,
        Err(DropReason::UnknownSession),
        "a response is taken once"
    );
    network.ends[1].receive(0, &data);
    assert_eq!(network.ends[1].try_receive(0, &data), Err(DropReason::Replayed));
    assert_eq!(network.ends[1].take_received(), [PACKET]);
}

#[test]
fn initiations_right_after_another_are_refused() {
    let [mut a, mut b] = Network::new(4).ends;
    let first = a.send(0, PACKET).remove(0);
    // A second device with the same keys, whose clock goes ahead.
    let mut twin = End::new(8, 16, 99);
    twin.wall_at_start += Duration::from_secs(1);
    let second = twin.send(0, PACKET).remove(0);
    assert!(b.try_receive(1000, &first).is_ok());
    assert_eq!(b.try_receive(1019, &second), Err(DropReason::HandshakeTooSoon));
    assert!(b.try_receive(1020, &second).is_ok());
}

#[test]
fn both_may_begin_at_once_and_nothing_is_lost() {
    let mut network = Network::new(13);
    for _ in 0..500 {
        network.send(0, PACKET);
        network.send(1, PACKET);
        network.run(1);
    }
    let sent = 500 + talk(&mut network, 600_000);
    network.run(1000);
    for end in 0..2 {
        assert_eq!(network.ends[end].take_received().len(), sent);
        assert_eq!(network.ends[end].drops, []);
        assert!(
            network.ends[end].initiations.len() <= 6,
            "they agree on who renews"
        );
    }
    assert!(network.ends.iter().all(|end| !end.initiations.is_empty()));
}

#[test]
fn a_handshake_is_not_repeated_once_the_other_side_s_has_completed() {
    let mut network = Network::new(23);
    network.reachable[1] = false;
    network.send(0, PACKET);
    network.reachable[1] = true;
    network.send(1, PACKET);
    network.run(60_000);
    assert_eq!(
        network.ends[1].take_received(),
        [PACKET],
        "what waited goes over the other session"
    );
    assert_eq!(network.ends[0].take_received(), [PACKET]);
    assert_eq!(network.ends.each_ref().map(|end| end.initiations.len()), [1, 1]);
    assert_eq!(
        network.ends[0].by_index.len(),
        1,
        "the index of the first handshake is free again"
    );
}

#[test]
fn preshared_keys_that_differ_make_no_session_until_they_are_the_same() {
    let mut network = Network::new(14);
    network.ends[0].peer.set_preshared_key(preshared(1));
    network.send(0, PACKET);
    network.run(20_000);
    assert_eq!(network.ends[1].take_received(), Vec::<Vec<u8>>::new());
    assert!(network.ends[0].drops.len() >= 3);
    assert!(
        network.ends[0]
            .drops
            .iter()
            .all(|reason| *reason == DropReason::BadHandshake)
    );
    network.ends[1].peer.set_preshared_key(preshared(1));
    network.run(6000);
    assert_eq!(network.ends[1].take_received(), [PACKET]);
    assert!(network.ends[1].peer.preshared_key() == preshared(1));
    // It counts from the next handshake on.
    network.ends[1].peer.set_preshared_key(None);
    network.send(0, PACKET);
    network.run(1000);
    assert_eq!(network.ends[1].take_received(), [PACKET]);
}

#[test]
fn under_load_a_cookie_is_asked_for_and_opens_the_gate_for_its_source() {
    let mut network = Network::new(18);
    network.ends[1].under_load = true;
    network.send(0, PACKET);
    network.run(1000);
    assert_eq!(network.ends[1].drops, [DropReason::RateLimited]);
    assert_eq!(network.ends[1].by_index.len(), 0, "no work was done");
    network.run(6000);
    assert_eq!(
        network.ends[1].take_received(),
        [PACKET],
        "the next initiation has a cookie"
    );
    network.ends[1].source.set_port(9);
    network.ends[1].drops.clear();
    talk(&mut network, 130_000);
    assert_eq!(
        network.ends[1].drops,
        [DropReason::RateLimited],
        "it is another source now"
    );
}

#[test]
fn a_source_with_a_cookie_has_so_many_handshakes_a_second() {
    let [mut a, mut b] = Network::new(19).ends;
    b.under_load = true;
    let first = a.send(0, PACKET).remove(0);
    let cookie = b.receive(0, &first).remove(0);
    assert_eq!(a.try_receive(0, &cookie), Ok(Vec::new()));
    let signed = a.tick(6000).remove(0);
    let outcomes: Vec<_> = (0..8).map(|_| b.try_receive(6000, &signed).err()).collect();
    assert_eq!(outcomes[0], None);
    assert!(
        outcomes[1..5]
            .iter()
            .all(|outcome| *outcome == Some(DropReason::Replayed))
    );
    assert!(
        outcomes[5..]
            .iter()
            .all(|outcome| *outcome == Some(DropReason::SourceRateLimited))
    );
}

#[test]
fn clocks_may_differ_and_go_back() {
    let mut network = Network::new(20);
    network.clocks = [0, 5_000_000];
    network.ends[0].wall_at_start += Duration::from_secs(400_000_000);
    network.send(0, PACKET);
    network.run(100);
    let mut sent = talk(&mut network, 100_000);
    network.ends[0].wall_at_start -= Duration::from_secs(800_000_000);
    sent += talk(&mut network, 400_000);
    network.run(1000);
    assert_eq!(network.ends[1].take_received().len(), sent + 1);
    assert!(network.ends[1].handshakes >= 4);
    assert_eq!(network.ends[1].drops, []);
}

#[test]
fn a_peer_that_begins_anew_after_its_clock_was_set_back_is_spoken_to() {
    let mut network = connected(23);
    network.run(REKEY_TIMEOUT + REKEY_TIMEOUT_JITTER);
    network.ends[0] = End::new(8, 16, 99);
    network.ends[0].wall_at_start -= Duration::from_secs(366 * 86_400);
    network.send(0, PACKET);
    network.run(1000);
    assert_eq!(network.ends[1].take_received(), [PACKET]);
    assert_eq!(network.ends[1].drops, [DropReason::Replayed]);
    assert_eq!(network.ends[1].initiations.len(), 1);
    network.send(1, PACKET);
    network.run(100);
    assert_eq!(network.ends[0].take_received(), [PACKET]);
}

#[test]
fn who_repeats_old_initiations_causes_one_in_five_seconds_to_the_peer_and_no_loss() {
    let mut network = Network::new(24);
    let old = network.ends[0].send(0, PACKET);
    network.carry(0, old.clone());
    let mut sent = 1 + talk(&mut network, 130_000);
    assert!(network.ends[1].handshakes >= 2, "another one came after it");
    let (began, before) = (network.now, network.ends[1].initiations.len());
    for _ in 0..200 {
        let refused = network.ends[1].try_receive(network.now, &old[0]);
        assert_eq!(refused, Err(DropReason::Replayed));
        sent += talk(&mut network, 100);
    }
    let caused = &network.ends[1].initiations[before..];
    assert!(
        (2..=4).contains(&caused.len()),
        "in {} s: {caused:?}",
        (network.now - began) / 1000
    );
    assert!(caused.windows(2).all(|two| two[1] - two[0] >= REKEY_TIMEOUT));
    network.run(1000);
    assert_eq!(network.ends[1].take_received().len(), sent);
    assert_eq!(network.ends[1].drops, []);
    assert_eq!(network.ends[0].drops, []);
}

#[test]
fn the_last_initiation_again_and_one_while_we_begin_ourselves_change_nothing() {
    let mut network = Network::new(25);
    let last = network.ends[0].send(0, PACKET);
    network.carry(0, last.clone());
    network.run(60_000);
    for _ in 0..10 {
        let refused = network.ends[1].try_receive(network.now, &last[0]);
        assert_eq!(refused, Err(DropReason::Replayed));
        network.run(1000);
    }
    assert_eq!(network.ends[1].initiations, NONE);

    let mut older = End::new(8, 16, 99);
    older.wall_at_start -= Duration::from_secs(1);
    let older = older.send(0, PACKET).remove(0);
    network.reachable[0] = false;
    network.ends[1].peer.forget_sessions();
    network.send(1, PACKET);
    for _ in 0..100 {
        let refused = network.ends[1].try_receive(network.now, &older);
        assert_eq!(refused, Err(DropReason::Replayed));
        network.run(1000);
    }
    assert!(
        network.ends[1].gave_up >= 1,
        "it does not go on for longer than 90 s"
    );
}

#[test]
fn other_keys_end_every_session_at_once() {
    let mut network = connected(21);
    let session = network.ends[1].peer.sending(network.now).unwrap();
    let datagram = network.ends[0].send(network.now, PACKET).remove(0);
    let retired = network.ends[1].peer.set_identity(None);
    assert_eq!(retired, [session.local_index()]);
    let refused = session.open(network.now, &mut datagram.clone());
    assert_eq!(
        refused,
        Err(DropReason::SessionExpired),
        "although a thread still has it"
    );
    assert!(network.ends[1].peer.sending(network.now).is_none());
    let initiation = End::new(8, 16, 5).send(0, PACKET).remove(0);
    let refused = network.ends[1].try_receive(network.now, &initiation);
    assert_eq!(refused, Err(DropReason::NoPrivateKey));
    network.ends[1].by_index.clear();
    network.send(1, PACKET);
    network.run(20_000);
    assert_eq!(network.ends[1].initiations, NONE);
}

#[test]
fn messages_of_each_kind_are_known_by_length_and_addressee() {
    let [mut a, mut b] = Network::new(22).ends;
    b.under_load = true;
    let initiation = a.send(0, PACKET).remove(0);
    let cookie = b.receive(0, &initiation).remove(0);
    b.under_load = false;
    let response = b.receive(0, &initiation).remove(0);
    let data = a.receive(0, &response).remove(0);
    let kinds = [&initiation, &response, &cookie, &data].map(|message| MessageKind::of(message).unwrap());
    use MessageKind::{CookieReply, Data, Initiation, Response};
    assert_eq!(kinds, [Initiation, Response, CookieReply, Data]);
    let receivers = [&initiation, &response, &cookie, &data]
        .map(|message| MessageKind::of(message).unwrap().receiver(message));
    let [a_index, b_index] = [&a, &b].map(|end| end.by_index.keys().copied().last());
    assert_eq!(receivers, [None, a_index, a_index, b_index]);
    for message in [&initiation, &response, &cookie] {
        let longer = [message.as_slice(), &[0]].concat();
        assert_eq!(MessageKind::of(&longer), Err(DropReason::Malformed));
        assert_eq!(MessageKind::of(&message[..31]), Err(DropReason::TooShort));
        let mut reserved = message.clone();
        reserved[2] = 1;
        assert_eq!(MessageKind::of(&reserved), Err(DropReason::Malformed));
    }
}
