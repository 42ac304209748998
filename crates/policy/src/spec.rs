//! Pieces of API objects that both groups share, and how they are read.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::invalid::Problem;
use crate::protocol::{PortRange, Protocol};
use crate::selector::Selector;

/// A value that is written as a number or as text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Number(i64),
    /// Text.
    Text(String),
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl From<u16> for IntOrString {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<&str> for IntOrString {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Fields of an object that this release does not know. A policy with one is refused: it may be what keeps traffic out.
pub type Unknown = BTreeMap<String, IgnoredAny>;

/// `metav1.LabelSelector`: all of it must hold; nothing in it selects everything.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels with these values.
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Requirements on labels.
    pub match_expressions: Option<Vec<Requirement>>,
    /// What else there was.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// `metav1.LabelSelectorRequirement`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// Of `In` and `NotIn`.
    pub values: Option<Vec<String>>,
    /// What else there was.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl LabelSelector {
    /// The same as a [`Selector`].
    pub(crate) fn read(&self, field: &str) -> Result<Selector, Problem> {
        refuse_unknown(&self.unknown, field)?;
        let labels = self.match_labels.iter().flatten();
        let mut parts: Vec<Selector> = labels
            .map(|(key, value)| Selector::Equals(key.clone(), value.clone()))
            .collect();
        for (index, requirement) in self.match_expressions.iter().flatten().enumerate() {
            parts.push(requirement.read(&format!("{field}.matchExpressions[{index}]"))?);
        }
        Ok(Selector::And(parts).normal())
    }
}

impl Requirement {
    fn read(&self, field: &str) -> Result<Selector, Problem> {
        refuse_unknown(&self.unknown, field)?;
        let values = self.values.as_deref().unwrap_or_default();
        let wrong = |why: &str| Problem::Expression {
            field: field.to_owned(),
            why: why.to_owned(),
        };
        let key = self.key.clone();
        let one_of = || Selector::In(key.clone(), values.iter().cloned().collect());
        match (self.operator.as_str(), values.is_empty()) {
            _ if key.is_empty() => Err(wrong("there is no key")),
            ("In", false) => Ok(one_of()),
            ("NotIn", false) => Ok(Selector::Not(Box::new(one_of()))),
            ("Exists", true) => Ok(Selector::Has(key)),
            ("DoesNotExist", true) => Ok(Selector::Not(Box::new(Selector::Has(key)))),
            ("In" | "NotIn", true) => Err(wrong("there are no values")),
            ("Exists" | "DoesNotExist", false) => Err(wrong("there are values")),
            (other, _) => Err(wrong(&format!("{other:?} is not an operator"))),
        }
    }
}

/// Refuses an object with fields that are not known.
pub(crate) fn refuse_unknown(unknown: &Unknown, field: &str) -> Result<(), Problem> {
    match unknown.keys().next() {
        None => Ok(()),
        Some(name) => Err(Problem::Unsupported {
            field: format!("{field}.{}", name.chars().take(64).collect::<String>()),
        }),
    }
}

/// A selector in Calico's grammar.
pub(crate) fn read_selector(text: &str, field: &str) -> Result<Selector, Problem> {
    let selector = Selector::from_str(text).map_err(|error| Problem::Selector {
        field: field.to_owned(),
        error,
    })?;
    if selector.names_global() {
        return Err(Problem::Global {
            field: field.to_owned(),
        });
    }
    Ok(selector)
}

/// A selector of namespaces in Calico's grammar.
pub(crate) fn read_namespace_selector(text: &str, field: &str) -> Result<Selector, Problem> {
    Selector::from_str(text).map_err(|error| Problem::Selector {
        field: field.to_owned(),
        error,
    })
}

/// A network; bits behind the prefix do not count, and an address alone is a network of one.
pub(crate) fn read_net(text: &str, field: &str) -> Result<IpNet, Problem> {
    let net = IpNet::from_str(text).ok();
    let net = net.or_else(|| IpAddr::from_str(text).ok().map(IpNet::from));
    net.map(|net| net.trunc())
        .ok_or_else(|| wrong_value(field, text, "a network such as 10.0.0.0/8 or fd00::/8"))
}

/// A protocol by name or number.
pub(crate) fn read_protocol(protocol: &IntOrString, field: &str) -> Result<Protocol, Problem> {
    let read = match protocol {
        IntOrString::Number(number) => u8::try_from(*number).ok(),
        IntOrString::Text(text) => match Protocol::named(text) {
            Some(known) => Some(known.0),
            None => text.parse().ok(),
        },
    };
    read.filter(|number| *number != 0).map(Protocol).ok_or_else(|| {
        let wanted = "TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6 or a number from 1 to 255";
        wrong_value(field, &protocol.to_string(), wanted)
    })
}

/// A port by number.
pub(crate) fn read_port(number: i64, field: &str) -> Result<u16, Problem> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| wrong_value(field, &number.to_string(), "a port from 1 to 65535"))
}

/// Ports from one number to another.
pub(crate) fn read_range(first: u16, last: u16, field: &str) -> Result<PortRange, Problem> {
    PortRange::new(first, last).ok_or_else(|| Problem::Together {
        field: field.to_owned(),
        rule: "the last port is smaller than the first",
    })
}

/// A value that may not stand there.
pub(crate) fn wrong_value(field: &str, given: &str, wanted: &'static str) -> Problem {
    Problem::Value {
        field: field.to_owned(),
        given: given.chars().take(64).collect(),
        wanted,
    }
}
