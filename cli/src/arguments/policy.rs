//! The arguments of `warren policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::OutputFormat;
use super::flow::{PeerArgument, PodArgument, PortArgument};

/// Of `warren policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// List policies in the order they are asked, whom they apply to, and which are refused and why
    ///
    /// The JSON holds "policies", one each: "policy", "kind", "namespace", "name", "tier", "order" (null: last), "selects" (how many
    /// pods and host endpoints), "ingressRules" and "egressRules" (null: the policy does not speak of that), "refused" (why, or null);
    /// "onInvalid", what becomes of what refused policies select: "closed" or "open"; and "refusals", network sets and host endpoints
    /// that are refused.
    List(PolicyListArguments),
    /// Say whether a connection is allowed, which rule decides on each side, and what would change that
    ///
    /// A connection is allowed if both sides allow it; replies are part of it. Of dual-stack pods both families are explained. A
    /// Service is asked about by a pod behind it: policy sees the address after the translation.
    ///
    /// Exit status 0: allowed; 1: denied, over one family at least; 2: not known, because there is no such pod, or the API server
    /// cannot be asked.
    ///
    /// The JSON holds "allowed" and "flows", one for each family: "from", "to", "protocol", "port", "allowed", "egress" and
    /// "ingress", each with "allowed", "endpoint", "reason" ("rule", "refused", "end-of-tier", "no-policy", "passed-on", "own-node",
    /// "itself", "failsafe", "no-endpoint"), "policy", "rule" (its position in the policy's list, from 0) and "text"; and "changes",
    /// each of which would turn the answer of its side.
    Explain(PolicyExplainArguments),
    /// Show what a pod's policies come to, in words
    ///
    /// The JSON holds "pod", "node", "addresses", "ingress" and "egress", each with "isolated", "tiers" and "end"; a tier has
    /// "tier", "policies" ("policy", "order", "refused", "rules" in words) and "end": "deny" or "pass".
    Show(PolicyShowArguments),
}

/// How policies are read and told.
#[derive(Debug, Args)]
pub(crate) struct PolicyArguments {
    /// Kubeconfig to reach the API server with [default: the pod's service account, else KUBECONFIG or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// How to print
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Table)]
    pub(crate) output: OutputFormat,
}

/// Of `warren policy list`.
#[derive(Debug, Args)]
pub(crate) struct PolicyListArguments {
    /// Where from and how.
    #[command(flatten)]
    pub(crate) policy: PolicyArguments,
}

/// Of `warren policy explain`.
#[derive(Debug, Args)]
pub(crate) struct PolicyExplainArguments {
    /// Who opens the connection: a pod, as NAMESPACE/NAME or NAME, or an address
    #[arg(long, value_name = "POD")]
    pub(crate) from: PeerArgument,
    /// With whom: a pod, as NAMESPACE/NAME or NAME, or an address
    #[arg(long, value_name = "POD")]
    pub(crate) to: PeerArgument,
    /// Protocol and port there: tcp/80, udp/53, sctp/9999
    #[arg(long, value_name = "PROTOCOL/PORT")]
    pub(crate) port: PortArgument,
    /// The namespace of pods that are given by name alone
    #[arg(long, short, value_name = "NAMESPACE", default_value = "default")]
    pub(crate) namespace: String,
    /// Where from and how.
    #[command(flatten)]
    pub(crate) policy: PolicyArguments,
}

/// Of `warren policy show`.
#[derive(Debug, Args)]
pub(crate) struct PolicyShowArguments {
    /// The pod, as NAMESPACE/NAME or NAME
    #[arg(value_name = "POD")]
    pub(crate) pod: PodArgument,
    /// The namespace of a pod that is given by name alone
    #[arg(long, short, value_name = "NAMESPACE", default_value = "default")]
    pub(crate) namespace: String,
    /// Where from and how.
    #[command(flatten)]
    pub(crate) policy: PolicyArguments,
}
