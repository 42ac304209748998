//! Cluster and node state in, desired state and ordered steps out.
//!
//! Floor 2 and pure: no clock, randomness, environment, file, socket or async runtime. One direction:
//!
//! ```text
//! Cluster + Local --compute--> Desired --+
//!                                        +--diff--> [Step]
//! the kernel ----observed by `kernel`----+
//! ```
//!
//! | module | what it is about |
//! |---|---|
//! | [`input`] | what a plan is made from: the cluster and the node |
//! | [`mod@compute`] | the desired state, a function of now that no order of events can change |
//! | [`pod`] | what an attached pod adds, and how one is opened by itself |
//! | [`path_choice`] | how packets reach one peer, and why |
//! | [`in_force`], [`handover`] | how peers are reached now, and changing that without loss |
//! | [`mtu`] | overheads of the paths, and the MTU that pods get |
//! | [`state`], [`lane`], [`guard`] | what desired and observed states consist of |
//! | [`mod@diff`] | the steps between the two, in an order of which any prefix is safe |
//! | [`step`] | one step, as a value |

pub mod compute;
pub mod diff;
pub mod guard;
pub mod handover;
pub mod in_force;
pub mod input;
pub mod lane;
pub mod mtu;
pub mod path_choice;
pub mod pod;
pub mod state;
pub mod step;

pub use compute::compute;
pub use diff::diff;
pub use guard::{Carrier, Clear, Guard, OpenPod};
pub use handover::accord;
pub use in_force::InForce;
pub use input::{Attachment, Cluster, Local, UnderlayAddress, UnderlayRoute};
pub use lane::{Endpoints, LaneChange, LaneConfig, LaneObserved, PeerConfig, PeerObserved};
pub use state::{Desired, Ipip, Link, LinkKind, Mac, Observed, PeerPlan, Route, RouteTarget, Vxlan};
pub use step::{Action, Step};
