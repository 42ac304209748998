//! Label and field selectors, as query strings carry them.

use serde_json::Value;

use crate::error::ApiError;

/// Which objects of a collection a request is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    labels: Vec<LabelTerm>,
    fields: Vec<FieldTerm>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum LabelTerm {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldTerm {
    path: Vec<String>,
    value: String,
    equal: bool,
}

impl Selector {
    /// Parses `labelSelector` and `fieldSelector`. 400 on bad syntax or a field that cannot be selected by.
    pub(crate) fn parse(labels: &str, fields: &str) -> Result<Self, ApiError> {
        let labels = split_terms(labels)
            .into_iter()
            .map(label_term)
            .collect::<Result<_, _>>()?;
        let fields = fields
            .split(',')
            .filter(|term| !term.is_empty())
            .map(field_term)
            .collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    /// Narrows to the object of this name, as a watch of a single object does.
    pub(crate) fn require_name(&mut self, name: &str) {
        let path = vec!["metadata".to_owned(), "name".to_owned()];
        self.fields.push(FieldTerm {
            path,
            value: name.to_owned(),
            equal: true,
        });
    }

    /// Whether everything matches.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|term| term.matches(labels))
            && self.fields.iter().all(|term| term.matches(object))
    }
}

impl LabelTerm {
    fn matches(&self, labels: &Value) -> bool {
        let value = |key: &str| labels.get(key).and_then(Value::as_str);
        match self {
            Self::In(key, values) => value(key).is_some_and(|v| values.iter().any(|w| w == v)),
            // An object without the label matches `!=` and `notin`: that is the documented meaning.
            Self::NotIn(key, values) => value(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Self::Exists(key) => value(key).is_some(),
            Self::Absent(key) => value(key).is_none(),
        }
    }
}

impl FieldTerm {
    fn matches(&self, object: &Value) -> bool {
        let found = self
            .path
            .iter()
            .try_fold(object, |at, step| at.get(step))
            .and_then(Value::as_str);
        (found.unwrap_or_default() == self.value) == self.equal
    }
}

/// Splits at commas outside parentheses.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut terms) = (0usize, 0, Vec::new());
    for (at, char) in text.char_indices() {
        match char {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
        .into_iter()
        .map(str::trim)
        .filter(|term| !term.is_empty())
        .collect()
}

fn label_term(term: &str) -> Result<LabelTerm, ApiError> {
    let bad = || ApiError::BadRequest(format!("unable to parse requirement: {term:?}"));
    let key = |text: &str| {
        let key = text.trim();
        let fine = !key.is_empty()
            && key
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        fine.then(|| key.to_owned()).ok_or_else(bad)
    };
    if let Some((left, right)) = term.split_once("!=") {
        return Ok(LabelTerm::NotIn(key(left)?, vec![right.trim().to_owned()]));
    }
    if let Some((left, right)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok(LabelTerm::In(key(left)?, vec![right.trim().to_owned()]));
    }
    if let Some(rest) = term.strip_prefix('!') {
        return Ok(LabelTerm::Absent(key(rest)?));
    }
    if let Some((left, set)) = term.split_once('(') {
        let set = set.strip_suffix(')').ok_or_else(bad)?;
        let values = set.split(',').map(|value| value.trim().to_owned()).collect();
        let (name, word) = left.trim().rsplit_once(char::is_whitespace).ok_or_else(bad)?;
        return match word {
            "in" => Ok(LabelTerm::In(key(name)?, values)),
            "notin" => Ok(LabelTerm::NotIn(key(name)?, values)),
            _ => Err(bad()),
        };
    }
    Ok(LabelTerm::Exists(key(term)?))
}

fn field_term(term: &str) -> Result<FieldTerm, ApiError> {
    let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
        (path, value, false)
    } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (path, value, true)
    } else {
        return Err(ApiError::BadRequest(format!(
            "invalid selector: {term:?}; can't understand"
        )));
    };
    let known = [
        "metadata.name",
        "metadata.namespace",
        "spec.nodeName",
        "status.phase",
        "reason",
        "type",
    ];
    if !known.contains(&path)
        && !["involvedObject.", "regarding."]
            .iter()
            .any(|p| path.starts_with(p))
    {
        return Err(ApiError::BadRequest(format!("field label not supported: {path}")));
    }
    Ok(FieldTerm {
        path: path.split('.').map(str::to_owned).collect(),
        value: value.to_owned(),
        equal,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use serde_json::json;

    fn label_match(selector: &str) -> bool {
        let object = json!({ "metadata": { "labels": { "app": "web", "tier": "front" } } });
        Selector::parse(selector, "").unwrap().matches(&object)
    }

    #[test]
    fn every_label_operator_has_its_documented_meaning() {
        for yes in [
            "",
            "app=web",
            "app==web",
            "app!=db",
            "other!=x",
            "app in (web, db)",
            "app notin (db)",
            "app",
            "!other",
            "other notin (x)",
            "app=web,tier in (front,back),!gone",
        ] {
            assert!(label_match(yes), "{yes} should match");
        }
        for no in [
            "app=db",
            "app!=web",
            "app in (db)",
            "app notin (web)",
            "!app",
            "other",
            "app=web,other",
        ] {
            assert!(!label_match(no), "{no} should not match");
        }
    }

    #[test]
    fn bad_selectors_are_refused() {
        for bad in ["a b c", "app in web", "app ~ (x)", "=x", "app in (x"] {
            assert!(Selector::parse(bad, "").is_err(), "{bad} should be refused");
        }
        assert!(Selector::parse("", "spec.colour=red").is_err());
        assert!(Selector::parse("", "metadata.name").is_err());
    }

    #[test]
    fn field_selectors_compare_text_and_treat_absent_as_empty() {
        let pod = json!({ "metadata": { "name": "a" }, "spec": { "nodeName": "n1" } });
        let matches = |fields| Selector::parse("", fields).unwrap().matches(&pod);
        assert!(matches("spec.nodeName=n1,metadata.name=a"));
        assert!(matches("status.phase!=Running"));
        assert!(!matches("spec.nodeName!=n1"));
        assert!(matches("status.phase="));
    }
}
