//! `warren plan`: what agents would change now, and why.

use serde::Serialize;
use warren_model::status::PlanReport;

use crate::answer::{self, AgentError};
use crate::arguments::{OutputFormat, PlanArguments};
use crate::outcome::{self, Outcome};
use crate::printable::printable;
use crate::survey::{Survey, Surveyed, survey};
use crate::units::count;

/// Asks and prints.
pub(crate) async fn plan(arguments: PlanArguments) -> anyhow::Result<Outcome> {
    let plans = Plans::new(survey(&arguments.agents, "/plan").await?);
    match arguments.agents.output {
        OutputFormat::Table => outcome::print(plans.render().as_bytes()),
        OutputFormat::Json => outcome::print_json(&plans),
    }
}

/// What `--output json` prints: fields are added, never changed or removed.
#[derive(Debug, Serialize)]
struct Plans {
    nodes: Vec<NodePlan>,
    summary: Summary,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodePlan {
    node: String,
    plan: Option<PlanReport>,
    #[serde(serialize_with = "answer::as_text")]
    agent_error: Option<AgentError>,
}

#[derive(Debug, Serialize)]
struct Summary {
    nodes: usize,
    answered: usize,
    steps: usize,
}

impl Plans {
    fn new(survey: Survey<PlanReport>) -> Self {
        let asked_api = survey.cluster_size.is_some();
        let nodes: Vec<NodePlan> = survey
            .nodes
            .into_iter()
            .map(|surveyed| NodePlan::new(surveyed, asked_api))
            .collect();
        let answered = nodes.iter().filter_map(|node| node.plan.as_ref());
        let summary = Summary {
            nodes: nodes.len(),
            answered: answered.clone().count(),
            steps: answered.map(|plan| plan.steps.len()).sum(),
        };
        Self { nodes, summary }
    }

    fn render(&self) -> String {
        let mut text: String = self.nodes.iter().map(NodePlan::render).collect();
        let Summary {
            nodes,
            answered,
            steps,
        } = self.summary;
        text += &match (answered, steps) {
            (0, _) => format!("no plan from {}\n", count(nodes, "node")),
            (_, 0) => format!("nothing to do on {answered} of {}\n", count(nodes, "node")),
            _ => format!(
                "{} to do; {answered} of {} answered\n",
                count(steps, "step"),
                count(nodes, "node")
            ),
        };
        text
    }
}

impl NodePlan {
    fn new(surveyed: Surveyed<PlanReport>, asked_api: bool) -> Self {
        match surveyed.answer {
            Ok(plan) => Self {
                // Asked by its socket, only the agent knows what its Node is called.
                node: if asked_api {
                    surveyed.node
                } else {
                    plan.node.as_str().to_owned()
                },
                plan: Some(plan),
                agent_error: None,
            },
            Err(error) => Self {
                node: surveyed.node,
                plan: None,
                agent_error: Some(error),
            },
        }
    }

    fn render(&self) -> String {
        let node = printable(&self.node);
        let Some(plan) = &self.plan else {
            let error = self.agent_error.as_ref().map(describe).unwrap_or_default();
            return format!("{node}: {error}\n");
        };
        let mut text = match plan.steps.len() {
            0 => format!("{node}: nothing to do\n"),
            steps => format!("{node}: {}\n", count(steps, "step")),
        };
        for (number, step) in (1..).zip(&plan.steps) {
            let (action, reason) = (printable(&step.action), printable(&step.reason));
            text += &format!("  {number}. {action}\n     because {reason}\n");
        }
        for refusal in &plan.refusals {
            text += &format!("  refused: {}\n", printable(&refusal.to_string()));
        }
        text
    }
}

fn describe(error: &AgentError) -> String {
    if error.is_from_agent() {
        error.to_string()
    } else {
        format!("unreachable: {error}")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use serde_json::json;
    use warren_model::Refusal;
    use warren_model::status::PlannedStep;

    use super::*;

    fn step(action: &str, reason: &str) -> PlannedStep {
        PlannedStep {
            action: action.to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn surveyed(node: &str, steps: Vec<PlannedStep>) -> Surveyed<PlanReport> {
        let refusals = Vec::new();
        let node: warren_model::NodeName = node.parse().unwrap();
        Surveyed {
            node: node.as_str().to_owned(),
            announcement: None,
            answer: Ok(PlanReport {
                node,
                steps,
                refusals,
            }),
        }
    }

    fn sample() -> Plans {
        let route = step(
            "route add 10.244.2.0/24 dev warren1",
            "node c is a peer in epoch 3",
        );
        let mut busy = surveyed("b", vec![route, step("set warren1 up", "it is down")]);
        if let Ok(plan) = &mut busy.answer {
            plan.refusals = vec![Refusal::new("Node/d", "no-pod-cidr", "has no pod CIDR")];
        }
        let mut silent = surveyed("c", Vec::new());
        silent.answer = Err(AgentError::TimedOut);
        let mut starting = surveyed("d", Vec::new());
        let reason = "the watch of nodes is not in sync".to_owned();
        starting.answer = Err(AgentError::NotNow { reason });
        let nodes = vec![surveyed("a", Vec::new()), busy, silent, starting];
        Plans::new(Survey {
            nodes,
            cluster_size: Some(4),
        })
    }

    #[test]
    fn each_step_is_told_with_its_reason() {
        insta::assert_snapshot!(sample().render(), @r"
        a: nothing to do
        b: 2 steps
          1. route add 10.244.2.0/24 dev warren1
             because node c is a peer in epoch 3
          2. set warren1 up
             because it is down
          refused: Node/d: has no pod CIDR (no-pod-cidr)
        c: unreachable: no answer within 5 s
        d: the watch of nodes is not in sync
        2 steps to do; 2 of 4 nodes answered
        ");
    }

    #[test]
    fn nothing_to_do_is_said_and_so_is_that_nobody_told() {
        let plans = |nodes| {
            Plans::new(Survey {
                nodes,
                cluster_size: None,
            })
            .render()
        };
        assert_eq!(
            plans(vec![surveyed("a", Vec::new())]),
            "a: nothing to do\nnothing to do on 1 of 1 node\n"
        );
        let mut silent = surveyed("a", Vec::new());
        silent.answer = Err(AgentError::TimedOut);
        assert_eq!(
            plans(vec![silent]),
            "a: unreachable: no answer within 5 s\nno plan from 1 node\n"
        );
    }

    #[test]
    fn the_json_has_the_shape_that_is_documented() {
        let value = serde_json::to_value(sample()).unwrap();
        assert_eq!(value["summary"], json!({"nodes": 4, "answered": 2, "steps": 2}));
        assert_eq!(value["nodes"][1]["plan"]["steps"][1]["reason"], "it is down");
        let silent = json!({"node": "c", "plan": null, "agentError": "no answer within 5 s"});
        assert_eq!(value["nodes"][2], silent);
    }
}
