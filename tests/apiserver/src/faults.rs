//! Bad behaviour on request: what a client has to survive, switched on by a test or by a person with `curl`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::rng::Rng;

/// Everything that goes wrong at the moment. The JSON of `PUT /warren-faults`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct FaultPlan {
    /// Seed of probabilities and jitter.
    pub seed: u64,
    /// The first rule that fits a request decides.
    pub rules: Vec<Rule>,
    /// Every watch is broken off, in the middle of the body, after this many milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_watches_every_ms: Option<u64>,
    /// Every request waits for a random time up to this many milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<u64>,
    /// Once, now: end all watches properly.
    #[serde(skip_serializing)]
    pub close_watches: bool,
    /// Once, now: forget the history, so that the next watch gets 410.
    #[serde(skip_serializing)]
    pub expire_history: bool,
}

/// Which requests go wrong, how often, and how. An absent matcher fits everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection` or `proxy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verb: Option<String>,
    /// Plural, such as `nodes`; with the subresource, `nodes/status`, for that one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Object name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// User name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// How many times more; absent means for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Chance of each request, 0 to 1; absent means always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// What happens.
    pub fault: Fault,
    /// How many requests it has hit. Counted by the server.
    #[serde(default)]
    pub hits: u64,
}

impl Rule {
    /// A rule for every request.
    #[must_use]
    pub fn all(fault: Fault) -> Self {
        Self {
            verb: None,
            resource: None,
            name: None,
            user: None,
            count: None,
            probability: None,
            fault,
            hits: 0,
        }
    }

    /// A rule for one verb on one resource.
    #[must_use]
    pub fn on(verb: &str, resource: &str, fault: Fault) -> Self {
        Self {
            verb: Some(verb.to_owned()),
            resource: Some(resource.to_owned()),
            ..Self::all(fault)
        }
    }

    /// The same, `count` times only.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self {
            count: Some(count),
            ..self
        }
    }

    fn fits(&self, call: &Call) -> bool {
        let fits =
            |wanted: &Option<String>, have: &str| wanted.as_deref().is_none_or(|wanted| wanted == have);
        let plural = call.resource.split('/').next().unwrap_or_default();
        fits(&self.verb, &call.verb)
            && (fits(&self.resource, &call.resource) || fits(&self.resource, plural))
            && fits(&self.name, &call.name)
            && fits(&self.user, &call.user)
            && self.count != Some(0)
    }
}

/// What goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Fault {
    /// The connection is closed without an answer; the request is not carried out.
    Drop,
    /// The request is carried out, then the connection is closed without an answer.
    DropAnswer,
    /// The request is carried out after this time.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// The request is taken and never answered.
    Hang,
    /// The request is refused.
    Error {
        /// HTTP code: 403, 409, 410, 429, 500, 503 or 504.
        code: u16,
        /// Seconds for `Retry-After`, with 429.
        #[serde(default)]
        retry_after: Option<u32>,
    },
}

/// One request, as rules and the call log see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// Verb, as in RBAC.
    pub verb: String,
    /// Plural, with `/status` or another subresource.
    pub resource: String,
    /// Namespace, empty for cluster-scoped resources.
    pub namespace: String,
    /// Object name, empty for collections.
    pub name: String,
    /// Who called.
    pub user: String,
}

/// How watches are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchEnd {
    /// The body ends properly, as when the server's own timeout is reached.
    Close,
    /// The connection breaks.
    Cut,
}

/// What is decided of a request.
#[derive(Debug)]
pub(crate) struct Fate {
    /// How long it waits first.
    pub(crate) delay: Duration,
    /// What goes wrong.
    pub(crate) fault: Option<Fault>,
    /// How it ends, if it is a watch.
    pub(crate) ends: watch::Receiver<WatchEnd>,
}

/// The switchboard of a served API.
#[derive(Debug)]
pub struct Faults {
    state: Mutex<(FaultPlan, Rng)>,
    ends: watch::Sender<WatchEnd>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            state: Mutex::new((FaultPlan::default(), Rng::new(0))),
            ends: watch::Sender::new(WatchEnd::Close),
        }
    }
}

impl Faults {
    /// Replaces the plan. Its `expire_history` is carried out by [`Api::set_faults`](crate::Api::set_faults) only.
    ///
    /// It is in force before watches end: who watches again at once meets the new plan.
    pub fn set(&self, plan: FaultPlan) {
        let (closes, cuts) = (plan.close_watches, plan.cut_watches_every_ms.is_some());
        let rng = Rng::new(plan.seed);
        *self.lock() = (
            FaultPlan {
                close_watches: false,
                expire_history: false,
                ..plan
            },
            rng,
        );
        if closes {
            self.close_watches();
        }
        if cuts {
            self.cut_watches();
        }
    }

    /// Adds a rule behind the others.
    pub fn add(&self, rule: Rule) {
        self.lock().0.rules.push(rule);
    }

    /// The plan with what is left of the counts.
    #[must_use]
    pub fn plan(&self) -> FaultPlan {
        self.lock().0.clone()
    }

    /// Back to good behaviour.
    pub fn clear(&self) {
        self.lock().0 = FaultPlan::default();
    }

    /// Ends all watches properly.
    pub fn close_watches(&self) {
        self.ends.send_replace(WatchEnd::Close);
    }

    /// Breaks all watches off.
    pub fn cut_watches(&self) {
        self.ends.send_replace(WatchEnd::Cut);
    }

    /// What happens to `call`. Of the ends of watches it counts all from now on, so that none that was let pass by an earlier plan
    /// outlives that plan's end.
    pub(crate) fn decide(&self, call: &Call) -> Fate {
        let mut state = self.lock();
        let spared = self.spare();
        let (plan, rng) = &mut *state;
        let jitter = plan.jitter_ms.map_or(0, |ms| (rng.fraction() * ms as f64) as u64);
        let mut fault = None;
        for rule in plan.rules.iter_mut().filter(|rule| rule.fits(call)) {
            if rule.probability.is_some_and(|chance| rng.fraction() >= chance) {
                continue;
            }
            rule.hits += 1;
            rule.count = rule.count.map(|left| left.saturating_sub(1));
            fault = Some(rule.fault.clone());
            break;
        }
        Fate {
            delay: Duration::from_millis(jitter),
            fault,
            ..spared
        }
    }

    /// What happens to a request that nothing happens to.
    pub(crate) fn spare(&self) -> Fate {
        Fate {
            delay: Duration::ZERO,
            fault: None,
            ends: self.ends.subscribe(),
        }
    }

    pub(crate) fn watch_life(&self) -> Option<Duration> {
        self.lock().0.cut_watches_every_ms.map(Duration::from_millis)
    }

    fn lock(&self) -> MutexGuard<'_, (FaultPlan, Rng)> {
        // The state is a plain value that is never half written: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(verb: &str, resource: &str) -> Call {
        Call {
            verb: verb.into(),
            resource: resource.into(),
            name: "a".into(),
            user: "u".into(),
            ..Call::default()
        }
    }

    #[test]
    fn a_rule_hits_what_it_matches_as_often_as_it_says() {
        let faults = Faults::default();
        faults.add(Rule::on("patch", "nodes", Fault::Drop).times(2));
        assert_eq!(faults.decide(&call("get", "nodes")).fault, None);
        assert_eq!(faults.decide(&call("patch", "pods")).fault, None);
        assert_eq!(faults.decide(&call("patch", "nodes")).fault, Some(Fault::Drop));
        assert_eq!(
            faults.decide(&call("patch", "nodes/status")).fault,
            Some(Fault::Drop)
        );
        assert_eq!(faults.decide(&call("patch", "nodes")).fault, None);
        assert_eq!(
            (faults.plan().rules[0].hits, faults.plan().rules[0].count),
            (2, Some(0))
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_misfortunes() {
        let run = || {
            let faults = Faults::default();
            let rule = Rule {
                probability: Some(0.5),
                ..Rule::all(Fault::Hang)
            };
            faults.set(FaultPlan {
                seed: 7,
                rules: vec![rule],
                jitter_ms: Some(100),
                ..FaultPlan::default()
            });
            (0..64)
                .map(|_| faults.decide(&call("get", "nodes")))
                .map(|fate| (fate.delay, fate.fault))
                .collect::<Vec<_>>()
        };
        let first = run();
        assert_eq!(first, run());
        let hits = first.iter().filter(|(_, fault)| fault.is_some()).count();
        assert!((16..48).contains(&hits), "{hits} of 64 at one half");
    }

    #[test]
    fn no_watch_that_an_earlier_plan_let_pass_outlives_the_one_that_ends_watches() {
        let faults = Faults::default();
        let before = faults.decide(&call("watch", "pods"));
        assert_eq!((before.fault, before.ends.has_changed().unwrap()), (None, false));
        faults.set(FaultPlan {
            rules: vec![Rule::on("watch", "pods", Fault::Drop)],
            close_watches: true,
            ..FaultPlan::default()
        });
        assert!(before.ends.has_changed().unwrap());
        assert_eq!(faults.decide(&call("watch", "pods")).fault, Some(Fault::Drop));
    }

    #[test]
    fn plans_are_written_in_json_as_a_person_would() {
        let plan: FaultPlan = serde_json::from_value(json!({ "cutWatchesEveryMs": 50, "rules": [
            { "verb": "get", "fault": "drop", "count": 1 },
            { "fault": { "error": { "code": 429, "retryAfter": 1 } } },
            { "fault": { "delay": { "ms": 5 } } }] }))
        .unwrap();
        assert_eq!(
            plan.rules[1].fault,
            Fault::Error {
                code: 429,
                retry_after: Some(1)
            }
        );
        assert!(serde_json::from_value::<FaultPlan>(json!({ "rulez": [] })).is_err());
    }
}
