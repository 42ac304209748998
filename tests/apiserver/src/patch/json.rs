//! JSON patch (RFC 6902) and JSON merge patch (RFC 7396).

use serde_json::Value;

use crate::error::ApiError;

/// Applies a list of operations. 400 when it cannot be read, 422 when an operation does not fit the object.
pub(crate) fn apply(object: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|e| PatchError::Unreadable(ApiError::BadRequest(format!("unable to parse patch: {e}"))))?;
    json_patch::patch(object, &operations).map_err(|e| PatchError::DoesNotFit(e.to_string()))
}

/// Merges `patch` into `object`: null removes, objects merge, everything else replaces.
pub(crate) fn merge(object: &mut Value, patch: &Value) {
    json_patch::merge(object, patch);
}

/// Why a JSON patch was not applied.
#[derive(Debug)]
pub(crate) enum PatchError {
    Unreadable(ApiError),
    DoesNotFit(String),
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failed_test_operation_leaves_the_object_alone() {
        let mut object = json!({ "a": 1 });
        let patch = json!([{ "op": "replace", "path": "/a", "value": 2 }, { "op": "test", "path": "/a", "value": 3 }]);
        assert!(matches!(
            apply(&mut object, &patch),
            Err(PatchError::DoesNotFit(_))
        ));
        assert_eq!(object, json!({ "a": 1 }));
        assert!(matches!(
            apply(&mut object, &json!({})),
            Err(PatchError::Unreadable(_))
        ));
        apply(
            &mut object,
            &json!([{ "op": "add", "path": "/b", "value": [1] }, { "op": "remove", "path": "/a" }]),
        )
        .unwrap();
        assert_eq!(object, json!({ "b": [1] }));
    }

    #[test]
    fn merge_follows_the_examples_of_rfc_7396() {
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (
                json!({}),
                json!({"a":{"bb":{"ccc":null}}}),
                json!({"a":{"bb":{}}}),
            ),
        ] {
            let mut object = target;
            merge(&mut object, &patch);
            assert_eq!(object, result);
        }
    }
}
