//! For whom rules are made.

use warren_model::NodeName;

use crate::index::What;

/// For which endpoints rules are made. Peers are found everywhere in either case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// For all, to explain any flow.
    Cluster,
    /// For those of one node, to be enforced there.
    Node(NodeName),
}

/// Whether rules are made for it. A set of addresses is a peer only.
pub(crate) fn is_in_reach(what: &What, reach: &Reach) -> bool {
    let node = match what {
        What::Pod(pod) => pod.node.as_ref(),
        What::Host(host) => Some(&host.node),
        What::Set(_) => return false,
    };
    match reach {
        Reach::Cluster => true,
        Reach::Node(here) => node == Some(here),
    }
}
