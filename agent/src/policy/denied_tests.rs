//! Limits, sums and names; the kernel's part and the lines are the lab's.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;

use warren_model::PodName;
use warren_policy::cluster::Since;
use warren_policy::{Labels, Pod, Protocol};

use super::*;

fn packet(prefix: &str, source_port: u16, port: u16) -> LoggedPacket {
    let (source, destination) = (IpAddr::from([10, 244, 1, 5]), IpAddr::from([10, 244, 2, 6]));
    let detail = Detail::Ports {
        source: source_port,
        destination: port,
    };
    let flow = Flow::to_port(source, destination, Protocol::TCP, port);
    LoggedPacket {
        prefix: prefix.to_owned(),
        flow: Some(Flow { detail, ..flow }),
    }
}

#[tokio::test]
async fn a_flow_has_one_line_in_a_window_whatever_port_it_comes_from() {
    let mut window = Window::new(Instant::now());
    let first = window.admit(&packet("a", 40_000, 80)).unwrap();
    assert_eq!(first.source_port(), Some(40_000));
    assert_eq!(window.admit(&packet("a", 40_001, 80)), None);
    // Another port, and another denial on the other side, are other lines.
    assert!(window.admit(&packet("a", 40_000, 81)).is_some());
    assert!(window.admit(&packet("b", 40_000, 80)).is_some());
    let garbage = LoggedPacket {
        prefix: "a".to_owned(),
        flow: None,
    };
    assert_eq!(window.admit(&garbage), None);
    assert_eq!((window.packets, window.flows.len()), (5, 3));
}

#[tokio::test]
async fn a_window_has_no_more_than_its_lines() {
    let mut window = Window::new(Instant::now());
    let admitted = (1..=1000).filter(|port| window.admit(&packet("a", 1, *port)).is_some());
    assert_eq!(admitted.count(), LINES);
    assert_eq!((window.packets, window.flows.len()), (1000, LINES));
}

fn counters(all: &[(&str, u64)]) -> Vec<DropCounter> {
    let counter = |(reason, packets): &(&str, u64)| DropCounter {
        reason: (*reason).to_owned(),
        packets: *packets,
        bytes: 0,
    };
    all.iter().map(counter).collect()
}

fn is_denial(name: &str) -> bool {
    !name.starts_with("allow-")
}

#[test]
fn packets_without_a_line_are_told_once() {
    // What was denied before the log was on is not its business.
    let mut tally = Tally::since(&counters(&[("a", 1000)]));
    assert_eq!(tally.untold(), 0);
    tally.lines = 2;
    // Nor is what was allowed.
    tally.count(&counters(&[("a", 1010), ("b", 5), ("allow-c", 7)]), is_denial);
    assert_eq!(tally.untold(), 13);
    assert_eq!(tally.untold(), 0);
    // The table was written anew.
    tally.count(&counters(&[("a", 4)]), is_denial);
    assert_eq!(tally.untold(), 4);
}

#[test]
fn a_line_that_comes_after_its_packet_was_told_of_is_made_up_for() {
    let mut tally = Tally::default();
    tally.count(&counters(&[("a", 3)]), is_denial);
    assert_eq!(tally.untold(), 3);
    tally.lines += 1;
    tally.count(&counters(&[("a", 5)]), is_denial);
    assert_eq!(tally.untold(), 1);
}

#[test]
fn an_address_is_named_after_its_pod_or_its_node() {
    let pod = |namespace: &str, name: &str, address: [u8; 4]| Pod {
        name: PodName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
        uid: String::new(),
        labels: Labels::default(),
        addresses: vec![IpAddr::from(address)],
        ports: Vec::new(),
        host_network: false,
        finished: false,
        node: None,
        since: Since::Created(0),
    };
    let cluster = Cluster {
        pods: [
            Pod {
                finished: true,
                ..pod("shop", "before", [10, 244, 1, 5])
            },
            Pod {
                since: Since::Created(60),
                ..pod("shop", "web", [10, 244, 1, 5])
            },
            pod("shop", "web-of-old", [10, 244, 1, 5]),
            Pod {
                host_network: true,
                ..pod("kube-system", "proxy", [192, 0, 2, 1])
            },
            pod("", "container-1/eth0", [10, 244, 1, 9]),
        ]
        .map(Arc::new)
        .into(),
        nodes: [("node1".parse().unwrap(), vec![IpAddr::from([192, 0, 2, 1])])].into(),
        ..Cluster::default()
    };
    let node2 = Node {
        name: "node2".parse().unwrap(),
        uid: "uid".to_owned(),
        created: 0,
        pod_cidrs: vec!["10.244.2.0/24".parse().unwrap()],
        internal_ips: Vec::new(),
        announcement: None,
        ready: true,
    };
    let whose = Whose {
        cluster: &cluster,
        nodes: &[(node2.name.clone(), node2)].into(),
    };
    let named = |address: [u8; 4]| whose.name(IpAddr::from(address));
    assert_eq!(named([10, 244, 1, 5]).as_deref(), Some("shop/web"));
    assert_eq!(named([192, 0, 2, 1]).as_deref(), Some("node1"));
    assert_eq!(named([10, 244, 2, 1]).as_deref(), Some("node2"));
    assert_eq!(named([10, 244, 1, 9]), None);
    assert_eq!(named([198, 51, 100, 7]), None);
}
