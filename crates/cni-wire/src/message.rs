//! The messages between `warren-cni` and `warren-agent`.
//!
//! A connection carries one request and one reply, each one line: a JSON object with a `version`, ended by `\n`, at
//! most [`MAX_MESSAGE_BYTES`] with it. The reader reads up to the newline and gives what it has read to
//! [`decode_request`] or [`decode_reply`], which are total: whatever the bytes are, the outcome is a value or a typed
//! error. Fields that are not known are passed over, so a field may be added within a version if the other side can
//! do without it; anything else raises [`MESSAGE_VERSION`].

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;
use crate::names::{AttachmentId, NetnsPath, NetworkName};
use crate::pod::PodRef;
use crate::result::{AddResult, ResultError};

/// The version of the messages this release speaks. Plugin and agent are installed together by the same DaemonSet,
/// so there is exactly one.
pub const MESSAGE_VERSION: u32 = 1;
/// The longest message in bytes, newline included.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// What the plugin asks of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The network, as the CNI configuration names it.
    pub network: NetworkName,
    /// What to do.
    #[serde(flatten)]
    pub command: Command,
}

/// The CNI commands that need the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Command {
    /// Attach. Answered with [`Outcome::Added`] once the pod's addresses work. The same attachment again, if it is
    /// still there as it was made, gets the same answer.
    Add {
        /// What to attach.
        attachment: AttachmentId,
        /// The container's network namespace.
        netns: NetnsPath,
        /// The pod, where the runtime says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pod: Option<PodRef>,
    },
    /// Detach. Answered with [`Outcome::Done`], also when there is nothing (left) of it.
    Del {
        /// What to detach.
        attachment: AttachmentId,
        /// The container's network namespace; none if it is gone already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        netns: Option<NetnsPath>,
        /// The pod, where the runtime says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pod: Option<PodRef>,
    },
    /// Look whether the attachment is as it was made. If so, answered with [`Outcome::Added`] and what it is, which
    /// the plugin compares with what the runtime remembers.
    Check {
        /// What to look at.
        attachment: AttachmentId,
        /// The container's network namespace.
        netns: NetnsPath,
        /// The pod, where the runtime says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pod: Option<PodRef>,
    },
    /// Detach everything of this network that is not listed. Answered with [`Outcome::Done`].
    Gc {
        /// What to keep.
        valid_attachments: Vec<AttachmentId>,
    },
    /// Say whether [`Command::Add`] can be served. Answered with [`Outcome::Done`], or with an error of code
    /// [`ErrorCode::PLUGIN_NOT_AVAILABLE`] or [`ErrorCode::LIMITED_CONNECTIVITY`].
    Status,
}

impl Command {
    /// The CNI command, as `CNI_COMMAND` has it.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Add { .. } => "ADD",
            Self::Del { .. } => "DEL",
            Self::Check { .. } => "CHECK",
            Self::Gc { .. } => "GC",
            Self::Status => "STATUS",
        }
    }

    /// The attachment it is about, if it is about a single one.
    pub fn attachment(&self) -> Option<&AttachmentId> {
        match self {
            Self::Add { attachment, .. } | Self::Del { attachment, .. } | Self::Check { attachment, .. } => {
                Some(attachment)
            }
            Self::Gc { .. } | Self::Status => None,
        }
    }
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How a request went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "camelCase")]
pub enum Outcome {
    /// The attachment stands, and is this.
    Added(AddResult),
    /// Done; there is nothing to say.
    Done,
    /// It was not done, and nothing half done is left.
    Error {
        /// What kind of error it is, for the runtime.
        code: ErrorCode,
        /// A short message: the act, the object and what to do.
        msg: String,
        /// More, such as the cause.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        details: String,
    },
}

/// Writes a request as one line, newline included.
///
/// # Errors
/// Only [`WireError::TooLong`], for a GC with very many attachments.
pub fn encode_request(request: &Request) -> Result<Vec<u8>, WireError> {
    encode(request)
}

/// Reads a request: one line, with or without its newline.
///
/// # Errors
/// Any [`WireError`]; the agent answers with its text and [`ErrorCode::AGENT_PROTOCOL`].
pub fn decode_request(line: &[u8]) -> Result<Request, WireError> {
    decode(line)
}

/// Writes a reply as one line, newline included.
///
/// # Errors
/// [`WireError::TooLong`], and [`WireError::Result`] for a result that contradicts itself.
pub fn encode_reply(reply: &Reply) -> Result<Vec<u8>, WireError> {
    check_reply(reply)?;
    encode(reply)
}

/// Reads a reply: one line, with or without its newline.
///
/// # Errors
/// Any [`WireError`].
pub fn decode_reply(line: &[u8]) -> Result<Reply, WireError> {
    let reply = decode(line)?;
    check_reply(&reply)?;
    Ok(reply)
}

/// Why bytes are no message. Except for [`WireError::Empty`], which is how a dying peer looks, retrying does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The connection ended before there was anything.
    #[error("the other side closed the connection without a message; look at the warren-agent log")]
    Empty,
    /// The line is longer than [`MAX_MESSAGE_BYTES`].
    #[error(
        "the message has {got} bytes or more, at most {MAX_MESSAGE_BYTES} are allowed; remove stale sandboxes from \
         the container runtime, or correct what talks to the agent's socket"
    )]
    TooLong {
        /// How many bytes there were when it was given up.
        got: usize,
    },
    /// There are bytes after the newline.
    #[error("the message goes on after its newline; a connection carries one message each way")]
    Trailing,
    /// The other side speaks another version.
    #[error(
        "the message has version {got}, this side speaks {MESSAGE_VERSION}; run warren-cni and warren-agent of one \
         release on the node (restarting the Warren pod of the node installs the plugin anew)"
    )]
    Version {
        /// The other side's version.
        got: u64,
    },
    /// It is not a message of our version.
    #[error("the message cannot be read: {0}")]
    Malformed(String),
    /// The result in it contradicts itself.
    #[error(transparent)]
    Result(#[from] ResultError),
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    body: T,
}

/// The one field that is the same in all versions.
#[derive(Deserialize)]
struct AnyVersion {
    version: u64,
}

fn encode<T: Serialize>(body: &T) -> Result<Vec<u8>, WireError> {
    let mut line = serde_json::to_vec(&Versioned {
        version: MESSAGE_VERSION,
        body,
    })
    .map_err(|error| WireError::Malformed(error.to_string()))?;
    line.push(b'\n');
    check_length(&line)?;
    Ok(line)
}

fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, WireError> {
    check_length(line)?;
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    if text.is_empty() {
        return Err(WireError::Empty);
    }
    if text.contains(&b'\n') {
        return Err(WireError::Trailing);
    }
    let malformed = |error: serde_json::Error| WireError::Malformed(error.to_string());
    // The version first: what the rest of another version looks like is not ours to judge.
    let AnyVersion { version } = serde_json::from_slice(text).map_err(malformed)?;
    if version != u64::from(MESSAGE_VERSION) {
        return Err(WireError::Version { got: version });
    }
    let Versioned { body, .. } = serde_json::from_slice::<Versioned<T>>(text).map_err(malformed)?;
    Ok(body)
}

fn check_length(line: &[u8]) -> Result<(), WireError> {
    if line.len() > MAX_MESSAGE_BYTES {
        Err(WireError::TooLong { got: line.len() })
    } else {
        Ok(())
    }
}

fn check_reply(reply: &Reply) -> Result<(), ResultError> {
    match &reply.outcome {
        Outcome::Added(result) => result.check(),
        Outcome::Done | Outcome::Error { .. } => Ok(()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    const ADD: &str = r#"{"version":1,"network":"warren","command":"add","attachment":{"containerID":"c1","ifname":"eth0"},"netns":"/var/run/netns/a","pod":{"namespace":"default","name":"web"}}"#;

    #[test]
    fn the_line_on_the_wire_is_this_one() {
        let request = Request {
            network: "warren".parse().unwrap(),
            command: Command::Add {
                attachment: AttachmentId {
                    container_id: "c1".parse().unwrap(),
                    if_name: "eth0".parse().unwrap(),
                },
                netns: "/var/run/netns/a".parse().unwrap(),
                pod: Some(PodRef::new("default".into(), "web".into(), None).unwrap()),
            },
        };
        assert_eq!(encode_request(&request).unwrap(), format!("{ADD}\n").into_bytes());
        assert_eq!(decode_request(ADD.as_bytes()), Ok(request));
        let done = Reply {
            outcome: Outcome::Done,
        };
        assert_eq!(
            encode_reply(&done).unwrap(),
            b"{\"version\":1,\"outcome\":\"done\"}\n"
        );
    }

    #[test]
    fn another_version_is_told_apart_from_nonsense() {
        let newer = br#"{"version":2,"verb":{"add":1}}"#;
        let error = decode_request(newer).unwrap_err();
        assert_eq!(error, WireError::Version { got: 2 });
        assert!(error.to_string().contains("of one release"));
        assert!(matches!(decode_request(b"{}"), Err(WireError::Malformed(_))));
        assert!(matches!(
            decode_request(br#"{"version":1}"#),
            Err(WireError::Malformed(_))
        ));
    }

    #[test]
    fn only_one_line_of_bounded_length_is_a_message() {
        assert_eq!(decode_reply(b""), Err(WireError::Empty));
        assert_eq!(decode_reply(b"\n"), Err(WireError::Empty));
        assert_eq!(
            decode_request(format!("{ADD}\n{ADD}\n").as_bytes()),
            Err(WireError::Trailing)
        );
        let long = vec![b' '; MAX_MESSAGE_BYTES + 1];
        assert_eq!(
            decode_reply(&long),
            Err(WireError::TooLong {
                got: MAX_MESSAGE_BYTES + 1
            })
        );
        let all = Reply {
            outcome: Outcome::Error {
                code: ErrorCode::AGENT_FAILURE,
                msg: "x".repeat(MAX_MESSAGE_BYTES),
                details: String::new(),
            },
        };
        assert!(matches!(encode_reply(&all), Err(WireError::TooLong { .. })));
    }

    #[test]
    fn wrong_names_do_not_get_past_the_door() {
        for (good, bad) in [
            ("c1", "../../etc"),
            ("eth0", "eth0/x"),
            ("/var/run/netns/a", "/var/run/../a"),
            ("default", "a b"),
        ] {
            let line = ADD.replace(good, bad);
            assert!(
                matches!(decode_request(line.as_bytes()), Err(WireError::Malformed(_))),
                "{line}"
            );
        }
    }

    #[test]
    fn a_result_that_contradicts_itself_is_neither_sent_nor_taken() {
        let line = br#"{"version":1,"outcome":"added","interfaces":[],"ips":[{"address":"10.0.0.2/32","interface":0}]}"#;
        assert!(matches!(decode_reply(line), Err(WireError::Result(_))));
    }
}
