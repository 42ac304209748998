//! What can be wrong with a request for an address.

use std::net::IpAddr;

use warren_model::Family;

use crate::owner::Owner;
use crate::pool::CidrUsage;

/// Why an owner was given no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// The node has no pod CIDR (yet). Retry once it has.
    #[error(
        "this node has no pod CIDR: spec.podCIDRs of its Node is empty; let the controller manager allocate them \
         (--allocate-node-cidrs) or set them"
    )]
    NoPodCidr,
    /// Every address of one family is held. Retry once a pod has gone.
    #[error(
        "no free {family} pod address on this node: {}; remove pods, lower the kubelet's --max-pods, or give nodes \
         larger pod CIDRs (--node-cidr-mask-size)",
        .usage.iter().map(CidrUsage::to_string).collect::<Vec<_>>().join(", ")
    )]
    Exhausted {
        /// The family that ran out.
        family: Family,
        /// How full each of its CIDRs is.
        usage: Vec<CidrUsage>,
    },
}

/// An address was claimed by one owner while another holds it. Do not retry: one of the two interfaces is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pod address {address} is claimed by {claimant} but held by {holder}; remove one of the two pods")]
pub struct ReserveError {
    /// The address in question.
    pub address: IpAddr,
    /// Who holds it and keeps it.
    pub holder: Owner,
    /// Who was refused.
    pub claimant: Owner,
}
