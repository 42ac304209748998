//! Who calls, and the little that is forbidden.

use http::{HeaderMap, header};
use serde_json::Value;

use super::route::Address;
use crate::config::{Config, User};
use crate::error::{ApiError, Subject};

/// The identity of a request. 401 when tokens are configured and this has none of them.
pub(crate) fn authenticate(config: &Config, headers: &HeaderMap) -> Result<User, ApiError> {
    if config.tokens.is_empty() {
        return Ok(User {
            name: "system:admin".to_owned(),
            groups: vec!["system:masters".to_owned()],
        });
    }
    let header = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let token = header.strip_prefix("Bearer ").unwrap_or_default().trim();
    config.tokens.get(token).cloned().ok_or(ApiError::Unauthorized)
}

/// NodeRestriction, simplified: a node writes its own `Node`, its own lease, and events. NodeRestriction says nothing of
/// custom resources and leaves them to roles: here a node may write their status, which is what our manifests grant.
pub(crate) fn check_write(
    config: &Config,
    user: &User,
    address: &Address,
    body: Option<&Value>,
) -> Result<(), ApiError> {
    let Some(node) = user.as_node().filter(|_| config.node_restriction) else {
        return Ok(());
    };
    let named = match address.name.as_str() {
        "" => body.map_or("", crate::meta::name),
        name => name,
    };
    let allowed = match (address.group.as_str(), address.plural.as_str()) {
        ("", "nodes") => named == node,
        ("coordination.k8s.io", "leases") => address.namespace == "kube-node-lease" && named == node,
        ("" | "events.k8s.io", "events") => true,
        (group, _) => group.contains('.') && !group.ends_with(".k8s.io") && address.sub == "status",
    };
    if allowed {
        return Ok(());
    }
    let subject = Subject {
        group: address.group.clone(),
        kind: address.plural.clone(),
        name: named.to_owned(),
    };
    Err(ApiError::Forbidden {
        subject,
        message: format!("node \"{node}\" is not allowed to modify it"),
    })
}
