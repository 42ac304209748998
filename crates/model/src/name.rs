//! Node names.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The name of a Kubernetes Node: a DNS subdomain (RFC 1123) of at most 253 bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NodeNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = !text.is_empty()
            && text.len() <= 253
            && text.split('.').all(|label| {
                !label.is_empty()
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            });
        if well_formed {
            Ok(Self(text.into()))
        } else {
            Err(NodeNameError {
                text: text.chars().take(64).collect(),
            })
        }
    }
}

impl TryFrom<String> for NodeName {
    type Error = NodeNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0.to_string()
    }
}

impl Borrow<str> for NodeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Text that is not a node name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not a node name: use at most 253 lower-case letters, digits, '-' and '.'")]
pub struct NodeNameError {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_kubernetes_takes_and_nothing_else() {
        for good in ["node1", "ip-10-0-0-1.eu-west-1.compute.internal", "0"] {
            assert_eq!(
                good.parse::<NodeName>().map(|n| n.to_string()),
                Ok(good.to_owned())
            );
        }
        for bad in ["", "Node", "a..b", "-a", "a-", "a/b", &"x".repeat(254)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?} was taken");
        }
    }
}
