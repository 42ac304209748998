//! `warren-mesh.io` GlobalNetworkPolicy and NetworkPolicy, with the semantics of Calico's kinds of the same names
//! (<https://docs.tigera.io/calico/latest/reference/resources/globalnetworkpolicy>).
//!
//! Policies of a tier are asked in their order and their rules as written, until one decides. What is not supported is refused
//! by name, because to leave a match out would be to match more: service accounts, Services, HTTP, `doNotTrack`, `preDNAT` and
//! `applyOnForward`.

mod resources;
mod rule;
mod spec;

use crate::invalid::{Invalid, Problem, widest};
use crate::policy::{DEFAULT_TIER, Order, Policy, PolicyId, PolicyKind, PolicyRule};
use crate::query::{Members, Query, Scope};
use crate::selector::Selector;
use crate::spec::{read_namespace_selector, read_selector, refuse_unknown, wrong_value};

pub use resources::{
    DEFAULT_ALLOW, EndpointPort, HostEndpointSpec, NetworkSetSpec, TierSpec, read_host_endpoint,
    read_network_set, read_tier,
};
pub use spec::{EntitySpec, IcmpSpec, PolicySpec, RuleSpec};

/// Reads a NetworkPolicy of a namespace.
pub fn check(namespace: &str, name: &str, spec: &PolicySpec) -> Result<Policy, Box<Invalid>> {
    let id = PolicyId {
        kind: PolicyKind::Warren,
        namespace: Some(namespace.to_owned()),
        name: name.to_owned(),
    };
    read(id, spec)
}

/// Reads a GlobalNetworkPolicy.
pub fn check_global(name: &str, spec: &PolicySpec) -> Result<Policy, Box<Invalid>> {
    let id = PolicyId {
        kind: PolicyKind::Global,
        namespace: None,
        name: name.to_owned(),
    };
    read(id, spec)
}

fn read(id: PolicyId, spec: &PolicySpec) -> Result<Policy, Box<Invalid>> {
    // Each part is read by itself, so that of an invalid policy as much as possible is known.
    let tier = spec.tier.clone().unwrap_or_else(|| DEFAULT_TIER.to_owned());
    let mut problems = Vec::new();
    let mut kept = |problem| problems.push(problem);
    let order = order(spec).unwrap_or_else(|problem| {
        kept(problem);
        Order::FIRST
    });
    let subject = subject(&id, spec).unwrap_or_else(|problem| {
        kept(problem);
        widest(&id)
    });
    let [ingress, egress] = types(spec).unwrap_or_else(|problem| {
        kept(problem);
        [true, true]
    });
    let rules = rules(&id, spec).unwrap_or_else(|problem| {
        kept(problem);
        Rules::default()
    });
    match problems.into_iter().next() {
        None => Ok(Policy {
            id,
            tier,
            order,
            subject,
            ingress: ingress.then_some(rules.ingress),
            egress: egress.then_some(rules.egress),
        }),
        Some(problem) => Err(Box::new(Invalid {
            id,
            problem,
            tier,
            order,
            subject,
            ingress,
            egress,
        })),
    }
}

fn order(spec: &PolicySpec) -> Result<Order, Problem> {
    match spec.order {
        None => Ok(Order::LAST),
        Some(order) => Order::new(order)
            .ok_or_else(|| wrong_value("spec.order", &order.to_string(), "a number to sort by")),
    }
}

fn subject(id: &PolicyId, spec: &PolicySpec) -> Result<Query, Problem> {
    let mut subject = widest(id);
    if let Some(text) = &spec.selector {
        subject.selector = read_selector(text, "spec.selector")?;
    }
    match (&spec.namespace_selector, &id.namespace) {
        (None, _) => {}
        (Some(text), _) if text.is_empty() => {}
        (Some(_), Some(_)) => {
            return Err(Problem::Together {
                field: "spec.namespaceSelector".to_owned(),
                rule: "a NetworkPolicy applies to pods of its own namespace only; use a GlobalNetworkPolicy",
            });
        }
        (Some(text), None) => {
            let namespaces = read_namespace_selector(text, "spec.namespaceSelector")?;
            subject.scope = Scope::Namespaces(namespaces);
            subject.members = Members::Endpoints;
        }
    }
    Ok(subject)
}

/// Whether it speaks of ingress and of egress; where absent, of what it has rules for, and without any of ingress.
fn types(spec: &PolicySpec) -> Result<[bool; 2], Problem> {
    let given = spec.types.as_deref().unwrap_or_default();
    if given.is_empty() {
        let has = |rules: &Option<Vec<RuleSpec>>| rules.as_ref().is_some_and(|rules| !rules.is_empty());
        let egress = has(&spec.egress);
        return Ok([has(&spec.ingress) || !egress, egress]);
    }
    if let Some(other) = given
        .iter()
        .find(|given| !["Ingress", "Egress"].contains(&given.as_str()))
    {
        return Err(wrong_value("spec.types", other, "Ingress or Egress"));
    }
    Ok(["Ingress", "Egress"].map(|wanted| given.iter().any(|given| given == wanted)))
}

#[derive(Default)]
struct Rules {
    ingress: Vec<PolicyRule>,
    egress: Vec<PolicyRule>,
}

fn rules(id: &PolicyId, spec: &PolicySpec) -> Result<Rules, Problem> {
    refuse_unknown(&spec.unknown, "spec")?;
    let unsupported = [
        ("spec.doNotTrack", spec.do_not_track),
        ("spec.preDNAT", spec.pre_dnat),
        ("spec.applyOnForward", spec.apply_on_forward),
    ];
    if let Some((field, _)) = unsupported.iter().find(|(_, value)| *value == Some(true)) {
        return Err(Problem::Unsupported {
            field: (*field).to_owned(),
        });
    }
    let read = |rules: &Option<Vec<RuleSpec>>, list: &str| {
        let rules = rules.iter().flatten().enumerate();
        rules
            .map(|(written, rule)| {
                rule::read(
                    id.namespace.as_deref(),
                    written,
                    rule,
                    &format!("spec.{list}[{written}]"),
                )
            })
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(Rules {
        ingress: read(&spec.ingress, "ingress")?,
        egress: read(&spec.egress, "egress")?,
    })
}

/// Whom a side of a rule means: [`Query`] for its selectors, if it has any.
fn peers(namespace: Option<&str>, entity: &EntitySpec, field: &str) -> Result<Option<Query>, Problem> {
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let selector = text(&entity.selector);
    let namespaces = text(&entity.namespace_selector);
    let scope = match (&namespaces, namespace) {
        (Some(namespaces), _) => Scope::Namespaces(read_namespace_selector(
            namespaces,
            &format!("{field}.namespaceSelector"),
        )?),
        // Any selector at all, a notSelector too, keeps the rules of a NetworkPolicy inside its namespace.
        (None, Some(own)) if selector.is_some() || text(&entity.not_selector).is_some() => {
            Scope::Namespace(own.to_owned())
        }
        (None, _) => Scope::Everywhere,
    };
    if selector.is_none() && scope == Scope::Everywhere {
        return Ok(None);
    }
    let selector = match selector {
        Some(selector) => read_selector(&selector, &format!("{field}.selector"))?,
        None => Selector::All,
    };
    Ok(Some(Query {
        scope,
        members: Members::All,
        selector,
    }))
}
