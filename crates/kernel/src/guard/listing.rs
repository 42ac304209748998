//! What `nft --json list table` says.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;

use super::DropCounter;
use super::render::{FINGERPRINT_CHAIN, Objects, description};

/// The JSON document (libnftables-json(5)).
#[derive(Debug, Deserialize)]
pub(super) struct Root {
    nftables: Vec<Entry>,
}

/// One object of it; those we do not know have no field filled.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    chain: Option<Named>,
    set: Option<Named>,
    map: Option<Named>,
    counter: Option<CounterEntry>,
    rule: Option<RuleEntry>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

#[derive(Debug, Deserialize)]
struct CounterEntry {
    name: String,
    packets: u64,
    bytes: u64,
}

#[derive(Debug, Deserialize)]
struct RuleEntry {
    chain: String,
    comment: Option<String>,
}

/// What is in the table now.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Chains, and how many rules each has.
    chains: BTreeMap<String, usize>,
    sets: Vec<String>,
    maps: Vec<String>,
    pub(super) counters: Vec<DropCounter>,
    description: Option<String>,
}

impl From<Root> for Listing {
    fn from(root: Root) -> Self {
        let mut listing = Self::default();
        for entry in root.nftables {
            listing.chains.extend(entry.chain.map(|chain| (chain.name, 0)));
            listing.sets.extend(entry.set.map(|set| set.name));
            listing.maps.extend(entry.map.map(|map| map.name));
            listing.counters.extend(entry.counter.map(|counter| DropCounter {
                reason: counter.name,
                packets: counter.packets,
                bytes: counter.bytes,
            }));
            if let Some(rule) = entry.rule {
                if rule.chain == FINGERPRINT_CHAIN {
                    listing.description = rule.comment;
                }
                *listing.chains.entry(rule.chain).or_default() += 1;
            }
        }
        listing
    }
}

impl Listing {
    /// The fingerprint, if the table is as its own description says.
    pub(super) fn fingerprint(&self) -> Option<u64> {
        let described = self.description.as_ref()?;
        let fingerprint = u64::from_str_radix(described.split(' ').next()?, 16).ok()?;
        if self.chains.get(FINGERPRINT_CHAIN) != Some(&1) {
            return None;
        }
        let counts = self.chains.iter().filter(|(name, _)| *name != FINGERPRINT_CHAIN);
        let actual = description(fingerprint, counts.map(|(name, count)| (name.as_str(), *count)));
        (actual == *described).then_some(fingerprint)
    }

    /// The text that removes what is in the table and not among the objects wanted.
    pub(super) fn removal_of_what_is_not(&self, wanted: &Objects) -> String {
        let mut text = String::new();
        let chains: Vec<&String> = self
            .chains
            .keys()
            .filter(|name| !wanted.chains.contains(name))
            .collect();
        // Emptied before any is deleted: they may jump to each other, and hold sets and counters.
        for name in &chains {
            remove_line(&mut text, "flush chain", name);
        }
        for name in &chains {
            remove_line(&mut text, "delete chain", name);
        }
        for name in self.sets.iter().filter(|name| !wanted.sets.contains(name)) {
            remove_line(&mut text, "delete set", name);
        }
        for name in &self.maps {
            remove_line(&mut text, "delete map", name);
        }
        for counter in self
            .counters
            .iter()
            .filter(|counter| !wanted.counters.contains(&counter.reason))
        {
            remove_line(&mut text, "delete counter", &counter.reason);
        }
        text
    }
}

fn remove_line(text: &mut String, act: &str, name: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{act} inet warren {name}");
}
