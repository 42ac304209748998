//! The result of one check.

use serde::Serialize;

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and somebody should look at it.
    Warn,
    /// Something does not work, or is not safe.
    Fail,
    /// It could not be looked at, or does not matter here.
    Skipped,
}

impl Verdict {
    /// The word for people, the same as in JSON.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skipped => "skipped",
        }
    }
}

/// One result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// The check's name, which does not change between releases.
    pub(super) check: &'static str,
    /// What it is about, where a check looks at several things: a peer, a file, an interface.
    pub(super) subject: Option<String>,
    /// What it came to.
    pub(super) result: Verdict,
    /// What was found.
    pub(super) found: String,
    /// What to do about it; always there with a warning or a failure.
    pub(super) remedy: Option<String>,
}

impl Finding {
    /// As it should be.
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, found, None)
    }

    /// Worth a look.
    pub(super) fn warn(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warn, found, Some(remedy.into()))
    }

    /// Broken.
    pub(super) fn fail(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Verdict::Fail, found, Some(remedy.into()))
    }

    /// Not looked at, and why.
    pub(super) fn skipped(check: &'static str, why: impl Into<String>) -> Self {
        Self::new(check, Verdict::Skipped, why, None)
    }

    /// The same, about one of several things.
    #[must_use]
    pub(super) fn about(self, subject: impl Into<String>) -> Self {
        Self {
            subject: Some(subject.into()),
            ..self
        }
    }

    fn new(check: &'static str, result: Verdict, found: impl Into<String>, remedy: Option<String>) -> Self {
        Self {
            check,
            subject: None,
            result,
            found: found.into(),
            remedy,
        }
    }
}
