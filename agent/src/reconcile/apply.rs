//! Carrying out the steps of a plan.

use std::path::Path;

use warren_kernel::veth;
use warren_plan::{Action, LinkKind, Step};

use super::Reconciler;
use crate::view::Failure;

impl Reconciler {
    /// Applies the steps in order. A step that fails does not stop those that come after it, but for those on an interface
    /// that could not be made; and without its guard the node changes nothing.
    pub(super) async fn apply(&self, steps: &[Step]) -> Vec<Failure> {
        let mut failures: Vec<Failure> = Vec::new();
        for step in steps {
            let on_missing = |failure: &Failure| {
                failure
                    .step
                    .action
                    .creates()
                    .is_some_and(|made| step.action.interface() == Some(made))
            };
            if failures.iter().any(on_missing) {
                continue;
            }
            match self.apply_one(&step.action).await {
                Ok(()) => tracing::info!(action = %step.action, reason = step.reason, "applied"),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(action = %step.action, error, "step failed and will be repeated");
                    failures.push(Failure {
                        step: step.clone(),
                        error,
                    });
                    if matches!(step.action, Action::InstallGuard(_)) {
                        break;
                    }
                }
            }
        }
        failures
    }

    async fn apply_one(&self, action: &Action) -> anyhow::Result<()> {
        let parts = &self.parts;
        match action {
            Action::CreateLane(lane, mtu) => {
                parts.devices.create(*lane, *mtu).await?;
                parts
                    .kernel
                    .apply(&Action::SetMtu(lane.interface().to_owned(), *mtu))
                    .await?;
            }
            Action::ConfigureLane(lane, change) => {
                parts.devices.configure(*lane, change, &parts.keys).await?
            }
            Action::SetMtu(link, mtu) => match parts.attachments.pod_side(link) {
                // A pod that sends more than the host side takes would lose it without a word: both sides change.
                Some((netns, if_name)) => {
                    veth::set_mtu(&parts.kernel, link, Path::new(&netns), &if_name, *mtu).await?;
                }
                None => parts.kernel.apply(action).await?,
            },
            Action::RemoveLink(_, LinkKind::Lane(lane)) => parts.devices.remove(*lane).await?,
            Action::InstallGuard(_)
            | Action::CreateVxlan(..)
            | Action::CreateIpip(..)
            | Action::SetUp(_)
            | Action::SetSysctl(..)
            | Action::AddAddress(..)
            | Action::SetNeighbour(..)
            | Action::SetFdb(..)
            | Action::SetRoute(..)
            | Action::RemoveRoute(_)
            | Action::RemoveFdb(_)
            | Action::RemoveNeighbour(..)
            | Action::RemoveAddress(..)
            | Action::RemoveLink(..) => parts.kernel.apply(action).await?,
        }
        Ok(())
    }
}
