//! The nft text of a [`Guard`].

use std::collections::BTreeMap;
use std::fmt::Write;

use ipnet::IpNet;
use warren_plan::{Carrier, Clear, Guard};

/// The reasons to drop; each is a named counter of the table.
///
/// | counter | what it counts |
/// |---|---|
/// | `pod-spoofed` | from a pod's veth, with a source that is not the pod's, or the pod is not open yet |
/// | `pod-unopened` | to a pod's veth, for an address that is not open there |
/// | `pod-link-local` | IPv6 chatter of a pod's link (router solicitations, MLD), which has no business beyond it |
/// | `spoofed-local` | from elsewhere, with a source of this node's own pods |
/// | `local-out` | for this node's own pods, about to leave the node |
/// | `wrong-carrier-in` | from a pod network allowed in the clear, by another carrier than the allowed one |
/// | `wrong-carrier-out` | the same, to |
/// | `plaintext-in` | from a sealed pod network, not through a lane |
/// | `plaintext-out` | to a sealed pod network, not through a lane |
pub const COUNTERS: [&str; 9] = [
    "pod-spoofed",
    "pod-unopened",
    "pod-link-local",
    "spoofed-local",
    "local-out",
    "wrong-carrier-in",
    "wrong-carrier-out",
    "plaintext-in",
    "plaintext-out",
];

/// The table, of family inet.
pub(super) const TABLE: &str = "warren";

/// The sets of open pods, one a family: keys are the host side of a pod's veth and the pod's address.
pub(super) const PODS_V4: &str = "pods4";
/// See [`PODS_V4`].
pub(super) const PODS_V6: &str = "pods6";

/// Each carrier in the clear, the word for it in the names of sets, and what matches its interface.
const CARRIERS: [(Carrier, &str, &str); 3] = [
    (Carrier::Vxlan, "vxlan", "\"warren-vx\""),
    (Carrier::Ipip, "ipip", "\"warren-ipip\""),
    (Carrier::Direct, "direct", "!= { \"warren-vx\", \"warren-ipip\" }"),
];

/// The chain that holds the table's description of itself.
pub(super) const FINGERPRINT_CHAIN: &str = "fingerprint";

/// The text that makes the table this, whatever it was before, in one transaction: chains and sets are emptied and
/// filled anew, and named counters keep their values.
pub fn render(guard: &Guard) -> String {
    let chains = chains(guard);
    let mut text = String::from("add table inet warren\n");
    for counter in COUNTERS {
        line(&mut text, format_args!("add counter inet warren {counter}"));
    }
    for (name, set) in sets(guard) {
        line(
            &mut text,
            format_args!("add set inet warren {name} {{ {} }}", set.make),
        );
        line(&mut text, format_args!("flush set inet warren {name}"));
        if !set.elements.is_empty() {
            let elements = set.elements.join(", ");
            line(
                &mut text,
                format_args!("add element inet warren {name} {{ {elements} }}"),
            );
        }
    }
    // All chains before any rule: rules jump to chains.
    for (name, chain) in &chains {
        line(
            &mut text,
            format_args!("add chain inet warren {name}{}", chain.make),
        );
        line(&mut text, format_args!("flush chain inet warren {name}"));
    }
    for (name, chain) in &chains {
        for rule in &chain.rules {
            line(&mut text, format_args!("add rule inet warren {name} {rule}"));
        }
    }
    text
}

/// The names of all that [`render`] makes, by kind.
pub(super) fn objects(guard: &Guard) -> Objects {
    Objects {
        chains: chains(guard).into_keys().map(str::to_owned).collect(),
        sets: sets(guard).into_keys().collect(),
        counters: COUNTERS.map(str::to_owned).to_vec(),
    }
}

/// Names of objects in the table, by kind.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) chains: Vec<String>,
    pub(super) sets: Vec<String>,
    pub(super) counters: Vec<String>,
}

/// The comment that describes a table of this fingerprint with so many rules a chain.
pub(super) fn description<'a>(fingerprint: u64, rules: impl IntoIterator<Item = (&'a str, usize)>) -> String {
    let mut text = format!("{fingerprint:016x}");
    for (chain, count) in rules {
        // Writing to a string cannot fail.
        let _ = write!(text, " {chain}={count}");
    }
    text
}

struct Set {
    make: &'static str,
    elements: Vec<String>,
}

struct Chain {
    make: &'static str,
    rules: Vec<String>,
}

fn sets(guard: &Guard) -> BTreeMap<String, Set> {
    let mut sets = BTreeMap::new();
    // What is on its way into the lanes counts as sealed.
    let clear = guard.clear.keys().filter(|net| !guard.sealed.contains(*net));
    networks(&mut sets, "local", guard.local.iter().copied());
    networks(&mut sets, "sealed", guard.sealed.iter().copied());
    networks(&mut sets, "clear", clear.copied());
    for (carrier, word, _) in CARRIERS {
        let by = |has: fn(&Clear, Carrier) -> bool| {
            let crossing = guard.clear.iter().filter(move |(_, clear)| has(clear, carrier));
            crossing.map(|(net, _)| *net)
        };
        let (from, to) = (format!("from_by_{word}"), format!("to_by_{word}"));
        networks(&mut sets, &from, by(|clear, it| clear.incoming.contains(&it)));
        networks(&mut sets, &to, by(|clear, it| clear.outgoing.contains(&it)));
    }
    networks(&mut sets, "masquerade", guard.masquerade.iter().copied());
    networks(&mut sets, "pod_networks", guard.pod_networks.iter().copied());
    for (name, make, v4) in [
        (PODS_V4, "type ifname . ipv4_addr;", true),
        (PODS_V6, "type ifname . ipv6_addr;", false),
    ] {
        let pods = guard.pods.iter().filter(|pod| pod.address.is_ipv4() == v4);
        let elements = pods
            .map(|pod| format!("\"{}\" . {}", pod.interface, pod.address))
            .collect();
        sets.insert(name.to_owned(), Set { make, elements });
    }
    sets
}

/// Two interval sets, one a family. Intervals of one set must not overlap, hence the aggregation.
fn networks(sets: &mut BTreeMap<String, Set>, name: &str, nets: impl Iterator<Item = IpNet>) {
    let nets = IpNet::aggregate(&nets.collect());
    for (suffix, make, v4) in [
        ("4", "type ipv4_addr; flags interval;", true),
        ("6", "type ipv6_addr; flags interval;", false),
    ] {
        let family = nets.iter().filter(|net| net.addr().is_ipv4() == v4);
        let elements = family.map(ToString::to_string).collect();
        sets.insert(format!("{name}{suffix}"), Set { make, elements });
    }
}

fn chains(guard: &Guard) -> BTreeMap<&'static str, Chain> {
    let mut chains = BTreeMap::from([
        // Before connection tracking, so that what is dropped leaves no trace in it.
        (
            "incoming",
            Chain {
                make: " { type filter hook prerouting priority -300; policy accept; }",
                rules: incoming(),
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
                rules: outgoing(),
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
                rules: translate(),
            },
        ),
    ]);
    let counts = chains.iter().map(|(name, chain)| (*name, chain.rules.len()));
    let comment = description(guard.fingerprint(), counts);
    let rules = vec![format!("return comment \"{comment}\"")];
    chains.insert(FINGERPRINT_CHAIN, Chain { make: "", rules });
    chains
}

/// Local, clear, sealed: in that order, because sealed networks may contain the others.
fn incoming() -> Vec<String> {
    let mut rules = vec![
        "iifname \"lo\" accept".to_owned(),
        "iifname \"wrn*\" goto from-pod".to_owned(),
    ];
    both(&mut rules, |ip, v| {
        format!("{ip} saddr @local{v} counter name spoofed-local drop")
    });
    // WireGuard has checked the source against the sending peer's allowed IPs. A lane is good for clear networks too:
    // packets of a hand-over are still under way in it.
    rules.push("iifname { \"warren0\", \"warren1\" } accept".to_owned());
    for (_, word, interface) in CARRIERS {
        both(&mut rules, |ip, v| {
            format!("iifname {interface} {ip} saddr @from_by_{word}{v} accept")
        });
    }
    both(&mut rules, |ip, v| {
        format!("{ip} saddr @clear{v} counter name wrong-carrier-in drop")
    });
    both(&mut rules, |ip, v| {
        format!("{ip} saddr @sealed{v} counter name plaintext-in drop")
    });
    rules
}

fn from_pod() -> Vec<String> {
    let mut rules = Vec::new();
    both(&mut rules, |ip, v| {
        format!("iifname . {ip} saddr @pods{v} accept")
    });
    rules.push(format!(
        "ip6 saddr {{ ::, fe80::/10 }} {NEIGHBOUR_DISCOVERY} accept"
    ));
    rules.push("ip6 saddr { ::, fe80::/10 } counter name pod-link-local drop".to_owned());
    rules.push("counter name pod-spoofed drop".to_owned());
    rules
}

fn outgoing() -> Vec<String> {
    let mut rules = vec![
        "oifname \"lo\" accept".to_owned(),
        "oifname \"wrn*\" goto to-pod".to_owned(),
    ];
    both(&mut rules, |ip, v| {
        format!("{ip} daddr @local{v} counter name local-out drop")
    });
    rules.push("oifname { \"warren0\", \"warren1\" } accept".to_owned());
    for (_, word, interface) in CARRIERS {
        both(&mut rules, |ip, v| {
            format!("oifname {interface} {ip} daddr @to_by_{word}{v} accept")
        });
    }
    both(&mut rules, |ip, v| {
        format!("{ip} daddr @clear{v} counter name wrong-carrier-out drop")
    });
    both(&mut rules, |ip, v| {
        format!("{ip} daddr @sealed{v} counter name plaintext-out drop")
    });
    rules
}

fn to_pod() -> Vec<String> {
    let mut rules = Vec::new();
    both(&mut rules, |ip, v| {
        format!("oifname . {ip} daddr @pods{v} accept")
    });
    rules.push(format!(
        "ip6 daddr {{ fe80::/10, ff00::/8 }} {NEIGHBOUR_DISCOVERY} accept"
    ));
    rules.push("ip6 daddr { fe80::/10, ff00::/8 } counter name pod-link-local drop".to_owned());
    rules.push("counter name pod-unopened drop".to_owned());
    rules
}

/// Nobody makes a connection with longer segments than the path takes: a sender whose own interface has more (a client
/// beyond the node, a pod until its MTU is changed) would have to learn it from ICMP, which many networks lose. The value
/// in the packet is only ever lowered.
fn segments() -> Vec<String> {
    vec![format!("{PATHS} tcp flags syn tcp option maxseg size set rt mtu")]
}

/// What leaves by a path of ours.
const PATHS: &str = "oifname { \"warren0\", \"warren1\", \"warren-vx\", \"warren-ipip\" }";

/// Two translations of sources. What leaves by a path of ours from an address that is no pod's of this node (a process of
/// the node that asked for a Service, a connection from outside to a NodePort) becomes the node-local address: the peer
/// takes nothing else from this node. What pods send outside the pod network becomes the node's address, where wanted.
fn translate() -> Vec<String> {
    vec![
        "oifname \"lo\" return".to_owned(),
        "oifname \"wrn*\" return".to_owned(),
        format!("{PATHS} ip saddr != @local4 masquerade"),
        format!("{PATHS} ip6 saddr != @local6 ip6 saddr != fe80::/10 masquerade"),
        format!("{PATHS} return"),
        outside("ip", "4"),
        outside("ip6", "6"),
    ]
}

fn outside(ip: &str, v: &str) -> String {
    format!("{ip} saddr @masquerade{v} {ip} daddr != @pod_networks{v} masquerade fully-random")
}

/// RFC 4861, section 7.1: what comes from beyond the link has a lower hop limit.
const NEIGHBOUR_DISCOVERY: &str = "ip6 hoplimit 255 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }";

fn both(rules: &mut Vec<String>, rule: impl Fn(&str, &str) -> String) {
    rules.push(rule("ip", "4"));
    rules.push(rule("ip6", "6"));
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use warren_plan::OpenPod;

    use super::*;

    fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn guard() -> Guard {
        let pod = |interface: &str, address: &str| OpenPod {
            interface: interface.to_owned(),
            address: address.parse().unwrap(),
        };
        let hand_over = Clear {
            incoming: [Carrier::Vxlan, Carrier::Direct].into(),
            outgoing: [Carrier::Direct].into(),
        };
        Guard {
            local: nets(&["10.244.1.0/24", "fd10:244:1::/64"]),
            sealed: nets(&["10.244.0.0/16", "10.244.2.0/24", "10.244.3.0/24", "fd10:244::/48"]),
            clear: BTreeMap::from([
                ("10.244.8.0/24".parse().unwrap(), Clear::by(Carrier::Vxlan)),
                ("10.244.9.0/24".parse().unwrap(), Clear::by(Carrier::Direct)),
                ("10.244.3.0/24".parse().unwrap(), hand_over),
            ]),
            pods: BTreeSet::from([pod("wrn0a", "10.244.1.5"), pod("wrn0a", "fd10:244:1::5")]),
            masquerade: nets(&["10.244.1.0/24"]),
            pod_networks: nets(&["10.244.0.0/16"]),
        }
    }

    /// The text without the fingerprint, which is about the content and not about the rules.
    fn text(guard: &Guard) -> String {
        render(guard).replace(&format!("{:016x}", guard.fingerprint()), "FINGERPRINT")
    }

    #[test]
    fn a_guard_with_everything_in_it() {
        insta::assert_snapshot!(text(&guard()));
    }

    #[test]
    fn an_empty_guard_still_closes_the_pods_veths() {
        insta::assert_snapshot!(text(&Guard::default()));
    }

    #[test]
    fn networks_inside_each_other_are_one_interval() {
        let text = render(&guard());
        assert!(
            text.contains("add element inet warren sealed4 { 10.244.0.0/16 }"),
            "{text}"
        );
    }

    #[test]
    fn what_drops_counts_under_a_name_that_exists() {
        let chains = chains(&guard());
        let drops: Vec<&String> = chains
            .values()
            .flat_map(|chain| &chain.rules)
            .filter(|rule| rule.ends_with(" drop"))
            .collect();
        let mut used = BTreeSet::new();
        for rule in drops {
            let (_, counter) = rule
                .split_once("counter name ")
                .unwrap_or_else(|| panic!("no counter: {rule}"));
            used.insert(counter.strip_suffix(" drop").unwrap().to_owned());
        }
        assert_eq!(used, COUNTERS.map(str::to_owned).into());
    }

    #[test]
    fn the_description_fits_into_a_comment() {
        // NFTNL_UDATA_COMMENT_MAXLEN
        let chains = chains(&guard());
        assert!(chains[FINGERPRINT_CHAIN].rules[0].len() - "return comment \"\"".len() <= 128);
    }
}
