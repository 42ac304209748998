//! Cutting connections that a change of policy forbids.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use warren_kernel::Kernel;
use warren_model::mesh::Established;
use warren_policy::{Decision, Flow, RuleSet, verdict};
use warren_telemetry::Drain;

use crate::metrics::PolicyMetrics;

/// When it is looked again after a change: a packet that the old rules let pass may still have been on its way into the
/// table of connections.
const AGAIN: Duration = Duration::from_millis(200);
/// The pause before a look that failed is repeated.
const RETRY: Duration = Duration::from_millis(500);

/// By what connections are judged.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    /// What is in force.
    pub(super) rules: Arc<RuleSet>,
    /// What becomes of those it forbids.
    pub(super) established: Established,
}

/// Looks at all connections whenever there is a new judge, until the drain is signalled.
pub(super) async fn run(
    kernel: Arc<Kernel>,
    mut judges: watch::Receiver<Option<Judge>>,
    metrics: PolicyMetrics,
    drain: Drain,
) {
    // How long until it is looked again, unless there is a new judge before.
    let mut again: Option<Duration> = None;
    loop {
        let pause = async {
            match again {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        let is_new = tokio::select! {
            () = drain.drained() => return,
            changed = judges.changed() => match changed {
                Ok(()) => true,
                Err(_) => return,
            },
            () = pause => false,
        };
        let Some(judge) = judges.borrow_and_update().clone() else {
            continue;
        };
        again = match kernel.cut(move |flow| judge.forbids(flow)).await {
            Ok(cut) => {
                if cut > 0 {
                    tracing::info!(connections = cut, "cut connections that policy forbids now");
                    metrics.cut(cut);
                }
                is_new.then_some(AGAIN)
            }
            Err(error) => {
                tracing::warn!(%error, "connections that policy forbids now may go on; trying again");
                Some(RETRY)
            }
        };
    }
}

impl Judge {
    /// Whether policy forbids a flow; `None`: it is not ours to judge, or it is left as it is.
    fn forbids(&self, flow: &Flow) -> Option<bool> {
        let concerns_us = [flow.source, flow.destination]
            .iter()
            .any(|address| self.rules.by_address.contains_key(address));
        if !concerns_us {
            return None;
        }
        let forbidden = verdict(&self.rules, flow).action == Decision::Deny;
        match self.established {
            Established::Cut => Some(forbidden),
            // One that was cut before goes on as soon as it may.
            Established::Keep => (!forbidden).then_some(false),
        }
    }
}
