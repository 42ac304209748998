//! What an agent's answer means, or the API server's in its place.

use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serializer};
use thiserror::Error;

use crate::printable::printable;

/// How long an agent may take to answer, the way there included.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// The longest answer that is read, bytes. A status of 5000 peers has about 3 MB.
pub(crate) const MAX_BYTES: usize = 32 << 20;

/// How much of an answer that is not JSON is shown.
const SHOWN_CHARS: usize = 160;

/// An agent's answer could not be had. Asking again may help for all but [`AgentError::Forbidden`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum AgentError {
    /// Nobody listens on the Unix socket.
    #[error("nothing answers on {}: start warren-agent, or name its folder with --run-dir", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// The Unix socket cannot be opened.
    #[error("cannot open {}: {reason}; run as root", socket.display())]
    Socket {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// No answer in time.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    TimedOut,
    /// The connection to the agent, or the API server's to it, failed.
    #[error("{reason}")]
    Unreachable {
        /// What was said.
        reason: String,
    },
    /// The API server does not let us.
    #[error("{reason}; this takes the permission get on nodes/proxy")]
    Forbidden {
        /// What it said.
        reason: String,
    },
    /// The agent answers that it cannot tell: its watches are not in sync yet.
    #[error("{reason}")]
    NotNow {
        /// What it said.
        reason: String,
    },
    /// Something else than an agent of this release answered.
    #[error("not the answer of an agent of this release: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
}

impl AgentError {
    /// Whether the agent itself has answered.
    pub(crate) fn is_from_agent(&self) -> bool {
        matches!(self, Self::NotNow { .. })
    }
}

/// How reports hold the error: as its text, or null.
pub(crate) fn as_text<S: Serializer>(error: &Option<AgentError>, serializer: S) -> Result<S::Ok, S::Error> {
    match error {
        Some(error) => serializer.collect_str(error),
        None => serializer.serialize_none(),
    }
}

/// Reads an answer.
pub(crate) fn read<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, AgentError> {
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|error| AgentError::Malformed {
            reason: printable(&error.to_string()),
        });
    }
    let said: Said = serde_json::from_slice(body).unwrap_or_default();
    if let Some(error) = said.error {
        return Err(AgentError::NotNow {
            reason: printable(&error),
        });
    }
    let reason = match (said.kind.as_deref(), said.message) {
        (Some("Status"), Some(message)) => printable(&message),
        _ => return Err(other(status, body)),
    };
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => AgentError::Forbidden { reason },
        _ => AgentError::Unreachable { reason },
    })
}

/// A refusal: an agent's has `error`, the API server's is a `Status`.
#[derive(Default, Deserialize)]
struct Said {
    error: Option<String>,
    kind: Option<String>,
    message: Option<String>,
}

/// The API server passes on in plain text what kept it from reaching the agent; others answer anything.
fn other(status: StatusCode, body: &[u8]) -> AgentError {
    let text: String = String::from_utf8_lossy(body)
        .trim()
        .chars()
        .take(SHOWN_CHARS)
        .collect();
    let text = printable(&text);
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
            if !text.is_empty() =>
        {
            AgentError::Unreachable { reason: text }
        }
        _ => AgentError::Malformed {
            reason: format!("{status} {text}").trim_end().to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> AgentError {
        let status = StatusCode::from_u16(status).expect("the test's own");
        read::<u32>(status, body.as_bytes()).expect_err("the status is no success")
    }

    #[test]
    fn an_agents_refusal_and_the_api_servers_are_told_apart() {
        let agent = refused(503, r#"{"error": "the watch of nodes is not in sync"}"#);
        assert!(agent.is_from_agent());
        assert_eq!(agent.to_string(), "the watch of nodes is not in sync");

        let dial = r#"{"kind":"Status","message":"error trying to reach service: dial tcp 10.0.0.1:9586: refused","code":503}"#;
        let server = refused(503, dial);
        assert!(!server.is_from_agent());
        assert!(server.to_string().contains("dial tcp"), "{server}");

        let forbidden = refused(
            403,
            r#"{"kind":"Status","message":"nodes \"a\" is forbidden","code":403}"#,
        );
        assert!(
            forbidden.to_string().contains("get on nodes/proxy"),
            "{forbidden}"
        );
    }

    #[test]
    fn plain_text_is_shown_shortened_and_cannot_steer_the_terminal() {
        let error = refused(404, &format!("\u{1b}[2J{}", "x".repeat(1000)));
        assert!(matches!(error, AgentError::Malformed { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("404 Not Found"), "{text}");
        assert!(!text.contains('\u{1b}') && text.len() < 400, "{text}");
        let gateway = refused(502, "Error trying to reach service\n");
        let reason = "Error trying to reach service".to_owned();
        assert_eq!(gateway, AgentError::Unreachable { reason });
    }

    #[test]
    fn a_success_that_is_no_status_is_malformed() {
        let answer = read::<u32>(StatusCode::OK, b"<html>");
        assert!(matches!(answer, Err(AgentError::Malformed { .. })), "{answer:?}");
        assert_eq!(read::<u32>(StatusCode::OK, b"7"), Ok(7));
    }
}
