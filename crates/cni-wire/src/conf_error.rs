//! What can be wrong with a network configuration.

use std::path::PathBuf;

use crate::error::ErrorCode;
use crate::limits::{MAX_CONF_BYTES, MAX_SOCKET_PATH_BYTES, MAX_TIMEOUT_SECONDS};
use crate::names::NameError;
use crate::version::{SpecVersion, UnsupportedVersion};

/// Why a network configuration is refused. Retrying does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfError {
    /// It is longer than [`MAX_CONF_BYTES`].
    #[error("the network configuration on stdin is longer than {MAX_CONF_BYTES} bytes; shorten it")]
    TooLong,
    /// It is not a JSON object.
    #[error("the network configuration on stdin is not a JSON object: {0}")]
    NotJson(String),
    /// It is of a version we do not speak.
    #[error(transparent)]
    Version(#[from] UnsupportedVersion),
    /// A field cannot be read.
    #[error("field {field:?} of the network configuration cannot be read: {reason}")]
    Field {
        /// Its key.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
        /// The version in use.
        version: SpecVersion,
    },
    /// A field would have no effect.
    #[error("field \"{key}\" of the network configuration is not supported (it is {value}); {remedy}")]
    Unsupported {
        /// Its key, with those of the objects around it.
        key: String,
        /// Its value, as JSON.
        value: String,
        /// What to do instead.
        remedy: &'static str,
        /// The version in use.
        version: SpecVersion,
    },
    /// The network has no name, or a wrong one.
    #[error("field \"name\" of the network configuration {reason}")]
    Name {
        /// What is wrong with it.
        reason: NameError,
        /// The version in use.
        version: SpecVersion,
    },
    /// The timeout is out of range.
    #[error(
        "field \"timeoutSeconds\" of the network configuration is {seconds}; use 1 to {MAX_TIMEOUT_SECONDS}"
    )]
    Timeout {
        /// What it is.
        seconds: u64,
        /// The version in use.
        version: SpecVersion,
    },
    /// No socket can be in the run directory.
    #[error(
        "field \"runDir\" of the network configuration is {}; use an absolute path short enough for a socket in it \
         ({MAX_SOCKET_PATH_BYTES} bytes in all)", .run_dir.display()
    )]
    RunDir {
        /// What it is.
        run_dir: PathBuf,
        /// The version in use.
        version: SpecVersion,
    },
    /// GC does not say what to keep.
    #[error(
        "the network configuration for GC has no \"cni.dev/valid-attachments\"; refusing to take that for none: the \
         runtime has to list the attachments to keep"
    )]
    NoValidAttachments {
        /// The version in use.
        version: SpecVersion,
    },
}

impl ConfError {
    /// The CNI error code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotJson(_) | Self::Field { .. } => ErrorCode::DECODING_FAILURE,
            Self::Version(_) => ErrorCode::INCOMPATIBLE_VERSION,
            Self::Unsupported { .. } => ErrorCode::UNSUPPORTED_FIELD,
            Self::TooLong
            | Self::Name { .. }
            | Self::Timeout { .. }
            | Self::RunDir { .. }
            | Self::NoValidAttachments { .. } => ErrorCode::INVALID_NETWORK_CONFIG,
        }
    }

    /// The version to tell the error in: the configuration's own, if it could be read that far.
    pub fn version(&self) -> SpecVersion {
        match self {
            Self::TooLong | Self::NotJson(_) | Self::Version(_) => SpecVersion::NEWEST,
            Self::Field { version, .. }
            | Self::Unsupported { version, .. }
            | Self::Name { version, .. }
            | Self::Timeout { version, .. }
            | Self::RunDir { version, .. }
            | Self::NoValidAttachments { version } => *version,
        }
    }
}
