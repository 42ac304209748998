//! Names and values of a Warren mesh.
//!
//! Floor 0 and pure: no clock, randomness, environment, file, socket or async runtime. Text from outside becomes one
//! of these types once, at the door; inside, a [`PublicKey`] is a public key and a [`PodCidr`] is canonical.
//!
//! | module | what it is about |
//! |---|---|
//! | [`name`] | node names |
//! | [`cidr`] | pod CIDRs and address families |
//! | [`key`] | WireGuard public and private keys |
//! | [`epoch`] | key epochs and the lane each one lives in |
//! | [`fnv`] | the hash that names and marks are made with |
//! | [`path`] | the ways a packet can reach a peer node |
//! | [`accord`] | how far a node has come with the paths that the mesh asks for |
//! | [`announcement`] | what a node publishes about itself, as the annotation `warren-mesh.io/wireguard` |
//! | [`node`], [`pod`], [`mesh`] | the three kinds of API object an agent acts on |
//! | [`schedule`] | when keys are rotated by schedule |
//! | [`refusal`] | one object that is not acted on, and why |
//! | [`status`] | what an agent answers when asked how it is; read by `warren status` |

pub mod accord;
pub mod announcement;
pub mod cidr;
pub mod epoch;
pub mod fnv;
pub mod key;
pub mod mesh;
pub mod name;
pub mod node;
pub mod path;
pub mod pod;
pub mod refusal;
pub mod schedule;
pub mod status;

pub use accord::{Accord, Progress};
pub use announcement::{AnnouncedKey, Announcement, AnnouncementError};
pub use cidr::{Family, PodCidr, PodCidrError};
pub use epoch::{Epoch, Lane};
pub use key::{KeyError, PrivateKey, PublicKey};
pub use mesh::{Encryption, Fallback, Mesh, MtuProbe, Overlay, OverlayMode};
pub use name::{NodeName, NodeNameError};
pub use node::Node;
pub use path::{Path, PathKind};
pub use pod::{Pod, PodName};
pub use refusal::Refusal;
