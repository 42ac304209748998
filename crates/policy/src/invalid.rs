//! Policies that cannot be honoured.

use thiserror::Error;
use warren_model::Refusal;

use crate::policy::{Action, DEFAULT_TIER, Order, Policy, PolicyId, PolicyKind, PolicyRule};
use crate::query::{Members, Query, Scope};
use crate::selector::{Selector, SelectorError};

/// What becomes of the pods that an invalid policy selects: `spec.policy.onInvalid`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnInvalid {
    /// Nothing passes that the policy, had it been understood, might have kept from passing.
    #[default]
    Closed,
    /// As if there were no such policy.
    Open,
}

/// A policy that was refused, with as much of it as was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Invalid {
    /// Which one.
    pub id: PolicyId,
    /// Why.
    pub problem: Problem,
    /// Its tier.
    pub tier: String,
    /// Its place in the tier.
    pub order: Order,
    /// What it applies to. A selector that was not understood selects everything it could have selected.
    pub subject: Query,
    /// Whether it speaks of what comes in.
    pub ingress: bool,
    /// Whether it speaks of what goes out.
    pub egress: bool,
}

impl Invalid {
    /// A policy of which nothing was understood but whose it is: it applies to everything it could apply to.
    pub fn unreadable(id: PolicyId, message: impl Into<String>) -> Self {
        let subject = widest(&id);
        Self {
            id,
            problem: Problem::Unreadable {
                message: message.into(),
            },
            tier: DEFAULT_TIER.to_owned(),
            // Ahead of all others: it is not known which of them it would have come before.
            order: Order::FIRST,
            subject,
            ingress: true,
            egress: true,
        }
    }

    /// One in a tier that there is not. Nobody knows what it would have come before there.
    pub fn of_unknown_tier(policy: &Policy) -> Self {
        Self {
            id: policy.id.clone(),
            problem: Problem::UnknownTier {
                tier: policy.tier.clone(),
            },
            tier: policy.tier.clone(),
            order: policy.order,
            subject: policy.subject.clone(),
            ingress: policy.ingress.is_some(),
            egress: policy.egress.is_some(),
        }
    }

    /// For event, metric and status.
    pub fn refusal(&self) -> Refusal {
        Refusal::new(self.id.to_string(), self.problem.code(), self.problem.to_string())
    }

    /// What stands in its place while pods fail closed.
    ///
    /// Kubernetes's policies only ever allow, so one that allows nothing is enough: the pods stay isolated, and what other
    /// policies allow still passes. One of Warren's may have denied what a later one allows, so from its place on all is denied.
    pub fn closed(&self) -> Policy {
        let rules = |spoken_of: bool| {
            spoken_of.then(|| match self.id.kind {
                PolicyKind::Kubernetes => Vec::new(),
                PolicyKind::Warren | PolicyKind::Global => vec![PolicyRule::any(0, Action::Deny)],
            })
        };
        Policy {
            id: self.id.clone(),
            tier: self.tier.clone(),
            order: self.order,
            subject: self.subject.clone(),
            ingress: rules(self.ingress),
            egress: rules(self.egress),
        }
    }
}

/// Everything that a policy could apply to.
pub(crate) fn widest(id: &PolicyId) -> Query {
    match &id.namespace {
        Some(namespace) => Query::pods_in(namespace, Selector::All),
        None => Query {
            scope: Scope::Everywhere,
            members: Members::Endpoints,
            selector: Selector::All,
        },
    }
}

/// Why a policy cannot be honoured. `field` is a path such as `spec.ingress[0].ports[1]`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// A text that is not a selector.
    #[error("{field}: {error}")]
    Selector {
        /// Where.
        field: String,
        /// What is wrong with it.
        error: SelectorError,
    },
    /// `global()` in a selector of labels.
    #[error("{field}: global() says what is in no namespace, so it is of use in a namespaceSelector only")]
    Global {
        /// Where.
        field: String,
    },
    /// A requirement that contradicts itself, or an operator nobody knows.
    #[error("{field}: {why}; use In or NotIn with values, Exists or DoesNotExist without")]
    Expression {
        /// Where.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// A field or value that is not supported. To leave it out would be to allow more than was asked for.
    #[error("{field} is not supported; remove it, or the policy will not be honoured")]
    Unsupported {
        /// Where.
        field: String,
    },
    /// A value that is none of those that may stand there.
    #[error("{field}: {given:?} is not {wanted}")]
    Value {
        /// Where.
        field: String,
        /// What was given.
        given: String,
        /// What may stand there.
        wanted: &'static str,
    },
    /// Fields that do not go together.
    #[error("{field}: {rule}")]
    Together {
        /// Where.
        field: String,
        /// What goes together.
        rule: &'static str,
    },
    /// A network outside of the one it is an exception from.
    #[error("{field}: {except} is not inside {cidr}, so it is no exception")]
    Except {
        /// Where.
        field: String,
        /// The exception.
        except: String,
        /// The network.
        cidr: String,
    },
    /// A tier that there is not.
    #[error("spec.tier: there is no tier {tier:?}; leave it out, or use {DEFAULT_TIER:?}")]
    UnknownTier {
        /// Its name.
        tier: String,
    },
    /// Not even the shape of the object was understood.
    #[error("{message}")]
    Unreadable {
        /// What was wrong.
        message: String,
    },
}

impl Problem {
    /// A short stable word for metrics and tests.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Selector { .. } | Self::Global { .. } => "policy-selector",
            Self::Expression { .. } => "policy-match-expression",
            Self::Unsupported { .. } => "policy-unsupported",
            Self::Value { .. } => "policy-value",
            Self::Together { .. } => "policy-contradiction",
            Self::Except { .. } => "policy-except",
            Self::UnknownTier { .. } => "policy-unknown-tier",
            Self::Unreadable { .. } => "policy-unreadable",
        }
    }
}
