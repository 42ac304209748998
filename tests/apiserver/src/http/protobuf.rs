//! Request bodies in Kubernetes' protobuf, for the few kinds that `kubectl create` of 1.32 and later sends that way.
//!
//! Field numbers are those of the `generated.proto` files in k8s.io/api and k8s.io/apimachinery. A field that is not
//! in the tables and not empty is refused: dropping it in silence would store half an object.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::error::ApiError;

/// What the envelope starts with (k8s.io/apimachinery, `runtime/serializer/protobuf`).
const MAGIC: &[u8] = b"k8s\0";

const ACCEPTED: &str = "application/json, application/yaml";

#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Texts,
    Bytes,
    Number,
    Flag,
    TextMap,
    BytesMap,
    One(&'static [Field]),
    Many(&'static [Field]),
}

type Field = (u64, &'static str, Kind);

const META: &[Field] = &[
    (1, "name", Kind::Text),
    (2, "generateName", Kind::Text),
    (3, "namespace", Kind::Text),
    (5, "uid", Kind::Text),
    (6, "resourceVersion", Kind::Text),
    (7, "generation", Kind::Number),
    (11, "labels", Kind::TextMap),
    (12, "annotations", Kind::TextMap),
    (14, "finalizers", Kind::Texts),
];
const RULE: &[Field] = &[
    (1, "verbs", Kind::Texts),
    (2, "apiGroups", Kind::Texts),
    (3, "resources", Kind::Texts),
    (4, "resourceNames", Kind::Texts),
    (5, "nonResourceURLs", Kind::Texts),
];
const SUBJECT: &[Field] = &[
    (1, "kind", Kind::Text),
    (2, "apiGroup", Kind::Text),
    (3, "name", Kind::Text),
    (4, "namespace", Kind::Text),
];
const ROLE_REF: &[Field] = &[
    (1, "apiGroup", Kind::Text),
    (2, "kind", Kind::Text),
    (3, "name", Kind::Text),
];
const ACCESS: &[Field] = &[
    (1, "namespace", Kind::Text),
    (2, "verb", Kind::Text),
    (3, "group", Kind::Text),
    (4, "version", Kind::Text),
    (5, "resource", Kind::Text),
    (6, "subresource", Kind::Text),
    (7, "name", Kind::Text),
];
const PRECONDITIONS: &[Field] = &[(1, "uid", Kind::Text), (2, "resourceVersion", Kind::Text)];

/// Fields of a message by its kind.
fn fields(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "Namespace" | "SelfSubjectReview" => &[(1, "metadata", Kind::One(META))],
        "ServiceAccount" => &[
            (1, "metadata", Kind::One(META)),
            (4, "automountServiceAccountToken", Kind::Flag),
        ],
        "ConfigMap" => &[
            (1, "metadata", Kind::One(META)),
            (2, "data", Kind::TextMap),
            (3, "binaryData", Kind::BytesMap),
            (4, "immutable", Kind::Flag),
        ],
        "Secret" => &[
            (1, "metadata", Kind::One(META)),
            (2, "data", Kind::BytesMap),
            (3, "type", Kind::Text),
            (4, "stringData", Kind::TextMap),
            (5, "immutable", Kind::Flag),
        ],
        "Role" | "ClusterRole" => &[(1, "metadata", Kind::One(META)), (2, "rules", Kind::Many(RULE))],
        "RoleBinding" | "ClusterRoleBinding" => &[
            (1, "metadata", Kind::One(META)),
            (2, "subjects", Kind::Many(SUBJECT)),
            (3, "roleRef", Kind::One(ROLE_REF)),
        ],
        "SelfSubjectAccessReview" => &[
            (1, "metadata", Kind::One(META)),
            (
                2,
                "spec",
                Kind::One(&[
                    (1, "resourceAttributes", Kind::One(ACCESS)),
                    (
                        2,
                        "nonResourceAttributes",
                        Kind::One(&[(1, "path", Kind::Text), (2, "verb", Kind::Text)]),
                    ),
                ]),
            ),
        ],
        "DeleteOptions" => &[
            (1, "gracePeriodSeconds", Kind::Number),
            (2, "preconditions", Kind::One(PRECONDITIONS)),
            (3, "orphanDependents", Kind::Flag),
            (4, "propagationPolicy", Kind::Text),
            (5, "dryRun", Kind::Texts),
        ],
        _ => return None,
    })
}

/// The object in an enveloped body. 415 for kinds and fields that are not in the tables above.
pub(crate) fn decode(body: &[u8]) -> Result<Value, ApiError> {
    object(body).ok_or(ApiError::UnsupportedMediaType(ACCEPTED))
}

/// `runtime.Unknown { typeMeta = 1 { apiVersion = 1, kind = 2 }, raw = 2 }`.
fn object(body: &[u8]) -> Option<Value> {
    const TYPE: &[Field] = &[(1, "apiVersion", Kind::Text), (2, "kind", Kind::Text)];
    let mut rest = body.strip_prefix(MAGIC)?;
    let (mut types, mut raw) = (json!({}), &[][..]);
    while let Some((number, item)) = next(&mut rest)? {
        match (number, item) {
            (1, Item::Bytes(bytes)) => types = message(bytes, TYPE)?,
            (2, Item::Bytes(bytes)) => raw = bytes,
            // Content encoding and type: empty, or what is known anyway.
            _ => {}
        }
    }
    let mut object = message(raw, fields(types["kind"].as_str()?)?)?;
    object["apiVersion"] = types["apiVersion"].take();
    object["kind"] = types["kind"].take();
    Some(object)
}

/// One value on the wire.
#[derive(Debug, Clone, Copy)]
enum Item<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

fn message(mut rest: &[u8], fields: &[Field]) -> Option<Value> {
    let mut object = json!({});
    while let Some((number, item)) = next(&mut rest)? {
        let Some((_, name, kind)) = fields.iter().find(|field| field.0 == number) else {
            if is_empty(item) {
                continue;
            }
            return None;
        };
        read(&mut object[*name], *kind, item)?;
    }
    Some(object)
}

fn read(slot: &mut Value, kind: Kind, item: Item<'_>) -> Option<()> {
    let bytes = match (kind, item) {
        (Kind::Number, Item::Varint(number)) => {
            *slot = json!(number.cast_signed());
            return Some(());
        }
        (Kind::Flag, Item::Varint(number)) => {
            *slot = json!(number != 0);
            return Some(());
        }
        (_, Item::Bytes(bytes)) => bytes,
        (_, Item::Varint(_)) => return None,
    };
    match kind {
        Kind::Text => *slot = json!(text(bytes)?),
        Kind::Bytes => *slot = json!(STANDARD.encode(bytes)),
        Kind::One(fields) => *slot = message(bytes, fields)?,
        Kind::Texts => push(slot, json!(text(bytes)?)),
        Kind::Many(fields) => push(slot, message(bytes, fields)?),
        Kind::TextMap | Kind::BytesMap => {
            let value = if matches!(kind, Kind::TextMap) {
                Kind::Text
            } else {
                Kind::Bytes
            };
            let mut entry = message(bytes, &[(1, "key", Kind::Text), (2, "value", value)])?;
            let key = entry["key"].as_str().unwrap_or_default().to_owned();
            // An empty value is not written at all.
            let value = entry["value"].take();
            slot[key] = if value.is_null() { json!("") } else { value };
        }
        Kind::Number | Kind::Flag => return None,
    }
    Some(())
}

fn push(slot: &mut Value, value: Value) {
    match slot.as_array_mut() {
        Some(list) => list.push(value),
        None => *slot = json!([value]),
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Whether a value says no more than its absence would; an empty time holds an empty message or zeros.
fn is_empty(item: Item<'_>) -> bool {
    match item {
        Item::Varint(number) => number == 0,
        Item::Bytes(mut bytes) => loop {
            match next(&mut bytes) {
                // Not a message, so text, and text that is there says something.
                None => return false,
                Some(None) => return true,
                Some(Some((_, item))) if !is_empty(item) => return false,
                Some(Some(_)) => {}
            }
        },
    }
}

/// The next field, `Some(None)` at the end, `None` when the bytes are no protobuf.
fn next<'a>(rest: &mut &'a [u8]) -> Option<Option<(u64, Item<'a>)>> {
    if rest.is_empty() {
        return Some(None);
    }
    let tag = varint(rest)?;
    let item = match tag & 7 {
        0 => Item::Varint(varint(rest)?),
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            let (bytes, after) = rest.split_at_checked(length)?;
            *rest = after;
            Item::Bytes(bytes)
        }
        _ => return None,
    };
    Some(Some((tag >> 3, item)))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
    }

    fn envelope(kind: &str, raw: &[u8]) -> Vec<u8> {
        let types = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [
            MAGIC,
            &field(1, &types),
            &field(2, raw),
            &field(3, b""),
            &field(4, b""),
        ]
        .concat()
    }

    #[test]
    fn a_secret_is_read_with_its_bytes_in_base64() {
        let data = [field(1, b"key"), field(2, &[0xff, 0])].concat();
        let raw = [
            field(1, &[field(1, b"s"), field(8, b"")].concat()),
            field(2, &data),
            field(3, b"Opaque"),
        ]
        .concat();
        let expected = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" },
            "data": { "key": "/wA=" }, "type": "Opaque" });
        assert_eq!(decode(&envelope("Secret", &raw)), Ok(expected));
    }

    #[test]
    fn unknown_kinds_unknown_fields_and_garbage_are_refused() {
        let named = field(1, &field(1, b"x"));
        assert!(decode(&envelope("Namespace", &named)).is_ok());
        assert!(decode(&envelope("Pod", &named)).is_err());
        assert!(decode(&envelope("Namespace", &[named.clone(), field(9, b"x")].concat())).is_err());
        assert!(decode(&envelope("Namespace", &named[..3])).is_err());
        assert!(decode(b"{}").is_err());
        assert!(decode(&[]).is_err());
    }
}
