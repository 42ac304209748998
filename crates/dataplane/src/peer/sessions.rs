//! The sessions of one peer (the paper, section 6.3), and how one follows another without a packet lost.
//!
//! | | sent with | received with | becomes |
//! |---|---|---|---|
//! | next: the peer began it and has not used it yet | | yes | current, when the peer uses it |
//! | current | yes | yes | previous, when another is current |
//! | previous, two at most | | yes | ended |
//!
//! Each ends at [`REJECT_AFTER_TIME`] at the latest. It can neither send nor open anything then, so its keys are erased
//! at once and not only, as the paper asks, after three times as long. There are two previous ones because two sides
//! that begin a handshake at the same time make two sessions at once, and what was sent with the one before is still on
//! its way.
//!
//! [`REJECT_AFTER_TIME`]: crate::noise::REJECT_AFTER_TIME

use std::collections::VecDeque;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::noise::{Millis, Session};

/// Sessions that are kept behind the current one.
const PREVIOUS: usize = 2;

/// The session that is sent with. Workers look at it without a lock; it is changed by [`Sessions`] only.
pub(super) type Current = ArcSwapOption<Session>;

/// All sessions but the current one, which each change is given.
#[derive(Default)]
pub(super) struct Sessions {
    next: Option<Arc<Session>>,
    /// The newest last.
    previous: VecDeque<Arc<Session>>,
    /// Local indices that have become free.
    retired: Vec<u32>,
}

impl Sessions {
    /// The peer began a session. One that it began before and has not used yet ends: it has given that up.
    pub(super) fn begin_next(&mut self, session: Arc<Session>) {
        if let Some(unused) = self.next.replace(session) {
            self.end(&unused);
        }
    }

    /// The peer has used a session. Says whether it was the next one, which is the current one now.
    pub(super) fn confirm(&mut self, session: &Arc<Session>, current: &Current) -> bool {
        if !self.next.as_ref().is_some_and(|next| Arc::ptr_eq(next, session)) {
            return false;
        }
        self.next = None;
        session.confirm();
        let before = current.swap(Some(Arc::clone(session)));
        self.keep(before);
        true
    }

    /// We began a session, and the peer has answered. If the peer had begun one too, it may use either.
    pub(super) fn complete(&mut self, session: Arc<Session>, current: &Current) {
        let before = current.swap(Some(session));
        self.keep(before);
        let next = self.next.take();
        if let Some(next) = &next {
            next.confirm();
        }
        self.keep(next);
    }

    /// Ends those that are too old.
    pub(super) fn expire(&mut self, now: Millis, current: &Current) {
        if let Some(old) = current.load_full().filter(|session| session.is_expired(now)) {
            current.store(None);
            self.end(&old);
        }
        if let Some(old) = self.next.take_if(|session| session.is_expired(now)) {
            self.end(&old);
        }
        let (old, young): (VecDeque<_>, _) = std::mem::take(&mut self.previous)
            .into_iter()
            .partition(|session| session.is_expired(now));
        self.previous = young;
        old.iter().for_each(|session| self.end(session));
    }

    /// Ends all.
    pub(super) fn end_all(&mut self, current: &Current) {
        let all = current.swap(None).into_iter();
        for session in all
            .chain(self.next.take())
            .chain(std::mem::take(&mut self.previous))
        {
            self.end(&session);
        }
    }

    /// Notes an index that is free again.
    pub(super) fn retire(&mut self, local_index: u32) {
        self.retired.push(local_index);
    }

    /// Takes the indices that have become free.
    pub(super) fn take_retired(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.retired)
    }

    fn keep(&mut self, session: Option<Arc<Session>>) {
        self.previous.extend(session);
        while self.previous.len() > PREVIOUS {
            if let Some(oldest) = self.previous.pop_front() {
                self.end(&oldest);
            }
        }
    }

    fn end(&mut self, session: &Session) {
        session.end();
        self.retire(session.local_index());
    }
}
