//! The nft text of a [`Guard`]: one transaction that makes the table this, whatever it was before.
//!
//! A packet that is judged while a transaction takes effect must meet all of the old table or all of the new one. For rules
//! the kernel sees to that. For the elements of a set it does not: where an element goes and the same one comes, a lookup at
//! that moment may find neither (seen on Linux 6.1, where interval sets miss what is in them), and a packet that was always
//! allowed is dropped. So networks are parts of the rules, in the way that [`membership`](crate::membership) says; and of the
//! open pods, whose sets have names because pods are opened without writing rules, only those are changed that are to change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use warren_plan::{Guard, OpenPod};

use super::rules::{self, Chain, PODS_V4, PODS_V6};

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

/// The chain that holds the table's description of itself.
pub(super) const FINGERPRINT_CHAIN: &str = "fingerprint";

/// The text. Chains are emptied and filled anew, and named counters keep their values. `open`: the pods that are open now;
/// `None`: that is not known, and all are closed and opened again.
pub(super) fn render(guard: &Guard, open: Option<&BTreeSet<OpenPod>>) -> String {
    let chains = chains(guard);
    let mut text = String::from("add table inet warren\n");
    for counter in COUNTERS {
        line(&mut text, format_args!("add counter inet warren {counter}"));
    }
    pods(&mut text, guard, open);
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

/// The names of all that [`render`] makes, by kind: the same for every guard.
pub(super) fn objects() -> Objects {
    Objects {
        chains: chains(&Guard::default()).into_keys().map(str::to_owned).collect(),
        sets: [PODS_V4, PODS_V6].map(str::to_owned).to_vec(),
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

/// The chains of the rules, and the one that describes them.
fn chains(guard: &Guard) -> BTreeMap<&'static str, Chain> {
    let mut chains = rules::chains(guard);
    let counts = chains.iter().map(|(name, chain)| (*name, chain.rules.len()));
    let comment = description(guard.fingerprint(), counts);
    let rules = vec![format!("return comment \"{comment}\"")];
    chains.insert(FINGERPRINT_CHAIN, Chain { make: "", rules });
    chains
}

fn pods(text: &mut String, guard: &Guard, open: Option<&BTreeSet<OpenPod>>) {
    for (name, address, v4) in [(PODS_V4, "ipv4_addr", true), (PODS_V6, "ipv6_addr", false)] {
        let of_family = |pods: Vec<&OpenPod>| {
            let pods = pods.into_iter().filter(|pod| pod.address.is_ipv4() == v4);
            let elements = pods.map(|pod| format!("\"{}\" . {}", pod.interface, pod.address));
            elements.collect::<Vec<_>>().join(", ")
        };
        line(
            text,
            format_args!("add set inet warren {name} {{ type ifname . {address}; }}"),
        );
        let (closing, opening) = match open {
            Some(open) => (
                open.difference(&guard.pods).collect(),
                guard.pods.difference(open).collect(),
            ),
            None => {
                line(text, format_args!("flush set inet warren {name}"));
                (Vec::new(), guard.pods.iter().collect())
            }
        };
        for (act, elements) in [("delete", of_family(closing)), ("add", of_family(opening))] {
            if !elements.is_empty() {
                line(
                    text,
                    format_args!("{act} element inet warren {name} {{ {elements} }}"),
                );
            }
        }
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use ipnet::IpNet;
    use warren_plan::{Carrier, Clear};

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
        render(guard, None).replace(&format!("{:016x}", guard.fingerprint()), "FINGERPRINT")
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
    fn networks_inside_each_other_are_one() {
        let text = render(&guard(), None);
        assert!(
            text.contains("ip daddr 10.244.0.0/16 counter name plaintext-out drop"),
            "{text}"
        );
    }

    #[test]
    fn no_set_is_one_of_intervals() {
        let text = render(&guard(), None);
        let sets = text.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        let mut elements = sets.flat_map(|set| set.split(", "));
        assert_eq!(elements.find(|it| it.contains('/')), None, "{text}");
    }

    #[test]
    fn of_the_pods_only_those_are_changed_that_are_to_change() {
        let guard = guard();
        assert!(!render(&guard, Some(&guard.pods)).contains("element"));
        let gone = OpenPod {
            interface: "wrn0b".to_owned(),
            address: "10.244.1.6".parse().unwrap(),
        };
        let open = guard.pods.iter().filter(|pod| pod.address.is_ipv4()).cloned();
        let open = open.chain([gone]).collect();
        let text = render(&guard, Some(&open));
        let changes: Vec<&str> = text.lines().filter(|line| line.contains("element")).collect();
        assert_eq!(
            changes,
            [
                "delete element inet warren pods4 { \"wrn0b\" . 10.244.1.6 }",
                "add element inet warren pods6 { \"wrn0a\" . fd10:244:1::5 }",
            ]
        );
        assert!(!text.contains("flush set"), "{text}");
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
