//! How the watches fare, in numbers.

use std::fmt;
use std::time::Instant;

/// The kinds of object that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WatchKind {
    /// All nodes.
    Nodes,
    /// The pods of this node.
    Pods,
    /// Mesh objects.
    Mesh,
}

impl WatchKind {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Nodes, Self::Pods, Self::Mesh];
}

impl fmt::Display for WatchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nodes => "nodes",
            Self::Pods => "pods",
            Self::Mesh => "meshes",
        })
    }
}

/// How one watch fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchHealth {
    /// Which.
    pub kind: WatchKind,
    /// Whether the kind has been listed at least once.
    pub synced: bool,
    /// How often all objects of the kind were listed; more than 1: the watch was lost and begun anew.
    pub lists_total: u64,
    /// Objects added, changed and deleted after the first list.
    pub events_total: u64,
    /// Lists and watches that failed.
    pub errors_total: u64,
    /// What the last of them said.
    pub last_error: Option<String>,
    /// Since when the server cannot be watched; `None`: all is well as far as one can tell.
    pub failing_since: Option<Instant>,
}

impl WatchHealth {
    /// Of a watch that has not been tried.
    pub fn new(kind: WatchKind) -> Self {
        Self {
            kind,
            synced: false,
            lists_total: 0,
            events_total: 0,
            errors_total: 0,
            last_error: None,
            failing_since: None,
        }
    }
}
