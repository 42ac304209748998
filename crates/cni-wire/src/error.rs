//! The CNI error structure and its codes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::version::SpecVersion;

/// A numeric error code (CNI specification, section 5, "Error"). Up to 99 they are the specification's, from 100 on
/// ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// The CNI version is not one we speak, or has no such command.
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    /// A field of the network configuration asks for something we do not do; the message has its key and value.
    pub const UNSUPPORTED_FIELD: Self = Self(2);
    /// The container is unknown or does not exist; the runtime need not clean up.
    pub const UNKNOWN_CONTAINER: Self = Self(3);
    /// An environment variable is missing or invalid; the message has its name.
    pub const INVALID_ENVIRONMENT: Self = Self(4);
    /// Reading or writing failed.
    pub const IO_FAILURE: Self = Self(5);
    /// The network configuration is not the JSON it should be.
    pub const DECODING_FAILURE: Self = Self(6);
    /// The network configuration is readable but wrong.
    pub const INVALID_NETWORK_CONFIG: Self = Self(7);
    /// The network namespace is the plugin's own, the node's. The specification leaves 8 to 10 free; its reference
    /// implementation (`skel` of containernetworking/cni) uses 8 for this.
    pub const INVALID_NETNS: Self = Self(8);
    /// Something passing is in the way; the runtime should retry.
    pub const TRY_AGAIN_LATER: Self = Self(11);
    /// STATUS: ADD cannot be served.
    pub const PLUGIN_NOT_AVAILABLE: Self = Self(50);
    /// STATUS: ADD cannot be served, and pods already attached may be cut off.
    pub const LIMITED_CONNECTIVITY: Self = Self(51);
    /// Ours: `warren-cni` and `warren-agent` did not understand each other.
    pub const AGENT_PROTOCOL: Self = Self(100);
    /// Ours: CHECK found the attachment to be other than the result of ADD.
    pub const ATTACHMENT_DIFFERS: Self = Self(101);
    /// Ours: no pod address is free on this node.
    pub const ADDRESSES_EXHAUSTED: Self = Self(102);
    /// Ours: the agent could not do it; the message says which step failed.
    pub const AGENT_FAILURE: Self = Self(103);
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The error structure a plugin prints on stdout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{msg}")]
pub struct CniError {
    /// The protocol version in use.
    pub cni_version: SpecVersion,
    /// What kind of error it is.
    pub code: ErrorCode,
    /// A short message: the act, the object and what to do.
    pub msg: String,
    /// More, such as the cause; empty if there is no more.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}
