//! How the rest of the agent asks the loop for something.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};
use warren_plan::Attachment;

use crate::view::View;

/// A way to ask the loop for something.
#[derive(Debug, Clone)]
pub struct ReconcileHandle {
    pub(super) requests: mpsc::UnboundedSender<Request>,
    pub(super) views: watch::Receiver<Arc<View>>,
    pub(super) opened: Opened,
}

/// What is asked, and where the answer goes.
#[derive(Debug)]
pub(super) enum Request {
    Open(NewPod, oneshot::Sender<OpenedBy>),
    Pass(oneshot::Sender<Arc<View>>),
    Look(oneshot::Sender<Arc<View>>),
}

/// A pod whose veth was just made.
#[derive(Debug, Clone)]
pub struct NewPod {
    /// As its record has it.
    pub attachment: Attachment,
    /// What its veth was made with.
    pub mtu: u32,
}

/// What has opened a pod.
#[derive(Debug, Clone)]
pub enum OpenedBy {
    /// Its own steps, all of which went well: a pass would find nothing to do for it.
    Itself,
    /// A pass, which tells whether it went well.
    Pass(Arc<View>),
}

impl ReconcileHandle {
    /// Has a pod opened; `None` if the loop has ended. On a node where the last pass has left nothing to do that is no more
    /// than the pod's own steps; otherwise it takes a pass.
    pub async fn open(&self, pod: NewPod) -> Option<OpenedBy> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Open(pod, reply)).ok()?;
        answer.await.ok()
    }

    /// Waits for a pass that began after this call; `None` if the loop has ended.
    pub async fn pass(&self) -> Option<Arc<View>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Pass(reply)).ok()?;
        answer.await.ok()
    }

    /// What a pass would see and do now, without doing it; `None` if the loop has ended.
    pub async fn look(&self) -> Option<Arc<View>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Look(reply)).ok()?;
        answer.await.ok()
    }

    /// What the last pass saw and did.
    pub fn last(&self) -> Arc<View> {
        Arc::clone(&self.views.borrow())
    }

    /// Each pass's outcome; outcomes may be skipped, the last one never is.
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.views.clone()
    }

    /// Whether the guard may still let packets through for an interface of this name, of which there is none now.
    pub fn may_be_open(&self, interface: &str) -> bool {
        // In this order: a pass tells what it found before it forgets what was opened until then.
        self.opened.contains(interface) || self.last().may_be_open(interface)
    }
}

/// The interfaces that were opened since the last pass, which that one's view does not have.
#[derive(Debug, Clone, Default)]
pub(super) struct Opened(Arc<Mutex<BTreeSet<String>>>);

impl Opened {
    pub(super) fn add<'a>(&self, interfaces: impl Iterator<Item = &'a str>) {
        self.with(|opened| opened.extend(interfaces.map(str::to_owned)));
    }

    pub(super) fn clear(&self) {
        self.with(BTreeSet::clear);
    }

    fn contains(&self, interface: &str) -> bool {
        self.with(|opened| opened.contains(interface))
    }

    /// A panic elsewhere leaves the set whole: names come and go one by one.
    fn with<T>(&self, act: impl FnOnce(&mut BTreeSet<String>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
