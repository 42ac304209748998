//! Policies and a cluster in, a [`RuleSet`] out.

use std::borrow::Cow;
use std::collections::BTreeMap;

use warren_model::Refusal;

use crate::cache::Cache;
use crate::cluster::{Cluster, Failsafe};
use crate::index::{Index, What};
use crate::invalid::{Invalid, OnInvalid};
use crate::policy::{
    DEFAULT_TIER, Decision, Direction, Entity, Order, Policy, PolicyKind, PolicyRule, Port, Tier, TierEnd,
};
use crate::protocol::Protocol;
use crate::query::Query;
use crate::reach::{Reach, is_in_reach};
use crate::ruleset::{
    Chain, ChainId, End, Endpoint, EndpointName, PolicyRules, PortSetId, Ports, Rule, RuleSet, SetId, Stage,
};

/// What a rule set is made from.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    /// Policies of all kinds.
    pub policies: &'a [Policy],
    /// Policies that were refused.
    pub invalid: &'a [Invalid],
    /// What becomes of the pods these select.
    pub on_invalid: OnInvalid,
    /// Tiers; that of policies that name none need not be among them.
    pub tiers: &'a [Tier],
    /// What they are about.
    pub cluster: &'a Cluster,
    /// What stays open on host endpoints.
    pub failsafe: Failsafe,
    /// For which endpoints.
    pub reach: Reach,
}

impl<'a> Input<'a> {
    /// For all endpoints of a cluster: no invalid policy, no tier but the default one, the usual failsafe ports.
    pub fn new(policies: &'a [Policy], cluster: &'a Cluster) -> Self {
        Self {
            policies,
            invalid: &[],
            on_invalid: OnInvalid::Closed,
            tiers: &[],
            cluster,
            failsafe: Failsafe::default(),
            reach: Reach::Cluster,
        }
    }
}

/// Makes the rules. It never fails: what is refused is named in [`RuleSet::refusals`], and the pods it selects fail as
/// [`Input::on_invalid`] says.
///
/// Work is in proportion to what is selected, not to policies times pods; nothing is kept from one time to the next, as a
/// [`Compiler`] does.
pub fn compile(input: &Input<'_>) -> RuleSet {
    Compiler::default().compile(input)
}

/// Compiles again and again, and remembers what selectors have found: it makes what [`compile()`] makes, in a time that goes by what
/// has changed since.
///
/// It is told of no changes. It finds them by comparing, so it does not matter how many there were in between, nor whether the next
/// input has to do with the one before. Sets that have not changed are the same allocation in one rule set and the next.
#[derive(Default)]
pub struct Compiler {
    index: Index,
    cache: Cache,
    /// For which endpoints the cache holds what policies apply to.
    reach: Option<Reach>,
}

impl Compiler {
    /// Makes the rules for this input: see [`compile()`].
    pub fn compile(&mut self, input: &Input<'_>) -> RuleSet {
        if self.reach.as_ref() != Some(&input.reach) {
            self.cache = Cache::default();
            self.reach = Some(input.reach.clone());
        }
        let touched = self.index.update(input.cluster);
        self.cache.update(&self.index, &input.reach, &touched);
        rule_set(input, &self.index, &mut self.cache)
    }
}

fn rule_set(input: &Input<'_>, index: &Index, cache: &mut Cache) -> RuleSet {
    let tiers = Tiers::new(input.tiers);
    let (entries, refusals) = in_order(input, &tiers);
    let mut met = vec![Met::default(); index.end()];
    let mut policies = Vec::new();
    for entry in &entries {
        let subjects = cache.subjects(index, &input.reach, &entry.policy.subject);
        if subjects.is_empty() {
            continue;
        }
        for id in subjects {
            let met = &mut met[*id as usize];
            if entry.policy.ingress.is_some() {
                met.ingress.push((entry.rank, policies.len()));
            }
            if entry.policy.egress.is_some() {
                met.egress.push((entry.rank, policies.len()));
            }
        }
        policies.push(compiled(entry, &mut Sets { index, cache }));
    }
    let mut chains = Chains {
        tiers: &tiers,
        ids: BTreeMap::new(),
        chains: Vec::new(),
    };
    let endpoints = endpoints(input, index, &met, &mut chains);
    let mut by_address: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (position, endpoint) in endpoints.iter().enumerate() {
        for address in &endpoint.addresses {
            by_address.entry(*address).or_default().push(position);
        }
    }
    let (sets, port_sets) = cache.finish();
    RuleSet {
        sets,
        port_sets,
        policies,
        chains: chains.chains,
        endpoints,
        by_address,
        nodes: input.cluster.nodes.clone(),
        failsafe: input.failsafe.clone(),
        refusals,
    }
}

/// Tiers in the order they are asked. Ahead of all stands one for policies whose tier there is not: they are refused, and nobody
/// knows what they would have come before.
struct Tiers<'a>(Vec<Cow<'a, Tier>>);

impl<'a> Tiers<'a> {
    fn new(given: &'a [Tier]) -> Self {
        let mut tiers: Vec<_> = given.iter().map(Cow::Borrowed).collect();
        if !given.iter().any(|tier| tier.name == DEFAULT_TIER) {
            tiers.push(Cow::Owned(Tier::default_tier()));
        }
        tiers.push(Cow::Owned(Tier {
            name: String::new(),
            order: Order::FIRST,
            end: TierEnd::Pass,
        }));
        tiers.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
        Self(tiers)
    }

    fn rank(&self, name: &str) -> Option<usize> {
        self.0
            .iter()
            .position(|tier| tier.name == name && !name.is_empty())
    }
}

/// A policy and the place of its tier.
struct Entry<'a> {
    rank: usize,
    policy: Cow<'a, Policy>,
    refused: bool,
}

fn in_order<'a>(input: &Input<'a>, tiers: &Tiers<'_>) -> (Vec<Entry<'a>>, Vec<Refusal>) {
    let mut entries = Vec::new();
    let mut refusals = Vec::new();
    let mut refuse = |entries: &mut Vec<Entry<'a>>, invalid: &Invalid| {
        refusals.push(invalid.refusal());
        if input.on_invalid == OnInvalid::Closed {
            entries.push(Entry {
                rank: tiers.rank(&invalid.tier).unwrap_or(0),
                policy: Cow::Owned(invalid.closed()),
                refused: true,
            });
        }
    };
    for policy in input.policies {
        match tiers.rank(&policy.tier) {
            Some(rank) => entries.push(Entry {
                rank,
                policy: Cow::Borrowed(policy),
                refused: false,
            }),
            None => refuse(&mut entries, &Invalid::of_unknown_tier(policy)),
        }
    }
    for invalid in input.invalid {
        refuse(&mut entries, invalid);
    }
    entries.sort_by(|a, b| place(a).cmp(&place(b)));
    refusals.sort();
    (entries, refusals)
}

/// Tier, then order, then name; of one order Kubernetes's policies come last.
fn place<'e>(entry: &'e Entry<'_>) -> impl Ord + 'e {
    let id = &entry.policy.id;
    let last = id.kind == PolicyKind::Kubernetes;
    (
        entry.rank,
        entry.policy.order,
        last,
        &id.name,
        &id.namespace,
        id.kind,
    )
}

/// The policies that one member meets: rank of the tier, position of the policy.
#[derive(Clone, Default)]
struct Met {
    ingress: Vec<(usize, usize)>,
    egress: Vec<(usize, usize)>,
}

fn endpoints(input: &Input<'_>, index: &Index, met: &[Met], chains: &mut Chains<'_>) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for (id, member) in index
        .members()
        .filter(|(_, member)| is_in_reach(&member.what, &input.reach))
    {
        let (name, node, end) = match &member.what {
            What::Pod(pod) => (
                EndpointName::Pod(pod.name.clone()),
                pod.node.clone(),
                Decision::Allow,
            ),
            What::Host(host) => {
                let end = match host.default_allow {
                    true => Decision::Allow,
                    false => Decision::Deny,
                };
                let name = EndpointName::Host(host.name.clone(), host.interface.clone());
                (name, Some(host.node.clone()), end)
            }
            What::Set(_) => continue,
        };
        let endpoint = Endpoint {
            name,
            node,
            addresses: member.addresses.clone(),
            // Chains are numbered below, in the order of names.
            ingress: 0,
            egress: 0,
        };
        endpoints.push((endpoint, &met[id as usize], end));
    }
    endpoints.sort_by(|(a, ..), (b, ..)| a.name.cmp(&b.name));
    endpoints
        .into_iter()
        .map(|(endpoint, met, end)| Endpoint {
            ingress: chains.of(&met.ingress, end),
            egress: chains.of(&met.egress, end),
            ..endpoint
        })
        .collect()
}

/// Chains, each made once for all endpoints that meet the same policies.
struct Chains<'t> {
    tiers: &'t Tiers<'t>,
    ids: BTreeMap<Chain, ChainId>,
    chains: Vec<Chain>,
}

impl Chains<'_> {
    fn of(&mut self, met: &[(usize, usize)], end: Decision) -> ChainId {
        let stages = met.chunk_by(|(one, _), (next, _)| one == next).map(|stage| {
            let tier = &self.tiers.0[stage[0].0];
            Stage {
                tier: tier.name.clone(),
                policies: stage.iter().map(|(_, policy)| *policy).collect(),
                end: tier.end,
            }
        });
        let chain = Chain {
            stages: stages.collect(),
            end,
        };
        if let Some(id) = self.ids.get(&chain) {
            return *id;
        }
        let id = self.chains.len();
        self.chains.push(chain.clone());
        self.ids.insert(chain, id);
        id
    }
}

/// Where rules get the sets from that they ask for.
struct Sets<'c> {
    index: &'c Index,
    cache: &'c mut Cache,
}

impl Sets<'_> {
    fn of(&mut self, query: &Query) -> SetId {
        self.cache.set(self.index, query)
    }

    fn of_port(&mut self, protocol: Protocol, port_name: &str) -> PortSetId {
        self.cache.port_set(self.index, protocol, port_name)
    }
}

fn compiled(entry: &Entry<'_>, sets: &mut Sets<'_>) -> PolicyRules {
    let policy = &entry.policy;
    let mut rules = |direction| {
        let rules = match direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        let rules = rules.iter().flatten();
        rules.map(|rule| compiled_rule(rule, sets)).collect()
    };
    PolicyRules {
        ingress: rules(Direction::Ingress),
        egress: rules(Direction::Egress),
        id: policy.id.clone(),
        order: policy.order,
        refused: entry.refused,
    }
}

fn compiled_rule(rule: &PolicyRule, sets: &mut Sets<'_>) -> Rule {
    Rule {
        written: rule.written,
        action: rule.action,
        family: rule.family,
        protocol: rule.protocol,
        not_protocol: rule.not_protocol,
        icmp: rule.icmp,
        not_icmp: rule.not_icmp,
        source: compiled_end(&rule.source, rule.protocol, sets),
        destination: compiled_end(&rule.destination, rule.protocol, sets),
    }
}

fn compiled_end(entity: &Entity, protocol: Option<Protocol>, sets: &mut Sets<'_>) -> End {
    End {
        set: entity.peers.as_ref().map(|query| sets.of(query)),
        not_set: entity.not_peers.as_ref().map(|query| sets.of(query)),
        nets: entity.nets.clone(),
        not_nets: entity.not_nets.clone(),
        ports: compiled_ports(&entity.ports, protocol, sets),
        not_ports: compiled_ports(&entity.not_ports, protocol, sets),
    }
}

fn compiled_ports(ports: &[Port], protocol: Option<Protocol>, sets: &mut Sets<'_>) -> Option<Ports> {
    if ports.is_empty() {
        return None;
    }
    let mut compiled = Ports::default();
    for port in ports {
        match (port, protocol) {
            (Port::Numbers(range), _) => compiled.ranges.push(*range),
            (Port::Named(name), Some(protocol)) => compiled.sets.push(sets.of_port(protocol, name)),
            // Reading a policy refuses ports without a protocol. A name of no protocol is no pod's port.
            (Port::Named(_), None) => {}
        }
    }
    Some(compiled)
}
