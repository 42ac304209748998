//! Whom a policy or a rule speaks of.

use std::fmt;

use crate::selector::Selector;

/// A selector and where it looks. Equal queries find the same things, so they share an address set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Query {
    /// Where it looks.
    pub scope: Scope,
    /// What kinds of things it finds.
    pub members: Members,
    /// By their labels.
    pub selector: Selector,
}

/// Where a query looks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// In every namespace and outside of them.
    Everywhere,
    /// In the namespace of that name.
    Namespace(String),
    /// In the namespaces that are selected; `global()` selects what is in none.
    Namespaces(Selector),
}

/// What kinds of things a query finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Members {
    /// Pods: the peers of Kubernetes's NetworkPolicies.
    Pods,
    /// Pods and host endpoints: what policies apply to.
    Endpoints,
    /// Pods, host endpoints and network sets: the peers of Warren's policies.
    All,
}

impl Query {
    /// The pods of a namespace with matching labels.
    pub fn pods_in(namespace: &str, selector: Selector) -> Self {
        Self {
            scope: Scope::Namespace(namespace.to_owned()),
            members: Members::Pods,
            selector,
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.members {
            Members::Pods => "pods",
            Members::Endpoints => "pods and host endpoints",
            Members::All => "pods, host endpoints and network sets",
        })?;
        match &self.scope {
            Scope::Everywhere => {}
            Scope::Namespace(name) => write!(f, " of namespace {name}")?,
            Scope::Namespaces(Selector::All) => f.write_str(" of any namespace")?,
            Scope::Namespaces(selector) => write!(f, " of namespaces with {selector}")?,
        }
        if self.selector == Selector::All {
            return Ok(());
        }
        write!(f, " with {}", self.selector)
    }
}
