//! Random policies, kept as they were made.

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use warren_policy::NetworkSet;
use warren_policy::spec::IntOrString;
use warren_policy::warren::{EntitySpec, PolicySpec, RuleSpec};

use crate::clusters::{KEYS, NAMESPACES, PORT_NAMES, PORTS, VALUES, labels};

/// A GlobalNetworkPolicy, or a NetworkPolicy of a namespace.
#[derive(Clone, Debug)]
pub(crate) struct RandomPolicy {
    pub(crate) namespace: Option<&'static str>,
    pub(crate) order: Option<f64>,
    pub(crate) selector: Option<Expression>,
    pub(crate) namespace_selector: Option<Expression>,
    pub(crate) types: Option<Vec<&'static str>>,
    pub(crate) ingress: Vec<RandomRule>,
    pub(crate) egress: Vec<RandomRule>,
}

#[derive(Clone, Debug)]
pub(crate) struct RandomRule {
    pub(crate) action: &'static str,
    pub(crate) ip_version: Option<i64>,
    pub(crate) protocol: Option<&'static str>,
    pub(crate) not_protocol: Option<&'static str>,
    pub(crate) source: RandomEntity,
    pub(crate) destination: RandomEntity,
}

#[derive(Clone, Debug)]
pub(crate) struct RandomEntity {
    pub(crate) selector: Option<Expression>,
    pub(crate) not_selector: Option<Expression>,
    pub(crate) namespace_selector: Option<Expression>,
    pub(crate) nets: Vec<&'static str>,
    pub(crate) not_nets: Vec<&'static str>,
    pub(crate) ports: Vec<RandomPort>,
    pub(crate) not_ports: Vec<RandomPort>,
}

#[derive(Clone, Debug)]
pub(crate) enum RandomPort {
    Range(u16, u16),
    Named(&'static str),
}

/// A selector before it is text.
#[derive(Clone, Debug)]
pub(crate) enum Expression {
    All,
    Is(&'static str, &'static str),
    IsNot(&'static str, &'static str),
    In(&'static str, Vec<&'static str>),
    NotIn(&'static str, Vec<&'static str>),
    Has(&'static str),
    Not(Box<Expression>),
    Both(Box<Expression>, Box<Expression>),
    Either(Box<Expression>, Box<Expression>),
}

impl Expression {
    fn text(&self) -> String {
        let set = |values: &[&str]| {
            let values: Vec<_> = values.iter().map(|value| format!("'{value}'")).collect();
            values.join(",")
        };
        match self {
            Self::All => "all()".into(),
            Self::Is(key, value) => format!("{key}=='{value}'"),
            Self::IsNot(key, value) => format!("{key} != \"{value}\""),
            Self::In(key, values) => format!("{key} in {{{}}}", set(values)),
            Self::NotIn(key, values) => format!("{key} not in {{ {} }}", set(values)),
            Self::Has(key) => format!("has({key})"),
            Self::Not(inner) => format!("! ({})", inner.text()),
            Self::Both(one, other) => format!("({}) && ({})", one.text(), other.text()),
            // Binds less than &&, so it needs no parentheses of its own inside.
            Self::Either(one, other) => format!("{} || {}", one.text(), other.text()),
        }
    }
}

impl RandomPolicy {
    pub(crate) fn spec(&self) -> PolicySpec {
        let rules = |rules: &[RandomRule]| Some(rules.iter().map(RandomRule::spec).collect());
        let text = |expression: &Option<Expression>| expression.as_ref().map(Expression::text);
        PolicySpec {
            order: self.order,
            selector: text(&self.selector),
            namespace_selector: text(&self.namespace_selector),
            types: self
                .types
                .as_ref()
                .map(|types| types.iter().map(|one| (*one).to_owned()).collect()),
            ingress: rules(&self.ingress),
            egress: rules(&self.egress),
            ..PolicySpec::default()
        }
    }
}

impl RandomRule {
    fn spec(&self) -> RuleSpec {
        RuleSpec {
            action: self.action.into(),
            ip_version: self.ip_version,
            protocol: self.protocol.map(IntOrString::from),
            not_protocol: self.not_protocol.map(IntOrString::from),
            source: Some(self.source.spec()),
            destination: Some(self.destination.spec()),
            ..RuleSpec::default()
        }
    }
}

impl RandomEntity {
    fn spec(&self) -> EntitySpec {
        let text = |expression: &Option<Expression>| expression.as_ref().map(Expression::text);
        let nets = |nets: &[&str]| Some(nets.iter().map(|net| (*net).to_owned()).collect());
        let ports = |ports: &[RandomPort]| {
            let ports = ports.iter().map(|port| match port {
                RandomPort::Range(first, last) if first == last => IntOrString::from(*first),
                RandomPort::Range(first, last) => IntOrString::from(format!("{first}:{last}").as_str()),
                RandomPort::Named(name) => IntOrString::from(*name),
            });
            Some(ports.collect())
        };
        EntitySpec {
            nets: nets(&self.nets),
            not_nets: nets(&self.not_nets),
            selector: text(&self.selector),
            not_selector: text(&self.not_selector),
            namespace_selector: text(&self.namespace_selector),
            ports: ports(&self.ports),
            not_ports: ports(&self.not_ports),
            ..EntitySpec::default()
        }
    }
}

const NETS: [&str; 6] = [
    "10.0.0.0/8",
    "10.0.1.0/24",
    "10.0.0.3",
    "fd00::/64",
    "fd00::2/127",
    "0.0.0.0/0",
];

pub(crate) fn network_set() -> impl Strategy<Value = NetworkSet> {
    let nets = vec(
        select(vec![
            "198.51.100.0/24",
            "2001:db8::/32",
            "10.0.0.1/32",
            "10.0.1.0/30",
        ]),
        0..3,
    );
    (weighted(0.5, select(&NAMESPACES[..])), labels(), nets).prop_map(|(namespace, labels, nets)| {
        NetworkSet {
            namespace: namespace.map(str::to_owned),
            name: "set".into(),
            labels,
            nets: nets.into_iter().filter_map(|net| net.parse().ok()).collect(),
        }
    })
}

pub(crate) fn policy() -> impl Strategy<Value = RandomPolicy> {
    let order = select(vec![None, Some(-1.0), Some(0.0), Some(10.0), Some(10.5)]);
    let types = select(vec![
        None,
        Some(vec![]),
        Some(vec!["Ingress"]),
        Some(vec!["Ingress", "Egress"]),
    ]);
    let of = (weighted(0.5, select(&NAMESPACES[..])), order, types);
    let selectors = (weighted(0.5, expression()), weighted(0.3, expression()));
    (of, selectors, vec(rule(), 0..4), vec(rule(), 0..4)).prop_map(
        |((namespace, order, types), (selector, namespace_selector), ingress, egress)| RandomPolicy {
            namespace,
            order,
            selector,
            namespace_selector: namespace_selector.filter(|_| namespace.is_none()),
            types,
            ingress,
            egress,
        },
    )
}

fn rule() -> impl Strategy<Value = RandomRule> {
    let action = select(vec!["Allow", "Allow", "Allow", "Deny", "Log", "Pass"]);
    let version = weighted(0.2, select(vec![4, 6]));
    let protocols = (
        weighted(0.5, select(vec!["TCP", "UDP", "17"])),
        weighted(0.2, select(vec!["TCP", "SCTP"])),
    );
    (action, version, protocols, entity(), entity()).prop_map(
        |(action, ip_version, (protocol, not_protocol), mut source, mut destination)| {
            if protocol.is_none() {
                for side in [&mut source, &mut destination] {
                    side.ports.clear();
                    side.not_ports.clear();
                }
            }
            RandomRule {
                action,
                ip_version,
                protocol,
                not_protocol,
                source,
                destination,
            }
        },
    )
}

fn entity() -> impl Strategy<Value = RandomEntity> {
    let few_nets = || prop_oneof![4 => Just(vec![]), 1 => vec(select(&NETS[..]), 1..3)];
    let few_ports = || prop_oneof![4 => Just(vec![]), 1 => vec(port(), 1..3)];
    let selectors = (
        weighted(0.3, expression()),
        weighted(0.1, expression()),
        weighted(0.2, expression()),
    );
    (selectors, few_nets(), few_nets(), few_ports(), few_ports()).prop_map(
        |((selector, not_selector, namespace_selector), nets, not_nets, ports, not_ports)| RandomEntity {
            selector,
            not_selector,
            namespace_selector,
            nets,
            not_nets,
            ports,
            not_ports,
        },
    )
}

fn port() -> impl Strategy<Value = RandomPort> {
    prop_oneof![
        select(&PORTS[..]).prop_map(|port| RandomPort::Range(port, port)),
        select(&PORTS[..]).prop_map(|port| RandomPort::Range(port, port + 30)),
        // What flows are opened from.
        Just(RandomPort::Range(49152, 49152)),
        select(&PORT_NAMES[..]).prop_map(RandomPort::Named),
    ]
}

fn expression() -> impl Strategy<Value = Expression> {
    let (key, value) = (|| select(&KEYS[..]), || select(&VALUES[..]));
    let leaf = prop_oneof![
        Just(Expression::All),
        (key(), value()).prop_map(|(key, value)| Expression::Is(key, value)),
        (key(), value()).prop_map(|(key, value)| Expression::IsNot(key, value)),
        (key(), vec(value(), 0..3)).prop_map(|(key, values)| Expression::In(key, values)),
        (key(), vec(value(), 0..3)).prop_map(|(key, values)| Expression::NotIn(key, values)),
        key().prop_map(Expression::Has),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            inner.prop_map(|inner| Expression::Not(inner.into())),
            pair.clone()
                .prop_map(|(one, other)| Expression::Both(one.into(), other.into())),
            pair.prop_map(|(one, other)| Expression::Either(one.into(), other.into())),
        ]
    })
}
