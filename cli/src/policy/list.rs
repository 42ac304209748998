//! `warren policy list`: the policies there are.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use warren_model::mesh::OnInvalid;
use warren_policy::policy::PolicyRule;
use warren_policy::{Direction, Order, Policy, PolicyId, PolicyKind, RuleSet};

use super::look::{Policies, look};
use crate::arguments::{OutputFormat, PolicyListArguments};
use crate::outcome::{self, Outcome};
use crate::printable::printable;
use crate::table::Columns;
use crate::units::count;

/// Asks and prints.
pub(super) async fn list(arguments: PolicyListArguments) -> anyhow::Result<Outcome> {
    let list = List::new(&look(&arguments.policy).await?);
    match arguments.policy.output {
        OutputFormat::Table => outcome::print(list.render().as_bytes()),
        OutputFormat::Json => outcome::print_json(&list),
    }
}

/// What `--output json` prints: fields are added, never changed or removed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct List {
    policies: Vec<Row>,
    on_invalid: &'static str,
    refusals: Vec<RefusalRow>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    policy: String,
    kind: &'static str,
    namespace: Option<String>,
    name: String,
    tier: String,
    order: Option<f64>,
    selects: usize,
    ingress_rules: Option<usize>,
    egress_rules: Option<usize>,
    refused: Option<String>,
}

#[derive(Debug, Serialize)]
struct RefusalRow {
    object: String,
    message: String,
}

impl List {
    fn new(policies: &Policies) -> Self {
        let Policies {
            listed,
            on_invalid,
            rules,
        } = policies;
        let selects = selects(rules);
        let refused: BTreeMap<&str, &str> = rules
            .refusals
            .iter()
            .map(|it| (it.object.as_str(), it.message.as_str()))
            .collect();
        // What stands in the place of a refused one, for its place.
        let all = listed
            .policies
            .iter()
            .cloned()
            .chain(listed.invalid.iter().map(|it| it.closed()));
        let mut all: Vec<Policy> = all.collect();
        all.sort_by(|a, b| place(a).cmp(&place(b)));
        let rows = all.into_iter().map(|policy| {
            let name = policy.id.to_string();
            let refused = refused.get(name.as_str()).map(|message| (*message).to_owned());
            let rules = |rules: &Option<Vec<PolicyRule>>| rules.as_deref().map(written);
            Row {
                ingress_rules: rules(&policy.ingress).filter(|_| refused.is_none()),
                egress_rules: rules(&policy.egress).filter(|_| refused.is_none()),
                refused,
                policy: name,
                kind: kind(policy.id.kind),
                selects: selects.get(&policy.id).copied().unwrap_or_default(),
                tier: policy.tier,
                order: policy.order.number(),
                namespace: policy.id.namespace,
                name: policy.id.name,
            }
        });
        let refusals = listed.refusals.iter().map(|refusal| RefusalRow {
            object: refusal.object.clone(),
            message: refusal.message.clone(),
        });
        Self {
            policies: rows.collect(),
            on_invalid: match on_invalid {
                OnInvalid::Closed => "closed",
                OnInvalid::Open => "open",
            },
            refusals: refusals.collect(),
        }
    }

    fn render(&self) -> String {
        let mut table = Columns::new(&["POLICY", "TIER", "ORDER", "SELECTS", "INGRESS", "EGRESS", "STATE"])
            .right(2)
            .right(3);
        let said = |rules: Option<usize>| match rules {
            None => "-".to_owned(),
            Some(0) => "none".to_owned(),
            Some(number) => count(number, "rule"),
        };
        for row in &self.policies {
            table.row(&[
                row.policy.clone(),
                row.tier.clone(),
                row.order
                    .map_or_else(|| "last".to_owned(), |order| order.to_string()),
                row.selects.to_string(),
                said(row.ingress_rules),
                said(row.egress_rules),
                row.refused
                    .as_ref()
                    .map_or_else(|| "ok".to_owned(), |why| format!("refused: {why}")),
            ]);
        }
        let refused = self.policies.iter().filter(|row| row.refused.is_some()).count();
        let mut text = match self.policies.is_empty() {
            true => String::new(),
            false => table.render(),
        };
        text += &count_policies(self.policies.len());
        if refused > 0 {
            text += &format!(
                "; {refused} refused, and what they select fails {}",
                self.on_invalid
            );
        }
        text.push('\n');
        for refusal in &self.refusals {
            text += &printable(&format!("refused: {}: {}", refusal.object, refusal.message));
            text.push('\n');
        }
        text
    }
}

fn count_policies(number: usize) -> String {
    match number {
        0 => "no policies: everything passes".to_owned(),
        1 => "1 policy".to_owned(),
        more => format!("{more} policies"),
    }
}

fn kind(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::Global => "GlobalNetworkPolicy",
        PolicyKind::Warren => "NetworkPolicy.warren-mesh.io",
        PolicyKind::Kubernetes => "NetworkPolicy",
    }
}

/// As the rule set asks them: by tier, by order, of one order Kubernetes's last, and by name.
fn place(policy: &Policy) -> (&str, Order, bool, &str, Option<&str>) {
    let id = &policy.id;
    let last = id.kind == PolicyKind::Kubernetes;
    (
        &policy.tier,
        policy.order,
        last,
        &id.name,
        id.namespace.as_deref(),
    )
}

/// How many rules were written for those that were read: one with several peers is read as several.
fn written(rules: &[PolicyRule]) -> usize {
    rules
        .iter()
        .map(|rule| rule.written)
        .collect::<BTreeSet<_>>()
        .len()
}

/// How many pods and host endpoints each policy applies to.
fn selects(rules: &RuleSet) -> BTreeMap<PolicyId, usize> {
    let mut selects = BTreeMap::new();
    for endpoint in &rules.endpoints {
        let chains = [Direction::Ingress, Direction::Egress].map(|it| &rules.chains[endpoint.chain(it)]);
        let met = chains
            .iter()
            .flat_map(|chain| &chain.stages)
            .flat_map(|stage| &stage.policies);
        for position in met.collect::<BTreeSet<_>>() {
            *selects.entry(rules.policies[*position].id.clone()).or_default() += 1;
        }
    }
    selects
}
