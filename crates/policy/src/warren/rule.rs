//! One rule of a Warren policy.

use ipnet::IpNet;
use warren_model::Family;

use super::{EntitySpec, IcmpSpec, RuleSpec, peers};
use crate::invalid::Problem;
use crate::policy::{Action, Entity, PolicyRule, Port};
use crate::protocol::{Icmp, PortRange, Protocol};
use crate::query::{Members, Query, Scope};
use crate::spec::{
    IntOrString, read_net, read_protocol, read_range, read_selector, refuse_unknown, wrong_value,
};

/// Reads a rule of a policy of that namespace.
pub(super) fn read(
    namespace: Option<&str>,
    written: usize,
    rule: &RuleSpec,
    field: &str,
) -> Result<PolicyRule, Problem> {
    refuse_unknown(&rule.unknown, field)?;
    let protocol_of = |protocol: &Option<IntOrString>, name: &str| {
        let read = |protocol| read_protocol(protocol, &format!("{field}.{name}"));
        protocol.as_ref().map(read).transpose()
    };
    let icmp_of = |icmp: &Option<IcmpSpec>, name: &str| match icmp {
        Some(icmp) => read_icmp(icmp, &format!("{field}.{name}")),
        None => Ok(None),
    };
    let side = |side: &Option<EntitySpec>, name: &str| match side {
        Some(side) => read_entity(namespace, side, &format!("{field}.{name}")),
        None => Ok(Entity::default()),
    };
    let read = PolicyRule {
        written,
        action: read_action(&rule.action, field)?,
        family: read_family(rule.ip_version, field)?,
        protocol: protocol_of(&rule.protocol, "protocol")?,
        not_protocol: protocol_of(&rule.not_protocol, "notProtocol")?,
        icmp: icmp_of(&rule.icmp, "icmp")?,
        not_icmp: icmp_of(&rule.not_icmp, "notICMP")?,
        source: side(&rule.source, "source")?,
        destination: side(&rule.destination, "destination")?,
    };
    go_together(&read, field)?;
    Ok(read)
}

fn read_action(action: &str, field: &str) -> Result<Action, Problem> {
    match action.to_ascii_lowercase().as_str() {
        "allow" => Ok(Action::Allow),
        "deny" => Ok(Action::Deny),
        "log" => Ok(Action::Log),
        "pass" => Ok(Action::Pass),
        _ => Err(wrong_value(
            &format!("{field}.action"),
            action,
            "Allow, Deny, Log or Pass",
        )),
    }
}

fn read_family(version: Option<i64>, field: &str) -> Result<Option<Family>, Problem> {
    match version {
        None => Ok(None),
        Some(4) => Ok(Some(Family::V4)),
        Some(6) => Ok(Some(Family::V6)),
        Some(other) => Err(wrong_value(
            &format!("{field}.ipVersion"),
            &other.to_string(),
            "4 or 6",
        )),
    }
}

/// Nothing said of the type says nothing at all.
fn read_icmp(icmp: &IcmpSpec, field: &str) -> Result<Option<Icmp>, Problem> {
    refuse_unknown(&icmp.unknown, field)?;
    let byte = |value: Option<i64>, name: &str| {
        let read = |value: i64| {
            u8::try_from(value).map_err(|_| {
                let field = format!("{field}.{name}");
                wrong_value(&field, &value.to_string(), "a number from 0 to 255")
            })
        };
        value.map(read).transpose()
    };
    match (byte(icmp.kind, "type")?, byte(icmp.code, "code")?) {
        (Some(kind), code) => Ok(Some(Icmp { kind, code })),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Problem::Together {
            field: field.to_owned(),
            rule: "an ICMP code goes with a type",
        }),
    }
}

fn read_entity(namespace: Option<&str>, entity: &EntitySpec, field: &str) -> Result<Entity, Problem> {
    refuse_unknown(&entity.unknown, field)?;
    let not_peers = match entity.not_selector.as_deref() {
        None | Some("") => None,
        Some(text) => Some(Query {
            scope: Scope::Everywhere,
            members: Members::All,
            selector: read_selector(text, &format!("{field}.notSelector"))?,
        }),
    };
    Ok(Entity {
        peers: peers(namespace, entity, field)?,
        not_peers,
        nets: read_nets(&entity.nets, &format!("{field}.nets"))?,
        not_nets: read_nets(&entity.not_nets, &format!("{field}.notNets"))?,
        ports: read_ports(&entity.ports, &format!("{field}.ports"))?,
        not_ports: read_ports(&entity.not_ports, &format!("{field}.notPorts"))?,
    })
}

fn read_nets(nets: &Option<Vec<String>>, field: &str) -> Result<Vec<IpNet>, Problem> {
    let nets = nets.iter().flatten().enumerate();
    nets.map(|(index, net)| read_net(net, &format!("{field}[{index}]")))
        .collect()
}

fn read_ports(ports: &Option<Vec<IntOrString>>, field: &str) -> Result<Vec<Port>, Problem> {
    let ports = ports.iter().flatten().enumerate();
    ports
        .map(|(index, port)| read_one_port(port, &format!("{field}[{index}]")))
        .collect()
}

fn read_one_port(port: &IntOrString, field: &str) -> Result<Port, Problem> {
    let wrong = || {
        let wanted = "a port from 0 to 65535, a range such as 8000:8080 or a port's name";
        wrong_value(field, &port.to_string(), wanted)
    };
    let text = match port {
        IntOrString::Number(number) => {
            let number = u16::try_from(*number).map_err(|_| wrong())?;
            return Ok(Port::Numbers(PortRange::one(number)));
        }
        IntOrString::Text(text) => text,
    };
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    if let Some((first, last)) = text.split_once(':') {
        return Ok(Port::Numbers(read_range(number(first)?, number(last)?, field)?));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Port::Numbers(PortRange::one(number(text)?)));
    }
    let in_names = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if text.len() <= 128 && text.bytes().all(in_names) {
        Ok(Port::Named(text.clone()))
    } else {
        Err(wrong())
    }
}

/// Refuses matches that could never hold, or would hold for less than they seem to say.
fn go_together(rule: &PolicyRule, field: &str) -> Result<(), Problem> {
    let together = |rule| {
        Err(Problem::Together {
            field: field.to_owned(),
            rule,
        })
    };
    let sides = [&rule.source, &rule.destination];
    let names_ports = sides
        .iter()
        .any(|side| !side.ports.is_empty() || !side.not_ports.is_empty());
    if names_ports && !rule.protocol.is_some_and(Protocol::has_ports) {
        return together("ports go with protocol TCP, UDP or SCTP");
    }
    if (rule.icmp.is_some() || rule.not_icmp.is_some()) && !rule.protocol.is_some_and(Protocol::is_icmp) {
        return together("icmp and notICMP go with protocol ICMP or ICMPv6");
    }
    let of_protocol = match rule.protocol {
        Some(Protocol::ICMP) => Some(Family::V4),
        Some(Protocol::ICMPV6) => Some(Family::V6),
        _ => None,
    };
    match (of_protocol, rule.family) {
        (Some(protocol), Some(family)) if protocol != family => {
            together("ICMP goes with ipVersion 4 and ICMPv6 with 6")
        }
        _ => Ok(()),
    }
}
