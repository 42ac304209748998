//! Expressions that select objects by their labels: Calico's grammar, to which Kubernetes's label selectors are read as well.

mod parse;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

pub use parse::{MAX_DEPTH, SelectorError, SelectorProblem};

use crate::labels::Labels;

/// An expression over labels, in its normal form where it comes from [`Selector::from_str`] or [`Selector::normal`]: equal
/// expressions are equal values, whatever the order of their operands.
///
/// A comparison with a label that is not there does not hold; so its negation does, as with `NotIn` of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// `all()`, and the empty text.
    All,
    /// `global()`: what is in no namespace. Of use in a `namespaceSelector` only.
    Global,
    /// `has(key)`.
    Has(String),
    /// `key == "value"`.
    Equals(String, String),
    /// `key in {"a", "b"}`.
    In(String, BTreeSet<String>),
    /// `key contains "text"`.
    Contains(String, String),
    /// `key starts with "text"`.
    StartsWith(String, String),
    /// `key ends with "text"`.
    EndsWith(String, String),
    /// `!selector`; also `!=` and `not in`.
    Not(Box<Selector>),
    /// `a && b`, at least two.
    And(Vec<Selector>),
    /// `a || b`, at least two.
    Or(Vec<Selector>),
}

impl Selector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.holds(labels, true)
    }

    /// Whether this, as a `namespaceSelector`, selects what is in a namespace with these labels; `None` for what is in no
    /// namespace, which has no labels of one: `all()` does not select it, `global()` does, and so does `x != "y"`.
    pub fn matches_namespace(&self, namespace: Option<&Labels>) -> bool {
        match namespace {
            Some(labels) => self.holds(labels, true),
            None => self.holds(&Labels::default(), false),
        }
    }

    fn holds(&self, labels: &Labels, namespaced: bool) -> bool {
        let value = |key: &String| labels.get(key);
        match self {
            Self::All => namespaced,
            Self::Global => !namespaced,
            Self::Has(key) => value(key).is_some(),
            Self::Equals(key, wanted) => value(key) == Some(wanted),
            Self::In(key, wanted) => value(key).is_some_and(|value| wanted.contains(value)),
            Self::Contains(key, part) => value(key).is_some_and(|value| value.contains(part.as_str())),
            Self::StartsWith(key, part) => value(key).is_some_and(|value| value.starts_with(part.as_str())),
            Self::EndsWith(key, part) => value(key).is_some_and(|value| value.ends_with(part.as_str())),
            Self::Not(inner) => !inner.holds(labels, namespaced),
            Self::And(parts) => parts.iter().all(|part| part.holds(labels, namespaced)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(labels, namespaced)),
        }
    }

    /// Whether `global()` occurs.
    pub fn names_global(&self) -> bool {
        match self {
            Self::Global => true,
            Self::Not(inner) => inner.names_global(),
            Self::And(parts) | Self::Or(parts) => parts.iter().any(Self::names_global),
            Self::All
            | Self::Has(_)
            | Self::Equals(..)
            | Self::In(..)
            | Self::Contains(..)
            | Self::StartsWith(..)
            | Self::EndsWith(..) => false,
        }
    }

    /// The same expression with nested conjunctions and disjunctions made flat, their operands in order and once each, and
    /// double negations gone.
    pub fn normal(self) -> Self {
        match self {
            Self::In(key, values) if values.len() == 1 => {
                let value = values.into_iter().next().unwrap_or_default();
                Self::Equals(key, value)
            }
            Self::Not(inner) => {
                let inner = inner.normal();
                if let Self::Not(twice) = inner {
                    *twice
                } else {
                    Self::Not(Box::new(inner))
                }
            }
            Self::And(parts) => {
                let flat = parts.into_iter().flat_map(|part| {
                    let part = part.normal();
                    if let Self::And(inner) = part {
                        inner
                    } else {
                        vec![part]
                    }
                });
                Self::joined(flat.collect(), Self::And)
            }
            Self::Or(parts) => {
                let flat = parts.into_iter().flat_map(|part| {
                    let part = part.normal();
                    if let Self::Or(inner) = part {
                        inner
                    } else {
                        vec![part]
                    }
                });
                Self::joined(flat.collect(), Self::Or)
            }
            Self::All
            | Self::Global
            | Self::Has(_)
            | Self::Equals(..)
            | Self::In(..)
            | Self::Contains(..)
            | Self::StartsWith(..)
            | Self::EndsWith(..) => self,
        }
    }

    /// Operands in order and without repetition; one alone needs no operator, and none at all selects everything.
    fn joined(operands: BTreeSet<Self>, join: fn(Vec<Self>) -> Self) -> Self {
        let mut operands: Vec<_> = operands.into_iter().collect();
        match operands.len() {
            0 => Self::All,
            1 => operands.remove(0),
            _ => join(operands),
        }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse::parse(text).map(Self::normal)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(key) => write!(f, "has({key})"),
            Self::Equals(key, value) => write!(f, "{key} == {}", Quoted(value)),
            Self::In(key, values) => write!(f, "{key} in {}", Braced(values)),
            Self::Contains(key, part) => write!(f, "{key} contains {}", Quoted(part)),
            Self::StartsWith(key, part) => write!(f, "{key} starts with {}", Quoted(part)),
            Self::EndsWith(key, part) => write!(f, "{key} ends with {}", Quoted(part)),
            Self::Not(inner) => {
                if let Self::Equals(key, value) = &**inner {
                    write!(f, "{key} != {}", Quoted(value))
                } else if let Self::In(key, values) = &**inner {
                    write!(f, "{key} not in {}", Braced(values))
                } else if let Self::And(_) | Self::Or(_) = &**inner {
                    write!(f, "!({inner})")
                } else {
                    write!(f, "!{inner}")
                }
            }
            Self::And(parts) => write_joined(f, parts, " && "),
            Self::Or(parts) => write_joined(f, parts, " || "),
        }
    }
}

/// No more parentheses than are needed: what was read must not become nested too deep to be read again.
fn write_joined(f: &mut fmt::Formatter<'_>, parts: &[Selector], operator: &str) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(operator)?;
        }
        if let Selector::Or(_) = part {
            write!(f, "({part})")?;
        } else {
            write!(f, "{part}")?;
        }
    }
    Ok(())
}

/// The grammar knows no escapes: a text that has one kind of quotes goes into the other.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

struct Braced<'a>(&'a BTreeSet<String>);

impl fmt::Display for Braced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, value) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{}", Quoted(value))?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests;
