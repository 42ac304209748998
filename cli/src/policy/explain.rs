//! `warren policy explain`: whether a connection is allowed, and why.

use serde::Serialize;
use warren_policy::{Decision, Explanation, Reason, RuleRef, Side, explain_between};

use super::look::look;
use crate::arguments::{OutputFormat, PolicyExplainArguments};
use crate::outcome::{self, Outcome};
use crate::printable::printable;

/// Asks and prints.
pub(super) async fn explain(arguments: PolicyExplainArguments) -> anyhow::Result<Outcome> {
    let policies = look(&arguments.policy).await?;
    let [from, to] = [&arguments.from, &arguments.to].map(|peer| peer.in_namespace(&arguments.namespace));
    let port = arguments.port;
    let explained = explain_between(&policies.rules, &from, &to, port.protocol, port.port)?;
    let allowed = explained.iter().all(|it| it.verdict.action == Decision::Allow);
    match arguments.policy.output {
        OutputFormat::Table => outcome::print(render(&explained).as_bytes())?,
        OutputFormat::Json => outcome::print_json(&Answer {
            allowed,
            flows: explained.iter().map(FlowAnswer::new).collect(),
        })?,
    };
    Ok(match allowed {
        true => Outcome::Done,
        false => Outcome::Short,
    })
}

fn render(explained: &[Explanation]) -> String {
    let texts = explained.iter().map(|one| {
        let text = one.to_string();
        let lines = text.lines().map(|line| printable(line) + "\n");
        lines.collect::<String>()
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// What `--output json` prints: fields are added, never changed or removed.
#[derive(Debug, Serialize)]
struct Answer {
    /// Over every family.
    allowed: bool,
    flows: Vec<FlowAnswer>,
}

#[derive(Debug, Serialize)]
struct FlowAnswer {
    from: String,
    to: String,
    protocol: String,
    port: Option<u16>,
    allowed: bool,
    egress: SideAnswer,
    ingress: SideAnswer,
    changes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SideAnswer {
    allowed: bool,
    endpoint: Option<String>,
    reason: &'static str,
    policy: Option<String>,
    rule: Option<usize>,
    text: String,
}

impl FlowAnswer {
    fn new(explained: &Explanation) -> Self {
        let flow = &explained.flow;
        Self {
            from: flow.source.to_string(),
            to: flow.destination.to_string(),
            protocol: flow.protocol.to_string(),
            port: flow.destination_port(),
            allowed: explained.verdict.action == Decision::Allow,
            egress: SideAnswer::new(&explained.verdict.egress, &explained.egress),
            ingress: SideAnswer::new(&explained.verdict.ingress, &explained.ingress),
            changes: explained.changes.iter().map(ToString::to_string).collect(),
        }
    }
}

impl SideAnswer {
    fn new(side: &Side, text: &str) -> Self {
        let (reason, rule, policy) = match &side.reason {
            Reason::NoEndpoint => ("no-endpoint", None, None),
            Reason::Itself => ("itself", None, None),
            Reason::OwnNode => ("own-node", None, None),
            Reason::Failsafe => ("failsafe", None, None),
            Reason::NoPolicy => ("no-policy", None, None),
            Reason::Rule(RuleRef { policy, written, .. }) => ("rule", Some(*written), Some(policy)),
            Reason::Refused(policy) => ("refused", None, Some(policy)),
            Reason::EndOfTier { .. } => ("end-of-tier", None, None),
            Reason::PassedOn => ("passed-on", None, None),
        };
        Self {
            allowed: side.decision == Decision::Allow,
            endpoint: side.endpoint.as_ref().map(ToString::to_string),
            reason,
            policy: policy.map(ToString::to_string),
            rule,
            text: text.to_owned(),
        }
    }
}
