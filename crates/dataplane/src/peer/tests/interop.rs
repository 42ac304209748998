//! `boringtun` at the other end: an implementation by others, of the same paper.

use std::sync::Arc;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use x25519_dalek::{PublicKey, StaticSecret};

use super::end::{Datagrams, End};
use crate::drops::DropReason;
use crate::uapi::PresharedKey;

const OURS: u8 = 8;
const THEIRS: u8 = 16;

/// Our end and theirs.
fn ends(preshared: [Option<u8>; 2]) -> (End, Tunn) {
    ends_with_limit(preshared, u64::MAX)
}

/// Our end and theirs, which takes so many handshake messages a second without a cookie.
fn ends_with_limit(preshared: [Option<u8>; 2], limit: u64) -> (End, Tunn) {
    let own = PublicKey::from(&StaticSecret::from([THEIRS; 32]));
    let ours = End::new(OURS, THEIRS, 1);
    let key = preshared[0].and_then(|byte| PresharedKey::from_bytes(&mut [byte; 32]));
    ours.peer.set_preshared_key(key);
    let theirs = Tunn::new(
        StaticSecret::from([THEIRS; 32]),
        PublicKey::from(*ours.gate.local().public_bytes()),
        preshared[1].map(|byte| [byte; 32]),
        None,
        7,
        Some(Arc::new(RateLimiter::new(&own, limit))),
    );
    (ours, theirs)
}

/// An IPv4 packet of this length, which is a multiple of 16.
fn packet(len: usize) -> Vec<u8> {
    let mut packet = vec![7; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
    packet
}

fn sent(result: TunnResult<'_>) -> Datagrams {
    match result {
        TunnResult::WriteToNetwork(datagram) => vec![datagram.to_vec()],
        TunnResult::Done => Vec::new(),
        TunnResult::Err(error) => panic!("{error:?}"),
        TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => panic!("a packet"),
    }
}

/// They take in datagrams. Gives their answers, with what waited, and the packets that came out.
fn give(theirs: &mut Tunn, datagrams: Datagrams) -> (Datagrams, Vec<Vec<u8>>) {
    let (mut answers, mut packets) = (Vec::new(), Vec::new());
    let mut out = vec![0; 4096];
    for datagram in datagrams {
        let result = theirs.decapsulate(Some("192.0.2.1".parse().unwrap()), &datagram, &mut out);
        if let TunnResult::WriteToTunnelV4(packet, _) = result {
            packets.push(packet.to_vec());
        } else {
            answers.extend(sent(result));
        }
        if datagram[0] == 2 {
            loop {
                let waiting = sent(theirs.decapsulate(None, &[], &mut out));
                if waiting.is_empty() {
                    break;
                }
                answers.extend(waiting);
            }
        }
    }
    (answers, packets)
}

fn take(ours: &mut End, now: u64, datagrams: Datagrams) -> Datagrams {
    datagrams
        .iter()
        .flat_map(|datagram| ours.try_receive(now, datagram).unwrap())
        .collect()
}

/// Packets go both ways.
fn talk(ours: &mut End, theirs: &mut Tunn, now: u64) {
    let mut out = vec![0; 4096];
    for len in [32, 1408, 64] {
        let datagrams = ours.send(now, &packet(len));
        assert_eq!(give(theirs, datagrams), (vec![], vec![packet(len)]));
        let datagrams = sent(theirs.encapsulate(&packet(len), &mut out));
        assert_eq!(take(ours, now, datagrams), Vec::<Vec<u8>>::new());
        assert_eq!(ours.take_received(), [packet(len)]);
    }
}

#[test]
fn we_begin_with_and_without_a_preshared_key() {
    for preshared in [None, Some(3)] {
        let (mut ours, mut theirs) = ends([preshared; 2]);
        let initiation = ours.send(0, &packet(48));
        let (response, _) = give(&mut theirs, initiation);
        let data = take(&mut ours, 0, response);
        assert_eq!(give(&mut theirs, data), (vec![], vec![packet(48)]));
        talk(&mut ours, &mut theirs, 1);
    }
}

#[test]
fn they_begin_with_and_without_a_preshared_key() {
    for preshared in [None, Some(3)] {
        let (mut ours, mut theirs) = ends([preshared; 2]);
        let initiation = sent(theirs.encapsulate(&packet(48), &mut vec![0; 4096]));
        let response = take(&mut ours, 0, initiation);
        let (data, _) = give(&mut theirs, response);
        assert_eq!(data.len(), 2, "a keepalive, and what waited");
        assert_eq!(take(&mut ours, 0, data), Vec::<Vec<u8>>::new());
        assert_eq!(ours.take_received(), [packet(48)]);
        assert_eq!(ours.handshakes, 1);
        talk(&mut ours, &mut theirs, 1);
    }
}

#[test]
fn preshared_keys_that_differ_make_no_session() {
    let (mut ours, mut theirs) = ends([Some(3), Some(4)]);
    let initiation = ours.send(0, &packet(48));
    let (response, _) = give(&mut theirs, initiation);
    let refused = ours.try_receive(0, &response[0]);
    assert_eq!(refused, Err(DropReason::BadHandshake));
}

#[test]
fn sessions_follow_each_other_begun_by_either_and_what_is_late_arrives() {
    let (mut ours, mut theirs) = ends([None, None]);
    let mut out = vec![0; 4096];
    let initiation = ours.send(0, &packet(48));
    let (response, _) = give(&mut theirs, initiation);
    let data = take(&mut ours, 0, response);
    give(&mut theirs, data);
    for round in 1..20 {
        let now = round * 121_000;
        let ours_late = ours.send(now - 60_000, &packet(64));
        let theirs_late = sent(theirs.encapsulate(&packet(80), &mut out));
        if round % 2 == 0 {
            // At least as long after the last as the protocol's pause.
            let _ = ours.peer.want_handshake(now);
            let initiation = ours.initiate(now);
            assert_eq!(initiation.len(), 1);
            let (response, _) = give(&mut theirs, initiation);
            let data = take(&mut ours, now, response);
            give(&mut theirs, data);
        } else {
            let initiation = sent(theirs.format_handshake_initiation(&mut out, true));
            let response = take(&mut ours, now, initiation);
            let (data, _) = give(&mut theirs, response);
            take(&mut ours, now, data);
        }
        ours.received.clear();
        assert_eq!(give(&mut theirs, ours_late).1, [packet(64)]);
        take(&mut ours, now, theirs_late);
        assert_eq!(ours.take_received(), [packet(80)]);
        talk(&mut ours, &mut theirs, now);
        ours.tick(now);
    }
}

#[test]
fn we_use_the_cookie_they_ask_for() {
    let (mut ours, mut theirs) = ends_with_limit([None, None], 1);
    let initiation = ours.send(0, &packet(48));
    for _ in 0..2 {
        let _ = theirs.decapsulate(
            Some("192.0.2.1".parse().unwrap()),
            &initiation[0],
            &mut vec![0; 4096],
        );
    }
    let (cookie, _) = give(&mut theirs, initiation);
    assert_eq!((cookie[0][0], cookie[0].len()), (3, 64));
    assert_eq!(take(&mut ours, 0, cookie), Vec::<Vec<u8>>::new());
    let again = ours.tick(6000);
    let (response, _) = give(&mut theirs, again);
    assert_eq!(response[0].len(), 92, "a response, and no cookie again");
    let data = take(&mut ours, 6000, response);
    assert_eq!(give(&mut theirs, data), (vec![], vec![packet(48)]));
}

#[test]
fn they_use_the_cookie_we_ask_for() {
    let (mut ours, mut theirs) = ends([None, None]);
    ours.under_load = true;
    let mut out = vec![0; 4096];
    let initiation = sent(theirs.encapsulate(&packet(48), &mut out));
    let cookie = take(&mut ours, 0, initiation);
    assert_eq!((cookie[0][0], cookie[0].len()), (3, 64));
    assert!(give(&mut theirs, cookie).0.is_empty());
    let again = sent(theirs.format_handshake_initiation(&mut out, true));
    let response = take(&mut ours, 100, again);
    assert_eq!(response[0].len(), 92);
    let (data, _) = give(&mut theirs, response);
    take(&mut ours, 100, data);
    assert_eq!(ours.take_received(), [packet(48)]);
}
