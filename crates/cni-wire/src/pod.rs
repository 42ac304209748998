//! Which pod an attachment is for.

use serde::{Deserialize, Serialize};

use crate::names::{NameError, check_id};

/// A pod, as the runtime names it in `CNI_ARGS`. Namespace and name are safe in paths and log lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct PodRef {
    namespace: String,
    name: String,
    uid: Option<String>,
}

impl PodRef {
    /// Checks the parts. They are held to the characters of a [`ContainerId`](crate::ContainerId), which is a little
    /// more than Kubernetes allows: a runtime driven by hand names its sandboxes more freely.
    ///
    /// # Errors
    /// Names the part that is wrong.
    pub fn new(namespace: String, name: String, uid: Option<String>) -> Result<Self, PodError> {
        let wrong = |part| move |reason| PodError { part, reason };
        check_id(&namespace).map_err(wrong("namespace"))?;
        check_id(&name).map_err(wrong("name"))?;
        if let Some(uid) = &uid {
            check_id(uid).map_err(wrong("uid"))?;
        }
        Ok(Self { namespace, name, uid })
    }

    /// The namespace the pod is in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The pod's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pod's UID, which tells it from an earlier pod of the same name. Old runtimes do not pass it.
    pub fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }
}

impl std::fmt::Display for PodRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Why there can be no such pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pod's {part} {reason}")]
pub struct PodError {
    /// `namespace`, `name` or `uid`.
    pub part: &'static str,
    /// What is wrong with it.
    pub reason: NameError,
}

#[derive(Serialize, Deserialize)]
struct Unchecked {
    namespace: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
}

impl TryFrom<Unchecked> for PodRef {
    type Error = PodError;

    fn try_from(pod: Unchecked) -> Result<Self, PodError> {
        Self::new(pod.namespace, pod.name, pod.uid)
    }
}

impl From<PodRef> for Unchecked {
    fn from(pod: PodRef) -> Self {
        Self {
            namespace: pod.namespace,
            name: pod.name,
            uid: pod.uid,
        }
    }
}
