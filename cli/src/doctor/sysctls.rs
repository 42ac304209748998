//! Forwarding and reverse-path filters.

use std::collections::BTreeMap;

use warren_kernel::sysctl;
use warren_model::Family;

use super::agent::AgentFacts;
use super::finding::Finding;
use super::node::NodeFacts;

const FORWARDING: [(Family, &str); 2] = [
    (Family::V4, "ipv4/ip_forward"),
    (Family::V6, "ipv6/conf/all/forwarding"),
];
const RP_FILTER_OF_ALL: &str = "ipv4/conf/all/rp_filter";

/// Values by their path below `/proc/sys/net`; what cannot be read is left out.
pub(super) type Values = BTreeMap<String, String>;

/// Reads what matters.
pub(super) fn gather(node: &NodeFacts) -> Values {
    let carriers = carriers(node).into_iter().map(rp_filter);
    FORWARDING
        .into_iter()
        .map(|(_, key)| key.to_owned())
        .chain([RP_FILTER_OF_ALL.to_owned()])
        .chain(carriers)
        .filter_map(|key| {
            let value = sysctl::read(&key).ok()?;
            Some((key, value))
        })
        .collect()
}

/// Our interfaces that carry packets of other nodes.
fn carriers(node: &NodeFacts) -> Vec<&str> {
    let mut links = node.links();
    links.retain(|name| !name.starts_with(warren_plan::state::VETH_PREFIX));
    links
}

fn rp_filter(interface: &str) -> String {
    format!("ipv4/conf/{interface}/rp_filter")
}

/// What they mean.
pub(super) fn judge(values: &Values, agent: &AgentFacts, node: &NodeFacts) -> Vec<Finding> {
    if !node.in_use {
        return vec![Finding::skipped("forwarding", "no agent has been here")];
    }
    vec![forwarding(values, agent, node), filters(values, node)]
}

fn forwarding(values: &Values, agent: &AgentFacts, node: &NodeFacts) -> Finding {
    let wanted = |family| match &agent.status {
        Ok(status) => status.pod_cidrs.iter().any(|cidr| cidr.family() == family),
        // The routes that an agent left tell which families pods have.
        Err(_) => node
            .marks
            .iter()
            .flat_map(|marks| marks.observed.routes.keys())
            .any(|net| Family::of(net.addr()) == family),
    };
    let off: Vec<_> = FORWARDING
        .into_iter()
        .filter(|(family, key)| wanted(*family) && values.get(*key).is_none_or(|value| value != "1"))
        .map(|(_, key)| {
            let value = values.get(key).map_or("absent", String::as_str);
            format!("net.{} is {value}", key.replace('/', "."))
        })
        .collect();
    if off.is_empty() {
        return Finding::ok("forwarding", "on for the families that pods have");
    }
    Finding::fail(
        "forwarding",
        off.join(", "),
        "no packet of a pod leaves or reaches this node. The agent sets it to 1 when it starts and every 10 s; if it does not \
         stay, something else sets it: look in /etc/sysctl.d and at the firewall service",
    )
}

/// The kernel takes the larger of an interface's value and that of all: 1 is strict, 2 is loose.
fn filters(values: &Values, node: &NodeFacts) -> Finding {
    let value = |key: &str| values.get(key).and_then(|value| value.parse::<u8>().ok());
    let of_all = value(RP_FILTER_OF_ALL).unwrap_or(0);
    let strict: Vec<_> = carriers(node)
        .into_iter()
        .filter(|name| value(&rp_filter(name)).is_some_and(|own| own.max(of_all) == 1))
        .collect();
    if strict.is_empty() {
        return Finding::ok("rp-filter", "loose or off on Warren's own interfaces");
    }
    Finding::fail(
        "rp-filter",
        format!("strict on {}", strict.join(", ")),
        "replies that come back by the other lane are dropped. The agent sets net.ipv4.conf.INTERFACE.rp_filter to 2 every \
         10 s; if it does not stay, something else sets it: look in /etc/sysctl.d",
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use warren_plan::{Link, LinkKind, Route, RouteTarget};

    use super::*;
    use crate::doctor::agent::tests::healthy;
    use crate::doctor::finding::Verdict;
    use crate::doctor::node::Marks;

    fn verdicts(values: &[(&str, &str)], agent: &AgentFacts) -> Vec<Verdict> {
        let mut marks = Marks::default();
        let link = Link {
            kind: LinkKind::Foreign,
            mtu: 1440,
            up: true,
        };
        marks.observed.links.insert("warren1".to_owned(), link);
        let route = Route {
            target: RouteTarget::Blackhole,
            source: None,
            mtu: None,
        };
        marks
            .observed
            .routes
            .insert("10.244.0.0/24".parse().unwrap(), route);
        let node = NodeFacts {
            marks: Ok(marks),
            attachments: Ok([].into()),
            in_use: true,
        };
        let values = values
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        judge(&values, agent, &node).iter().map(|it| it.result).collect()
    }

    #[test]
    fn forwarding_matters_for_the_families_pods_have() {
        let v4 = AgentFacts::answering(healthy());
        let on = [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "0")];
        assert_eq!(verdicts(&on, &v4), [Verdict::Ok, Verdict::Ok]);
        assert_eq!(verdicts(&on, &AgentFacts::stopped())[0], Verdict::Ok);
        let off = [("ipv4/ip_forward", "0")];
        assert_eq!(verdicts(&off, &AgentFacts::stopped())[0], Verdict::Fail);
        let mut dual = healthy();
        dual.pod_cidrs.push("fd00::/64".parse().unwrap());
        assert_eq!(verdicts(&on, &AgentFacts::answering(dual))[0], Verdict::Fail);
    }

    #[test]
    fn the_larger_of_the_two_filters_counts() {
        let agent = AgentFacts::answering(healthy());
        let of = |all, own| {
            let values = [
                ("ipv4/conf/all/rp_filter", all),
                ("ipv4/conf/warren1/rp_filter", own),
            ];
            verdicts(&values, &agent)[1]
        };
        assert_eq!(of("1", "2"), Verdict::Ok);
        assert_eq!(of("2", "1"), Verdict::Ok);
        assert_eq!(of("0", "1"), Verdict::Fail);
        assert_eq!(of("1", "0"), Verdict::Fail);
    }
}
