//! Hours of traffic over bad networks: no packet is lost but those that the network loses, none comes twice, none from
//! a session that is too old.

use std::collections::BTreeSet;

use super::network::{FAIR, Network, Weather};
use crate::drops::DropReason;
use crate::noise::Millis;

const HOUR: Millis = 3_600_000;

/// Packets with a number each go both ways at random times for so long. Gives, per direction, the numbers sent and those
/// received, in the order in which they came.
fn exchange(network: &mut Network, time: Millis, seed: u64) -> [(Vec<u64>, Vec<u64>); 2] {
    let mut rng = crate::noise::testing::TestRng::new(seed);
    let end = network.now + time;
    let mut sent = [Vec::new(), Vec::new()];
    let mut number = 0_u64;
    while network.now < end {
        // Bursts, and pauses that let sessions grow old.
        let burst = rng.below(40);
        let from = usize::from(rng.below(2) == 1);
        for _ in 0..burst {
            number += 1;
            sent[from].push(number);
            network.send(from, &packet(number));
        }
        let pause = if rng.below(200) == 0 { 250_000 } else { 3000 };
        network.run(rng.below(pause));
    }
    network.run(20_000);
    let [to_first, to_second] = [0, 1].map(|end: usize| {
        let received = network.ends[end].take_received();
        received.iter().map(|packet| number_of(packet)).collect()
    });
    let [by_first, by_second] = sent;
    [(by_first, to_second), (by_second, to_first)]
}

fn packet(number: u64) -> [u8; 16] {
    let mut packet = [0xee; 16];
    packet[..8].copy_from_slice(&number.to_le_bytes());
    packet
}

fn number_of(packet: &[u8]) -> u64 {
    assert_eq!(&packet[8..], [0xee; 8], "not what was sent");
    u64::from_le_bytes(packet[..8].try_into().unwrap())
}

#[test]
fn over_a_good_network_every_packet_arrives_once_and_in_order() {
    let mut network = Network::new(100);
    network.clocks = [0, 123_456];
    for (sent, received) in exchange(&mut network, 6 * HOUR, 1) {
        assert!(sent.len() > 10_000, "{}", sent.len());
        assert_eq!(sent, received);
    }
    assert!(network.ends.iter().all(|end| end.drops.is_empty()));
    assert!(network.ends[0].handshakes > 100);
}

#[test]
fn over_a_bad_network_only_what_it_loses_is_lost_and_nothing_comes_twice() {
    let mut network = Network::new(200);
    network.weather = Weather {
        lost: 150,
        twice: 100,
        delay: 50,
        jitter: 2500,
    };
    let exchanged = exchange(&mut network, 4 * HOUR, 2);
    for (direction, (sent, received)) in exchanged.into_iter().enumerate() {
        let to = 1 - direction;
        let unique: BTreeSet<u64> = received.iter().copied().collect();
        assert_eq!(unique.len(), received.len(), "something came twice");
        let lost = network.lost[to] + network.ends[direction].dropped_staged;
        assert_eq!(
            sent.len(),
            received.len() + lost,
            "the network lost {}",
            network.lost[to]
        );
        assert!(!received.is_sorted(), "nothing overtook anything");
    }
    for end in &network.ends {
        let unexpected = end
            .drops
            .iter()
            .filter(|reason| !matches!(reason, DropReason::Replayed | DropReason::UnknownSession));
        assert_eq!(unexpected.count(), 0);
    }
}

#[test]
fn after_hours_out_of_reach_it_goes_on_as_if_nothing_had_been() {
    let mut network = Network::new(300);
    for (sent, received) in exchange(&mut network, HOUR, 3) {
        assert_eq!(sent, received);
    }
    network.reachable = [false, false];
    exchange(&mut network, 2 * HOUR, 4);
    network.run(HOUR);
    assert!(
        network.ends.iter().all(|end| end.by_index.is_empty()),
        "something is left"
    );
    network.reachable = [true, true];
    network.weather = FAIR;
    network.ends.iter_mut().for_each(|end| end.drops.clear());
    for (sent, received) in exchange(&mut network, HOUR, 5) {
        assert_eq!(sent, received);
    }
    assert!(network.ends.iter().all(|end| end.drops.is_empty()));
}
