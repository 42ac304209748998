//! Request bodies: JSON, YAML, and protobuf where it cannot be helped.

use http::header;
use serde_json::Value;

use super::{Received, protobuf};
use crate::error::ApiError;

/// The object in the body, in the format its content type names; JSON if it names none.
pub(crate) fn decode(received: &Received) -> Result<Value, ApiError> {
    let kind = received.header(header::CONTENT_TYPE);
    if kind.contains("vnd.kubernetes.protobuf") {
        return protobuf::decode(&received.body);
    }
    if kind.contains("yaml") {
        return yaml(&received.body);
    }
    serde_json::from_slice(&received.body)
        .map_err(|error| ApiError::BadRequest(format!("the object provided is not valid JSON: {error}")))
}

/// YAML, or JSON, which is YAML; but reading it as JSON keeps numbers exact.
pub(crate) fn yaml(body: &[u8]) -> Result<Value, ApiError> {
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let bad = |error: &dyn std::fmt::Display| ApiError::BadRequest(format!("error decoding YAML: {error}"));
    let text = std::str::from_utf8(body).map_err(|error| bad(&error))?;
    serde_saphyr::from_str(text).map_err(|error| bad(&error))
}
