//! The rules of the guard's chains, as nft text.
//!
//! Networks stand in the rules themselves: see [`render`](super::render) for why.

use std::collections::BTreeMap;

use ipnet::IpNet;
use warren_plan::{Carrier, Clear, Guard};

use crate::membership::{inside, outside};

/// The sets of open pods, one a family: keys are the host side of a pod's veth and the pod's address.
pub(super) const PODS_V4: &str = "pods4";
/// See [`PODS_V4`].
pub(super) const PODS_V6: &str = "pods6";

/// Each carrier in the clear, and what matches its interface.
const CARRIERS: [(Carrier, &str); 3] = [
    (Carrier::Vxlan, "\"warren-vx\""),
    (Carrier::Ipip, "\"warren-ipip\""),
    (Carrier::Direct, "!= { \"warren-vx\", \"warren-ipip\" }"),
];

/// What leaves by a path of ours.
const PATHS: &str = "oifname { \"warren0\", \"warren1\", \"warren-vx\", \"warren-ipip\" }";

/// RFC 4861, section 7.1: what comes from beyond the link has a lower hop limit.
const NEIGHBOUR_DISCOVERY: &str = "ip6 hoplimit 255 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }";

/// The chains by name, but for the one that describes the table.
pub(super) fn chains(guard: &Guard) -> BTreeMap<&'static str, Chain> {
    BTreeMap::from([
        // Before connection tracking, so that what is dropped leaves no trace in it.
        (
            "incoming",
            Chain {
                make: " { type filter hook prerouting priority -300; policy accept; }",
                rules: incoming(guard),
            },
        ),
        (
            "from-pod",
            Chain {
                make: "",
                rules: from_pod(),
            },
        ),
        // After everybody else's address translation: this is what really leaves.
        (
            "outgoing",
            Chain {
                make: " { type filter hook postrouting priority 300; policy accept; }",
                rules: outgoing(guard),
            },
        ),
        (
            "to-pod",
            Chain {
                make: "",
                rules: to_pod(),
            },
        ),
        (
            "segments",
            Chain {
                make: " { type filter hook forward priority -150; policy accept; }",
                rules: segments(),
            },
        ),
        (
            // `masquerade` is a word of nft's own.
            "translate",
            Chain {
                make: " { type nat hook postrouting priority 100; policy accept; }",
                rules: translate(guard),
            },
        ),
    ])
}

/// One chain.
pub(super) struct Chain {
    /// What follows its name where it is made: its hook, if it has one.
    pub(super) make: &'static str,
    /// Its rules, in order.
    pub(super) rules: Vec<String>,
}

/// Local, clear, sealed: in that order, because sealed networks may contain the others.
fn incoming(guard: &Guard) -> Vec<String> {
    let mut rules = vec![
        "iifname \"lo\" accept".to_owned(),
        "iifname \"wrn*\" goto from-pod".to_owned(),
    ];
    each(&mut rules, "saddr", &local(guard), |nets| {
        format!("{nets} counter name spoofed-local drop")
    });
    // WireGuard has checked the source against the sending peer's allowed IPs. A lane is good for clear networks too:
    // packets of a hand-over are still under way in it.
    rules.push("iifname { \"warren0\", \"warren1\" } accept".to_owned());
    for (carrier, interface) in CARRIERS {
        let from = crossing(guard, |clear| clear.incoming.contains(&carrier));
        each(&mut rules, "saddr", &from, |nets| {
            format!("iifname {interface} {nets} accept")
        });
    }
    each(&mut rules, "saddr", &clear(guard), |nets| {
        format!("{nets} counter name wrong-carrier-in drop")
    });
    each(&mut rules, "saddr", &sealed(guard), |nets| {
        format!("{nets} counter name plaintext-in drop")
    });
    rules
}

fn from_pod() -> Vec<String> {
    vec![
        format!("iifname . ip saddr @{PODS_V4} accept"),
        format!("iifname . ip6 saddr @{PODS_V6} accept"),
        format!("ip6 saddr :: {NEIGHBOUR_DISCOVERY} accept"),
        format!("ip6 saddr fe80::/10 {NEIGHBOUR_DISCOVERY} accept"),
        "ip6 saddr :: counter name pod-link-local drop".to_owned(),
        "ip6 saddr fe80::/10 counter name pod-link-local drop".to_owned(),
        "counter name pod-spoofed drop".to_owned(),
    ]
}

fn outgoing(guard: &Guard) -> Vec<String> {
    let mut rules = vec![
        "oifname \"lo\" accept".to_owned(),
        "oifname \"wrn*\" goto to-pod".to_owned(),
    ];
    each(&mut rules, "daddr", &local(guard), |nets| {
        format!("{nets} counter name local-out drop")
    });
    rules.push("oifname { \"warren0\", \"warren1\" } accept".to_owned());
    for (carrier, interface) in CARRIERS {
        let to = crossing(guard, |clear| clear.outgoing.contains(&carrier));
        each(&mut rules, "daddr", &to, |nets| {
            format!("oifname {interface} {nets} accept")
        });
    }
    each(&mut rules, "daddr", &clear(guard), |nets| {
        format!("{nets} counter name wrong-carrier-out drop")
    });
    each(&mut rules, "daddr", &sealed(guard), |nets| {
        format!("{nets} counter name plaintext-out drop")
    });
    rules
}

fn to_pod() -> Vec<String> {
    vec![
        format!("oifname . ip daddr @{PODS_V4} accept"),
        format!("oifname . ip6 daddr @{PODS_V6} accept"),
        format!("ip6 daddr fe80::/10 {NEIGHBOUR_DISCOVERY} accept"),
        format!("ip6 daddr ff00::/8 {NEIGHBOUR_DISCOVERY} accept"),
        "ip6 daddr fe80::/10 counter name pod-link-local drop".to_owned(),
        "ip6 daddr ff00::/8 counter name pod-link-local drop".to_owned(),
        "counter name pod-unopened drop".to_owned(),
    ]
}

/// Nobody makes a connection with longer segments than the path takes: a sender whose own interface has more (a client
/// beyond the node, a pod until its MTU is changed) would have to learn it from ICMP, which many networks lose. The value
/// in the packet is only ever lowered.
fn segments() -> Vec<String> {
    vec![format!("{PATHS} tcp flags syn tcp option maxseg size set rt mtu")]
}

/// Two translations of sources. What leaves by a path of ours from an address that is no pod's of this node (a process of
/// the node that asked for a Service, a connection from outside to a NodePort) becomes the node-local address: the peer
/// takes nothing else from this node. What pods send outside the pod network becomes the node's address, where wanted.
fn translate(guard: &Guard) -> Vec<String> {
    let [own4, own6] = local(guard);
    let own4 = match &*own4 {
        [] => "meta nfproto ipv4 ".to_owned(),
        nets => all(outside("ip saddr", nets.iter().copied())),
    };
    let own6 = all(outside("ip6 saddr", own6));
    let mut rules = vec![
        "oifname \"lo\" return".to_owned(),
        "oifname \"wrn*\" return".to_owned(),
        format!("{PATHS} {own4}masquerade"),
        format!("{PATHS} {own6}ip6 saddr != fe80::/10 masquerade"),
        format!("{PATHS} return"),
    ];
    let within = by_family(guard.pod_networks.iter().copied());
    let from = by_family(guard.masquerade.iter().copied());
    for ((ip, from), within) in FAMILIES.into_iter().zip(from).zip(within) {
        let beyond = all(outside(&format!("{ip} daddr"), within));
        let from = inside(&format!("{ip} saddr"), from);
        rules.extend(
            from.into_iter()
                .map(|from| format!("{from} {beyond}masquerade fully-random")),
        );
    }
    rules
}

/// Matches that all must hold, and what follows.
fn all(matches: Vec<String>) -> String {
    matches.into_iter().map(|it| it + " ").collect()
}

/// Networks of each family, IPv4 first.
type Networks = [Vec<IpNet>; 2];

/// What nft calls them.
const FAMILIES: [&str; 2] = ["ip", "ip6"];

fn local(guard: &Guard) -> Networks {
    by_family(guard.local.iter().copied())
}

fn sealed(guard: &Guard) -> Networks {
    by_family(guard.sealed.iter().copied())
}

/// What is on its way into the lanes counts as sealed.
fn clear(guard: &Guard) -> Networks {
    let clear = guard.clear.keys().filter(|net| !guard.sealed.contains(*net));
    by_family(clear.copied())
}

/// The networks that may cross in the clear in some way.
fn crossing(guard: &Guard, may: impl Fn(&Clear) -> bool) -> Networks {
    let crossing = guard.clear.iter().filter(|(_, clear)| may(clear));
    by_family(crossing.map(|(net, _)| *net))
}

fn by_family(nets: impl Iterator<Item = IpNet>) -> Networks {
    let (v4, v6) = nets.partition(|net| net.addr().is_ipv4());
    [v4, v6]
}

/// A rule for each family and length that the networks have, of what matches that.
fn each(rules: &mut Vec<String>, field: &str, networks: &Networks, rule: impl Fn(&str) -> String) {
    for (ip, nets) in FAMILIES.into_iter().zip(networks) {
        let matches = inside(&format!("{ip} {field}"), nets.iter().copied());
        rules.extend(matches.iter().map(|it| rule(it)));
    }
}
