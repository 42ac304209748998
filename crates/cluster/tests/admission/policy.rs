//! A ValidatingAdmissionPolicy, evaluated as the API server does (Kubernetes documentation, "Validating Admission Policy"):
//! conditions first, then variables, then every rule; a rule that fails to evaluate denies.

use std::path::Path;

use cel::{Context, Program, Value};
use serde_json::Value as Json;

use crate::requests::Request;

/// Below this crate's folder.
const FILE: &str = "../../manifests/overlays/service-account-publishing/policy.yaml";

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is none that the policy is about.
    NotMatched,
    Allowed,
    /// The messages of the rules that it breaks.
    Denied(Vec<String>),
}

pub(crate) struct Policy {
    policy: Json,
    binding: Json,
    conditions: Vec<Program>,
    variables: Vec<(String, Program)>,
    rules: Vec<(String, Program)>,
}

impl Policy {
    /// The one in the manifests.
    pub(crate) fn shipped() -> Self {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE)).unwrap();
        let documents: Vec<Json> = serde_saphyr::from_multiple(&text).unwrap();
        let of_kind = |kind: &str| documents.iter().find(|it| it["kind"] == kind).unwrap().clone();
        let policy = of_kind("ValidatingAdmissionPolicy");
        let binding = of_kind("ValidatingAdmissionPolicyBinding");
        assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
        let programs = |list: &str, name: &str| -> Vec<(String, Program)> {
            let items = policy["spec"][list].as_array().unwrap().iter();
            let program = |item: &Json| {
                let source = item["expression"].as_str().unwrap();
                let program = Program::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
                (item[name].as_str().unwrap().to_owned(), program)
            };
            items.map(program).collect()
        };
        Self {
            conditions: programs("matchConditions", "name")
                .into_iter()
                .map(|(_, it)| it)
                .collect(),
            variables: programs("variables", "name"),
            rules: programs("validations", "message"),
            policy,
            binding,
        }
    }

    /// The same without one of its rules, whose message it gives.
    pub(crate) fn shipped_without(rule: usize) -> (Self, String) {
        let mut policy = Self::shipped();
        let (message, _) = policy.rules.remove(rule);
        (policy, message)
    }

    pub(crate) fn rules(&self) -> usize {
        self.rules.len()
    }

    pub(crate) fn resources(&self) -> Vec<&str> {
        self.matched("resources")
    }

    pub(crate) fn operations(&self) -> Vec<&str> {
        self.matched("operations")
    }

    pub(crate) fn failure_policy(&self) -> &str {
        self.policy["spec"]["failurePolicy"].as_str().unwrap()
    }

    pub(crate) fn bound_actions(&self) -> Vec<&str> {
        strings(&self.binding["spec"]["validationActions"])
    }

    pub(crate) fn judge(&self, request: &Request) -> Verdict {
        let mut context = Context::default();
        context.add_variable("request", &request.request).unwrap();
        context.add_variable("object", &request.object).unwrap();
        context.add_variable("oldObject", &request.old_object).unwrap();
        let holds = |program: &Program, context: &Context<'_, '_>| {
            matches!(program.execute(context), Ok(Value::Bool(true)))
        };
        if !self.conditions.iter().all(|it| holds(it, &context)) {
            return Verdict::NotMatched;
        }
        // Variables are evaluated where they are used: one that fails to be denies only by a rule that needs it.
        let values = self.variables.iter().filter_map(|(name, program)| {
            let value = program.execute(&context).ok()?;
            Some((name.clone(), value))
        });
        let values: std::collections::HashMap<String, Value> = values.collect();
        context.add_variable_from_value("variables", values);
        let broken = self.rules.iter().filter(|(_, rule)| !holds(rule, &context));
        let broken: Vec<String> = broken.map(|(message, _)| message.clone()).collect();
        match broken.is_empty() {
            true => Verdict::Allowed,
            false => Verdict::Denied(broken),
        }
    }

    fn matched(&self, field: &str) -> Vec<&str> {
        strings(&self.policy["spec"]["matchConstraints"]["resourceRules"][0][field])
    }
}

fn strings(list: &Json) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|it| it.as_str().unwrap())
        .collect()
}
