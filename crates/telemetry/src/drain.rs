//! How a program ends: no new work, and what is in flight is finished within a limit.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The end of a drain that `main` keeps: it gives the signal and waits for what is in flight.
#[derive(Debug)]
pub struct DrainSignal {
    state: Arc<watch::Sender<State>>,
}

impl DrainSignal {
    /// A pair: the signal to keep, the token to clone into each part.
    pub fn new() -> (Self, Drain) {
        let (sender, receiver) = watch::channel(State::default());
        let state = Arc::new(sender);
        let drain = Drain {
            state: Arc::clone(&state),
            receiver,
        };
        (Self { state }, drain)
    }

    /// From now on no guard is given, and everyone who waits in [`Drain::drained`] wakes.
    pub fn signal(&self) {
        self.state.send_modify(|state| state.draining = true);
    }

    /// Waits until no guard is held, at most for `timeout`.
    ///
    /// # Errors
    /// When guards are still held then. To wait once more is fine; to go on regardless cuts that work off.
    pub async fn wait_idle(&self, timeout: Duration) -> Result<(), StillBusy> {
        let mut receiver = self.state.subscribe();
        let idle = receiver.wait_for(|state| state.in_flight == 0);
        match tokio::time::timeout(timeout, idle).await {
            Ok(_) => Ok(()),
            Err(_) => Err(StillBusy {
                in_flight: self.state.borrow().in_flight,
                waited: timeout,
            }),
        }
    }
}

impl Drop for DrainSignal {
    /// Whoever could give the signal is gone, by a panic perhaps: the parts must not wait for it for ever.
    fn drop(&mut self) {
        self.signal();
    }
}

/// The end of a drain that each part has: it learns of the signal, and takes a guard for each piece of work.
#[derive(Debug, Clone)]
pub struct Drain {
    state: Arc<watch::Sender<State>>,
    receiver: watch::Receiver<State>,
}

impl Drain {
    /// Resolves when the signal to drain has been given, at once if it was given before. Cancel-safe.
    pub async fn drained(&self) {
        let mut receiver = self.receiver.clone();
        // The channel cannot close while `self.state`, its sender, lives.
        let _ = receiver.wait_for(|state| state.draining).await;
    }

    /// Whether the signal has been given.
    pub fn is_draining(&self) -> bool {
        self.receiver.borrow().draining
    }

    /// A guard for one piece of work (a CNI request, say), which delays the end until it is dropped. `None` once the
    /// signal has been given: the work is to be refused.
    pub fn guard(&self) -> Option<DrainGuard> {
        // Looking and counting are one step under the channel's lock: no guard slips in after the signal.
        let taken = self.state.send_if_modified(|state| {
            state.in_flight += usize::from(!state.draining);
            !state.draining
        });
        taken.then(|| DrainGuard {
            state: Arc::clone(&self.state),
        })
    }
}

/// A piece of work in flight.
#[derive(Debug)]
pub struct DrainGuard {
    state: Arc<watch::Sender<State>>,
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        self.state.send_modify(|state| state.in_flight -= 1);
    }
}

/// Work was still in flight when the time for it was over.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{in_flight} requests are still in flight after {} s of waiting for them", waited.as_secs_f64())]
pub struct StillBusy {
    /// How many guards are held.
    pub in_flight: usize,
    /// How long they were waited for.
    pub waited: Duration,
}

/// Catches SIGTERM and SIGINT from this call on; the future it returns resolves with the name of the first one that
/// comes. After it has resolved, further signals are caught and have no effect: the program bounds its own ending.
///
/// # Errors
/// When the kernel does not let us install a handler.
pub fn shutdown_signal() -> io::Result<impl Future<Output = &'static str> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

#[derive(Debug, Default)]
struct State {
    draining: bool,
    in_flight: usize,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn everyone_who_waits_wakes_and_no_new_guard_is_given() {
        let (signal, drain) = DrainSignal::new();
        let waiter = tokio::spawn({
            let drain = drain.clone();
            async move { drain.drained().await }
        });
        assert!(!drain.is_draining());
        drop(drain.guard().unwrap());
        signal.signal();
        tokio::time::timeout(LIMIT, waiter).await.unwrap().unwrap();
        tokio::time::timeout(LIMIT, drain.drained()).await.unwrap();
        assert!(drain.is_draining());
        assert!(drain.guard().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_what_is_in_flight() {
        let (signal, drain) = DrainSignal::new();
        let guards = (drain.guard().unwrap(), drain.clone().guard().unwrap());
        signal.signal();
        let busy = signal.wait_idle(LIMIT).await.unwrap_err();
        assert_eq!(
            busy,
            StillBusy {
                in_flight: 2,
                waited: LIMIT
            }
        );
        drop(guards.0);
        assert_eq!(signal.wait_idle(LIMIT).await.unwrap_err().in_flight, 1);
        let wait = tokio::spawn(async move { signal.wait_idle(LIMIT).await });
        drop(guards.1);
        assert_eq!(wait.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_signal_that_is_dropped_counts_as_given() {
        let (signal, drain) = DrainSignal::new();
        drop(signal);
        tokio::time::timeout(LIMIT, drain.drained()).await.unwrap();
    }

    #[tokio::test]
    async fn a_signal_that_comes_before_anyone_waits_is_not_lost() {
        let shutdown = shutdown_signal().unwrap();
        kill(Pid::this(), Signal::SIGTERM).unwrap();
        assert_eq!(tokio::time::timeout(LIMIT, shutdown).await.unwrap(), "SIGTERM");
    }
}
