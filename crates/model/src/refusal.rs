//! One object, or one part of it, that is not acted on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An API object that was refused: which one, why, and what the operator can do. It never stops the pass for others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The object as `Kind/name` or `Kind/namespace/name`.
    pub object: String,
    /// A short stable word for metrics and tests, e.g. `overlapping-pod-cidr`.
    pub code: String,
    /// Why, and the remedy, for people.
    pub message: String,
}

impl Refusal {
    /// A refusal of that object.
    pub fn new(object: impl Into<String>, code: &str, message: impl Into<String>) -> Self {
        Self {
            object: object.into(),
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.object, self.message, self.code)
    }
}
