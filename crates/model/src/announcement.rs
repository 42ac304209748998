//! What a node publishes about itself: the value of the Node annotation `warren-mesh.io/wireguard`.
//!
//! One JSON value, so that a reader never sees half an update:
//! `{"version":1,"keys":[{"epoch":3,"publicKey":"<base64>","port":51821}],"settled":3,"paths":["wireguard","vxlan"],
//! "turns":2,"progress":{"accepts":"<16 digits>","sends":"<16 digits>","by":["wireguard"]}}`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::accord::{Accord, Progress};
use crate::epoch::Epoch;
use crate::key::PublicKey;
use crate::path::PathKind;

/// The annotation's name on the Node.
pub const ANNOTATION: &str = "warren-mesh.io/wireguard";

/// The version of the format that this code writes and the only one it reads.
pub const VERSION: u32 = 1;

/// Longest annotation that is looked at, in bytes. A real one has about 200.
pub const MAX_BYTES: usize = 4096;

/// Most keys a node may have at once: two epochs while a rotation is under way.
pub const MAX_KEYS: usize = 2;

/// Most characters of a decoder's words that a refusal repeats: every node's status shows them.
const MAX_REASON: usize = 160;

/// What one node says about itself. It says nothing about pod addresses: those are the control plane's to give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    version: u32,
    /// One key an epoch, ascending; never empty, never two of one lane.
    pub keys: Vec<AnnouncedKey>,
    /// The newest epoch in which this node has reached all its peers.
    pub settled: Epoch,
    /// The kinds of path this node can send and receive on.
    pub paths: BTreeSet<PathKind>,
    /// How often the node has lost WireGuard or gained it since it first published: what it said before is told apart from
    /// what it says after it has come back to the same `paths`.
    #[serde(skip_serializing_if = "is_zero")]
    pub turns: u32,
    /// How far it has come with the paths that the mesh asks for; `None` where it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// One public key of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncedKey {
    /// The epoch it belongs to, which also tells its lane.
    pub epoch: Epoch,
    /// The key itself.
    pub public_key: PublicKey,
    /// The UDP port its lane listens on.
    pub port: u16,
}

impl Announcement {
    /// Puts an announcement together; fails where [`Announcement::parse`] would.
    pub fn new(
        mut keys: Vec<AnnouncedKey>,
        settled: Epoch,
        paths: BTreeSet<PathKind>,
    ) -> Result<Self, AnnouncementError> {
        keys.sort_by_key(|key| key.epoch);
        Self {
            version: VERSION,
            keys,
            settled,
            paths,
            turns: 0,
            progress: None,
        }
        .checked()
    }

    /// The same of a node that has lost WireGuard or gained it so often.
    #[must_use]
    pub fn with_turns(self, turns: u32) -> Self {
        Self { turns, ..self }
    }

    /// The same that also says how far the node has come.
    #[must_use]
    pub fn with_progress(self, progress: Progress) -> Self {
        Self {
            progress: Some(progress),
            ..self
        }
    }

    /// The same that says nothing of how far the node has come.
    #[must_use]
    pub fn without_progress(self) -> Self {
        Self {
            progress: None,
            ..self
        }
    }

    /// The same with those keys only that are wanted; `None` where none is.
    pub fn with_keys(&self, is_wanted: impl Fn(&AnnouncedKey) -> bool) -> Option<Self> {
        let keys: Vec<_> = self.keys.iter().copied().filter(is_wanted).collect();
        let newest = keys.last()?.epoch;
        Some(Self {
            keys,
            settled: self.settled.min(newest),
            ..self.clone()
        })
    }

    /// Reads the annotation's value.
    pub fn parse(text: &str) -> Result<Self, AnnouncementError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire {
            keys: Vec<AnnouncedKey>,
            settled: Epoch,
            paths: Vec<String>,
            #[serde(default)]
            turns: u32,
            progress: Option<WireProgress>,
        }
        #[derive(Deserialize)]
        struct WireProgress {
            accepts: Accord,
            sends: Option<Accord>,
            by: Vec<String>,
        }
        if text.len() > MAX_BYTES {
            return Err(AnnouncementError::TooLong { bytes: text.len() });
        }
        // The decoder repeats what it could not take, which may be all of the text.
        let malformed = |error: serde_json::Error| AnnouncementError::Malformed {
            reason: shortened(&error.to_string()),
        };
        let Version { version } = serde_json::from_str(text).map_err(malformed)?;
        if version != VERSION {
            return Err(AnnouncementError::UnknownVersion { version });
        }
        let wire: Wire = serde_json::from_str(text).map_err(malformed)?;
        // A newer agent may know more kinds of path; the ones not known here are simply not usable with that peer.
        let known = |word: &String| serde_json::from_value(serde_json::Value::String(word.clone())).ok();
        let paths = wire.paths.iter().filter_map(known).collect();
        let progress = wire.progress.map(|progress| Progress {
            accepts: progress.accepts,
            sends: progress.sends,
            by: progress.by.iter().filter_map(known).collect(),
        });
        Ok(Self {
            turns: wire.turns,
            progress,
            ..Self::new(wire.keys, wire.settled, paths)?
        })
    }

    /// The annotation's value. The same announcement always gives the same bytes.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an announcement has only strings, numbers and lists")
    }

    /// The key of that epoch.
    pub fn key(&self, epoch: Epoch) -> Option<&AnnouncedKey> {
        self.keys.iter().find(|key| key.epoch == epoch)
    }

    fn checked(self) -> Result<Self, AnnouncementError> {
        match self.keys.as_slice() {
            [] => Err(AnnouncementError::NoKeys),
            keys if keys.len() > MAX_KEYS => Err(AnnouncementError::TooManyKeys { count: keys.len() }),
            [a, b] if a.epoch.lane() == b.epoch.lane() => Err(AnnouncementError::SameLane {
                first: a.epoch,
                second: b.epoch,
            }),
            keys => {
                let newest = keys[keys.len() - 1].epoch;
                if let Some(key) = keys.iter().find(|key| key.port == 0) {
                    Err(AnnouncementError::NoPort { epoch: key.epoch })
                } else if self.settled > newest {
                    let settled = self.settled;
                    Err(AnnouncementError::SettledAhead { settled, newest })
                } else {
                    Ok(self)
                }
            }
        }
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The beginning and the end of a long text: a decoder says what last, and where.
fn shortened(text: &str) -> String {
    let count = text.chars().count();
    if count <= MAX_REASON {
        return text.to_owned();
    }
    let half = MAX_REASON / 2;
    let head: String = text.chars().take(half).collect();
    let tail: String = text.chars().skip(count - half).collect();
    format!("{head}...{tail}")
}

/// An annotation that cannot be used. The node's pod CIDRs stay sealed; nothing is sent to them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnnouncementError {
    /// Longer than [`MAX_BYTES`].
    #[error("is {bytes} bytes long, more than {MAX_BYTES}: delete it, the node's agent writes it again")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not JSON, or a field is missing or of the wrong kind.
    #[error("cannot be read ({reason}): delete it, the node's agent writes it again")]
    Malformed {
        /// What the decoder said.
        reason: String,
    },
    /// A format this agent does not know.
    #[error("has version {version}, this agent reads version {VERSION}: run the same release on all nodes")]
    UnknownVersion {
        /// The version found.
        version: u32,
    },
    /// No key at all.
    #[error("lists no key: restart the node's agent and see its log")]
    NoKeys,
    /// More keys than a rotation ever needs.
    #[error("lists {count} keys, more than {MAX_KEYS}: delete it, the node's agent writes it again")]
    TooManyKeys {
        /// How many.
        count: usize,
    },
    /// Two keys whose epochs share a lane (or are the same).
    #[error(
        "has keys of epochs {first} and {second}, which share a lane: delete it, the node's agent writes it again"
    )]
    SameLane {
        /// The earlier epoch.
        first: Epoch,
        /// The later epoch.
        second: Epoch,
    },
    /// Port 0.
    #[error("gives port 0 for the key of epoch {epoch}: set spec.ports in the Mesh")]
    NoPort {
        /// Which key.
        epoch: Epoch,
    },
    /// Settled in an epoch that is later than all of its keys.
    #[error(
        "says it settled in epoch {settled}, but its newest key is of epoch {newest}: delete it, the node's agent writes \
         it again"
    )]
    SettledAhead {
        /// What it says.
        settled: Epoch,
        /// Of its newest key.
        newest: Epoch,
    },
}

impl AnnouncementError {
    /// A short stable word for metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "annotation-too-long",
            Self::Malformed { .. } => "annotation-malformed",
            Self::UnknownVersion { .. } => "annotation-unknown-version",
            Self::NoKeys => "annotation-no-keys",
            Self::TooManyKeys { .. } => "annotation-too-many-keys",
            Self::SameLane { .. } => "annotation-same-lane",
            Self::NoPort { .. } => "annotation-no-port",
            Self::SettledAhead { .. } => "annotation-settled-ahead",
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    const KEY: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

    #[test]
    fn reads_what_it_writes_and_writes_what_the_design_says() {
        let text = format!(
            r#"{{"version":1,"keys":[{{"epoch":3,"publicKey":"{KEY}","port":51821}}],"settled":3,"paths":["wireguard","vxlan"]}}"#
        );
        let announcement = Announcement::parse(&text).unwrap();
        assert_eq!(announcement.to_json(), text);
        assert_eq!(announcement.keys[0].epoch.lane().interface(), "warren1");
    }

    #[test]
    fn how_often_a_node_has_turned_is_read_as_it_is_written_and_never_is_not_written() {
        let text = format!(
            r#"{{"version":1,"keys":[{{"epoch":3,"publicKey":"{KEY}","port":51821}}],"settled":3,"paths":["vxlan"],"turns":7}}"#
        );
        let announcement = Announcement::parse(&text).unwrap();
        assert_eq!((announcement.turns, announcement.to_json()), (7, text));
        assert!(!announcement.with_turns(0).to_json().contains("turns"));
    }

    #[test]
    fn how_far_a_node_has_come_is_read_as_it_is_written() {
        let progress =
            r#"{"accepts":"00000000000000a1","sends":"00000000000000a0","by":["wireguard","vxlan"]}"#;
        for progress in [
            progress.to_owned(),
            progress.replace(r#""sends":"00000000000000a0","#, ""),
        ] {
            let text = format!(
                r#"{{"version":1,"keys":[{{"epoch":3,"publicKey":"{KEY}","port":51821}}],"settled":3,"paths":["vxlan"],"progress":{progress}}}"#
            );
            let announcement = Announcement::parse(&text).unwrap();
            assert_eq!(announcement.to_json(), text);
            let progress = announcement.progress.unwrap();
            assert!(
                !progress.has_settled(progress.accepts),
                "it accepts more than it sends by"
            );
        }
        let damaged = format!(
            r#"{{"version":1,"keys":[{{"epoch":3,"publicKey":"{KEY}","port":51821}}],"settled":3,"paths":[],"progress":{{"accepts":"1","by":[]}}}}"#
        );
        assert_eq!(
            Announcement::parse(&damaged).unwrap_err().code(),
            "annotation-malformed"
        );
    }

    #[test]
    fn what_is_left_without_some_keys_is_an_announcement_again() {
        let key = |epoch: u32, byte: u8| AnnouncedKey {
            epoch: Epoch::new(epoch).unwrap(),
            public_key: PublicKey::from_bytes([byte; 32]).unwrap(),
            port: 1,
        };
        let both = vec![key(1, 7), key(2, 9)];
        let settled = Epoch::new(2).unwrap();
        let whole = Announcement::new(both, settled, BTreeSet::from([PathKind::Wireguard])).unwrap();
        assert_eq!(whole.with_keys(|_| true).as_ref(), Some(&whole));
        assert_eq!(whole.with_keys(|_| false), None);
        let left = whole.with_keys(|it| it.epoch == Epoch::FIRST).unwrap();
        assert_eq!(Announcement::parse(&left.to_json()), Ok(left));
    }

    #[test]
    fn unknown_paths_and_fields_of_a_newer_agent_do_not_hurt() {
        let text = format!(
            r#"{{"version":1,"keys":[{{"epoch":1,"publicKey":"{KEY}","port":51821,"x":1}}],"settled":1,"paths":["quic"],"more":{{}}}}"#
        );
        assert!(Announcement::parse(&text).unwrap().paths.is_empty());
    }

    #[test]
    fn each_kind_of_nonsense_has_its_own_error() {
        let with = |keys: &str| format!(r#"{{"version":1,"keys":[{keys}],"settled":1,"paths":[]}}"#);
        let key = |epoch: u32, port: u32| format!(r#"{{"epoch":{epoch},"publicKey":"{KEY}","port":{port}}}"#);
        let code = |text: &str| Announcement::parse(text).unwrap_err().code();
        assert_eq!(code("nonsense"), "annotation-malformed");
        assert_eq!(code(r#"{"version":2}"#), "annotation-unknown-version");
        assert_eq!(code(&with("")), "annotation-no-keys");
        assert_eq!(code(&with(&key(1, 0))), "annotation-no-port");
        assert_eq!(code(&with(&key(1, 65536))), "annotation-malformed");
        assert_eq!(code(&with(&key(0, 1))), "annotation-malformed");
        assert_eq!(
            code(&with(&[key(1, 1), key(3, 1)].join(","))),
            "annotation-same-lane"
        );
        assert_eq!(
            code(&with(&[key(1, 1), key(2, 1), key(3, 1)].join(","))),
            "annotation-too-many-keys"
        );
        assert_eq!(
            code(&with(&key(1, 1)).replace("\"settled\":1", "\"settled\":4294967295")),
            "annotation-settled-ahead"
        );
        assert_eq!(code(&" ".repeat(MAX_BYTES + 1)), "annotation-too-long");
        assert_eq!(
            code(&with(&key(1, 1).replace(KEY, &"A".repeat(44)))),
            "annotation-malformed"
        );
    }
    #[test]
    fn a_refusal_does_not_repeat_a_long_text() {
        let text = format!(
            r#"{{"version":1,"keys":"{}","settled":1,"paths":[]}}"#,
            "x".repeat(4000)
        );
        let message = Announcement::parse(&text).unwrap_err().to_string();
        assert!(
            message.contains("invalid type") && message.contains("column"),
            "{message}"
        );
        assert!(message.len() < 400, "{} bytes", message.len());
    }
}
