//! Errors as the Kubernetes API reports them: an HTTP code, a machine reason and a `Status` body.

use serde_json::{Value, json};

/// The object an error is about, as `Status.details` names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// API group, empty for the core group.
    pub group: String,
    /// Plural resource name (the kind, for [`ApiError::Invalid`]).
    pub kind: String,
    /// Object name; empty when the request named none.
    pub name: String,
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.kind)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        write!(f, " \"{}\"", self.name)
    }
}

/// One entry of `Status.details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Machine reason, such as `FieldValueInvalid` or `FieldManagerConflict`.
    pub reason: &'static str,
    /// Path of the field, such as `spec.mtu`.
    pub field: String,
    /// What is wrong with it, for people.
    pub message: String,
}

/// Why the API refused a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// 400: the request cannot be understood.
    #[error("{0}")]
    BadRequest(String),
    /// 401: no token, or one that is not in [`Config::tokens`](crate::Config::tokens).
    #[error("Unauthorized")]
    Unauthorized,
    /// 403: the identity may not do this.
    #[error("{subject} is forbidden: {message}")]
    Forbidden {
        /// What was to be written.
        subject: Subject,
        /// Who may not, and why.
        message: String,
    },
    /// 404: no such object.
    #[error("{0} not found")]
    NotFound(Subject),
    /// 404: the path names no served resource.
    #[error("the server could not find the requested resource")]
    NoSuchPath,
    /// 405: the resource does not have this verb.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// 409: create of something that is there.
    #[error("{0} already exists")]
    AlreadyExists(Subject),
    /// 409: stale resourceVersion, wrong uid or a failed precondition.
    #[error("Operation cannot be fulfilled on {subject}: {message}")]
    Conflict {
        /// The object.
        subject: Subject,
        /// Which expectation did not hold.
        message: String,
    },
    /// 409: server-side apply of fields that other managers own.
    #[error("Apply failed with {} conflict(s): {}", causes.len(), first(causes))]
    ApplyConflict {
        /// One cause for each field and owner.
        causes: Vec<Cause>,
    },
    /// 410: the resourceVersion is older than the history that is kept.
    #[error("{0}")]
    Expired(String),
    /// 415: a body in a format this resource does not take.
    #[error("the body of the request was in an unknown format - accepted media types include: {0}")]
    UnsupportedMediaType(&'static str),
    /// 422: the object breaks its schema.
    #[error("{subject} is invalid: {}", first(causes))]
    Invalid {
        /// The object, by kind.
        subject: Subject,
        /// One cause for each broken field.
        causes: Vec<Cause>,
    },
    /// 429: asked to come back later.
    #[error("the server has received too many requests and has asked us to try again later")]
    TooManyRequests {
        /// Value of `Retry-After`, seconds.
        retry_after: u32,
    },
    /// 500.
    #[error("Internal error occurred: {0}")]
    Internal(String),
    /// 503.
    #[error("{0}")]
    Unavailable(String),
    /// 504.
    #[error("{0}")]
    Timeout(String),
}

impl ApiError {
    /// The HTTP status code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.class().0
    }

    /// The machine reason, as in `metav1.StatusReason`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.class().1
    }

    /// The body a client gets: a `v1/Status` object.
    #[must_use]
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.to_string(), "reason": self.reason(), "code": self.code(),
        });
        if let Some(details) = self.details() {
            status["details"] = details;
        }
        status
    }

    fn class(&self) -> (u16, &'static str) {
        match self {
            Self::BadRequest(_) => (400, "BadRequest"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Forbidden { .. } => (403, "Forbidden"),
            Self::NotFound(_) | Self::NoSuchPath => (404, "NotFound"),
            Self::MethodNotAllowed => (405, "MethodNotAllowed"),
            Self::AlreadyExists(_) => (409, "AlreadyExists"),
            Self::Conflict { .. } | Self::ApplyConflict { .. } => (409, "Conflict"),
            Self::Expired(_) => (410, "Expired"),
            Self::UnsupportedMediaType(_) => (415, "UnsupportedMediaType"),
            Self::Invalid { .. } => (422, "Invalid"),
            Self::TooManyRequests { .. } => (429, "TooManyRequests"),
            Self::Internal(_) => (500, "InternalError"),
            Self::Unavailable(_) => (503, "ServiceUnavailable"),
            Self::Timeout(_) => (504, "Timeout"),
        }
    }

    fn details(&self) -> Option<Value> {
        match self {
            Self::Forbidden { subject, .. } | Self::Conflict { subject, .. } => Some(about(subject)),
            Self::NotFound(subject) | Self::AlreadyExists(subject) => Some(about(subject)),
            Self::Invalid { subject, causes } => {
                let mut details = about(subject);
                details["causes"] = list(causes);
                Some(details)
            }
            Self::ApplyConflict { causes } => Some(json!({ "causes": list(causes) })),
            Self::TooManyRequests { retry_after } => Some(json!({ "retryAfterSeconds": retry_after })),
            Self::NoSuchPath => Some(json!({})),
            Self::BadRequest(_)
            | Self::Unauthorized
            | Self::MethodNotAllowed
            | Self::Expired(_)
            | Self::UnsupportedMediaType(_)
            | Self::Internal(_)
            | Self::Unavailable(_)
            | Self::Timeout(_) => None,
        }
    }
}

fn about(subject: &Subject) -> Value {
    let mut details = json!({ "kind": subject.kind });
    if !subject.name.is_empty() {
        details["name"] = json!(subject.name);
    }
    if !subject.group.is_empty() {
        details["group"] = json!(subject.group);
    }
    details
}

fn list(causes: &[Cause]) -> Value {
    causes
        .iter()
        .map(|c| json!({ "reason": c.reason, "message": c.message, "field": c.field }))
        .collect()
}

fn first(causes: &[Cause]) -> String {
    let mut texts: Vec<String> = causes
        .iter()
        .map(|c| format!("{}: {}", c.field, c.message))
        .collect();
    if texts.len() == 1 {
        texts.remove(0)
    } else {
        format!("[{}]", texts.join(", "))
    }
}
