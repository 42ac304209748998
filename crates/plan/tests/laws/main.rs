//! The laws of planning, as properties over random clusters, nodes and kernels.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod generate;

use std::collections::BTreeSet;
use std::time::Duration;

use generate::{Situation, a_cluster, a_local, a_situation, an_observed};
use proptest::prelude::*;
use warren_model::{Encryption, PathKind};
use warren_plan::handover::{HANDSHAKE_PATIENCE, PEER_PATIENCE};
use warren_plan::lane::{LaneObserved, PeerObserved};
use warren_plan::state::Desired;
use warren_plan::{Action, Carrier, LaneChange, Link, LinkKind, Observed, RouteTarget, compute, diff};

/// The observation that matches a desired state exactly.
fn observation_of(desired: &Desired) -> Observed {
    let lanes = desired.lanes.iter().map(|(lane, config)| {
        let peers = config.peers.iter().map(|(key, peer)| {
            let observed = PeerObserved {
                endpoint: Some(peer.endpoint),
                allowed_ips: peer.allowed_ips.clone(),
                keepalive: peer.keepalive,
                ..PeerObserved::default()
            };
            (*key, observed)
        });
        (
            *lane,
            LaneObserved {
                public_key: config.public_key,
                port: config.port,
                peers: peers.collect(),
            },
        )
    });
    Observed {
        guard: Some(desired.guard.fingerprint()),
        open_pods: desired.guard.pods.clone(),
        links: desired.links.clone(),
        lanes: lanes.collect(),
        addresses: desired.addresses.clone(),
        neighbours: desired.neighbours.clone(),
        fdb: desired.fdb.clone(),
        routes: desired.routes.clone(),
        sysctls: desired.sysctls.clone(),
    }
}

/// What the traffic counters and roamed endpoints of a device say is the device's business: left out of comparison.
fn comparable(mut observed: Observed, desired: &Desired) -> Observed {
    for (lane, device) in &mut observed.lanes {
        for (key, peer) in &mut device.peers {
            let wanted = desired.lanes.get(lane).and_then(|config| config.peers.get(key));
            if let (true, Some(wanted)) = (peer.is_proven(), wanted) {
                peer.endpoint = Some(wanted.endpoint);
            }
            *peer = PeerObserved {
                handshake_age: None,
                rx_bytes: 0,
                tx_bytes: 0,
                ..peer.clone()
            };
        }
    }
    // A value that nobody asks for any more is left as it is: it is restored on uninstall.
    observed
        .sysctls
        .retain(|key, _| desired.sysctls.contains_key(key));
    observed
}

fn is_safe(observed: &Observed, desired: &Desired, before: &Observed) -> Result<(), String> {
    // Any guard drops what a veth sends that it does not know.
    let guarded = observed.guard.is_some();
    let has_veths = observed.links.values().any(|link| link.kind == LinkKind::Veth);
    if has_veths && !guarded {
        return Err("a veth without its drop".to_owned());
    }
    let sealed = observed.guard == Some(desired.guard.fingerprint());
    for (net, route) in &observed.routes {
        if desired.guard.sealed.contains(net) && desired.routes.get(net) == Some(route) && !sealed {
            // Not sealed yet, but on its way into a lane or nowhere.
            let clear = matches!(route.target, RouteTarget::Gateway(_))
                || matches!(route.device(), Some("warren-vx" | "warren-ipip"));
            let moving = desired
                .guard
                .clear
                .get(net)
                .is_some_and(|clear| !clear.outgoing.is_empty());
            if clear && !moving {
                return Err(format!("{net} is routed in the clear and not sealed"));
            }
        }
        // What was there before and is about to be corrected is the guard's to hold.
        if desired.routes.get(net) != Some(route) {
            continue;
        }
        let RouteTarget::Device(device) = &route.target else {
            continue;
        };
        let Some(lane) = warren_model::Lane::of_interface(device) else {
            continue;
        };
        let has_peer = |observed: &Observed| {
            let peers = observed.lanes.get(&lane).map(|device| &device.peers);
            peers.is_some_and(|peers| peers.values().any(|peer| peer.allowed_ips.contains(net)))
        };
        // One that led nowhere before is no worse until its peer comes.
        let led_nowhere = before.routes.get(net) == Some(route) && !has_peer(before);
        if !led_nowhere && (!has_peer(observed) || !observed.links.contains_key(device)) {
            return Err(format!("route {net} without its peer"));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn applying_the_difference_gives_the_desired_state(situation in a_situation()) {
        let desired = compute(&situation.cluster, &situation.local);
        let mut observed = situation.observed;
        for step in diff(&desired, &observed) {
            observed.apply(&step.action);
        }
        prop_assert_eq!(comparable(observed, &desired), observation_of(&desired));
    }

    #[test]
    fn there_is_no_difference_to_what_is_already_right(situation in a_situation()) {
        let desired = compute(&situation.cluster, &situation.local);
        let steps = diff(&desired, &observation_of(&desired));
        prop_assert!(steps.is_empty(), "{:?}", steps);
    }

    #[test]
    fn other_open_pods_are_a_difference_of_the_guard_alone(situation in a_situation()) {
        let desired = compute(&situation.cluster, &situation.local);
        let open_pods = situation.observed.open_pods;
        let observed = Observed { open_pods: open_pods.clone(), ..observation_of(&desired) };
        let steps = diff(&desired, &observed);
        let guards = steps.iter().filter(|step| matches!(step.action, Action::InstallGuard(_))).count();
        prop_assert_eq!((steps.len(), guards), if open_pods == desired.guard.pods { (0, 0) } else { (1, 1) });
    }

    #[test]
    fn a_plan_finds_nothing_to_do_for_pods_that_were_opened_by_themselves(
        situation in a_situation(), planned in 0_usize..4,
    ) {
        let mut local = situation.local.clone();
        let opened = local.attachments.split_off(planned.min(local.attachments.len()));
        let before = compute(&situation.cluster, &local);
        let after = compute(&situation.cluster, &situation.local);

        let mut observed = observation_of(&before);
        for pod in &opened {
            let veth = Link { kind: LinkKind::Veth, mtu: before.pod_mtu, up: true };
            observed.links.insert(pod.interface.clone(), veth);
        }
        let opening = warren_plan::pod::open(&before.guard, before.pod_mtu, &opened);
        for step in &opening.steps {
            observed.apply(&step.action);
        }
        prop_assert_eq!(&opening.guard, &after.guard);
        prop_assert_eq!(diff(&after, &observed), vec![]);
        prop_assert_eq!(observed, observation_of(&after));
    }

    #[test]
    fn a_second_pass_after_any_prefix_of_the_first_ends_in_the_same_state(
        situation in a_situation(), cut in 0_usize..200,
    ) {
        let desired = compute(&situation.cluster, &situation.local);
        let mut observed = situation.observed;
        for step in diff(&desired, &observed).iter().take(cut) {
            observed.apply(&step.action);
        }
        for step in diff(&desired, &observed) {
            observed.apply(&step.action);
        }
        prop_assert_eq!(comparable(observed, &desired), observation_of(&desired));
    }

    #[test]
    fn every_prefix_of_the_steps_is_safe(situation in a_situation()) {
        let desired = compute(&situation.cluster, &situation.local);
        let before = situation.observed;
        let mut observed = before.clone();
        for step in diff(&desired, &observed) {
            observed.apply(&step.action);
            prop_assert_eq!(is_safe(&observed, &desired, &before), Ok(()), "after {}", step.action);
        }
    }

    #[test]
    fn the_guard_comes_first(situation in a_situation()) {
        let desired = compute(&situation.cluster, &situation.local);
        let steps = diff(&desired, &situation.observed);
        let guard = steps.iter().position(|step| matches!(step.action, Action::InstallGuard(_)));
        prop_assert!(guard.is_none_or(|position| position == 0));
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(
        cluster in a_cluster(), local in a_local(), seed in any::<u64>(),
    ) {
        let mut shuffled = local.clone();
        let rotate = |len: usize| if len == 0 { 0 } else { usize::try_from(seed % 97).unwrap() % len };
        shuffled.attachments.rotate_left(rotate(local.attachments.len()));
        shuffled.underlay.rotate_left(rotate(local.underlay.len()));
        let mut refused_otherwise = cluster.clone();
        refused_otherwise.refusals.reverse();
        prop_assert_eq!(compute(&cluster, &local), compute(&refused_otherwise, &shuffled));
    }

    #[test]
    fn with_encryption_every_remote_pod_network_is_sealed_or_allowed_in_the_clear_by_the_mesh(
        mut cluster in a_cluster(), mut local in a_local(),
    ) {
        cluster.mesh.encryption = Encryption::Wireguard;
        local.in_force.accord_age = PEER_PATIENCE;
        let desired = compute(&cluster, &local);
        for (name, node) in cluster.nodes.iter().filter(|(name, _)| **name != local.node) {
            for cidr in &node.pod_cidrs {
                let sealed = desired.guard.sealed.contains(&cidr.net());
                let clear = desired.guard.clear.contains_key(&cidr.net());
                prop_assert!(sealed != clear, "{} of {} is neither or both", cidr, name);
            }
        }
        if cluster.mesh.fallback == warren_model::Fallback::None {
            prop_assert!(desired.guard.clear.is_empty());
            for (name, peer) in &desired.peers {
                let kind = peer.path.map(|path| path.kind());
                prop_assert!(matches!(kind, None | Some(PathKind::Wireguard)), "{} by {:?}", name, kind);
            }
        }
    }

    #[test]
    fn with_encryption_a_hand_over_sends_in_the_clear_only_what_is_sent_so_and_takes_only_what_a_peer_says_it_sends(
        mut cluster in a_cluster(), local in a_local(),
    ) {
        cluster.mesh.encryption = Encryption::Wireguard;
        cluster.mesh.fallback = warren_model::Fallback::None;
        let desired = compute(&cluster, &local);
        for (net, clear) in &desired.guard.clear {
            prop_assert!(desired.guard.sealed.contains(net));
            for carrier in &clear.outgoing {
                let routed = local.in_force.routed.values().map(|path| path.kind()).filter_map(Carrier::of);
                prop_assert!(local.in_force.accord_age < HANDSHAKE_PATIENCE);
                prop_assert!(routed.into_iter().any(|routed| routed == *carrier), "{} by {:?}", net, carrier);
            }
            // What the node has said itself that it takes may still be sent.
            let by_of = |node: &warren_model::Node| -> BTreeSet<Carrier> {
                let announcement = node.announcement.as_ref().and_then(|it| it.as_ref().ok());
                let progress = announcement.and_then(|announcement| announcement.progress.as_ref());
                progress.into_iter().flat_map(|it| &it.by).copied().filter_map(Carrier::of).collect()
            };
            let own = cluster.nodes.get(&local.node).map(by_of).unwrap_or_default();
            let says_so = |node: &warren_model::Node| {
                let announcement = node.announcement.as_ref().and_then(|it| it.as_ref().ok());
                let progress = announcement.and_then(|announcement| announcement.progress.as_ref());
                progress.is_some_and(|progress| {
                    let by = &by_of(node) | &own;
                    !progress.has_settled(desired.accord.unwrap()) && clear.incoming.is_subset(&by)
                })
            };
            let owners = cluster.nodes.values().filter(|node| node.pod_cidrs.iter().any(|cidr| cidr.net() == *net));
            prop_assert!(clear.incoming.is_empty() || owners.into_iter().any(says_so), "{} by {:?}", net, clear.incoming);
        }
    }

    #[test]
    fn with_encryption_the_networks_of_nodes_that_are_gone_stay_sealed_and_are_remembered(
        mut cluster in a_cluster(), local in a_local(),
    ) {
        cluster.mesh.encryption = Encryption::Wireguard;
        let desired = compute(&cluster, &local);
        for net in &local.networks_before {
            let held = desired.guard.sealed.contains(net) || desired.guard.clear.contains_key(net);
            prop_assert!(held && desired.remote_networks.contains(net), "{}", net);
            prop_assert!(desired.guard.pod_networks.contains(net), "{} would be masqueraded", net);
        }
    }

    #[test]
    fn what_is_sealed_never_takes_the_default_route_even_without_a_guard(
        mut cluster in a_cluster(), local in a_local(),
    ) {
        cluster.mesh.encryption = Encryption::Wireguard;
        let desired = compute(&cluster, &local);
        for net in &desired.guard.sealed {
            let covered = desired.routes.keys().any(|routed| routed.contains(net));
            prop_assert!(covered, "{} has no route", net);
        }
    }

    #[test]
    fn no_interface_is_too_small_for_the_ipv6_it_carries(cluster in a_cluster(), local in a_local(), mtu in 576_u16..1500) {
        let mut cluster = cluster;
        cluster.mesh.mtu = Some(mtu);
        let desired = compute(&cluster, &local);
        let has_ipv6 = desired.guard.local.iter().any(|net| net.addr().is_ipv6());
        let small = desired.links.values().any(|link| link.mtu < 1280) || desired.pod_mtu < 1280;
        prop_assert!(!(has_ipv6 && small));
        let refused = desired.refusals.iter().any(|refusal| refusal.code == "mtu-below-ipv6");
        prop_assert_eq!(refused, has_ipv6 && mtu < 1280);
    }

    #[test]
    fn no_prefix_belongs_to_two_peers_of_a_lane_and_none_to_this_node(cluster in a_cluster(), local in a_local()) {
        let desired = compute(&cluster, &local);
        for config in desired.lanes.values() {
            let mut seen = BTreeSet::new();
            for net in config.peers.values().flat_map(|peer| &peer.allowed_ips) {
                prop_assert!(seen.insert(*net), "{} twice", net);
                prop_assert!(!desired.guard.local.contains(net), "{} is ours", net);
            }
        }
    }

    #[test]
    fn allowed_ips_are_the_control_planes_word(cluster in a_cluster(), local in a_local()) {
        let desired = compute(&cluster, &local);
        let given: BTreeSet<_> =
            cluster.nodes.values().flat_map(|node| node.pod_cidrs.iter().map(|cidr| cidr.net())).collect();
        for config in desired.lanes.values() {
            prop_assert!(config.peers.values().all(|peer| peer.allowed_ips.is_subset(&given)));
        }
    }

    #[test]
    fn a_route_names_only_a_source_that_an_interface_has(cluster in a_cluster(), local in a_local()) {
        let desired = compute(&cluster, &local);
        for (net, route) in &desired.routes {
            let carried = |source| desired.addresses.iter().any(|(_, address)| *address == source);
            prop_assert!(route.source.is_none_or(carried), "{} {}", net, route);
        }
    }

    #[test]
    fn a_peer_that_has_roamed_and_shook_hands_lately_is_left_where_it_is(situation in a_situation()) {
        let Situation { cluster, local, observed } = situation;
        let desired = compute(&cluster, &local);
        for step in diff(&desired, &observed) {
            if let Action::ConfigureLane(lane, LaneChange::SetEndpoint(key, _)) = step.action {
                let peer = &observed.lanes[&lane].peers[&key];
                let before = local.endpoints_before.get(&lane).and_then(|lane| lane.get(&key)).copied();
                let roamed = peer.endpoint.is_some() && peer.endpoint != before;
                prop_assert!(!peer.is_proven() || !roamed, "{:?} was {:?}", peer, before);
            }
        }
    }

    #[test]
    fn a_peer_that_has_not_roamed_is_sent_to_where_its_node_is_now(
        mut cluster in a_cluster(), later in a_cluster(), mut local in a_local(), age in 0_u64..400,
    ) {
        let mut observed = observation_of(&compute(&cluster, &local));
        local.endpoints_before = compute(&cluster, &local).endpoints();
        for peer in observed.lanes.values_mut().flat_map(|device| device.peers.values_mut()) {
            peer.handshake_age = Some(Duration::from_secs(age));
        }
        // Other addresses for the same nodes, those of one another among them; nothing else.
        for (name, node) in &mut cluster.nodes {
            if let Some(later) = later.nodes.get(name) {
                node.internal_ips.clone_from(&later.internal_ips);
            }
        }
        let desired = compute(&cluster, &local);
        for step in diff(&desired, &observed) {
            observed.apply(&step.action);
        }
        for (lane, config) in &desired.lanes {
            for (key, peer) in &config.peers {
                prop_assert_eq!(observed.lanes[lane].peers[key].endpoint, Some(peer.endpoint));
            }
        }
        // Once that is done and remembered, it is not done again where a peer roams back.
        local.endpoints_before = desired.endpoints();
        let done = compute(&cluster, &local);
        prop_assert!(done.lanes.values().all(|config| config.endpoints_before.is_empty()));
    }

    #[test]
    fn nothing_observed_makes_planning_fail(
        cluster in a_cluster(), local in a_local(), observed in an_observed(),
    ) {
        let steps = diff(&compute(&cluster, &local), &observed);
        for step in steps {
            prop_assert!(!step.action.to_string().is_empty() && !step.reason.is_empty());
        }
    }
}
