//! `networking.k8s.io/v1` NetworkPolicy as it is written.

use serde::Deserialize;

use crate::spec::{IntOrString, LabelSelector, Unknown};

/// `spec` of a NetworkPolicy. That a list is absent and that it is empty is the same but for peers' selectors.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicySpec {
    /// The pods of its namespace that it applies to; empty: all of them.
    pub pod_selector: Option<LabelSelector>,
    /// What may come in.
    pub ingress: Option<Vec<IngressRule>>,
    /// What may go out.
    pub egress: Option<Vec<EgressRule>>,
    /// `Ingress`, `Egress`, or both.
    pub policy_types: Option<Vec<String>>,
    /// What else there was.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// One entry of `spec.ingress`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressRule {
    /// From whom; empty: from anywhere.
    pub from: Option<Vec<Peer>>,
    /// To which ports; empty: to any, by any protocol.
    pub ports: Option<Vec<PolicyPort>>,
    /// What else there was.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// One entry of `spec.egress`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressRule {
    /// To whom; empty: to anywhere.
    pub to: Option<Vec<Peer>>,
    /// To which ports; empty: to any, by any protocol.
    pub ports: Option<Vec<PolicyPort>>,
    /// What else there was.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// `NetworkPolicyPeer`: pods by one or both selectors, or a block of addresses.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Pods; in the policy's namespace unless namespaces are selected too.
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces; all their pods unless pods are selected too.
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses.
    pub ip_block: Option<IpBlock>,
    /// What else there was.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// `IPBlock`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpBlock {
    /// The block.
    pub cidr: String,
    /// Blocks in it that are not meant.
    pub except: Option<Vec<String>>,
    /// What else there was.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// `NetworkPolicyPort`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyPort {
    /// `TCP`, `UDP` or `SCTP`; absent: TCP.
    pub protocol: Option<String>,
    /// A number or a container port's name; absent: all ports.
    pub port: Option<IntOrString>,
    /// The last of a range that begins with `port`.
    pub end_port: Option<i64>,
    /// What else there was.
    #[serde(flatten)]
    pub unknown: Unknown,
}
