//! Handshakes with one peer: what happens seldom, under the peer's mutex.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use rand_core::{CryptoRng, RngCore};

use super::sessions::Sessions;
use super::{Answer, Due, Peer};
use crate::drops::DropReason;
use crate::noise::cookie::Signer;
use crate::noise::handshake::Initiating;
use crate::noise::{
    INITIATION_INTERVAL, INITIATION_LEN, Initiation, Local, MessageKind, Millis, REKEY_ATTEMPT_TIME,
    REKEY_TIMEOUT_JITTER, RESPONSE_LEN, Remote, Session, Tai64n,
};
use crate::uapi::PresharedKey;

/// What is under the mutex.
pub(super) struct Slow {
    /// `None` while the device has no private key.
    remote: Option<Remote>,
    preshared: Option<PresharedKey>,
    signer: Signer,
    attempt: Option<Attempt>,
    sessions: Sessions,
    /// The local index of the last handshake message: what a cookie is addressed to.
    last_index: Option<u32>,
    /// The time in the last initiation that the peer sent.
    their_time: Option<Tai64n>,
    /// When that was.
    taken: Option<Millis>,
    /// The time in the last initiation that we sent.
    our_time: Option<Tai64n>,
}

/// A handshake that we began, and repeat until it is answered.
struct Attempt {
    handshake: Initiating,
    /// Since when it is repeated.
    since: Millis,
}

impl Slow {
    pub(super) fn new(key: &warren_model::PublicKey, local: Option<&Local>) -> Self {
        Self {
            remote: local.map(|local| Remote::new(local, key)),
            preshared: None,
            signer: Signer::new(key.as_bytes()),
            attempt: None,
            sessions: Sessions::default(),
            last_index: None,
            their_time: None,
            taken: None,
            our_time: None,
        }
    }

    fn preshared_bytes(preshared: Option<&PresharedKey>) -> &[u8; 32] {
        preshared.map_or(&[0; 32], PresharedKey::expose_bytes)
    }

    fn abandon_attempt(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.sessions.retire(attempt.handshake.local_index);
        }
    }
}

impl Peer {
    fn slow(&self) -> MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an initiation, if one is wanted and the last handshake message is long enough ago. From now on,
    /// `local_index` is where its answer comes to (a response or a cookie); the session that follows has the same one.
    /// When it gives `None`, the index has not been used. `wall_clock` is the time now; if the clock goes back, what is
    /// sent does not.
    pub fn begin_handshake(
        &self,
        now: Millis,
        local: &Local,
        local_index: u32,
        wall_clock: Tai64n,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Option<[u8; INITIATION_LEN]> {
        let slow = &mut *self.slow();
        let remote = slow.remote.as_ref()?;
        let wanted = self.timers.is_wanted();
        if !self.timers.may_initiate(now) || !(wanted || slow.attempt.is_some()) {
            return None;
        }
        let time = wall_clock.after(slow.our_time);
        let (handshake, mut message) = Initiating::begin(local, remote, local_index, time, rng).ok()?;
        slow.signer.sign(now, &mut message);
        slow.our_time = Some(time);
        slow.last_index = Some(local_index);
        let mut since = now;
        if let Some(before) = slow.attempt.take() {
            slow.sessions.retire(before.handshake.local_index);
            self.endpoint.forget_source();
            if !wanted {
                since = before.since;
            }
        }
        slow.attempt = Some(Attempt { handshake, since });
        self.timers.want_no_more();
        self.timers.handshake_sent(now, jitter(rng));
        self.count_sent(INITIATION_LEN);
        Some(message)
    }

    /// Answers an initiation of this peer's. One that is refused for a time before that of another makes [`Self::tick`] begin
    /// a handshake with the peer.
    ///
    /// # Errors
    /// [`DropReason::Replayed`], [`DropReason::HandshakeTooSoon`], [`DropReason::BadHandshake`],
    /// [`DropReason::NoPrivateKey`]; then `local_index` has not been used.
    pub fn take_initiation(
        &self,
        now: Millis,
        initiation: Initiation,
        local_index: u32,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<Answer, DropReason> {
        let slow = &mut *self.slow();
        let remote = slow.remote.as_ref().ok_or(DropReason::NoPrivateKey)?;
        let dated = initiation.open_time(remote)?;
        if let Some(last) = slow.their_time
            && dated.time <= last
        {
            // The last one again is a repetition for sure.
            if dated.time < last && slow.attempt.is_none() {
                self.speak_first(now);
            }
            return Err(DropReason::Replayed);
        }
        if slow
            .taken
            .is_some_and(|taken| now.saturating_sub(taken) < INITIATION_INTERVAL)
        {
            return Err(DropReason::HandshakeTooSoon);
        }
        let time = dated.time;
        let preshared = Slow::preshared_bytes(slow.preshared.as_ref());
        let (mut response, keys, remote_index) = dated.respond(preshared, local_index, rng)?;
        slow.signer.sign(now, &mut response);
        slow.their_time = Some(time);
        slow.taken = Some(now);
        slow.last_index = Some(local_index);
        let session = Arc::new(Session::new(&keys, local_index, remote_index, false, now));
        slow.sessions.begin_next(Arc::clone(&session));
        self.count_received(INITIATION_LEN);
        self.timers.received(now, false);
        self.count_sent(RESPONSE_LEN);
        self.timers.handshake_sent(now, jitter(rng));
        Ok(Answer { response, session })
    }

    /// Wants a handshake because one that the peer began bears an earlier time than another did. It may be a repetition. But it
    /// may be the peer itself, which began anew after its clock was set back: until that is where it was, the peer is
    /// refused (the paper, section 5.1), and a handshake of ours is the only way to it. So that a repetition gains nothing,
    /// ours goes to where the peer is known to be, not to who sent that, and no sooner than any other.
    fn speak_first(&self, now: Millis) {
        if self.endpoint().is_some() && self.timers.may_initiate(now) {
            // The next tick begins it.
            let _ = self.timers.want(now);
        }
    }

    /// Completes a handshake that we began. The source of the message is the peer's endpoint from now on. Send what waits
    /// ([`Self::take_staged`]) with the session, or a keepalive: the peer does not use it before we have.
    ///
    /// # Errors
    /// [`DropReason::UnknownSession`], [`DropReason::BadHandshake`], [`DropReason::Malformed`],
    /// [`DropReason::NoPrivateKey`].
    pub fn take_response(
        &self,
        now: Millis,
        local: &Local,
        message: &[u8],
    ) -> Result<Arc<Session>, DropReason> {
        let slow = &mut *self.slow();
        if slow.remote.is_none() {
            return Err(DropReason::NoPrivateKey);
        }
        let attempt = slow.attempt.as_ref().ok_or(DropReason::UnknownSession)?;
        let preshared = Slow::preshared_bytes(slow.preshared.as_ref());
        let (keys, remote_index) = attempt.handshake.finish(local, preshared, message)?;
        let local_index = attempt.handshake.local_index;
        slow.attempt = None;
        let session = Arc::new(Session::new(&keys, local_index, remote_index, true, now));
        slow.sessions.complete(Arc::clone(&session), &self.current);
        self.count_received(RESPONSE_LEN);
        self.timers.received(now, false);
        self.completed(now);
        Ok(session)
    }

    /// Takes a cookie, for the handshake messages of the next two minutes. It proves nothing about the peer.
    ///
    /// # Errors
    /// [`DropReason::UnknownSession`] when it answers nothing that we have just sent, [`DropReason::BadHandshake`],
    /// [`DropReason::Malformed`].
    pub fn take_cookie(&self, now: Millis, message: &[u8]) -> Result<(), DropReason> {
        let slow = &mut *self.slow();
        let receiver = MessageKind::CookieReply.receiver(message);
        if receiver.is_none() || receiver != slow.last_index {
            return Err(DropReason::UnknownSession);
        }
        slow.signer.take(now, message)
    }

    /// The peer has used a session that it began.
    pub(super) fn confirm(&self, now: Millis, session: &Arc<Session>) -> bool {
        let slow = &mut *self.slow();
        if !slow.sessions.confirm(session, &self.current) {
            return false;
        }
        slow.abandon_attempt();
        self.completed(now);
        true
    }

    fn completed(&self, now: Millis) {
        self.timers.want_no_more();
        self.last_handshake.store(now, Ordering::Relaxed);
    }

    /// What is due now, by the clock alone. To be called a few times a second.
    pub fn tick(&self, now: Millis) -> Due {
        let slow = &mut *self.slow();
        slow.sessions.expire(now, &self.current);
        if self.timers.silence_is_over(now) {
            self.endpoint.forget_source();
            let _ = self.timers.want(now);
        }
        let mut due = Due::default();
        let reachable = self.endpoint().is_some() && slow.remote.is_some();
        if reachable && (self.timers.answer_is_due(now) || self.timers.keepalive_is_due(now)) {
            due.keepalive = self.sending(now).is_some();
            if !due.keepalive {
                let _ = self.timers.want(now);
            }
        }
        let may_initiate = self.timers.may_initiate(now);
        let over = |attempt: &Attempt| now.saturating_sub(attempt.since) >= REKEY_ATTEMPT_TIME;
        if may_initiate && !self.timers.is_wanted() && slow.attempt.as_ref().is_some_and(over) {
            slow.abandon_attempt();
            self.timers.forget_answer();
            due.gave_up = true;
        }
        due.initiate = reachable && may_initiate && (self.timers.is_wanted() || slow.attempt.is_some());
        due.retired = slow.sessions.take_retired();
        due
    }

    /// Ends all sessions and handshakes at once: nothing is sent or opened with them any more. Gives their indices, and
    /// others that have become free.
    pub fn forget_sessions(&self) -> Vec<u32> {
        self.forget(&mut self.slow())
    }

    /// Begins anew with the device's new keys (or none). Sessions end as with [`Self::forget_sessions`].
    pub fn set_identity(&self, local: Option<&Local>) -> Vec<u32> {
        let remote = local.map(|local| Remote::new(local, &self.key));
        let slow = &mut *self.slow();
        // Under one lock: nothing must begin under the old keys in between.
        slow.remote = remote;
        self.forget(slow)
    }

    fn forget(&self, slow: &mut Slow) -> Vec<u32> {
        slow.abandon_attempt();
        slow.sessions.end_all(&self.current);
        self.timers.reset();
        slow.sessions.take_retired()
    }

    /// Uses another preshared key, or none, from the next handshake on. As in the kernel, a session that exists goes on.
    pub fn set_preshared_key(&self, preshared: Option<PresharedKey>) {
        self.slow().preshared = preshared;
    }

    /// A copy of the preshared key.
    pub fn preshared_key(&self) -> Option<PresharedKey> {
        self.slow().preshared.as_ref().map(PresharedKey::copy)
    }
}

/// At random, up to [`REKEY_TIMEOUT_JITTER`].
fn jitter(rng: &mut impl RngCore) -> Millis {
    Millis::from(rng.next_u32()) % (REKEY_TIMEOUT_JITTER + 1)
}
