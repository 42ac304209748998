//! Names of chains, by what they stand for.

use std::collections::BTreeMap;

use warren_model::fnv::fnv1a;
use warren_policy::ruleset::{Chain, ChainId};
use warren_policy::{Direction, RuleSet};

/// What the chains of a rule set are called.
///
/// A policy's chain goes by the policy's name and a pod's chain by the policies in it, whatever their positions are, so the names
/// hold from one rule set to the next. They are hashes, that somebody who may name policies can make collide: then the
/// later ones in order get a number, and no two are called the same.
pub(super) struct Names {
    policies: Vec<String>,
    chains: Vec<String>,
}

impl Names {
    pub(super) fn new(rules: &RuleSet) -> Self {
        let mut unique = Unique::default();
        let policies = rules.policies.iter();
        let policies: Vec<String> = policies
            .map(|policy| unique.name(&policy.id.to_string()))
            .collect();
        // In the order of what they say, because the positions of chains go by the names of pods.
        let mut said: Vec<(String, ChainId)> = rules
            .chains
            .iter()
            .enumerate()
            .map(|(id, chain)| (say(chain, &policies), id))
            .collect();
        said.sort();
        let mut unique = Unique::default();
        let mut chains = vec![String::new(); said.len()];
        for (text, id) in said {
            chains[id] = unique.name(&text);
        }
        Self { policies, chains }
    }

    /// The chain of a policy, by its position.
    pub(super) fn policy(&self, position: usize, direction: Direction) -> String {
        format!("policy-{}-{direction}", self.policies[position])
    }

    /// The chain that pods are led to.
    pub(super) fn chain(&self, id: ChainId, direction: Direction) -> String {
        format!("pod-{}-{direction}", self.chains[id])
    }
}

/// All that a chain does, in text.
fn say(chain: &Chain, policies: &[String]) -> String {
    let stages = chain.stages.iter().map(|stage| {
        let policies: Vec<&str> = stage.policies.iter().map(|it| policies[*it].as_str()).collect();
        format!("{:?} {:?} {}", stage.tier, stage.end, policies.join(" "))
    });
    let stages: Vec<String> = stages.collect();
    format!("{} / {:?}", stages.join(" / "), chain.end)
}

#[derive(Default)]
struct Unique(BTreeMap<u64, u32>);

impl Unique {
    fn name(&mut self, text: &str) -> String {
        let hash = fnv1a(text);
        let taken = self.0.entry(hash).or_default();
        *taken += 1;
        match *taken {
            1 => format!("{hash:016x}"),
            again => format!("{hash:016x}.{again}"),
        }
    }
}
