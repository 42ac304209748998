//! The part of JSONPath that printer columns use: fields, `['field']`, `[0]`, `[*]` and `[?(@.a.b=="x")]`.

use serde_json::Value;

/// A parsed path. What cannot be parsed finds nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct JsonPath(Option<Vec<Step>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
    All,
    /// Items where the field at this path, as text, is (not) this.
    Where(Vec<String>, bool, String),
}

impl JsonPath {
    pub(crate) fn parse(text: &str) -> Self {
        Self(steps(text.trim().trim_start_matches('{').trim_end_matches('}')))
    }

    pub(crate) fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let Some(steps) = &self.0 else { return Vec::new() };
        let mut found = vec![value];
        for step in steps {
            found = found.into_iter().flat_map(|value| step.of(value)).collect();
        }
        found.retain(|value| !value.is_null());
        found
    }
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => value.get(index).into_iter().collect(),
            Self::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(fields) => fields.values().collect(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
            },
            Self::Where(path, equal, wanted) => {
                let holds = |item: &&Value| {
                    let field = path.iter().try_fold(*item, |at, step| at.get(step));
                    let text = field.map(|f| f.as_str().map_or_else(|| f.to_string(), str::to_owned));
                    text.is_some_and(|text| (text == *wanted) == *equal)
                };
                value.as_array().into_iter().flatten().filter(holds).collect()
            }
        }
    }
}

fn steps(mut rest: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    rest = rest.strip_prefix('$').unwrap_or(rest);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = closing(after)?;
            steps.push(bracket(after[..end].trim())?);
            rest = &after[end + 1..];
            continue;
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let (name, after) = field(rest);
        if name.is_empty() {
            return None;
        }
        steps.push(if name == "*" { Step::All } else { Step::Field(name) });
        rest = after;
    }
    Some(steps)
}

/// Where the bracket that is open ends: quotes hide brackets, and filters may nest them.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0usize, None);
    for (at, char) in text.char_indices() {
        match (quote, char) {
            (Some(open), _) if char == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(char),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

/// A field name and what follows it; `\.` is a dot that belongs to the name.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '.' | '[' => return (name, &text[at..]),
            '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => name.push(char),
        }
    }
    (name, "")
}

fn bracket(inner: &str) -> Option<Step> {
    if inner == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        let (left, equal, right) = match filter.split_once("==") {
            Some((left, right)) => (left, true, right),
            None => filter
                .split_once("!=")
                .map(|(left, right)| (left, false, right))?,
        };
        let path = left
            .trim()
            .strip_prefix("@.")?
            .split('.')
            .map(str::to_owned)
            .collect();
        return Some(Step::Where(path, equal, unquote(right.trim()).to_owned()));
    }
    match inner.parse() {
        Ok(index) => Some(Step::Index(index)),
        Err(_) if unquote(inner) != inner => Some(Step::Field(unquote(inner).to_owned())),
        Err(_) => None,
    }
}

fn unquote(text: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote)) {
            return inner;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_of_printer_columns_find_their_fields() {
        let object = json!({ "metadata": { "annotations": { "a.b/c": "yes" } },
            "spec": { "list": [{ "n": "x", "v": 1 }, { "n": "y", "v": 2 }] } });
        for (path, expected) in [
            (".spec.list[0].v", json!([1])),
            ("{.spec.list[*].n}", json!(["x", "y"])),
            (".spec.list[?(@.n==\"y\")].v", json!([2])),
            (".spec.list[?(@.n!='y')].v", json!([1])),
            (".metadata.annotations.a\\.b/c", json!(["yes"])),
            (".metadata.annotations['a.b/c']", json!(["yes"])),
            (".spec.none.deeper", json!([])),
            (".spec.list[", json!([])),
            (".spec..list", json!([])),
        ] {
            let found: Vec<Value> = JsonPath::parse(path).find(&object).into_iter().cloned().collect();
            assert_eq!(json!(found), expected, "{path}");
        }
    }
}
