//! A failure on its way to becoming a CNI error: all but the version to tell it in.

use warren_cni_wire::{CniError, ConfError, ErrorCode, SpecVersion};

/// What goes into a [`CniError`], apart from the version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    pub(crate) msg: String,
    pub(crate) details: String,
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    pub(crate) fn in_version(self, cni_version: SpecVersion) -> CniError {
        CniError {
            cni_version,
            code: self.code,
            msg: self.msg,
            details: self.details,
        }
    }
}

impl From<ConfError> for Failure {
    fn from(error: ConfError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
