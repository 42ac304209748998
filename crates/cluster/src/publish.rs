//! Publishing: the annotation `warren-mesh.io/wireguard` of the own node.
//!
//! The write is done with the node's own identity, the kubelet's, which NodeRestriction confines to that one Node. The
//! kubelet replaces its certificate on disk from time to time and a client reads it only once, so build the client for
//! each publication ([`crate::client::ClientConfig::build`]); there are few.

use k8s_openapi::api::core::v1 as k8s;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use warren_model::announcement::ANNOTATION;
use warren_model::{Announcement, Node, NodeName};

use crate::api_error::status_code;
use crate::write::{FIELD_MANAGER, WriteError};

/// Whether the node, as the watch shows it, must be written for it to say `desired`. A node that is not there cannot be.
pub fn needs_publish(observed: Option<&Node>, desired: &Announcement) -> bool {
    observed.is_some_and(|node| !matches!(&node.announcement, Some(Ok(published)) if published == desired))
}

/// Writes the annotation by server-side apply. Apply would create a Node that does not exist; the uid keeps it from
/// that, and from writing to a Node that was deleted and made anew (the server answers 409 to both).
///
/// Servers before 1.30 or so cannot apply anything to a Node with two InternalIPs, which every dual-stack node has: they
/// take `status.addresses` for a map by type and answer 500. They get the same by merge patch, which never creates.
pub async fn publish(client: &Client, node: &Node, desired: &Announcement) -> Result<(), WriteError> {
    let object = format!("Node/{}", node.name);
    if node.uid.is_empty() {
        return Err(WriteError::Gone { object });
    }
    let patch = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name.as_str(),
            "uid": node.uid,
            "annotations": {ANNOTATION: desired.to_json()},
        },
    });
    let nodes: Api<k8s::Node> = Api::all(client.clone());
    let name = node.name.as_str();
    let apply = PatchParams::apply(FIELD_MANAGER).force();
    let mut result = nodes.patch(name, &apply, &Patch::Apply(&patch)).await;
    if result
        .as_ref()
        .is_err_and(|error| status_code(error) == Some(500))
    {
        result = nodes.patch(name, &merging(), &Patch::Merge(&patch)).await;
    }
    result
        .map(|_| ())
        .map_err(|error| WriteError::new(object, &error))
}

fn merging() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// Removes the annotation, whoever wrote it; a Node that does not exist has none. By merge patch: an empty apply would
/// leave the annotation where another field manager has written it too, and would create a missing Node.
pub async fn withdraw(client: &Client, node: &NodeName) -> Result<(), WriteError> {
    let patch = json!({"metadata": {"annotations": {ANNOTATION: null}}});
    let nodes: Api<k8s::Node> = Api::all(client.clone());
    let result = nodes
        .patch(node.as_str(), &merging(), &Patch::Merge(&patch))
        .await;
    match result.map_err(|error| WriteError::new(format!("Node/{node}"), &error)) {
        Ok(_) | Err(WriteError::Gone { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;
    use warren_model::{AnnouncedKey, AnnouncementError, Epoch, PathKind};

    use super::*;
    use crate::fake_api::{Answer, FakeApi, status};
    use crate::write::Retry;

    fn announcement(port: u16) -> Announcement {
        let key = AnnouncedKey {
            epoch: Epoch::FIRST,
            public_key: "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=".parse().unwrap(),
            port,
        };
        Announcement::new(vec![key], Epoch::FIRST, BTreeSet::from([PathKind::Wireguard])).unwrap()
    }

    fn node(announcement: Option<Result<Announcement, AnnouncementError>>) -> Node {
        Node {
            name: "a".parse().unwrap(),
            uid: "u1".into(),
            created: 0,
            pod_cidrs: Vec::new(),
            internal_ips: Vec::new(),
            announcement,
            ready: true,
        }
    }

    fn accepted() -> Answer {
        Answer {
            code: 200,
            body: json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}),
        }
    }

    #[test]
    fn only_a_difference_is_published() {
        let desired = announcement(1);
        assert!(!needs_publish(None, &desired), "there is nothing to write to");
        assert!(needs_publish(Some(&node(None)), &desired));
        assert!(needs_publish(Some(&node(Some(Ok(announcement(2))))), &desired));
        assert!(needs_publish(
            Some(&node(Some(Err(AnnouncementError::NoKeys)))),
            &desired
        ));
        assert!(!needs_publish(Some(&node(Some(Ok(announcement(1))))), &desired));
    }

    #[tokio::test]
    async fn publishing_applies_the_one_annotation_to_the_one_node_of_that_uid() {
        let api = FakeApi::default();
        api.next_write_answers(accepted());
        publish(&api.client(), &node(None), &announcement(1))
            .await
            .unwrap();
        let asked = api.log().pop().unwrap();
        assert_eq!(asked.path, "/api/v1/nodes/a");
        assert_eq!(asked.content_type, "application/apply-patch+yaml");
        assert!(
            asked.query.contains("fieldManager=warren-agent"),
            "{}",
            asked.query
        );
        assert!(asked.query.contains("force=true"), "{}", asked.query);
        let body: Value = serde_json::from_str(&asked.body).unwrap();
        let annotations = json!({"warren-mesh.io/wireguard": announcement(1).to_json()});
        let metadata = json!({"name": "a", "uid": "u1", "annotations": annotations});
        assert_eq!(
            body,
            json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata})
        );
    }

    #[tokio::test]
    async fn a_server_that_cannot_apply_to_a_dual_stack_node_gets_a_merge_patch() {
        let api = FakeApi::default();
        api.next_write_answers(status(500, "InternalError"));
        api.next_write_answers(accepted());
        publish(&api.client(), &node(None), &announcement(1))
            .await
            .unwrap();
        let log = api.log();
        assert_eq!(log[0].content_type, "application/apply-patch+yaml");
        assert_eq!(log[1].content_type, "application/merge-patch+json");
        let body: Value = serde_json::from_str(&log[1].body).unwrap();
        assert_eq!(
            body["metadata"]["uid"], "u1",
            "it must not write to another node of that name"
        );
        assert_eq!(
            body["metadata"]["annotations"]["warren-mesh.io/wireguard"],
            announcement(1).to_json()
        );
    }

    #[tokio::test]
    async fn a_node_that_is_another_now_or_has_no_uid_is_not_written() {
        let api = FakeApi::default();
        api.next_write_answers(status(409, "Conflict"));
        let error = publish(&api.client(), &node(None), &announcement(1))
            .await
            .unwrap_err();
        assert_eq!(error.retry(), Retry::Later);
        let mut nameless = node(None);
        nameless.uid.clear();
        let error = publish(&api.client(), &nameless, &announcement(1))
            .await
            .unwrap_err();
        assert!(matches!(error, WriteError::Gone { .. }), "{error:?}");
        assert_eq!(api.log().len(), 1, "the second was not even asked for");
    }

    #[tokio::test]
    async fn withdrawing_removes_the_annotation_and_is_content_without_a_node() {
        let api = FakeApi::default();
        let name = node(None).name;
        api.next_write_answers(accepted());
        withdraw(&api.client(), &name).await.unwrap();
        let asked = api.log().pop().unwrap();
        assert_eq!(asked.content_type, "application/merge-patch+json");
        let body: Value = serde_json::from_str(&asked.body).unwrap();
        assert_eq!(
            body,
            json!({"metadata": {"annotations": {"warren-mesh.io/wireguard": null}}})
        );
        api.next_write_answers(status(404, "NotFound"));
        withdraw(&api.client(), &name).await.unwrap();
        api.next_write_answers(status(403, "Forbidden"));
        let error = withdraw(&api.client(), &name).await.unwrap_err();
        assert_eq!(error.retry(), Retry::Reconnect);
    }
}
