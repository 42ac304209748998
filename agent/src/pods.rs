//! Attaching and detaching pods: what a CNI request does.
//!
//! An address is recorded on disk, the veth is made, and the main loop is asked to route to it and to open the guard
//! for it. Only then the runtime gets its answer. What fails half way is undone.

mod result;

use std::collections::BTreeSet;
use std::sync::Arc;

use thiserror::Error;
use warren_cni_wire::{AddResult, AttachmentId, ErrorCode, NetnsPath, NetworkName, PodRef};
use warren_ipam::Owner;
use warren_kernel::Kernel;
use warren_kernel::veth::{self, PodLink, VethError};
use warren_model::{Lane, NodeName};
use warren_plan::Attachment;

use crate::attachments::{AddError, Label, Record, SharedAttachments, StoreError, host_interface, pod_mac};
use crate::policy::{Admission, PolicyHandle};
use crate::reconcile::{NewPod, OpenedBy, ReconcileHandle};
use crate::view::View;

/// Attaches and detaches the pods of this node.
#[derive(Debug, Clone)]
pub struct Pods {
    node: NodeName,
    kernel: Arc<Kernel>,
    attachments: SharedAttachments,
    policy: PolicyHandle,
    reconcile: ReconcileHandle,
}

impl Pods {
    /// For this node.
    pub fn new(
        node: NodeName,
        kernel: Arc<Kernel>,
        attachments: SharedAttachments,
        policy: PolicyHandle,
        reconcile: ReconcileHandle,
    ) -> Self {
        Self {
            node,
            kernel,
            attachments,
            policy,
            reconcile,
        }
    }

    /// Attaches a pod. The same attachment again, if it is as it was made, gets the same answer.
    pub async fn add(
        &self,
        id: &AttachmentId,
        netns: &NetnsPath,
        pod: Option<&PodRef>,
        network: &NetworkName,
    ) -> Result<AddResult, PodError> {
        let owner = owner(id);
        let _busy = self.attachments.begin(&owner).ok_or(PodError::Busy)?;
        let view = self.view()?;
        let link = self.pod_link(&owner, id, netns, &view);
        if self.attachments.get(&owner).is_some() {
            if let Ok(result) = self.verify(&owner, link.clone()).await {
                return Ok(result);
            }
            self.take_down(&owner).await?;
        }
        self.close(&link.host_name).await?;
        let record = Record {
            interface: link.host_name.clone(),
            mac: link.mac.0,
            netns: netns.to_string(),
            pod: pod.map(ToString::to_string),
            network: Some(network.to_string()),
        };
        let addresses = self
            .attachments
            .add(&owner, record, &view.pool(self.node.as_str()))?;
        let label = Label {
            owner: owner.clone(),
            addresses,
            netns: netns.to_string(),
        };
        let link = PodLink {
            label: label.to_alias(),
            addresses: label.addresses,
            ..link
        };
        match self.connect(&owner, pod, &link).await {
            Ok(()) => Ok(result::of(&link)),
            Err(error) => {
                if let Err(undo) = self.take_down(&owner).await {
                    tracing::warn!(%owner, error = format!("{undo:#}"), "cannot undo a failed ADD; a later pass will");
                }
                Err(error)
            }
        }
    }

    /// Detaches a pod. What is not there, or not any more, is no error.
    pub async fn del(&self, id: &AttachmentId) -> Result<(), PodError> {
        let owner = owner(id);
        let _busy = self.attachments.begin_next(&owner).await;
        self.detach(&owner).await
    }

    /// Looks whether an attachment is as it was made.
    pub async fn check(&self, id: &AttachmentId, netns: &NetnsPath) -> Result<AddResult, PodError> {
        let owner = owner(id);
        let _busy = self.attachments.begin_next(&owner).await;
        let view = self.view()?;
        self.verify(&owner, self.pod_link(&owner, id, netns, &view)).await
    }

    /// Detaches everything of a network that is not listed. One that cannot be detached does not keep the others; what it
    /// failed of is told in the end (CNI specification 1.1, section 2, GC).
    pub async fn gc(&self, network: &NetworkName, valid: &[AttachmentId]) -> Result<(), PodError> {
        let valid: BTreeSet<Owner> = valid.iter().map(owner).collect();
        let mut stale = self.attachments.owners_in(network.as_str());
        stale.retain(|owner| !valid.contains(owner));
        let mut failures = Vec::new();
        for stale in stale {
            let _busy = self.attachments.begin_next(&stale).await;
            tracing::info!(owner = %stale, "detaching what the runtime no longer knows");
            if let Err(error) = self.detach(&stale).await {
                failures.push(format!("{stale}: {:#}", anyhow::Error::from(error)));
            }
        }
        if failures.is_empty() {
            Ok(())
        } else {
            Err(PodError::Stale { failures })
        }
    }

    /// Whether ADD can be served, as far as can be told without a pod: an address for one has to be free, and what would
    /// carry its packets to other nodes be there.
    pub fn ready(&self) -> Result<(), PodError> {
        let view = self.view()?;
        let pool = view.pool(self.node.as_str());
        if pool.cidrs().is_empty() {
            return Err(PodError::NoPodCidr);
        }
        self.attachments.room(&pool).map_err(AddError::Allocate)?;
        match view.lane_down() {
            None => Ok(()),
            Some(lane) => Err(PodError::LaneDown {
                lane,
                error: view.first_error().unwrap_or_default(),
            }),
        }
    }

    fn view(&self) -> Result<Arc<View>, PodError> {
        let view = self.reconcile.last();
        if view.desired.is_some() && self.policy.is_in_force() {
            Ok(view)
        } else {
            Err(PodError::NotInSync)
        }
    }

    fn pod_link(&self, owner: &Owner, id: &AttachmentId, netns: &NetnsPath, view: &View) -> PodLink {
        PodLink {
            host_name: host_interface(owner),
            netns: netns.as_path().to_owned(),
            if_name: id.if_name.to_string(),
            mac: pod_mac(owner),
            mtu: view
                .desired
                .as_ref()
                .map_or(warren_plan::mtu::DEFAULT_UNDERLAY, |desired| desired.pod_mtu),
            addresses: Vec::new(),
            label: None,
        }
    }

    /// Waits until the guard has forgotten a veth of this name that was there before: it may have had another address.
    async fn close(&self, interface: &str) -> Result<(), PodError> {
        if self.reconcile.may_be_open(interface) {
            let view = self.reconcile.pass().await.ok_or(PodError::Stopping)?;
            went_well(&view, interface)?;
        }
        Ok(())
    }

    async fn connect(&self, owner: &Owner, pod: Option<&PodRef>, link: &PodLink) -> Result<(), PodError> {
        // Side by side: neither needs the other, and nothing passes before the guard lets it.
        let (made, admitted) = tokio::join!(veth::create(link), self.policy.admit(pod));
        made?;
        match admitted.ok_or(PodError::Stopping)? {
            Admission::Admitted => {}
            Admission::NotInSync => return Err(PodError::NotInSync),
            Admission::Failed(error) => return Err(PodError::Policy { error }),
        }
        let attachment = Attachment {
            pod: pod.map_or_else(|| owner.to_string(), ToString::to_string),
            interface: link.host_name.clone(),
            mac: link.mac,
            addresses: link.addresses.clone(),
        };
        let new = NewPod {
            attachment,
            mtu: link.mtu,
        };
        match self.reconcile.open(new).await.ok_or(PodError::Stopping)? {
            OpenedBy::Itself => Ok(()),
            OpenedBy::Pass(view) => {
                went_well(&view, &link.host_name)?;
                if view.is_open(&link.host_name) {
                    Ok(())
                } else {
                    Err(PodError::NotInSync)
                }
            }
        }
    }

    async fn verify(&self, owner: &Owner, link: PodLink) -> Result<AddResult, PodError> {
        let (record, addresses) = self.attachments.get(owner).ok_or(PodError::Unknown)?;
        let netns = link.netns.display().to_string();
        if record.netns != netns {
            let difference = format!("it was made in {}, not in {netns}", record.netns);
            return Err(PodError::Differs {
                differences: vec![difference],
            });
        }
        let link = PodLink { addresses, ..link };
        let differences = veth::check(&self.kernel, &link).await?;
        if differences.is_empty() {
            Ok(result::of(&link))
        } else {
            Err(PodError::Differs {
                differences: differences.iter().map(ToString::to_string).collect(),
            })
        }
    }

    /// The veth first, then the address: freed while the veth stands it could be given to another pod.
    async fn take_down(&self, owner: &Owner) -> Result<(), PodError> {
        veth::delete(&host_interface(owner)).await?;
        // Routes and neighbours have gone with the veth. Its end is an event, so a pass follows that has the guard forget it;
        // nobody waits for it, because what is open for a veth that is not there lets nothing through.
        self.attachments.remove(owner)?;
        self.policy.look();
        Ok(())
    }

    /// Takes down what a runtime has done with. That the disk does not take the change is no reason for the pod to stay: on
    /// a full disk its end may be what makes room. The address stays held until a later pass can free it.
    async fn detach(&self, owner: &Owner) -> Result<(), PodError> {
        match self.take_down(owner).await {
            Err(PodError::Store(error @ StoreError::Write { .. })) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(%owner, error, "the pod is detached; its address cannot be freed yet");
                Ok(())
            }
            other => other,
        }
    }
}

/// Whether nothing has failed in a pass that a pod on this interface needs.
fn went_well(view: &View, interface: &str) -> Result<(), PodError> {
    if let Some(error) = &view.error {
        return Err(PodError::Pass { error: error.clone() });
    }
    match view.failure_of(interface) {
        None => Ok(()),
        Some(failure) => Err(PodError::Step {
            action: failure.step.action.to_string(),
            error: failure.error.clone(),
        }),
    }
}

fn owner(id: &AttachmentId) -> Owner {
    Owner {
        container_id: id.container_id.to_string(),
        if_name: id.if_name.to_string(),
    }
}

/// A request that was not carried out. Nothing half done is left, or a later pass removes it.
#[derive(Debug, Error)]
pub enum PodError {
    /// The watches have not listed everything yet.
    #[error("the agent has not read the cluster yet: see its /readyz")]
    NotInSync,
    /// The node has no pod CIDR.
    #[error(
        "this node has no pod CIDR yet: let the controller manager allocate them, or see the agent's refusals"
    )]
    NoPodCidr,
    /// A lane is not up, so pods here do not reach those of other nodes.
    #[error("pods of this node do not reach other nodes: {lane} is not up: {error}")]
    LaneDown {
        /// The lane.
        lane: Lane,
        /// What went wrong in the last pass.
        error: String,
    },
    /// Another request for the same attachment is under way.
    #[error("another request for this attachment is under way")]
    Busy,
    /// The agent ends.
    #[error("the agent is stopping")]
    Stopping,
    /// There is no such attachment.
    #[error("there is no such attachment")]
    Unknown,
    /// The attachment is not as it was made.
    #[error("the attachment is not as it was made: {}", differences.join("; "))]
    Differs {
        /// What differs.
        differences: Vec<String>,
    },
    /// No address, or it could not be recorded.
    #[error(transparent)]
    Record(#[from] AddError),
    /// The record could not be changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Some attachments that the runtime no longer knows are still there.
    #[error("cannot detach all that the runtime no longer knows: {}", failures.join("; "))]
    Stale {
        /// Which, and why.
        failures: Vec<String>,
    },
    /// The veth.
    #[error(transparent)]
    Veth(#[from] VethError),
    /// The pass failed.
    #[error("the node's state cannot be read: {error}")]
    Pass {
        /// Why.
        error: String,
    },
    /// Its policy could not be put in force.
    #[error("the pod's network policy cannot be put in force: {error}")]
    Policy {
        /// Why.
        error: String,
    },
    /// A step that the pod depends on failed.
    #[error("{action} failed: {error}")]
    Step {
        /// The step.
        action: String,
        /// Why.
        error: String,
    },
}

impl PodError {
    /// The code that a runtime is told in answer to STATUS, which has codes of its own.
    pub fn status_code(&self) -> ErrorCode {
        if matches!(self, Self::LaneDown { .. }) {
            ErrorCode::LIMITED_CONNECTIVITY
        } else {
            ErrorCode::PLUGIN_NOT_AVAILABLE
        }
    }

    /// The code a runtime is told in answer to anything else.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotInSync | Self::NoPodCidr | Self::Busy | Self::Stopping => ErrorCode::TRY_AGAIN_LATER,
            Self::LaneDown { .. } => ErrorCode::LIMITED_CONNECTIVITY,
            Self::Unknown => ErrorCode::UNKNOWN_CONTAINER,
            Self::Differs { .. } => ErrorCode::ATTACHMENT_DIFFERS,
            Self::Record(AddError::Allocate(_)) => ErrorCode::ADDRESSES_EXHAUSTED,
            Self::Record(AddError::Store(_)) | Self::Store(_) => ErrorCode::IO_FAILURE,
            Self::Veth(_)
            | Self::Pass { .. }
            | Self::Policy { .. }
            | Self::Step { .. }
            | Self::Stale { .. } => ErrorCode::AGENT_FAILURE,
        }
    }
}
