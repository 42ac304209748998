//! How long it takes to compile the policies of a large cluster. That is the pure half: nothing reaches a kernel here.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, ensure};
use warren_model::{NodeName, PodName};
use warren_policy::kubernetes::{self, IngressRule, NetworkPolicySpec, Peer, PolicyPort};
use warren_policy::spec::{IntOrString, LabelSelector, Requirement};
use warren_policy::{
    Cluster, Flow, Input, Labels, NamedPort, Namespace, Pod, Policy, Protocol, Reach, RuleSet, compile,
    verdict,
};

use crate::machine::Machine;
use crate::report::{Report, WARREN};
use crate::statistics::Samples;

const PODS: u32 = 10_000;
const NODES: u32 = 100;
const NAMESPACES: u32 = 10;

/// Half of them select, and let in, a thousand pods each; the others a hundred.
const POLICIES: u32 = 1000;

/// Compilations a round.
const RUNS: usize = 5;

/// A full compilation, ms.
const LIMIT: f64 = 1000.0;

pub(crate) fn bench(rounds: u32) -> anyhow::Result<Report> {
    let mut report = Report::new("policy", Machine::look(&[]));
    let cluster = cluster()?;
    let policies = policies()?;
    let node: NodeName = node_name(0)?;
    let (mut all, mut one, mut judged) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        for _ in 0..RUNS {
            let (time, rules) = timed(&policies, &cluster, Reach::Cluster);
            all.push(time);
            let selected = rules
                .sets
                .iter()
                .filter(|set| set.addresses.len() == 2000)
                .count();
            ensure!(
                selected == 500,
                "{selected} sets hold 1,000 pods, each with two addresses"
            );
            judged.push(judge(&rules, &cluster));
            one.push(timed(&policies, &cluster, Reach::Node(node.clone())).0);
        }
    }
    let case = format!("{PODS} pods, {POLICIES} policies");
    let all = Samples::new(all).context("no run")?;
    let one = Samples::new(one).context("no run")?;
    let judged = Samples::new(judged).context("no run")?;
    report.row(&case, WARREN, "compile for all pods", "ms", &all);
    report.row(&case, WARREN, "compile for one node's pods", "ms", &one);
    report.row(&case, WARREN, "verdict", "us", &judged);
    report.bar_under(&format!("compile for all of {case}"), all.median(), "ms", LIMIT);
    Ok(report)
}

/// ms, and what came out.
fn timed(policies: &[Policy], cluster: &Cluster, reach: Reach) -> (f64, RuleSet) {
    let input = Input {
        reach,
        ..Input::new(policies, cluster)
    };
    let started = Instant::now();
    let rules = compile(black_box(&input));
    (started.elapsed().as_secs_f64() * 1000.0, rules)
}

/// us for one flow, of many.
fn judge(rules: &RuleSet, cluster: &Cluster) -> f64 {
    const FLOWS: usize = 1000;
    let pods = &cluster.pods;
    let started = Instant::now();
    for number in 0..FLOWS {
        let (from, to) = (&pods[number * 7 % pods.len()], &pods[number * 11 % pods.len()]);
        let flow = Flow::to_port(from.addresses[0], to.addresses[0], Protocol::TCP, 80);
        black_box(verdict(rules, black_box(&flow)));
    }
    started.elapsed().as_secs_f64() * 1_000_000.0 / FLOWS as f64
}

/// Pods in ten namespaces, dual-stack, each with labels of 10 and of 100 values.
fn cluster() -> anyhow::Result<Cluster> {
    let mut cluster = Cluster::default();
    for number in 0..NAMESPACES {
        cluster.namespaces.push(Namespace {
            name: format!("ns-{number}"),
            labels: Labels::from_iter([("team", format!("team-{}", number % 5))]),
        });
    }
    for number in 0..PODS {
        cluster.pods.push(Pod {
            name: PodName {
                namespace: format!("ns-{}", number % NAMESPACES),
                name: format!("pod-{number}"),
            },
            labels: Labels::from_iter([
                ("app", format!("app-{}", number / NAMESPACES % 100)),
                ("tier", format!("tier-{}", number / NAMESPACES % 10)),
                ("pod-template-hash", format!("{number:08x}")),
            ]),
            addresses: vec![
                IpAddr::from((0x0af4_0000 + number).to_be_bytes()),
                IpAddr::from(((0xfd00_u128 << 112) + u128::from(number)).to_be_bytes()),
            ],
            ports: vec![NamedPort {
                name: "http".to_owned(),
                protocol: Protocol::TCP,
                port: 8080,
            }],
            host_network: false,
            finished: false,
            node: Some(node_name(number % NODES)?),
        });
    }
    Ok(cluster)
}

fn node_name(number: u32) -> anyhow::Result<NodeName> {
    Ok(format!("node-{number}").parse()?)
}

fn policies() -> anyhow::Result<Vec<Policy>> {
    let mut policies = Vec::new();
    for number in 0..POLICIES {
        let namespace = format!("ns-{}", number % NAMESPACES);
        // All 1,000 pods of a namespace, and all 1,000 of a tier in any; or the 100 of a tier in one.
        let tier = labels("tier", format!("tier-{}", number / NAMESPACES % 10));
        let wide = number % 2 == 0;
        let port = match number % 3 {
            0 => IntOrString::from("http"),
            _ => IntOrString::Number(i64::from(80 + number)),
        };
        let spec = NetworkPolicySpec {
            pod_selector: (!wide).then(|| tier.clone()),
            ingress: Some(vec![IngressRule {
                from: Some(vec![Peer {
                    pod_selector: Some(LabelSelector {
                        // No two policies have equal selectors, so none share a set.
                        match_expressions: Some(vec![Requirement {
                            key: "app".to_owned(),
                            operator: "NotIn".to_owned(),
                            values: Some(vec![format!("none-{number}")]),
                            ..Requirement::default()
                        }]),
                        ..tier
                    }),
                    namespace_selector: wide.then(LabelSelector::default),
                    ..Peer::default()
                }]),
                ports: Some(vec![PolicyPort {
                    port: Some(port),
                    ..PolicyPort::default()
                }]),
                ..IngressRule::default()
            }]),
            ..NetworkPolicySpec::default()
        };
        let policy = kubernetes::check(&namespace, &format!("policy-{number}"), &spec);
        policies.push(policy.map_err(|invalid| anyhow::anyhow!("{}", invalid.refusal()))?);
    }
    Ok(policies)
}

fn labels(key: &str, value: String) -> LabelSelector {
    LabelSelector {
        match_labels: Some([(key.to_owned(), value)].into()),
        ..LabelSelector::default()
    }
}
