//! The server as a value: cheap to clone, served over HTTP, and open to direct calls from tests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::Config;
use crate::delete::{DeleteOptions, Deleted};
use crate::error::ApiError;
use crate::faults::{Call, FaultPlan, Faults};
use crate::http;
use crate::patch::PatchKind;
use crate::resource::Gvr;
use crate::selector::Selector;
use crate::state::State;
use crate::write::WriteOptions;

/// How many answered requests [`Api::calls`] remembers.
const CALLS_KEPT: usize = 4096;

/// Field manager of in-process writes.
const IN_PROCESS: &str = "in-process";

/// A Kubernetes API in memory. Clones share everything.
#[derive(Debug, Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    state: Mutex<State>,
    faults: Faults,
    head: watch::Sender<u64>,
    calls: Mutex<VecDeque<(Call, u16)>>,
}

impl Api {
    /// A server with the standard namespaces and nothing else.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let state = State::new(&config);
        let head = watch::Sender::new(state.store.version());
        let (faults, calls) = (Faults::default(), Mutex::default());
        Self {
            shared: Arc::new(Shared {
                config,
                state: Mutex::new(state),
                faults,
                head,
                calls,
            }),
        }
    }

    /// Answers HTTP requests until dropped; dropping it closes all connections, as a crash would.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve(&self, listener: TcpListener) -> std::io::Result<()> {
        http::serve(self.clone(), listener).await
    }

    /// The switchboard of bad behaviour.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Replaces the fault plan, including `expire_history`, as `PUT /warren-faults` does.
    pub fn set_faults(&self, plan: FaultPlan) {
        let expires = plan.expire_history;
        self.faults().set(plan);
        if expires {
            self.expire_history();
        }
    }

    /// Forgets all events: the next watch from a listed version gets 410 Expired, and so does who is in the middle of a list.
    pub fn expire_history(&self) {
        self.change(|state| {
            state.store.expire();
            state.pages.expire();
        });
    }

    /// Creates an object. Status is taken from the body for nodes only, as with the real server.
    ///
    /// # Errors
    /// What the real server would answer: 404 for the kind or namespace, 409, 422.
    pub fn create(&self, id: Gvr<'_>, namespace: &str, object: Value) -> Result<Value, ApiError> {
        self.change(|state| {
            let target = state.target(id, namespace, "")?;
            state
                .create(&target, object, &in_process())
                .map(|object| (*object).clone())
        })
    }

    /// One object.
    ///
    /// # Errors
    /// 404.
    pub fn get(&self, id: Gvr<'_>, namespace: &str, name: &str) -> Result<Value, ApiError> {
        let state = self.state();
        let target = state.target(id, namespace, name)?;
        state.get(&target).map(|object| (*object).clone())
    }

    /// Replaces an object, all but its status. A `resourceVersion` in it has to be the current one.
    ///
    /// # Errors
    /// 404, 409, 422.
    pub fn update(&self, id: Gvr<'_>, namespace: &str, name: &str, object: Value) -> Result<Value, ApiError> {
        self.update_part(id, namespace, name, object, false)
    }

    /// Replaces an object's status with that of `object`.
    ///
    /// # Errors
    /// 404, 409, 422.
    pub fn update_status(
        &self,
        id: Gvr<'_>,
        namespace: &str,
        name: &str,
        object: Value,
    ) -> Result<Value, ApiError> {
        self.update_part(id, namespace, name, object, true)
    }

    /// Patches an object; `status` names the subresource. Apply creates what is absent and needs a manager.
    ///
    /// # Errors
    /// 404, 409, 415, 422.
    pub fn patch(
        &self,
        id: Gvr<'_>,
        namespace: &str,
        name: &str,
        status: bool,
        (kind, patch): (PatchKind, &Value),
        options: &WriteOptions,
    ) -> Result<Value, ApiError> {
        self.change(|state| {
            let mut target = state.target(id, namespace, name)?;
            target.status = status;
            state
                .patch(&target, kind, patch, options)
                .map(|object| (*object).clone())
        })
    }

    /// Deletes an object. It may stay, marked, for its finalizers.
    ///
    /// # Errors
    /// 404.
    pub fn delete(&self, id: Gvr<'_>, namespace: &str, name: &str) -> Result<Deleted, ApiError> {
        self.change(|state| {
            let target = state.target(id, namespace, name)?;
            state.delete(&target, &DeleteOptions::default())
        })
    }

    /// All objects of a kind; `namespace` empty means all namespaces.
    ///
    /// # Errors
    /// 404 when the kind is not served.
    pub fn list(&self, id: Gvr<'_>, namespace: &str) -> Result<Vec<Value>, ApiError> {
        let state = self.state();
        let target = state.target(id, namespace, "")?;
        Ok(state
            .list(&target, &Selector::default())
            .iter()
            .map(|object| (**object).clone())
            .collect())
    }

    /// Version of the last write of the whole store.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.state().store.version()
    }

    /// Waits until `condition` holds, looking again after every write. False when `patience` runs out first.
    pub async fn wait_until(&self, patience: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        let mut head = self.head();
        let wait = async {
            loop {
                head.mark_unchanged();
                // An error means that the server is gone, which cannot be: we hold it.
                if condition(self) || head.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(patience, wait).await.is_ok()
    }

    /// The last requests over HTTP and their status codes, oldest first. 0: no answer was given.
    #[must_use]
    pub fn calls(&self) -> Vec<(Call, u16)> {
        lock(&self.shared.calls).iter().cloned().collect()
    }

    pub(crate) fn record(&self, call: Call, code: u16) {
        let mut calls = lock(&self.shared.calls);
        if calls.len() == CALLS_KEPT {
            calls.pop_front();
        }
        calls.push_back((call, code));
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.state)
    }

    pub(crate) fn head(&self) -> watch::Receiver<u64> {
        self.shared.head.subscribe()
    }

    /// Runs a write under the lock and wakes the watchers afterwards.
    pub(crate) fn change<T>(&self, write: impl FnOnce(&mut State) -> T) -> T {
        let (result, version) = {
            let mut state = self.state();
            let result = write(&mut state);
            (result, state.store.version())
        };
        self.shared.head.send_if_modified(|head| {
            let moved = version > *head;
            *head = version.max(*head);
            moved
        });
        result
    }

    fn update_part(
        &self,
        id: Gvr<'_>,
        namespace: &str,
        name: &str,
        object: Value,
        status: bool,
    ) -> Result<Value, ApiError> {
        self.change(|state| {
            let mut target = state.target(id, namespace, name)?;
            target.status = status;
            state
                .update(&target, object, &in_process())
                .map(|object| (*object).clone())
        })
    }
}

fn in_process() -> WriteOptions {
    WriteOptions {
        manager: IN_PROCESS.to_owned(),
        ..WriteOptions::default()
    }
}

/// A panic under the lock is a failed test already; what others then see is still worth seeing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
