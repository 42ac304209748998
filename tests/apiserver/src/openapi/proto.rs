//! The OpenAPI v2 document in protobuf, as `gnostic`'s `openapi.v2.Document` defines it, written by hand.
//!
//! Field numbers are those of `OpenAPIv2.proto` in github.com/google/gnostic-models.

use super::{PARAMETERS, TITLE, kind, object_path};
use crate::resource::{Registry, Resource};

/// `/openapi/v2` in protobuf.
pub(crate) fn document(registry: &Registry) -> Vec<u8> {
    let mut info = Message::default();
    info.text(1, TITLE).text(2, crate::discovery::GIT_VERSION);
    let mut paths = Message::default();
    for resource in registry.all() {
        paths.message(2, &path(resource));
    }
    let mut document = Message::default();
    document
        .text(1, "2.0")
        .message(2, &info)
        .message(8, &paths)
        .message(9, &Message::default());
    document.0
}

/// `NamedPathItem` with one PATCH.
fn path(resource: &Resource) -> Message {
    let mut any = Message::default();
    any.text(2, &kind(resource).to_string()); // JSON is YAML
    let mut extension = Message::default();
    extension
        .text(1, "x-kubernetes-group-version-kind")
        .message(2, &any);

    let mut patch = Message::default();
    for name in PARAMETERS {
        patch.message(8, &query_parameter(name));
    }
    patch.message(9, &Message::default()).message(13, &extension);
    let mut item = Message::default();
    item.message(8, &patch);
    let mut named = Message::default();
    named.text(1, &object_path(resource)).message(2, &item);
    named
}

/// `ParametersItem { parameter { non_body_parameter { query_parameter_sub_schema } } }`.
fn query_parameter(name: &str) -> Message {
    let mut query = Message::default();
    query.text(2, "query").text(4, name).text(6, "string");
    let wrap = |field: u32, inner: &Message| {
        let mut outer = Message::default();
        outer.message(field, inner);
        outer
    };
    wrap(1, &wrap(2, &wrap(3, &query)))
}

/// Bytes of a protobuf message. All fields here are length-delimited (wire type 2).
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn text(&mut self, field: u32, text: &str) -> &mut Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(&mut self, field: u32, message: &Message) -> &mut Self {
        self.bytes(field, &message.0)
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) -> &mut Self {
        self.varint(u64::from(field << 3 | 2));
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_fields_get_a_length_of_several_bytes() {
        let mut message = Message::default();
        message.text(2, &"x".repeat(300));
        assert_eq!(message.0[..3], [0x12, 0xac, 0x02]);
        assert_eq!(message.0.len(), 303);
    }
}
