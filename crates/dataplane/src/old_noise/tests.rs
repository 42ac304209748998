//! The protocol between two ends in memory.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use proptest::prelude::*;

use super::*;

/// One end of a tunnel.
struct End {
    gate: Gate,
    tunnel: Tunnel,
}

fn ends(preshared: [Option<[u8; 32]>; 2]) -> [End; 2] {
    let private = |byte| PrivateKey::from_bytes(&mut [byte; 32]);
    let gates = [Gate::new(&private(8)), Gate::new(&private(16))];
    let publics = [1, 0].map(|other: usize| PublicKey::from_bytes(*gates[other].public_bytes()).unwrap());
    let mut at = 0;
    gates.map(|gate| {
        let preshared = preshared[at].and_then(|mut bytes| PresharedKey::from_bytes(&mut bytes));
        let tunnel = Tunnel::new(
            &gate,
            &publics[at],
            preshared.as_ref(),
            5 + u32::try_from(at).unwrap(),
        );
        at += 1;
        End { gate, tunnel }
    })
}

fn buffer() -> Vec<u8> {
    vec![0; BUFFER_LEN]
}

fn sent(output: Output<'_>) -> Vec<u8> {
    let Output::Send(datagram) = output else {
        panic!("nothing was sent")
    };
    datagram.to_vec()
}

/// An IPv4 packet of this length.
fn packet(len: usize) -> Vec<u8> {
    let mut packet = vec![7; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
    packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
    packet
}

/// Runs a handshake begun by the first end, up to but without the message that confirms it.
fn shake_hands([a, b]: &mut [End; 2]) -> (Vec<u8>, Vec<u8>) {
    let initiation = sent(a.tunnel.send(&packet(32), &mut buffer()).unwrap());
    let mut out = buffer();
    let received = b.tunnel.receive(&initiation, &mut out).unwrap();
    assert!(
        !received.fresh && !received.confirmed,
        "an initiation proves nothing yet: it may be a repetition"
    );
    let response = sent(received.output);
    let received = a.tunnel.receive(&response, &mut out).unwrap();
    assert!(received.fresh && received.confirmed);
    (initiation, sent(received.output))
}

#[test]
fn a_handshake_is_confirmed_on_both_sides_and_carries_what_waited_for_it() {
    let mut ends = ends([Some([3; 32]), Some([3; 32])]);
    let (_, keepalive) = shake_hands(&mut ends);
    let [a, b] = &mut ends;
    let mut out = buffer();
    let received = b.tunnel.receive(&keepalive, &mut out).unwrap();
    assert!(received.fresh && received.confirmed && matches!(received.output, Output::Nothing));
    let waiting = sent(a.tunnel.next_waiting(&mut out).unwrap());
    let received = b.tunnel.receive(&waiting, &mut out).unwrap();
    assert!(
        received.fresh && !received.confirmed,
        "a session is confirmed once"
    );
    let Output::Packet(bytes, source) = received.output else {
        panic!("no packet")
    };
    assert_eq!((bytes, source), (&*packet(32), "10.0.0.1".parse().unwrap()));
    assert!(matches!(a.tunnel.next_waiting(&mut out), Ok(Output::Nothing)));
}

#[test]
fn repeated_and_forged_messages_are_refused_by_name() {
    let mut ends = ends([None, None]);
    let (initiation, keepalive) = shake_hands(&mut ends);
    let [_, b] = &mut ends;
    let mut out = buffer();
    assert!(matches!(
        b.tunnel.receive(&initiation, &mut out),
        Err(DropReason::Replayed)
    ));
    let mut forged = keepalive.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert!(matches!(
        b.tunnel.receive(&forged, &mut out),
        Err(DropReason::DecryptFailed)
    ));
    assert!(b.tunnel.receive(&keepalive, &mut out).is_ok());
    assert!(matches!(
        b.tunnel.receive(&keepalive, &mut out),
        Err(DropReason::Replayed)
    ));
}

#[test]
fn the_session_that_is_used_is_confirmed_also_when_another_was_begun_after_it() {
    let [mut a, mut b] = ends([None, None]);
    let mut out = buffer();
    let first = sent(a.tunnel.send(&packet(32), &mut out).unwrap());
    let response = sent(b.tunnel.receive(&first, &mut out).unwrap().output);
    // The initiator repeats itself before the response reaches it.
    let second = a.tunnel.tunn.format_handshake_initiation(&mut out, true);
    let TunnResult::WriteToNetwork(second) = second else {
        panic!("no initiation")
    };
    let second = second.to_vec();
    assert!(b.tunnel.receive(&second, &mut out).is_ok());
    let keepalive = sent(a.tunnel.receive(&response, &mut out).unwrap().output);
    assert!(b.tunnel.receive(&keepalive, &mut out).unwrap().confirmed);
}

#[test]
fn preshared_keys_that_differ_make_no_session() {
    let [mut a, mut b] = ends([Some([3; 32]), None]);
    let mut out = buffer();
    let initiation = sent(a.tunnel.send(&packet(32), &mut out).unwrap());
    let response = sent(b.tunnel.receive(&initiation, &mut out).unwrap().output);
    assert!(matches!(
        a.tunnel.receive(&response, &mut out),
        Err(DropReason::DecryptFailed)
    ));
}

#[test]
fn the_gate_knows_whom_a_message_is_for() {
    let [mut a, b] = ends([None, None]);
    let source = "192.0.2.1".parse().unwrap();
    let (mut out, mut cookie) = (buffer(), buffer());
    let initiation = sent(a.tunnel.send(&packet(32), &mut out).unwrap());
    let Ok(Admitted::Initiation(key)) = b.gate.admit(source, &initiation, &mut cookie) else {
        panic!("refused")
    };
    assert_eq!(&key, a.gate.public_bytes());
    let mut refused = |message: &[u8]| b.gate.admit(source, message, &mut cookie).err();
    let mut forged = initiation.clone();
    forged[20] ^= 1;
    assert_eq!(refused(&forged), Some(DropReason::BadMac));
    assert_eq!(refused(&initiation[..147]), Some(DropReason::Malformed));
    assert_eq!(refused(&[]), Some(DropReason::TooShort));
    assert_eq!(refused(&[4, 0, 0, 0]), Some(DropReason::TooShort));
    assert_eq!(refused(&[9; 64]), Some(DropReason::Malformed));
}

#[test]
fn a_flood_of_handshakes_is_answered_with_cookies_that_let_the_honest_through() {
    let [mut a, b] = ends([None, None]);
    let source = "192.0.2.1".parse().unwrap();
    let (mut out, mut cookie) = (buffer(), buffer());
    let initiation = sent(a.tunnel.send(&packet(32), &mut out).unwrap());
    for _ in 0..HANDSHAKES_PER_SECOND {
        assert!(matches!(
            b.gate.admit(source, &initiation, &mut cookie),
            Ok(Admitted::Initiation(_))
        ));
    }
    let Ok(Admitted::Cookie(reply)) = b.gate.admit(source, &initiation, &mut cookie) else {
        panic!("let through")
    };
    let reply = reply.to_vec();
    let received = a.tunnel.receive(&reply, &mut out).unwrap();
    assert!(
        !received.fresh && !received.confirmed,
        "a cookie proves nothing about a peer"
    );
    let TunnResult::WriteToNetwork(again) = a.tunnel.tunn.format_handshake_initiation(&mut out, true) else {
        panic!("no initiation")
    };
    assert!(matches!(
        b.gate.admit(source, again, &mut cookie),
        Ok(Admitted::Initiation(_))
    ));
    let elsewhere = "192.0.2.2".parse().unwrap();
    assert!(matches!(
        b.gate.admit(elsewhere, again, &mut cookie),
        Ok(Admitted::Cookie(_))
    ));
}

proptest! {
    #[test]
    fn padding_fills_sixteens_within_the_mtu(len in 0..70_000_usize, mtu in 576..65_535_usize) {
        let padded = padded_len(len, mtu);
        prop_assert!(padded >= len && padded - len < 16);
        prop_assert!(padded.is_multiple_of(16) || padded == mtu.max(len));
        prop_assert!(padded <= mtu.max(len));
    }

    #[test]
    fn no_datagram_makes_it_panic(mut datagram in prop::collection::vec(any::<u8>(), 0..200), kind in 0..6_u8) {
        if let Some(first) = datagram.first_mut() {
            *first = kind;
        }
        if let Some(reserved) = datagram.get_mut(1..4) {
            reserved.fill(0);
        }
        let [_, mut b] = ends([None, None]);
        let mut out = buffer();
        let _ = b.gate.admit("192.0.2.1".parse().unwrap(), &datagram, &mut out).is_ok();
        if !datagram.is_empty() {
            let _ = b.tunnel.receive(&datagram, &mut out).is_ok();
        }
    }
}
