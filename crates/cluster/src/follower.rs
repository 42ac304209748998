//! Following one kind of object: what happens when its watch ends, fails or cannot begin.

use std::fmt::Debug;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api_error::{describe, retry_after, status_code};
use crate::backoff::Backoff;
use crate::contents::Contents;
use crate::policy::PolicySnapshot;
use crate::snapshot::Snapshot;
use crate::watch_health::{Concerns, WatchKind};
use crate::watched::Watched;

/// A watch that has failed is well again when it has not failed for this long: kube does not tell when a watch has been
/// taken up again, only when it could not. Longer than any one attempt can take.
pub(crate) const RECOVERY: Duration = Duration::from_secs(35);

/// A watch that breaks after it has lived this long is taken up again after a short wait, however often that happens: its
/// life is pause enough, and longer waits would leave the node blind for most of the time.
pub(crate) const LIVED: Duration = Duration::from_millis(900);

/// How long a server must deny that a kind of ours exists before objects that were there are given up. A server that starts
/// may say so until it has read its resource definitions.
pub(crate) const ABSENCE: Duration = Duration::from_secs(30);

/// What the watches write and readers read.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<Watched>,
    pub(crate) mesh: watch::Sender<Arc<Snapshot>>,
    pub(crate) policy: watch::Sender<Arc<PolicySnapshot>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            mesh: watch::Sender::new(Arc::default()),
            policy: watch::Sender::new(Arc::default()),
        }
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Watched> {
        // A watch that panicked half-way through an event leaves at worst that event out; `ended` tells of it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and, if that made a difference, shows it to whom it concerns. Under one lock, so that snapshots come
    /// in order.
    fn change(&self, kind: WatchKind, change: impl FnOnce(&mut Watched) -> bool) {
        let mut state = self.lock();
        if !change(&mut state) {
            return;
        }
        let (mesh, policy) = match kind.concerns() {
            Concerns::Mesh => (true, false),
            Concerns::Pods => (false, true),
            // What is refused is reported with all else that is.
            Concerns::Policy => (state.policy.gather(), true),
        };
        if mesh {
            self.mesh.send_replace(Arc::new(state.snapshot()));
        }
        if policy {
            self.policy.send_replace(Arc::new(state.policy.snapshot()));
        }
    }
}

/// One watch, from objects of type `K` to values of type `V`.
pub(crate) struct Follower<K, V> {
    pub(crate) kind: WatchKind,
    pub(crate) api: Api<K>,
    pub(crate) config: watcher::Config,
    pub(crate) decode: fn(K) -> (String, V),
    pub(crate) contents: fn(&mut Watched) -> &mut Contents<V>,
    pub(crate) shared: Arc<Shared>,
}

/// How to go on after an error.
struct Verdict {
    wait: Duration,
    relist: bool,
}

impl<K, V> Follower<K, V>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    V: PartialEq,
{
    /// Watches for ever.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::default();
        let mut absent_since = None;
        let mut waiting_since = Instant::now();
        loop {
            let mut events = pin!(watcher(self.api.clone(), self.config.clone()));
            while let Some(next) = self.or_recovered(events.next(), &mut backoff).await {
                let error = match next {
                    Ok(event) => {
                        match &event {
                            // A list is about to be tried.
                            Event::Init => {}
                            // A list that works says nothing of the watch that follows. Where that fails at once, waits
                            // must grow, or the server is asked for all objects several times a second.
                            Event::InitApply(_) | Event::InitDone => absent_since = None,
                            Event::Apply(_) | Event::Delete(_) => {
                                backoff.reset();
                                absent_since = None;
                            }
                        }
                        self.take(event);
                        waiting_since = Instant::now();
                        continue;
                    }
                    Err(error) => error,
                };
                let started = matches!(error, watcher::Error::WatchFailed(_));
                if started && waiting_since.elapsed() >= LIVED {
                    backoff.reset();
                }
                let verdict = self.judge(&error, &mut backoff, &mut absent_since);
                tokio::time::sleep(verdict.wait).await;
                waiting_since = Instant::now();
                if verdict.relist {
                    break;
                }
            }
        }
    }

    /// Waits for the next event and, meanwhile, for the watch to count as well again.
    async fn or_recovered<T>(&self, next: impl Future<Output = T>, backoff: &mut Backoff) -> T {
        let mut next = pin!(next);
        if !backoff.is_reset() {
            if let Ok(item) = tokio::time::timeout(RECOVERY, &mut next).await {
                return item;
            }
            backoff.reset();
            self.recovered();
        }
        next.await
    }

    fn take(&self, event: Event<K>) {
        if !matches!(event, Event::Init) {
            self.recovered();
        }
        self.shared.change(self.kind, |state| {
            let health = state.health(self.kind);
            let event = match event {
                Event::Apply(object) => {
                    health.events_total += 1;
                    Event::Apply((self.decode)(object))
                }
                Event::Delete(object) => {
                    health.events_total += 1;
                    Event::Delete((self.decode)(object))
                }
                Event::Init => Event::Init,
                Event::InitApply(object) => Event::InitApply((self.decode)(object)),
                Event::InitDone => {
                    health.lists_total += 1;
                    health.synced = true;
                    Event::InitDone
                }
            };
            (self.contents)(state).handle(event)
        });
    }

    fn recovered(&self) {
        if self
            .shared
            .lock()
            .health(self.kind)
            .failing_since
            .take()
            .is_some()
        {
            tracing::info!(kind = %self.kind, "watching again");
        }
    }

    fn judge(
        &self,
        error: &watcher::Error,
        backoff: &mut Backoff,
        absent_since: &mut Option<Instant>,
    ) -> Verdict {
        let wait = backoff.next_wait(random());
        let wait = cause(error)
            .and_then(retry_after)
            .map_or(wait, |asked| asked.max(wait));
        let code = code(error);
        if self.kind.is_ours() && code == Some(404) {
            self.absent(absent_since);
            return Verdict { wait, relist: true };
        }
        *absent_since = None;
        let text = match cause(error) {
            Some(cause) => describe(cause),
            None => error.to_string(),
        };
        self.failed(&text);
        // kube lists again when 410 comes as an event of the watch, but not when it is the answer to the request.
        let relist = matches!(code, Some(404 | 410));
        Verdict { wait, relist }
    }

    fn failed(&self, text: &str) {
        let mut state = self.shared.lock();
        let health = state.health(self.kind);
        health.errors_total += 1;
        if health.failing_since.is_none() {
            health.failing_since = Some(std::time::Instant::now());
            tracing::warn!(
                kind = %self.kind,
                error = text,
                "cannot watch: what was seen last holds; check the API server and the agent's permissions"
            );
        } else {
            tracing::debug!(kind = %self.kind, error = text, "still cannot watch");
        }
        health.last_error = Some(text.to_owned());
    }

    /// The server does not know the kind. That is how a cluster without configuration looks; it is no failure.
    fn absent(&self, since: &mut Option<Instant>) {
        let lasts = since.get_or_insert_with(Instant::now).elapsed() >= ABSENCE;
        self.recovered();
        self.shared.change(self.kind, |state| {
            let contents = (self.contents)(state);
            if !contents.current().is_empty() && !lasts {
                return false;
            }
            let changed = contents.absent();
            if changed {
                tracing::info!(kind = %self.kind, "the server does not know this kind: the defaults hold");
            }
            state.health(self.kind).synced = true;
            changed
        });
    }
}

/// The client's error in a watch's error.
fn cause(error: &watcher::Error) -> Option<&kube::Error> {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => Some(error),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    }
}

fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::WatchError(status) => Some(status.code),
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => cause(error).and_then(status_code),
    }
}

/// A number that differs from call to call and from node to node: each `RandomState` has keys of its own.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
