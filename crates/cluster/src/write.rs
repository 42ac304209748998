//! Writing to the API: what can go wrong and whether to try again.

use std::time::Duration;

use kube::Error;
use thiserror::Error;

use crate::api_error::{describe, retry_after, status_code};

/// The field manager of everything an agent writes (server-side apply).
pub const FIELD_MANAGER: &str = "warren-agent";

/// A write that was not done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WriteError {
    /// There is no such object.
    #[error("cannot write {object}: it does not exist; it will be written once the watch shows it")]
    Gone {
        /// As `Kind/name`.
        object: String,
    },
    /// The object is not the one that was meant (deleted and made anew), or it is changed faster than it can be read.
    #[error("cannot write {object}: it has changed meanwhile ({reason}); it will be written as it is now")]
    Changed {
        /// As `Kind/name`.
        object: String,
        /// What the server said.
        reason: String,
    },
    /// The server does not take these credentials, or not for this.
    #[error(
        "cannot write {object}: not allowed ({reason}); nodes are written with the kubelet's credentials, check that \
         its kubeconfig and certificate are mounted and in date, and the role warren-steward for meshes/status"
    )]
    Forbidden {
        /// As `Kind/name`.
        object: String,
        /// What the server said.
        reason: String,
    },
    /// The server takes nothing like this; the same again will be refused again.
    #[error(
        "cannot write {object}: refused ({reason}); run the agent and the resource definitions of one release"
    )]
    Refused {
        /// As `Kind/name`.
        object: String,
        /// What the server said.
        reason: String,
    },
    /// The server is overloaded, broken or not reached.
    #[error("cannot write {object}: {reason}; it is tried again")]
    Unavailable {
        /// As `Kind/name`.
        object: String,
        /// What happened.
        reason: String,
        /// How long the server asks to be left alone.
        wait: Option<Duration>,
    },
}

/// Whether and when to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not before the watch shows the object changed.
    OnChange,
    /// After the usual growing wait, with a client built anew: its credentials may have been replaced on disk.
    Reconnect,
    /// After the usual growing wait.
    Later,
    /// Not before this much time has passed.
    After(Duration),
}

impl WriteError {
    /// What the client's error means for a write to that object.
    pub fn new(object: impl Into<String>, error: &Error) -> Self {
        let object = object.into();
        let reason = describe(error);
        match status_code(error) {
            Some(404) => Self::Gone { object },
            Some(409) => Self::Changed { object, reason },
            Some(401 | 403) => Self::Forbidden { object, reason },
            Some(400..=428 | 430..=499) => Self::Refused { object, reason },
            Some(_) | None => Self::Unavailable {
                object,
                reason,
                wait: retry_after(error),
            },
        }
    }

    /// Whether and when to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Gone { .. } | Self::Refused { .. } => Retry::OnChange,
            Self::Changed { .. } => Retry::Later,
            Self::Forbidden { .. } | Self::Unavailable { wait: None, .. } => Retry::Reconnect,
            Self::Unavailable { wait: Some(wait), .. } => Retry::After(*wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use kube::core::response::StatusDetails;

    use super::*;

    fn api(code: u16) -> Error {
        Error::Api(Status::failure("text", "Reason").with_code(code).boxed())
    }

    #[test]
    fn each_answer_says_whether_to_try_again() {
        for (code, retry) in [
            (400, Retry::OnChange),
            (401, Retry::Reconnect),
            (403, Retry::Reconnect),
            (404, Retry::OnChange),
            (409, Retry::Later),
            (422, Retry::OnChange),
            (429, Retry::Reconnect),
            (500, Retry::Reconnect),
            (503, Retry::Reconnect),
        ] {
            assert_eq!(WriteError::new("Node/a", &api(code)).retry(), retry, "{code}");
        }
        let unreached = Error::Service("connection refused".into());
        let error = WriteError::new("Node/a", &unreached);
        assert_eq!(error.retry(), Retry::Reconnect);
        assert!(
            error.to_string().contains("Node/a") && error.to_string().contains("refused"),
            "{error}"
        );
    }

    #[test]
    fn the_servers_wish_to_be_left_alone_is_kept() {
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 7,
        };
        let status = Status::failure("busy", "TooManyRequests")
            .with_code(429)
            .with_details(details);
        let error = WriteError::new("Node/a", &Error::Api(status.boxed()));
        assert_eq!(error.retry(), Retry::After(Duration::from_secs(7)));
    }
}
