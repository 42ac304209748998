//! Network policy: which traffic may pass, decided by pure functions.
//!
//! [`kubernetes::check`], [`warren::check`] and [`warren::check_global`] turn what the API holds into [`Policy`] values, all of one
//! kind, or into an [`Invalid`] one that says why not. [`compile()`] makes a [`RuleSet`] of policies and a [`Cluster`], and a
//! [`Compiler`] does so again and again; it is what a packet filter is rendered from. [`verdict()`] says what a [`Flow`]
//! meets in a rule set and which rule decides, and [`explain()`] says the same in words, with what would have to change.
//!
//! Policy judges the packet that opens a connection, with the addresses it has after DNAT. Replies always pass; keeping
//! track of connections is the packet filter's part.
//!
//! Nothing here touches a kernel: that a rule set is compiled does not mean that it is in force anywhere.
//!
//! | module | what it is about |
//! |---|---|
//! | [`labels`], [`selector`] | labels, and the expressions that select by them |
//! | [`protocol`], [`flow`] | protocols, ports, ICMP; the opening packet of a connection |
//! | [`packet`] | the headers of a packet, read to such a flow |
//! | [`cluster`] | pods, namespaces, network sets, host endpoints |
//! | [`policy`], [`query`] | a policy as every kind of object is read to, and whom it speaks of |
//! | [`spec`] | pieces of API objects that both groups share |
//! | [`kubernetes`] | `networking.k8s.io/v1` NetworkPolicy |
//! | [`warren`] | `warren-mesh.io` GlobalNetworkPolicy, NetworkPolicy and the network sets |
//! | [`invalid`] | policies that cannot be honoured, and what becomes of the pods they select |
//! | [`mod@compile`], `cache`, `reach`, [`ruleset`] | policies to rules, for whom, and what is kept for the next time |
//! | [`mod@verdict`], [`mod@explain`], [`change`] | what a flow meets, why, and what would turn it |
//! | [`words`] | rules and chains in words |

mod cache;
pub mod change;
pub mod cluster;
pub mod compile;
pub mod explain;
pub mod flow;
mod index;
pub mod invalid;
pub mod kubernetes;
pub mod labels;
pub mod packet;
pub mod policy;
pub mod protocol;
pub mod query;
mod reach;
pub mod ruleset;
pub mod selector;
pub mod spec;
pub mod verdict;
pub mod warren;
pub mod words;

pub use change::Change;
pub use cluster::{Cluster, HostEndpoint, Interface, NamedPort, Namespace, NetworkSet, Pod, Since};
pub use compile::{Compiler, Input, compile};
pub use explain::{ExplainError, Explanation, Peer, explain, explain_between};
pub use flow::Flow;
pub use invalid::{Invalid, OnInvalid, Problem};
pub use labels::Labels;
pub use policy::{Action, Decision, Direction, Order, Policy, PolicyId, PolicyKind, Tier};
pub use protocol::{PortRange, Protocol};
pub use reach::Reach;
pub use ruleset::RuleSet;
pub use selector::{Selector, SelectorError};
pub use verdict::{Reason, RuleRef, Side, Verdict, verdict};
