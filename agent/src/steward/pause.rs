//! How long something that failed is left alone.

use std::fmt::Display;
use std::time::Duration;

use warren_cluster::lease::LeaseError;
use warren_cluster::{Retry, WriteError};

/// What a failure says about the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// It may pass by itself.
    Passing,
    /// The server asks to be left alone for so long.
    Until(Duration),
    /// It lasts until somebody does something about it.
    Lasting,
}

impl Outlook {
    /// Of a write.
    pub(super) fn of_write(error: &WriteError) -> Self {
        match (error, error.retry()) {
            (_, Retry::After(wait)) => Self::Until(wait),
            (WriteError::Forbidden { .. }, _) | (_, Retry::OnChange) => Self::Lasting,
            (_, Retry::Reconnect | Retry::Later) => Self::Passing,
        }
    }

    /// Of the Lease.
    pub(super) fn of_lease(error: &LeaseError) -> Self {
        match error {
            LeaseError::Absent { .. } | LeaseError::Forbidden { .. } => Self::Lasting,
            LeaseError::Unavailable { wait: Some(wait), .. } => Self::Until(*wait),
            LeaseError::Unavailable { wait: None, .. } | LeaseError::Changed => Self::Passing,
        }
    }

    /// The first pause and the longest.
    fn range(self) -> (Duration, Duration) {
        match self {
            Self::Passing => (Duration::from_millis(500), Duration::from_secs(30)),
            Self::Until(wait) => (wait, wait),
            Self::Lasting => (Duration::from_secs(30), Duration::from_secs(600)),
        }
    }
}

/// Pauses that double while something keeps failing. What is wrong is said once, until it is something else.
#[derive(Debug, Default)]
pub(super) struct Pause {
    until: Option<Duration>,
    failures: u32,
    said: String,
}

impl Pause {
    /// It has failed.
    pub(super) fn begin(&mut self, now: Duration, outlook: Outlook, error: &impl Display) {
        let (first, longest) = outlook.range();
        let pause = first
            .saturating_mul(2_u32.saturating_pow(self.failures))
            .min(longest);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + pause);
        let text = error.to_string();
        if self.said == text {
            tracing::debug!(%error, "still cannot report for the mesh");
        } else {
            tracing::warn!(%error, "cannot report for the mesh");
            self.said = text;
        }
    }

    /// It has worked.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// Until when it is left alone, if it is.
    pub(super) fn over(&self, now: Duration) -> Option<Duration> {
        self.until.filter(|until| now < *until)
    }

    /// Whether the last attempt worked.
    pub(super) fn has_ended(&self) -> bool {
        self.until.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_success() {
        let mut pause = Pause::default();
        assert!(pause.has_ended());
        let mut lengths = Vec::new();
        for _ in 0..8 {
            pause.begin(Duration::ZERO, Outlook::Passing, &"busy");
            lengths.push(pause.over(Duration::ZERO).unwrap_or_default().as_millis());
        }
        assert_eq!(lengths, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(pause.over(Duration::from_secs(30)), None);
        assert!(!pause.has_ended());
        pause.end();
        let asked = Duration::from_secs(7);
        pause.begin(Duration::ZERO, Outlook::Until(asked), &"busy");
        assert_eq!(pause.over(Duration::ZERO), Some(asked));
    }

    #[test]
    fn what_only_the_operator_can_mend_is_tried_seldom() {
        let absent = LeaseError::Absent {
            namespace: "ns".to_owned(),
        };
        let forbidden = WriteError::Forbidden {
            object: "x".to_owned(),
            reason: "y".to_owned(),
        };
        assert_eq!(Outlook::of_lease(&absent), Outlook::Lasting);
        assert_eq!(Outlook::of_write(&forbidden), Outlook::Lasting);
        let busy = WriteError::Unavailable {
            object: "x".to_owned(),
            reason: "y".to_owned(),
            wait: Some(Duration::from_secs(3)),
        };
        assert_eq!(Outlook::of_write(&busy), Outlook::Until(Duration::from_secs(3)));
    }
}
