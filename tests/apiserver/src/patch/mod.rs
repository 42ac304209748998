//! The four patch formats of the Kubernetes API, each a pure function from an object to the next.

pub(crate) mod apply;
pub(crate) mod fields;
pub(crate) mod json;
pub(crate) mod managed;
pub(crate) mod shape;
pub(crate) mod strategic;

#[cfg(test)]
mod laws;

/// A patch, by its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json`, RFC 6902.
    Json,
    /// `application/merge-patch+json`, RFC 7396.
    Merge,
    /// `application/strategic-merge-patch+json`: lists are merged by key. Built-in kinds only.
    Strategic,
    /// `application/apply-patch+yaml`: server-side apply. YAML or JSON.
    Apply,
}

impl PatchKind {
    /// The format a `Content-Type` header names, parameters aside.
    #[must_use]
    pub fn from_content_type(header: &str) -> Option<Self> {
        match header.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            "application/apply-patch+yaml" => Some(Self::Apply),
            _ => None,
        }
    }
}
