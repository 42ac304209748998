//! `warren policy show`: a pod's chains in words.

use std::net::IpAddr;

use serde::Serialize;
use warren_policy::policy::TierEnd;
use warren_policy::ruleset::{Endpoint, Stage};
use warren_policy::{Decision, Direction, RuleSet, explain, words};

use super::look::look;
use crate::arguments::{OutputFormat, PolicyShowArguments};
use crate::outcome::{self, Outcome};
use crate::printable::printable;

/// Asks and prints.
pub(super) async fn show(arguments: PolicyShowArguments) -> anyhow::Result<Outcome> {
    let rules = look(&arguments.policy).await?.rules;
    let name = arguments.pod.in_namespace(&arguments.namespace);
    let pod = explain::pod(&rules, &name)?;
    let shown = Shown {
        pod: name.to_string(),
        node: pod.node.as_ref().map(ToString::to_string),
        addresses: pod.addresses.clone(),
        ingress: Met::new(&rules, pod, Direction::Ingress),
        egress: Met::new(&rules, pod, Direction::Egress),
    };
    match arguments.policy.output {
        OutputFormat::Table => outcome::print(shown.render().as_bytes()),
        OutputFormat::Json => outcome::print_json(&shown),
    }
}

/// What `--output json` prints: fields are added, never changed or removed.
#[derive(Debug, Serialize)]
struct Shown {
    pod: String,
    node: Option<String>,
    addresses: Vec<IpAddr>,
    ingress: Met,
    egress: Met,
}

/// What one direction meets.
#[derive(Debug, Serialize)]
struct Met {
    /// Whether any policy speaks of it.
    isolated: bool,
    tiers: Vec<Tier>,
    /// What becomes of what no tier has decided.
    end: &'static str,
}

#[derive(Debug, Serialize)]
struct Tier {
    tier: String,
    policies: Vec<PolicyInWords>,
    end: &'static str,
}

#[derive(Debug, Serialize)]
struct PolicyInWords {
    policy: String,
    order: String,
    refused: bool,
    rules: Vec<String>,
}

impl Shown {
    fn render(&self) -> String {
        let node = self.node.as_deref().unwrap_or("no node yet");
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let mut lines = vec![format!("pod {} on {node}: {}", self.pod, addresses.join(", "))];
        for (heading, met, direction) in [
            ("comes in", &self.ingress, Direction::Ingress),
            ("goes out", &self.egress, Direction::Egress),
        ] {
            lines.push(format!("what {heading}:"));
            lines.extend(met.lines(direction).into_iter().map(|line| format!("  {line}")));
        }
        lines.iter().map(|line| printable(line) + "\n").collect()
    }
}

impl Met {
    fn new(rules: &RuleSet, pod: &Endpoint, direction: Direction) -> Self {
        let chain = &rules.chains[pod.chain(direction)];
        Self {
            isolated: !chain.stages.is_empty(),
            tiers: chain
                .stages
                .iter()
                .map(|stage| Tier::new(rules, stage, direction))
                .collect(),
            end: match chain.end {
                Decision::Allow => "allow",
                Decision::Deny => "deny",
            },
        }
    }

    fn lines(&self, direction: Direction) -> Vec<String> {
        if !self.isolated {
            return vec![format!("no policy selects it for {direction}: everything passes")];
        }
        let mut lines = Vec::new();
        for tier in &self.tiers {
            for policy in &tier.policies {
                let refused = if policy.refused {
                    ", refused: it fails closed"
                } else {
                    ""
                };
                lines.push(format!(
                    "{} (tier {}, order {}{refused})",
                    policy.policy, tier.tier, policy.order
                ));
                let rules = policy.rules.iter().enumerate();
                lines.extend(rules.map(|(number, rule)| format!("  {}. {rule}", number + 1)));
                if policy.rules.is_empty() {
                    lines.push("  allows nothing".to_owned());
                }
            }
            if tier.end == "deny" {
                // Nothing is left for what comes after it.
                lines.push("everything else: deny".to_owned());
                return lines;
            }
            lines.push(format!(
                "everything else: leave to what comes after tier {}",
                tier.tier
            ));
        }
        lines.push(format!("everything else: {}", self.end));
        lines
    }
}

impl Tier {
    fn new(rules: &RuleSet, stage: &Stage, direction: Direction) -> Self {
        let policies = stage.policies.iter().map(|position| &rules.policies[*position]);
        let policies = policies.map(|policy| PolicyInWords {
            policy: policy.id.to_string(),
            order: policy.order.to_string(),
            refused: policy.refused,
            rules: policy
                .rules(direction)
                .iter()
                .map(|rule| words::rule(rules, rule))
                .collect(),
        });
        Self {
            tier: stage.tier.clone(),
            policies: policies.collect(),
            end: match stage.end {
                TierEnd::Deny => "deny",
                TierEnd::Pass => "pass",
            },
        }
    }
}
