//! Nodes that learn of changes at any moments and in any order, as a model: at no moment does one send what the other
//! does not take.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod world;

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use warren_model::{Encryption, Fallback, Lane, Mesh, OverlayMode, PathKind};
use warren_plan::handover::{HANDSHAKE_COURTESY, HANDSHAKE_PATIENCE, PEER_PATIENCE};
use warren_plan::state::{IPIP_INTERFACE, VXLAN_INTERFACE};
use warren_plan::{Carrier, RouteTarget, accord};

use world::{ENOUGH, Event, NODES, World, ip, key, meshes, net, pairs};

/// What follows from a change, in any order.
fn what_follows() -> impl Strategy<Value = Event> {
    let node = || 0..NODES;
    prop_oneof![
        2 => node().prop_map(Event::LearnsMesh),
        4 => (node(), node()).prop_map(|(at, of)| Event::LearnsPeer(at, of)),
        4 => node().prop_map(Event::Pass),
        3 => node().prop_map(Event::Publishes),
        1 => node().prop_map(Event::ShakesHands),
        2 => node().prop_map(Event::Arrives),
    ]
}

fn changes_of_the_mesh() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![1 => (0..meshes().len()).prop_map(Event::Mesh), 12 => what_follows()];
    vec(event, 0..200)
}

/// One node is started anew, and what follows from that; then another. An agent takes seconds to start: what it had
/// published before is known by then.
fn restarts() -> impl Strategy<Value = Vec<Vec<Event>>> {
    let restart = (0..NODES, any::<bool>()).prop_map(|(at, wireguard)| Event::Restart(at, wireguard));
    let run =
        (restart, vec(what_follows(), 0..60)).prop_map(|(first, rest)| [Vec::from([first]), rest].concat());
    vec(run, 1..4)
}

/// Nodes are started anew, any of them and at any time, with or without WireGuard.
fn restarts_that_overlap() -> impl Strategy<Value = Vec<Event>> {
    let restart = (0..NODES, any::<bool>()).prop_map(|(at, wireguard)| Event::Restart(at, wireguard));
    vec(prop_oneof![1 => restart, 8 => what_follows()], 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn whoever_learns_of_a_change_first_no_packet_is_sent_that_is_not_taken(
        start in 0..meshes().len(), events in changes_of_the_mesh(),
    ) {
        let mut world = World::at_rest(start);
        prop_assert_eq!(world.all_deliver(), Ok(()));
        for event in &events {
            prop_assert_eq!(world.happens(event, World::all_deliver), Ok(()), "{:?}", event);
        }
        prop_assert_eq!(world.come_to_rest(World::all_deliver), Ok(()));
        assert_at_rest(&world)?;
    }

    #[test]
    fn a_node_gains_and_loses_wireguard_and_no_packet_is_sent_that_is_not_taken(runs in restarts()) {
        let mut world = World::at_rest(0);
        for run in runs {
            for event in &run {
                prop_assert_eq!(world.happens(event, World::all_deliver), Ok(()), "{:?}", event);
            }
            prop_assert_eq!(world.come_to_rest(World::all_deliver), Ok(()));
            assert_at_rest(&world)?;
        }
    }

    #[test]
    fn nodes_lose_wireguard_and_have_it_back_before_others_have_followed_and_no_packet_is_sent_that_is_not_taken(
        events in restarts_that_overlap(),
    ) {
        let mut world = World::at_rest(0);
        for event in &events {
            prop_assert_eq!(world.happens(event, World::all_deliver), Ok(()), "{:?}", event);
        }
        prop_assert_eq!(world.come_to_rest(World::all_deliver), Ok(()));
        assert_at_rest(&world)?;
    }

    #[test]
    fn one_end_begins_the_handshake_and_the_other_only_if_that_comes_to_nothing(start in 2_usize..7) {
        let mut world = World::at_rest(start);
        world.mesh = Mesh { generation: 1, ..meshes()[1].clone() };
        for (age, both) in [(Duration::ZERO, false), (HANDSHAKE_COURTESY, true)] {
            for at in 0..NODES {
                world.happens(&Event::LearnsMesh(at), World::all_deliver).unwrap();
                world.members[at].accord_age = age;
                world.happens(&Event::Pass(at), World::all_deliver).unwrap();
            }
            for (at, to) in pairs() {
                let peer = &world.members[at].observed.lanes[&Lane::One].peers[&key(to)];
                prop_assert_eq!(peer.keepalive > 0, both || at < to, "node{} to node{}", at, to);
            }
        }
    }

    #[test]
    fn with_an_agent_that_is_gone_encryption_comes_about_and_what_it_sends_in_the_clear_is_not_heard(
        start in 2_usize..7, gone in 0..NODES,
    ) {
        let mut world = World::at_rest(start);
        world.mesh = Mesh { generation: 1, ..meshes()[1].clone() };
        let others: Vec<usize> = (0..NODES).filter(|at| *at != gone).collect();
        for age in [Duration::ZERO, HANDSHAKE_PATIENCE, PEER_PATIENCE] {
            for _ in 0..ENOUGH {
                for at in others.iter().copied() {
                    world.happens(&Event::LearnsMesh(at), |_| Ok(())).unwrap();
                    world.members[at].accord_age = age;
                    others.iter().for_each(|of| world.happens(&Event::LearnsPeer(at, *of), |_| Ok(())).unwrap());
                    world.happens(&Event::Arrives(at), |_| Ok(())).unwrap();
                    world.happens(&Event::Pass(at), |_| Ok(())).unwrap();
                    world.happens(&Event::ShakesHands(at), |_| Ok(())).unwrap();
                    world.happens(&Event::Publishes(at), |_| Ok(())).unwrap();
                }
            }
            if age < PEER_PATIENCE {
                prop_assert_eq!(world.all_deliver(), Ok(()), "{:?}", age);
            }
        }
        for at in others {
            prop_assert!(world.members[at].guard.clear.is_empty());
            for to in (0..NODES).filter(|to| *to != at) {
                prop_assert_eq!(world.sends(at, to), Some(PathKind::Wireguard));
            }
        }
    }
}

#[test]
fn a_node_that_gains_wireguard_goes_on_by_the_fallback_until_peers_that_are_slow_have_followed_but_not_for_ever()
 {
    for at in 0..NODES {
        let mut world = World::at_rest(0);
        let lost_and_gained = |world: &mut World| {
            world
                .happens(&Event::Restart(at, false), World::all_deliver)
                .unwrap();
            world.come_to_rest(World::all_deliver).unwrap();
            world
                .happens(&Event::Restart(at, true), World::all_deliver)
                .unwrap();
        };
        lost_and_gained(&mut world);
        for age in [
            Duration::ZERO,
            HANDSHAKE_PATIENCE,
            PEER_PATIENCE - Duration::from_secs(1),
        ] {
            world.members[at].accord_age = age;
            let passes = [Event::Arrives(at), Event::Pass(at)];
            for event in passes
                .into_iter()
                .chain([Event::ShakesHands(at), Event::Publishes(at)])
            {
                let delivered = world.happens(&event, World::all_deliver);
                assert_eq!(delivered, Ok(()), "{event:?} after {age:?}");
            }
        }
        world.come_to_rest(World::all_deliver).unwrap();

        lost_and_gained(&mut world);
        world.members[at].accord_age = PEER_PATIENCE;
        world.happens(&Event::Pass(at), |_| Ok(())).unwrap();
        for to in (0..NODES).filter(|to| *to != at) {
            assert_eq!(world.sends(at, to), Some(PathKind::Wireguard));
        }
    }
}

#[test]
fn a_route_in_the_clear_that_somebody_else_makes_is_neither_let_out_nor_told_to_peers() {
    let mut world = World::at_rest(1);
    world.members[0].accord_age = HANDSHAKE_PATIENCE;
    let routes = &mut world.members[0].observed.routes;
    routes.get_mut(&net(1)).unwrap().target = RouteTarget::Gateway(ip(1));
    // The pass that puts it right, and one shortly after.
    for _ in 0..2 {
        world.happens(&Event::Pass(0), |_| Ok(())).unwrap();
        let member = &world.members[0];
        assert!(member.guard.clear.is_empty());
        let desired = member.desired.as_ref().unwrap();
        let said = desired.announcement.as_ref().unwrap().progress.as_ref().unwrap();
        assert_eq!(said.sends, Some(said.accepts));
        assert!(!said.by.contains(&PathKind::Direct), "{:?}", said.by);
        assert_eq!(world.sends(0, 1), Some(PathKind::Wireguard));
    }
}

/// Nothing is left of any hand-over: both ends send by the same kind of path, and only that is taken.
fn assert_at_rest(world: &World) -> Result<(), TestCaseError> {
    for (at, to) in pairs() {
        prop_assert_eq!(world.sends(at, to), world.sends(to, at));
        let kind = world.sends(at, to).unwrap();
        let member = &world.members[at];
        let clear = member.guard.clear.get(&net(to));
        if world.mesh.encryption == Encryption::Wireguard {
            let expected = Carrier::of(kind).map(warren_plan::Clear::by);
            prop_assert_eq!(clear, expected.as_ref());
        }
        for (device, fallback, mode) in [
            (VXLAN_INTERFACE, Fallback::Vxlan, OverlayMode::Vxlan),
            (IPIP_INTERFACE, Fallback::Ipip, OverlayMode::Ipip),
        ] {
            let wanted = match world.mesh.encryption {
                Encryption::Wireguard => world.mesh.fallback == fallback,
                Encryption::None => world.mesh.overlay.mode == mode,
            };
            prop_assert_eq!(member.observed.links.contains_key(device), wanted, "{}", device);
        }
        let (cluster, local) = world.cluster_of(at);
        let announcement = member.published.as_ref().unwrap();
        let progress = announcement.progress.as_ref().unwrap();
        prop_assert!(progress.has_settled(accord(&cluster, &local)));
        let onward = member.observed.routes.get(&net(to)).map(|route| &route.target);
        prop_assert!(!matches!(onward, None | Some(RouteTarget::Unreachable)));
        let lanes = !member.observed.lanes.is_empty();
        prop_assert_eq!(lanes, member.can.contains(&PathKind::Wireguard));
    }
    Ok(())
}
