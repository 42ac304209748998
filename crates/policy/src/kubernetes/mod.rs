//! `networking.k8s.io/v1` NetworkPolicy
//! (<https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/>).
//!
//! Its rules only allow. A pod is isolated in a direction once any policy that speaks of the direction selects it; then what
//! any of these policies allows passes. Here this is the end of a tier: what no rule has allowed is denied there.

mod spec;

use std::collections::BTreeMap;

use crate::invalid::{Invalid, Problem, widest};
use crate::policy::{Action, DEFAULT_TIER, Entity, Order, Policy, PolicyId, PolicyKind, PolicyRule, Port};
use crate::protocol::{PortRange, Protocol};
use crate::query::{Members, Query, Scope};
use crate::selector::Selector;
use crate::spec::{IntOrString, read_net, read_port, read_range, refuse_unknown, wrong_value};

pub use spec::{EgressRule, IngressRule, IpBlock, NetworkPolicySpec, Peer, PolicyPort};

/// Reads a NetworkPolicy of a namespace.
pub fn check(namespace: &str, name: &str, spec: &NetworkPolicySpec) -> Result<Policy, Box<Invalid>> {
    let id = PolicyId {
        kind: PolicyKind::Kubernetes,
        namespace: Some(namespace.to_owned()),
        name: name.to_owned(),
    };
    let (types, types_problem) = match types(spec) {
        Ok(types) => (types, None),
        Err(problem) => (Types::BOTH, Some(problem)),
    };
    let (subject, subject_problem) = match subject(namespace, spec) {
        Ok(subject) => (subject, None),
        Err(problem) => (widest(&id), Some(problem)),
    };
    let rules = match types_problem.or(subject_problem) {
        Some(problem) => Err(problem),
        None => rules(namespace, spec),
    };
    match rules {
        Ok((ingress, egress)) => Ok(Policy {
            id,
            tier: DEFAULT_TIER.to_owned(),
            order: Order::KUBERNETES,
            subject,
            ingress: types.ingress.then_some(ingress),
            egress: types.egress.then_some(egress),
        }),
        Err(problem) => Err(Box::new(Invalid {
            id,
            problem,
            tier: DEFAULT_TIER.to_owned(),
            order: Order::KUBERNETES,
            subject,
            ingress: types.ingress,
            egress: types.egress,
        })),
    }
}

#[derive(Clone, Copy)]
struct Types {
    ingress: bool,
    egress: bool,
}

impl Types {
    const BOTH: Self = Self {
        ingress: true,
        egress: true,
    };
}

/// `policyTypes`; where absent, every policy speaks of ingress, and one with egress rules of egress too.
fn types(spec: &NetworkPolicySpec) -> Result<Types, Problem> {
    let given = spec.policy_types.as_deref().unwrap_or_default();
    if given.is_empty() {
        return Ok(Types {
            ingress: true,
            egress: spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        });
    }
    if let Some(other) = given
        .iter()
        .find(|given| !["Ingress", "Egress"].contains(&given.as_str()))
    {
        return Err(wrong_value("spec.policyTypes", other, "Ingress or Egress"));
    }
    let names = |wanted: &str| given.iter().any(|given| given == wanted);
    Ok(Types {
        ingress: names("Ingress"),
        egress: names("Egress"),
    })
}

fn subject(namespace: &str, spec: &NetworkPolicySpec) -> Result<Query, Problem> {
    refuse_unknown(&spec.unknown, "spec")?;
    let selector = match &spec.pod_selector {
        Some(selector) => selector.read("spec.podSelector")?,
        None => Selector::All,
    };
    Ok(Query::pods_in(namespace, selector))
}

type Rules = (Vec<PolicyRule>, Vec<PolicyRule>);

fn rules(namespace: &str, spec: &NetworkPolicySpec) -> Result<Rules, Problem> {
    let (mut ingress, mut egress) = (Vec::new(), Vec::new());
    for (written, rule) in spec.ingress.iter().flatten().enumerate() {
        let field = format!("spec.ingress[{written}]");
        refuse_unknown(&rule.unknown, &field)?;
        let peers = peers(namespace, rule.from.as_deref(), &format!("{field}.from"))?;
        for (protocol, ports) in ports(rule.ports.as_deref(), &format!("{field}.ports"))? {
            ingress.extend(peers.iter().map(|peer| PolicyRule {
                protocol,
                source: peer.clone(),
                destination: Entity {
                    ports: ports.clone(),
                    ..Entity::default()
                },
                ..PolicyRule::any(written, Action::Allow)
            }));
        }
    }
    for (written, rule) in spec.egress.iter().flatten().enumerate() {
        let field = format!("spec.egress[{written}]");
        refuse_unknown(&rule.unknown, &field)?;
        let peers = peers(namespace, rule.to.as_deref(), &format!("{field}.to"))?;
        for (protocol, ports) in ports(rule.ports.as_deref(), &format!("{field}.ports"))? {
            egress.extend(peers.iter().map(|peer| PolicyRule {
                protocol,
                destination: Entity {
                    ports: ports.clone(),
                    ..peer.clone()
                },
                ..PolicyRule::any(written, Action::Allow)
            }));
        }
    }
    Ok((ingress, egress))
}

/// One entity for each peer; without peers one that is anybody.
fn peers(namespace: &str, peers: Option<&[Peer]>, field: &str) -> Result<Vec<Entity>, Problem> {
    let peers = peers.unwrap_or_default();
    if peers.is_empty() {
        return Ok(vec![Entity::default()]);
    }
    let read = |(index, peer): (usize, &Peer)| peer_entity(namespace, peer, &format!("{field}[{index}]"));
    peers.iter().enumerate().map(read).collect()
}

fn peer_entity(namespace: &str, peer: &Peer, field: &str) -> Result<Entity, Problem> {
    refuse_unknown(&peer.unknown, field)?;
    let together = |rule| Problem::Together {
        field: field.to_owned(),
        rule,
    };
    let pods = peer.pod_selector.as_ref();
    let pods = pods.map(|selector| selector.read(&format!("{field}.podSelector")));
    let namespaces = peer.namespace_selector.as_ref();
    let namespaces = namespaces.map(|selector| selector.read(&format!("{field}.namespaceSelector")));
    let scope = match (&peer.ip_block, namespaces, &pods) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            return Err(together("an ipBlock stands alone, without selectors"));
        }
        (Some(block), None, None) => return block_entity(block, &format!("{field}.ipBlock")),
        (None, Some(namespaces), _) => Scope::Namespaces(namespaces?),
        (None, None, Some(_)) => Scope::Namespace(namespace.to_owned()),
        (None, None, None) => {
            return Err(together(
                "a peer needs a podSelector, a namespaceSelector or an ipBlock",
            ));
        }
    };
    Ok(Entity {
        peers: Some(Query {
            scope,
            members: Members::Pods,
            selector: pods.transpose()?.unwrap_or(Selector::All),
        }),
        ..Entity::default()
    })
}

fn block_entity(block: &IpBlock, field: &str) -> Result<Entity, Problem> {
    refuse_unknown(&block.unknown, field)?;
    let cidr = read_net(&block.cidr, &format!("{field}.cidr"))?;
    let mut not_nets = Vec::new();
    for (index, except) in block.except.iter().flatten().enumerate() {
        let field = format!("{field}.except[{index}]");
        let except = read_net(except, &field)?;
        if !cidr.contains(&except) {
            return Err(Problem::Except {
                field,
                except: except.to_string(),
                cidr: cidr.to_string(),
            });
        }
        not_nets.push(except);
    }
    Ok(Entity {
        nets: vec![cidr],
        not_nets,
        ..Entity::default()
    })
}

/// The ports by protocol; without any, all protocols. No ports of a protocol stands for all of them.
type Ports = Vec<(Option<Protocol>, Vec<Port>)>;

fn ports(ports: Option<&[PolicyPort]>, field: &str) -> Result<Ports, Problem> {
    let ports = ports.unwrap_or_default();
    if ports.is_empty() {
        return Ok(vec![(None, Vec::new())]);
    }
    let mut by_protocol: BTreeMap<Protocol, Vec<Port>> = BTreeMap::new();
    for (index, port) in ports.iter().enumerate() {
        let (protocol, port) = read_policy_port(port, &format!("{field}[{index}]"))?;
        by_protocol.entry(protocol).or_default().push(port);
    }
    let every = Port::Numbers(PortRange::ALL);
    Ok(by_protocol
        .into_iter()
        .map(|(protocol, ports)| {
            let ports = if ports.contains(&every) { Vec::new() } else { ports };
            (Some(protocol), ports)
        })
        .collect())
}

fn read_policy_port(port: &PolicyPort, field: &str) -> Result<(Protocol, Port), Problem> {
    refuse_unknown(&port.unknown, field)?;
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Protocol::TCP,
        Some("UDP") => Protocol::UDP,
        Some("SCTP") => Protocol::SCTP,
        Some(other) => {
            return Err(wrong_value(
                &format!("{field}.protocol"),
                other,
                "TCP, UDP or SCTP",
            ));
        }
    };
    let number_field = format!("{field}.port");
    let ports = match (&port.port, port.end_port) {
        (None, None) => Port::Numbers(PortRange::ALL),
        (Some(IntOrString::Number(first)), last) => {
            let first = read_port(*first, &number_field)?;
            let last = match last {
                Some(last) => read_port(last, &format!("{field}.endPort"))?,
                None => first,
            };
            Port::Numbers(read_range(first, last, &format!("{field}.endPort"))?)
        }
        (Some(IntOrString::Text(name)), None) if is_port_name(name) => Port::Named(name.clone()),
        (Some(IntOrString::Text(name)), None) => {
            let wanted = "a port's name: at most 15 lower-case letters, digits and '-', a letter among them";
            return Err(wrong_value(&number_field, name, wanted));
        }
        (None | Some(IntOrString::Text(_)), Some(_)) => {
            return Err(Problem::Together {
                field: field.to_owned(),
                rule: "endPort goes with a port by number",
            });
        }
    };
    Ok((protocol, ports))
}

/// Whether a text is an IANA service name (RFC 6335, section 5.1), as ports of containers are.
fn is_port_name(name: &str) -> bool {
    let well_formed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=15).contains(&name.len())
        && name.bytes().all(well_formed)
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}
