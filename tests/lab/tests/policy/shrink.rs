//! Making a failing set of policies small.

use serde_json::Value;

use crate::scene::Object;

/// The fewest of these, with the fewest rules, that still fail; as far as leaving out one thing at a time gets.
pub(crate) async fn smallest(objects: Vec<Object>, fails: impl AsyncFn(&[Object]) -> bool) -> Vec<Object> {
    let mut small = objects;
    loop {
        let mut smaller = None;
        for candidate in without_one(&small) {
            if fails(&candidate).await {
                smaller = Some(candidate);
                break;
            }
        }
        match smaller {
            Some(smaller) => small = smaller,
            None => return small,
        }
    }
}

/// Each way to leave out one object, or one rule of one.
fn without_one(objects: &[Object]) -> Vec<Vec<Object>> {
    let mut ways = Vec::new();
    for left_out in 0..objects.len() {
        let mut fewer = objects.to_vec();
        fewer.remove(left_out);
        ways.push(fewer);
    }
    for (index, object) in objects.iter().enumerate() {
        for list in ["ingress", "egress"] {
            let rules = object.spec[list].as_array().map_or(0, Vec::len);
            for rule in 0..rules {
                let mut fewer = objects.to_vec();
                if let Some(rules) = fewer[index].spec[list].as_array_mut() {
                    rules.remove(rule);
                }
                // An absent list may mean something else than one without rules.
                assert_ne!(fewer[index].spec[list], Value::Null);
                ways.push(fewer);
            }
        }
    }
    ways
}

#[tokio::test]
async fn what_fails_is_made_small_without_losing_what_fails() {
    use serde_json::json;
    let object = |name: &str, rules: Value| Object::global(name, json!({"ingress": rules}));
    let guilty = json!({"action": "Deny"});
    let all = vec![
        object("a", json!([{"action": "Allow"}])),
        object("b", json!([{"action": "Allow"}, guilty, {"action": "Log"}])),
        object("c", json!([])),
    ];
    let fails = async |objects: &[Object]| {
        let mut rules = objects
            .iter()
            .flat_map(|it| it.spec["ingress"].as_array().unwrap());
        rules.any(|rule| *rule == guilty)
    };
    let small = smallest(all, fails).await;
    assert_eq!(small, [object("b", json!([guilty]))]);
}
