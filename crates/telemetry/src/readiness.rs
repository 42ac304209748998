//! Whether a program is ready: every gate is open.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The gates of a program. Cheap to clone; all clones show the same gates.
///
/// A program makes all its gates before it serves `/readyz`: with no gate there is nothing to wait for, and it is
/// ready.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    gates: Arc<Mutex<Vec<GateState>>>,
}

impl Readiness {
    /// No gates yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a gate, closed. Its name tells the operator what is waited for: `watches-synced`.
    pub fn gate(&self, name: &'static str) -> Gate {
        let mut gates = lock(&self.gates);
        gates.push(GateState {
            name,
            closed: Some("not reached yet".to_owned()),
        });
        Gate {
            gates: Arc::clone(&self.gates),
            index: gates.len() - 1,
        }
    }

    /// `Ok` if every gate is open, else the closed ones in the order they were made.
    pub fn report(&self) -> Result<(), Vec<ClosedGate>> {
        let closed: Vec<_> = lock(&self.gates)
            .iter()
            .filter_map(|gate| {
                Some(ClosedGate {
                    name: gate.name,
                    reason: gate.closed.clone()?,
                })
            })
            .collect();
        if closed.is_empty() { Ok(()) } else { Err(closed) }
    }
}

/// One condition of readiness, held by the part that knows about it. It can be opened and closed any number of times.
/// Dropping it closes it for good: a part that has ended cannot vouch for anything.
#[derive(Debug)]
pub struct Gate {
    gates: Arc<Mutex<Vec<GateState>>>,
    index: usize,
}

impl Gate {
    /// The condition holds.
    pub fn open(&self) {
        self.set(None);
    }

    /// The condition does not hold, or no longer; the reason is shown by `/readyz`.
    pub fn close(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, closed: Option<String>) {
        lock(&self.gates)[self.index].closed = closed;
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.set(Some("the part that watched over it has ended".to_owned()));
    }
}

/// A gate that keeps a program from being ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedGate {
    /// The gate's name.
    pub name: &'static str,
    /// Why it is closed.
    pub reason: String,
}

impl fmt::Display for ClosedGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

#[derive(Debug)]
struct GateState {
    name: &'static str,
    /// Why it is closed, if it is.
    closed: Option<String>,
}

/// A panic elsewhere leaves the list whole: every change to it is one assignment or one push.
fn lock(gates: &Mutex<Vec<GateState>>) -> MutexGuard<'_, Vec<GateState>> {
    gates.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(readiness: &Readiness) -> Vec<String> {
        match readiness.report() {
            Ok(()) => Vec::new(),
            Err(gates) => gates.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn ready_when_every_gate_is_open() {
        let readiness = Readiness::new();
        let (watches, guard) = (readiness.gate("watches-synced"), readiness.gate("guard-in-place"));
        assert_eq!(
            closed(&readiness),
            [
                "watches-synced: not reached yet",
                "guard-in-place: not reached yet"
            ]
        );
        watches.open();
        assert_eq!(closed(&readiness), ["guard-in-place: not reached yet"]);
        guard.open();
        assert_eq!(readiness.report(), Ok(()));
    }

    #[test]
    fn a_gate_can_close_again() {
        let readiness = Readiness::new();
        let gate = readiness.gate("api-reachable");
        gate.open();
        gate.close("no answer for 60 s");
        assert_eq!(closed(&readiness), ["api-reachable: no answer for 60 s"]);
        gate.open();
        assert_eq!(readiness.report(), Ok(()));
    }

    #[test]
    fn a_dropped_gate_is_closed() {
        let readiness = Readiness::new();
        let gate = readiness.gate("lanes-up");
        gate.open();
        drop(gate);
        assert_eq!(
            closed(&readiness),
            ["lanes-up: the part that watched over it has ended"]
        );
    }
}
