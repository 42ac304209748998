//! How the rest of the agent asks the loop for something.

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use warren_cluster::PolicySnapshot;
use warren_cni_wire::PodRef;

/// A way to ask the loop for something.
#[derive(Debug, Clone)]
pub struct PolicyHandle {
    requests: mpsc::UnboundedSender<Request>,
    in_force: watch::Receiver<bool>,
}

/// What is asked, and where the answer goes.
#[derive(Debug)]
pub(super) enum Request {
    Look,
    Admit(Option<PodRef>, oneshot::Sender<Admission>),
}

/// What became of a pod whose addresses were recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Its policy is in force; or its object has not been seen yet, and nothing passes its interface until then.
    Admitted,
    /// Not all that policy is made of has been read yet.
    NotInSync,
    /// Its policy could not be put in force.
    Failed(String),
}

/// A pod that waits.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) pod: Option<PodRef>,
    pub(super) reply: oneshot::Sender<Admission>,
    pub(super) deadline: Instant,
}

impl PolicyHandle {
    pub(super) fn new(requests: mpsc::UnboundedSender<Request>, in_force: watch::Receiver<bool>) -> Self {
        Self { requests, in_force }
    }

    /// Puts the policy of a pod in force whose addresses are recorded; `None` if the loop has ended.
    pub async fn admit(&self, pod: Option<&PodRef>) -> Option<Admission> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Admit(pod.cloned(), reply)).ok()?;
        answer.await.ok()
    }

    /// Has it looked again, soon: a pod is detached.
    pub fn look(&self) {
        // Without a loop there is nobody to look.
        let _ = self.requests.send(Request::Look);
    }

    /// Whether policy is in force.
    pub fn is_in_force(&self) -> bool {
        *self.in_force.borrow()
    }
}

impl Newcomer {
    /// Whether the object of this very pod has been seen: one of the same name may have been another.
    pub(super) fn is_known(&self, policy: &PolicySnapshot) -> bool {
        let Some(pod) = &self.pod else {
            return true;
        };
        let key = (pod.namespace(), pod.name());
        let mut found = policy
            .pods
            .iter()
            .filter(|seen| (seen.name.namespace.as_str(), seen.name.name.as_str()) == key);
        found.any(|seen| pod.uid().is_none_or(|uid| uid == seen.uid))
    }

    pub(super) fn answer(self, admission: Admission) {
        // Whoever asked may have given up.
        let _ = self.reply.send(admission);
    }
}
