//! An nft table as a value: what is in it, the text that makes it, and the text that makes it of another.

use std::collections::BTreeMap;
use std::fmt::Write;

use warren_policy::Decision;

use super::elements::{Element, Elements};

/// The table, of family inet. It is not the guard's: that one stands whatever policy says.
pub const TABLE: &str = "warren-policy";

/// The chain where all that is denied ends.
pub(super) const DENIED: &str = "denied";

/// The counter of what went to or came from a veth whose pod no policy has been made for yet.
pub const UNKNOWN_POD: &str = "unknown-pod";

/// The counter of packets of connections that were cut.
pub const CUT: &str = "cut";

/// What is in the table. Things of one name are always made the same way, so only their contents can differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Sets and maps by name.
    pub(super) sets: BTreeMap<String, Set>,
    /// Chains by name.
    pub(super) chains: BTreeMap<String, Chain>,
    /// Counters by name.
    pub(super) counters: BTreeMap<String, Ruling>,
    /// Whether what is denied is logged on its way to its end.
    pub(super) logs: bool,
}

/// What is counted under one name: a decision, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling {
    /// What becomes of the packets.
    pub decision: Decision,
    /// The policy, or those of which none allows them; empty: it is nobody's.
    pub policy: String,
    /// Which of its rules: `ingress[0]`; or why, where it is none.
    pub rule: String,
}

impl Ruling {
    /// Whether it denies.
    pub fn denies(&self) -> bool {
        self.decision == Decision::Deny
    }
}

/// A set or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) kind: SetKind,
    /// How it is made, but for its elements.
    pub(super) make: String,
    pub(super) elements: Elements,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetKind {
    /// Single elements.
    Hash,
    /// Elements with verdicts, that may name chains.
    Map,
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// Of a base chain, how it is hooked.
    pub(super) make: Option<String>,
    pub(super) rules: Vec<String>,
}

impl Table {
    /// What is counted, by the counter's name.
    pub fn rulings(&self) -> &BTreeMap<String, Ruling> {
        &self.counters
    }

    /// The names of the counters that another table has not.
    fn counters_beyond(&self, other: &Self) -> impl Iterator<Item = &String> {
        let names = self.counters.keys();
        names.filter(|name| !other.counters.contains_key(*name))
    }

    /// Puts a counter into it.
    pub(super) fn count(&mut self, name: String, decision: Decision, policy: String, rule: String) {
        let ruling = Ruling {
            decision,
            policy,
            rule,
        };
        self.counters.insert(name, ruling);
    }

    /// Puts a chain that nothing but jumps lead to into it.
    pub(super) fn chain(&mut self, name: String, rules: Vec<String>) {
        self.chains.insert(name, Chain { make: None, rules });
    }

    /// The text that makes the table this, whatever it was before, in one transaction.
    pub fn text(&self) -> String {
        let mut text = Text::default();
        text.line(format_args!("add table inet {TABLE}"));
        text.line(format_args!("delete table inet {TABLE}"));
        text.line(format_args!("add table inet {TABLE}"));
        self.differ(&Self::default(), &mut text);
        text.0
    }

    /// The text that makes a table that is `before` this one, in one transaction; empty if it is this already.
    ///
    /// Names go by what they stand for, so a pod that comes or goes changes elements, and a changed policy its own rules.
    pub fn difference(&self, before: &Self) -> String {
        let mut text = Text::default();
        self.differ(before, &mut text);
        text.0
    }

    fn differ(&self, before: &Self, text: &mut Text) {
        let new_sets = self
            .sets
            .iter()
            .filter(|(name, _)| !before.sets.contains_key(*name));
        for (name, set) in new_sets {
            let word = set.kind.word();
            text.line(format_args!("add {word} inet {TABLE} {name} {{ {} }}", set.make));
        }
        for name in self.counters_beyond(before) {
            text.line(format_args!("add counter inet {TABLE} {name}"));
        }
        // All chains before any rule: rules jump to chains.
        let new_chains = self
            .chains
            .iter()
            .filter(|(name, _)| !before.chains.contains_key(*name));
        for (name, chain) in new_chains {
            let make = chain.make.as_deref().unwrap_or_default();
            text.line(format_args!("add chain inet {TABLE} {name} {make}"));
        }
        for (name, set) in &self.sets {
            set.become_of(before.sets.get(name), name, text);
        }
        for (name, chain) in &self.chains {
            let old = before.chains.get(name).map_or(&[][..], |old| &old.rules);
            if chain.rules == old {
                continue;
            }
            if !old.is_empty() {
                text.line(format_args!("flush chain inet {TABLE} {name}"));
            }
            for rule in &chain.rules {
                text.line(format_args!("add rule inet {TABLE} {name} {rule}"));
            }
        }
        // What is gone names others that are gone: first all is emptied, then removed.
        let gone = || {
            before
                .chains
                .keys()
                .filter(|name| !self.chains.contains_key(*name))
        };
        for name in gone() {
            text.line(format_args!("flush chain inet {TABLE} {name}"));
        }
        let gone_sets = before
            .sets
            .iter()
            .filter(|(name, _)| !self.sets.contains_key(*name));
        for (name, set) in gone_sets {
            text.line(format_args!("delete {} inet {TABLE} {name}", set.kind.word()));
        }
        for name in gone() {
            text.line(format_args!("delete chain inet {TABLE} {name}"));
        }
        for name in before.counters_beyond(self) {
            text.line(format_args!("delete counter inet {TABLE} {name}"));
        }
    }
}

impl Set {
    fn become_of(&self, before: Option<&Self>, name: &str, text: &mut Text) {
        let Some(before) = before else {
            return text.elements("add", name, &self.elements.all());
        };
        let (gone, new) = before.elements.difference(&self.elements);
        text.elements("delete", name, &gone);
        text.elements("add", name, &new);
    }
}

impl SetKind {
    fn word(self) -> &'static str {
        match self {
            Self::Hash => "set",
            Self::Map => "map",
        }
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{}", line.to_string().trim_end());
    }

    fn elements(&mut self, act: &str, name: &str, elements: &[Element<'_>]) {
        let Some((first, others)) = elements.split_first() else {
            return;
        };
        // Straight into the text: there may be a million.
        let _ = write!(self.0, "{act} element inet {TABLE} {name} {{ {first}");
        for element in others {
            let _ = write!(self.0, ", {element}");
        }
        self.0.push_str(" }\n");
    }
}
