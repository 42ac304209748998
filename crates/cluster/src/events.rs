//! Refusals as Kubernetes Events, where `kubectl describe` shows them.
//!
//! An Event's name is made of what it says about which object, so the same is never written twice, whoever writes it: the
//! server answers 409 to the second. Nothing is written when a refusal is gone; the conditions of the Mesh tell that.
//!
//! Written with the node's own identity, which may create Events and neither read nor change them. Events are of `v1`
//! and not of `events.k8s.io/v1`, which nodes may not write.

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use warren_model::fnv::Fnv;
use warren_model::{NodeName, Refusal};

use crate::api_error::status_code;
use crate::mesh_resource::{GROUP, VERSION};
use crate::write::WriteError;

/// `reportingComponent` (`reportingController` in `events.k8s.io/v1`).
pub const CONTROLLER: &str = "warren-mesh.io/agent";

/// Where Events of objects without a namespace live: `kubectl describe node` looks there.
const NAMESPACE: &str = "default";

/// Longest message, bytes: what `events.k8s.io/v1` takes.
const LONGEST_MESSAGE: usize = 1024;

/// Longest name that an object has, so that a dot and a hash go behind it.
const LONGEST_NAME: usize = 253 - 17;

/// What is no refusal but only told, by its code.
const NOTICES: [&str; 2] = [ROTATION_BEGUN, ROTATION_PUT_OFF];

/// The code of what tells that a rotation by schedule has begun.
pub const ROTATION_BEGUN: &str = "rotation-begun";

/// The code of what tells that one is due and has not begun.
pub const ROTATION_PUT_OFF: &str = "rotation-put-off";

/// What became of an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// It was written.
    Created,
    /// It was there.
    Existed,
}

impl Posted {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Existed => "existed",
        }
    }
}

/// A refusal of an object that exists, or something else that is told of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What is refused and why.
    pub refusal: Refusal,
    /// The object's uid.
    pub uid: String,
}

impl Finding {
    /// Which refusal it is, whatever its words: two agents may word one differently. Of rotations that begin each is another,
    /// and its words have its epoch.
    pub fn key(&self) -> u64 {
        let Refusal {
            object,
            code,
            message,
        } = &self.refusal;
        let which = if code == ROTATION_BEGUN { message } else { "" };
        hash(&[object, &self.uid, code, which])
    }
}

/// The Event of a refusal, as that node's agent reports it at that time, in seconds since 1970. `None`: the object is of no
/// kind that is reported.
pub fn event(finding: &Finding, node: &NodeName, now: i64) -> Option<Event> {
    let Finding { refusal, uid } = finding;
    let object = involved(&refusal.object, uid)?;
    let reason = camel_case(&refusal.code);
    let message = shortened(&refusal.message);
    let hash = hash(&[&refusal.object, uid, &reason, &message]);
    let name: String = object
        .name
        .iter()
        .flat_map(|name| name.chars())
        .take(LONGEST_NAME)
        .collect();
    let at = Timestamp::from_second(now).ok().map(Time);
    Some(Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{hash:016x}")),
            namespace: Some(object.namespace.clone().unwrap_or_else(|| NAMESPACE.to_owned())),
            ..ObjectMeta::default()
        },
        involved_object: object,
        reason: Some(reason),
        message: Some(message),
        type_: Some(kind(&refusal.code).to_owned()),
        count: Some(1),
        first_timestamp: at.clone(),
        last_timestamp: at,
        reporting_component: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(node.to_string()),
        source: Some(EventSource {
            component: Some("warren-agent".to_owned()),
            host: Some(node.to_string()),
        }),
        ..Event::default()
    })
}

/// Writes an Event, unless it is there.
pub async fn post(client: &Client, event: &Event) -> Result<Posted, WriteError> {
    let namespace = event.metadata.namespace.as_deref().unwrap_or(NAMESPACE);
    let events = Api::<Event>::namespaced(client.clone(), namespace);
    match events.create(&PostParams::default(), event).await {
        Ok(_) => Ok(Posted::Created),
        Err(error) if status_code(&error) == Some(409) => Ok(Posted::Existed),
        Err(error) => {
            let name = event.metadata.name.as_deref().unwrap_or_default();
            Err(WriteError::new(format!("Event/{namespace}/{name}"), &error))
        }
    }
}

fn kind(code: &str) -> &'static str {
    if NOTICES.contains(&code) {
        "Normal"
    } else {
        "Warning"
    }
}

/// The object of a refusal, `Kind/name` or `Kind/namespace/name`, as Events name it.
fn involved(object: &str, uid: &str) -> Option<ObjectReference> {
    let (kind, rest) = object.split_once('/')?;
    let ours = || format!("{GROUP}/{VERSION}");
    let (kind, api_version, is_namespaced) = match kind {
        "Node" => (kind, "v1".to_owned(), false),
        "Pod" => (kind, "v1".to_owned(), true),
        "Mesh" | "GlobalNetworkPolicy" | "GlobalNetworkSet" | "HostEndpoint" => (kind, ours(), false),
        "NetworkSet" => (kind, ours(), true),
        "NetworkPolicy" => (kind, "networking.k8s.io/v1".to_owned(), true),
        // So that the two kinds of that name can be told apart.
        "NetworkPolicy.warren-mesh.io" => ("NetworkPolicy", ours(), true),
        _ => return None,
    };
    let (namespace, name) = match is_namespaced {
        false => (None, rest),
        true => {
            let (namespace, name) = rest.split_once('/')?;
            (Some(namespace.to_owned()), name)
        }
    };
    // The kubelet names nodes so in its Events, and `kubectl describe node` asks for it.
    let uid = if kind == "Node" { name } else { uid };
    Some(ObjectReference {
        api_version: Some(api_version),
        kind: Some(kind.to_owned()),
        name: Some(name.to_owned()),
        namespace,
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    })
}

/// `invalid-pod-cidr` as `InvalidPodCidr`.
fn camel_case(code: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|it| it.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    code.split('-').map(word).collect()
}

fn shortened(message: &str) -> String {
    let ends = message
        .char_indices()
        .map(|(start, letter)| start + letter.len_utf8());
    let end = ends.take_while(|end| *end <= LONGEST_MESSAGE).last();
    message[..end.unwrap_or_default()].to_owned()
}

fn hash(parts: &[&str]) -> u64 {
    let mut fnv = Fnv::new();
    for part in parts {
        fnv.update(part);
        // Not part of any name: what stands before and after it cannot be mistaken for one word.
        fnv.update("\n");
    }
    fnv.finish()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fake_api::{Answer, FakeApi, status};

    fn finding(object: &str, code: &str, message: &str) -> Finding {
        Finding {
            refusal: Refusal::new(object, code, message),
            uid: "u1".to_owned(),
        }
    }

    fn of(finding: &Finding) -> Event {
        event(finding, &"a".parse().unwrap(), 1000).unwrap()
    }

    #[test]
    fn an_event_stands_where_kubectl_describe_looks_for_it() {
        let node = of(&finding("Node/b", "invalid-pod-cidr", "no good: do better"));
        let written = serde_json::to_value(&node).unwrap();
        assert_eq!(
            written["involvedObject"],
            json!({"apiVersion": "v1", "kind": "Node", "name": "b", "uid": "b"})
        );
        assert_eq!(written["metadata"]["namespace"], "default");
        assert!(written["metadata"]["name"].as_str().unwrap().starts_with("b."));
        for (field, value) in [
            ("reason", "InvalidPodCidr"),
            ("message", "no good: do better"),
            ("type", "Warning"),
            ("firstTimestamp", "1970-01-01T00:16:40Z"),
            ("reportingComponent", "warren-mesh.io/agent"),
            ("reportingInstance", "a"),
        ] {
            assert_eq!(written[field], value, "{field}");
        }
        let mesh = of(&finding("Mesh/default", "x", "y")).involved_object;
        assert_eq!(
            (mesh.uid.as_deref(), mesh.api_version.as_deref()),
            (Some("u1"), Some("warren-mesh.io/v1alpha1"))
        );
        let pod = of(&finding("Pod/ns/p", "x", "y"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("ns"));
        assert_eq!(pod.involved_object.name.as_deref(), Some("p"));
        assert_eq!(
            event(&finding("Other/x", "x", "y"), &"a".parse().unwrap(), 0),
            None
        );
    }

    #[test]
    fn the_same_has_the_same_name_whoever_says_it_and_anything_else_another() {
        let name = |finding: &Finding, node: &str, now| {
            event(finding, &node.parse().unwrap(), now).unwrap().metadata.name
        };
        let one = finding("Node/b", "x", "y");
        assert_eq!(name(&one, "a", 1), name(&one, "c", 2));
        let successor = Finding {
            uid: "u2".into(),
            ..one.clone()
        };
        for other in [
            finding("Node/b", "x", "z"),
            finding("Node/b", "w", "y"),
            successor,
        ] {
            assert_ne!(name(&one, "a", 1), name(&other, "a", 1), "{other:?}");
        }
        assert_eq!(one.key(), finding("Node/b", "x", "in other words").key());
        assert_ne!(one.key(), finding("Node/b", "w", "y").key());
        let begun = |message| finding("Mesh/default", ROTATION_BEGUN, message).key();
        assert_ne!(begun("to epoch 2"), begun("to epoch 3"), "each is told");
    }

    #[test]
    fn names_and_messages_are_no_longer_than_the_server_takes() {
        let long = "é".repeat(2000);
        let event = of(&finding(&format!("Node/{}", "n".repeat(253)), "x", &long));
        assert_eq!(event.metadata.name.unwrap().len(), 253);
        assert_eq!(event.message.unwrap().len(), 1024);
    }

    #[test]
    fn what_is_only_told_is_no_warning() {
        for (code, kind) in [
            (ROTATION_BEGUN, "Normal"),
            (ROTATION_PUT_OFF, "Normal"),
            ("invalid-mesh-field", "Warning"),
        ] {
            assert_eq!(
                of(&finding("Mesh/default", code, "y")).type_.as_deref(),
                Some(kind)
            );
        }
    }

    #[tokio::test]
    async fn what_is_there_already_is_done() {
        let api = FakeApi::default();
        let event = of(&finding("Node/b", "x", "y"));
        api.next_write_answers(Answer {
            code: 201,
            body: serde_json::to_value(&event).unwrap(),
        });
        assert_eq!(post(&api.client(), &event).await, Ok(Posted::Created));
        api.next_write_answers(status(409, "AlreadyExists"));
        assert_eq!(post(&api.client(), &event).await, Ok(Posted::Existed));
        api.next_write_answers(status(403, "Forbidden"));
        assert!(post(&api.client(), &event).await.is_err());
        let asked = api.log().remove(0);
        assert_eq!(
            (asked.method.as_str(), asked.path.as_str()),
            ("POST", "/api/v1/namespaces/default/events")
        );
        let body: Value = serde_json::from_str(&asked.body).unwrap();
        assert_eq!(body["reason"], "X");
    }
}
