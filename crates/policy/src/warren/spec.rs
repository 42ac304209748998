//! `warren-mesh.io` GlobalNetworkPolicy and NetworkPolicy as they are written. Fields have Calico's names and meanings.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::spec::{IntOrString, Unknown};

/// `spec` of both kinds.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicySpec {
    /// The tier it is in; absent: `default`.
    pub tier: Option<String>,
    /// Its place in the tier, smaller first; absent: last.
    pub order: Option<f64>,
    /// What it applies to; absent: everything it could.
    pub selector: Option<String>,
    /// Of a GlobalNetworkPolicy: only pods of these namespaces.
    pub namespace_selector: Option<String>,
    /// `Ingress`, `Egress`, or both; absent: as the rules are.
    pub types: Option<Vec<String>>,
    /// Rules for what comes in.
    pub ingress: Option<Vec<RuleSpec>>,
    /// Rules for what goes out.
    pub egress: Option<Vec<RuleSpec>>,
    /// Not supported but as false.
    pub do_not_track: Option<bool>,
    /// Not supported but as false.
    #[serde(rename = "preDNAT")]
    pub pre_dnat: Option<bool>,
    /// Not supported but as false.
    pub apply_on_forward: Option<bool>,
    /// Changes no verdict.
    pub performance_hints: Option<IgnoredAny>,
    /// What else there was.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleSpec {
    /// `Allow`, `Deny`, `Log` or `Pass`.
    pub action: String,
    /// 4 or 6.
    pub ip_version: Option<i64>,
    /// The only protocol it matches, by name or number.
    pub protocol: Option<IntOrString>,
    /// The only protocol it does not match.
    pub not_protocol: Option<IntOrString>,
    /// ICMP messages it matches.
    pub icmp: Option<IcmpSpec>,
    /// ICMP messages it does not match.
    #[serde(rename = "notICMP")]
    pub not_icmp: Option<IcmpSpec>,
    /// Whence.
    pub source: Option<EntitySpec>,
    /// Where to.
    pub destination: Option<EntitySpec>,
    /// Notes for people.
    pub metadata: Option<IgnoredAny>,
    /// What else there was.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// ICMP type and code.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct IcmpSpec {
    /// The type.
    #[serde(rename = "type")]
    pub kind: Option<i64>,
    /// The code.
    pub code: Option<i64>,
    /// What else there was.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// One side of a rule; an empty list is as none.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EntitySpec {
    /// In one of these networks.
    pub nets: Option<Vec<String>>,
    /// In none of these networks.
    pub not_nets: Option<Vec<String>>,
    /// Things with these labels.
    pub selector: Option<String>,
    /// Not things with these labels.
    pub not_selector: Option<String>,
    /// Things of these namespaces; of a NetworkPolicy without it: of its own namespace, as soon as a selector is used.
    pub namespace_selector: Option<String>,
    /// Numbers, ranges such as `"8000:8080"`, names.
    pub ports: Option<Vec<IntOrString>>,
    /// None of these ports.
    pub not_ports: Option<Vec<IntOrString>>,
    /// What else there was.
    #[serde(flatten)]
    pub unknown: Unknown,
}
