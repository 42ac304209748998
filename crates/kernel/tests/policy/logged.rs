//! The log of what is denied: what the kernel tells, that its limit denies nothing less, and turning it on and off.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::timeout;
use warren_kernel::policy::{Ruling, Written, render, render_logged};
use warren_kernel::{LoggedPacket, PacketLog};
use warren_policy::{Flow, Input, Protocol, RuleSet, compile, kubernetes};

use super::{PORTS, drops, shop};
use crate::places::{Place, everywhere};
use crate::rooms::{DEADLINE, Node, node, send, sh};

/// Nobody reaches pod 2.
fn closed() -> RuleSet {
    let spec = json!({"podSelector": {"matchLabels": {"number": "2"}}});
    let policy = kubernetes::check("shop", "closed", &serde_json::from_value(spec).unwrap()).unwrap();
    compile(&Input::new(&[policy], &shop()))
}

/// Waits for packets until there are so many.
async fn read(log: &mut PacketLog, many: usize) -> Vec<LoggedPacket> {
    let mut packets = Vec::new();
    while packets.len() < many {
        let more = timeout(DEADLINE, log.read()).await;
        packets.extend(more.expect("no more packets are logged").unwrap());
    }
    packets
}

/// From pod 1, and to which port of pod 2, over a family.
fn knock(places: &[Place], family: usize, port: usize) -> Flow {
    let door = &places[1].listeners[family * PORTS.len() + port];
    send(&places[0].senders[family], door.local_addr().unwrap());
    let (from, to) = (places[0].addresses[family], places[1].addresses[family]);
    Flow::to_port(from, to, Protocol::UDP, PORTS[port])
}

/// Whatever port they came from.
fn with_the_port_of(flow: Flow, packet: &LoggedPacket) -> Option<Flow> {
    Some(Flow {
        detail: warren_policy::flow::Detail::Ports {
            source: packet.flow?.source_port()?,
            destination: flow.destination_port()?,
        },
        ..flow
    })
}

async fn install(node: &Node, rules: &RuleSet, logs: bool) -> BTreeMap<String, Ruling> {
    let table = if logs { render_logged(rules) } else { render(rules) };
    let rulings = table.rulings().clone();
    node.kernel.install_policy(table).await.unwrap();
    rulings
}

#[test]
fn denied_packets_are_logged_by_the_name_of_their_denial_while_that_is_on() {
    let name = "logged::denied_packets_are_logged_by_the_name_of_their_denial_while_that_is_on";
    node(name, async |node| {
        let places = everywhere();
        let rules = closed();
        let mut log = node.kernel.packet_log().await.unwrap();
        let rulings = install(&node, &rules, true).await;
        for (family, port) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            let flow = knock(&places, family, port);
            let packets = read(&mut log, 1).await;
            let ruling = &rulings[&packets[0].prefix];
            assert_eq!(packets.len(), 1, "{packets:?}");
            assert_eq!(packets[0].flow, with_the_port_of(flow, &packets[0]));
            assert_eq!(ruling.policy, "NetworkPolicy/shop/closed");
            assert!(
                ruling.denies() && ruling.rule.starts_with("ingress: "),
                "{ruling:?}"
            );
        }
        assert_eq!(drops(), 4);

        // By what differs: nothing is made anew, so counters go on, and no packet comes between.
        let written = node.kernel.install_policy(render(&rules)).await.unwrap();
        assert!(matches!(written, Written::Difference(_)), "{written:?}");
        knock(&places, 0, 0);
        super::until(|| drops() == 5);
        install(&node, &rules, true).await;
        let flow = knock(&places, 1, 1);
        let packets = read(&mut log, 1).await;
        assert_eq!(
            packets.len(),
            1,
            "what was denied meanwhile is not there: {packets:?}"
        );
        assert_eq!(packets[0].flow, with_the_port_of(flow, &packets[0]));
        assert_eq!(drops(), 6);
    });
}

#[test]
fn what_is_beyond_the_limit_is_denied_all_the_same() {
    let name = "logged::what_is_beyond_the_limit_is_denied_all_the_same";
    node(name, async |node| {
        const MANY: u64 = 3000;
        let places = everywhere();
        let mut log = node.kernel.packet_log().await.unwrap();
        install(&node, &closed(), true).await;
        let began = Instant::now();
        for _ in 0..MANY {
            knock(&places, 0, 0);
        }
        super::until(|| drops() == MANY);
        let mut logged = 0;
        // Soon after the last there are none left.
        while let Ok(packets) = timeout(Duration::from_millis(500), log.read()).await {
            logged += packets.unwrap().len();
        }
        let most = 20 + 10 * (began.elapsed().as_secs() + 1);
        assert!(
            (20..=most).contains(&(logged as u64)),
            "{logged} of {MANY} were logged"
        );
        let mut buffer = [0; 8];
        let arrived = places[1]
            .listeners
            .iter()
            .filter(|it| it.recv(&mut buffer).is_ok());
        assert_eq!(arrived.count(), 0);
    });
}

#[test]
fn a_group_that_is_read_already_is_an_error_that_says_so() {
    let name = "logged::a_group_that_is_read_already_is_an_error_that_says_so";
    node(name, async |node| {
        let first = node.kernel.packet_log().await.unwrap();
        let second = node.kernel.packet_log().await.unwrap_err();
        assert!(
            second.to_string().contains("no other reader of log group 87"),
            "{second}"
        );
        drop(first);
        node.kernel.packet_log().await.unwrap();
        assert_eq!(sh("nft list tables"), "", "trying leaves nothing behind");
    });
}
