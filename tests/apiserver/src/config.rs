//! What an [`Api`](crate::Api) is built from.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Settings of one API server. `Config::default()` is open to everybody and keeps a long history.
#[derive(Debug, Clone)]
pub struct Config {
    /// How often a watch that asked for bookmarks gets one. The real server sends one a minute.
    pub bookmarks_every: Duration,
    /// How many events are kept. A watch from before the oldest kept event gets 410 Expired.
    pub history: usize,
    /// Longest life of a watch that names no `timeoutSeconds`.
    pub watch_timeout: Duration,
    /// How long a node proxy request may take before the client gets 504.
    pub proxy_timeout: Duration,
    /// Bearer token to identity. Empty: no token is asked for and everybody may do everything.
    pub tokens: BTreeMap<String, User>,
    /// Whether `system:node:X` may write only its own `Node`, its own lease, events, and the status of custom resources.
    pub node_restriction: bool,
    /// Whether deleting a pod that is bound to a node only marks it (`deletionTimestamp`) until
    /// somebody deletes it with `gracePeriodSeconds: 0`, as a kubelet would.
    pub graceful_pods: bool,
    /// Seed of object uids and generated names.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bookmarks_every: Duration::from_secs(10),
            history: 10_000,
            watch_timeout: Duration::from_secs(1800),
            proxy_timeout: Duration::from_secs(5),
            tokens: BTreeMap::new(),
            node_restriction: true,
            graceful_pods: false,
            // Two servers of one test run must not hand out the same uids.
            seed: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |age| age.as_nanos() as u64),
        }
    }
}

/// An authenticated identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User name, such as `system:node:worker-1`.
    pub name: String,
    /// Groups, such as `system:nodes`.
    pub groups: Vec<String>,
}

impl User {
    /// The identity of the kubelet of node `node`, which is also the one an agent publishes with.
    #[must_use]
    pub fn node(node: &str) -> Self {
        Self {
            name: format!("system:node:{node}"),
            groups: vec!["system:nodes".to_owned()],
        }
    }

    /// The node this identity belongs to, if it is a node's.
    #[must_use]
    pub fn as_node(&self) -> Option<&str> {
        let name = self.name.strip_prefix("system:node:")?;
        self.groups
            .iter()
            .any(|group| group == "system:nodes")
            .then_some(name)
    }
}
