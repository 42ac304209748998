//! A pod's policies as one iptables rule for each pair: what kube-router's and Calico's chains come to without sets.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

use warren_policy::ruleset::{PolicyRules, Rule};
use warren_policy::{Action, RuleSet};

use super::router::Ends;

/// Text for iptables-restore: of IPv4, for what reaches the pod of these ends. As kube-router does, what is established passes first;
/// then the pod's chain goes through a chain for each of its policies, and drops what none of them lets in.
pub(super) fn restore(rules: &RuleSet, ends: Ends) -> String {
    let server = IpAddr::from(ends.server);
    let there = rules.by_address.get(&server).into_iter().flatten();
    let chains = there.map(|position| &rules.chains[rules.endpoints[*position].ingress]);
    let policies: Vec<usize> = chains
        .flat_map(|chain| &chain.stages)
        .flat_map(|stage| &stage.policies)
        .copied()
        .collect();
    let mut text = String::from("*filter\n:FORWARD ACCEPT [0:0]\n:POD - [0:0]\n");
    // Writing to a string cannot fail.
    for policy in &policies {
        let _ = writeln!(text, ":POLICY-{policy} - [0:0]");
    }
    text += "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n";
    let _ = writeln!(text, "-A FORWARD -d {server} -j POD");
    for policy in &policies {
        let _ = writeln!(text, "-A POD -j POLICY-{policy}");
    }
    text += "-A POD -j DROP\n";
    for policy in policies {
        for (source, port) in let_in(rules, &rules.policies[policy], server) {
            let _ = writeln!(
                text,
                "-A POLICY-{policy} -s {source} -d {server} -p tcp --dport {port} -j ACCEPT"
            );
        }
    }
    text + "COMMIT\n"
}

/// Who is let in to which ports.
fn let_in(rules: &RuleSet, policy: &PolicyRules, server: IpAddr) -> BTreeSet<(IpAddr, String)> {
    let allowing = policy.ingress.iter().filter(|rule| rule.action == Action::Allow);
    let each = allowing.flat_map(|rule| {
        let sources = rule
            .source
            .set
            .map(|set| &rules.sets[set].addresses)
            .into_iter()
            .flatten();
        let of_family = sources.filter(|address| address.is_ipv4() == server.is_ipv4());
        let ports = ports(rules, rule, server);
        of_family.flat_map(move |source| ports.clone().into_iter().map(move |port| (*source, port)))
    });
    each.collect()
}

fn ports(rules: &RuleSet, rule: &Rule, server: IpAddr) -> Vec<String> {
    let Some(ports) = &rule.destination.ports else {
        return vec!["0:65535".to_owned()];
    };
    let numbers = ports
        .ranges
        .iter()
        .map(|range| format!("{}:{}", range.first(), range.last()));
    let named = ports.sets.iter().flat_map(|set| &rules.port_sets[*set].members);
    let named = named
        .filter(|(address, _)| *address == server)
        .map(|(_, port)| port.to_string());
    numbers.chain(named).collect()
}
