//! Watches: history first, then live, and no event lost between the two.
//!
//! A watcher has no queue of its own: it holds the version it has seen and reads on from the history, woken by every
//! write. A watcher that is too slow for the history gets 410 and lists again, as with the real server.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::Api;
use crate::convert;
use crate::error::ApiError;
use crate::faults::WatchEnd;
use crate::resource::{Gvr, Resource};
use crate::selector::Selector;
use crate::state::State;
use crate::store::Event;

/// What a client asked to watch.
#[derive(Debug)]
pub(crate) struct WatchRequest {
    pub(crate) resource: Arc<Resource>,
    pub(crate) namespace: String,
    pub(crate) selector: Selector,
    pub(crate) start: Start,
    pub(crate) bookmarks: bool,
    pub(crate) timeout: Duration,
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// With all objects there are, as ADDED; then a bookmark that says so, if asked for (streaming list).
    Initial {
        /// Whether the bookmark is sent.
        bookmark: bool,
    },
    /// After this version.
    After(u64),
}

/// One line of a watch.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    Added(Arc<Value>),
    Modified(Arc<Value>),
    Deleted(Arc<Value>),
    Bookmark { version: u64, initial_end: bool },
    Error(ApiError),
}

/// What a watch does next.
#[derive(Debug)]
pub(crate) enum Next {
    Notice(Notice),
    End(WatchEnd),
}

/// A running watch.
#[derive(Debug)]
pub(crate) struct Watch {
    api: Api,
    request: WatchRequest,
    pending: VecDeque<Notice>,
    seen: u64,
    failed: bool,
    head: watch::Receiver<u64>,
    ends: watch::Receiver<WatchEnd>,
    deadline: Instant,
    cut: Option<Instant>,
    bookmark: Instant,
}

impl Watch {
    /// Starts a watch. A version that is no longer in the history, or not yet reached (this server was started anew
    /// since), gets 410 as an ERROR event and not as an HTTP status: so does the real server, and the kube-rs watcher
    /// lists again only for the event.
    pub(crate) fn start(api: Api, request: WatchRequest, ends: watch::Receiver<WatchEnd>) -> Self {
        let head = api.head();
        let now = Instant::now();
        let bookmark = now + api.config().bookmarks_every;
        let cut = api.faults().watch_life().map(|life| now + life);
        let deadline = now + request.timeout;
        let (seen, pending, failed) = {
            let state = api.state();
            match request.start {
                Start::Initial { bookmark } => {
                    (state.store.version(), initial(&state, &request, bookmark), false)
                }
                Start::After(version) => match check_version(&state, version) {
                    Ok(()) => (version, VecDeque::new(), false),
                    Err(error) => (version, VecDeque::from([Notice::Error(error)]), true),
                },
            }
        };
        Self {
            api,
            request,
            pending,
            seen,
            failed,
            head,
            ends,
            deadline,
            cut,
            bookmark,
        }
    }

    /// The next line, or how the watch ends.
    pub(crate) async fn next(&mut self) -> Next {
        loop {
            if let Some(notice) = self.pending.pop_front() {
                return Next::Notice(notice);
            }
            if self.failed {
                return Next::End(WatchEnd::Close);
            }
            // Marked as seen before the read, so that a write in between wakes us again.
            self.head.mark_unchanged();
            if !self.read_on() {
                return Next::End(WatchEnd::Close);
            }
            if !self.pending.is_empty() {
                continue;
            }
            let cut = self.cut.unwrap_or(self.deadline);
            tokio::select! {
                changed = self.ends.changed() => {
                    let end = changed.map_or(WatchEnd::Close, |()| *self.ends.borrow_and_update());
                    return Next::End(end);
                }
                () = tokio::time::sleep_until(cut), if self.cut.is_some() => return Next::End(WatchEnd::Cut),
                () = tokio::time::sleep_until(self.deadline) => return Next::End(WatchEnd::Close),
                () = tokio::time::sleep_until(self.bookmark), if self.request.bookmarks => {
                    self.bookmark = Instant::now() + self.api.config().bookmarks_every;
                    // What happened since the read above is replayed to a client that resumes from here.
                    return Next::Notice(Notice::Bookmark { version: self.seen, initial_end: false });
                }
                changed = self.head.changed() => {
                    if changed.is_err() {
                        return Next::End(WatchEnd::Close);
                    }
                }
            }
        }
    }

    /// Queues what has happened since `seen`. False when the resource is no longer served.
    fn read_on(&mut self) -> bool {
        let state = self.api.state();
        let resource = &self.request.resource;
        let id = Gvr::new(&resource.group, &resource.version, &resource.plural);
        let served = state.registry.find(id).is_ok();
        if state.store.floor() > self.seen {
            self.pending
                .push_back(Notice::Error(too_old(self.seen, state.store.floor())));
            self.failed = true;
            return true;
        }
        let storage = resource.storage();
        let events = state
            .store
            .since(&storage, self.seen)
            .filter_map(|event| notice(event, &self.request));
        self.pending.extend(events.collect::<Vec<_>>());
        self.seen = state.store.version();
        served || !self.pending.is_empty()
    }
}

/// Whether a watch can start after `version`.
fn check_version(state: &State, version: u64) -> Result<(), ApiError> {
    let (floor, head) = (state.store.floor(), state.store.version());
    if version < floor {
        return Err(too_old(version, floor));
    }
    if version > head {
        return Err(ApiError::Expired(format!(
            "too new resource version: {version} (current: {head})"
        )));
    }
    Ok(())
}

fn too_old(version: u64, floor: u64) -> ApiError {
    ApiError::Expired(format!("too old resource version: {version} ({floor})"))
}

fn initial(state: &State, request: &WatchRequest, bookmark: bool) -> VecDeque<Notice> {
    let objects = state.store.list(&request.resource.storage(), &request.namespace);
    let seen = objects.map(|object| convert::to_version(object, &request.resource));
    let mut notices: VecDeque<Notice> = seen
        .filter(|object| request.selector.matches(object))
        .map(Notice::Added)
        .collect();
    if bookmark {
        notices.push_back(Notice::Bookmark {
            version: state.store.version(),
            initial_end: true,
        });
    }
    notices
}

/// The event as this watcher sees it: an object that starts to match is added, one that stops is deleted.
fn notice(event: &Event, request: &WatchRequest) -> Option<Notice> {
    let in_namespace =
        request.namespace.is_empty() || crate::meta::namespace(&event.last) == request.namespace;
    if !in_namespace {
        return None;
    }
    let seen = |object: &Arc<Value>| convert::to_version(object, &request.resource);
    let matched =
        |object: Option<&Arc<Value>>| object.map(seen).filter(|object| request.selector.matches(object));
    match (matched(event.old.as_ref()), matched(event.new.as_ref())) {
        (None, None) => None,
        (None, Some(new)) => Some(Notice::Added(new)),
        (Some(_), Some(new)) => Some(Notice::Modified(new)),
        (Some(_), None) => Some(Notice::Deleted(seen(&event.last))),
    }
}
