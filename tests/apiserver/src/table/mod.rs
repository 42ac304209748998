//! Server-side printing: objects as `meta.k8s.io/v1` tables, which is what `kubectl get` shows.

pub(crate) mod builtin;
mod jsonpath;

use std::sync::Arc;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::resource::Resource;
use jsonpath::JsonPath;

/// One column after NAME.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    name: String,
    kind: String,
    description: String,
    /// 0: always shown; more: only in wide output.
    priority: i64,
    cell: Cell,
}

#[derive(Debug, Clone)]
enum Cell {
    Path(JsonPath),
    Computed(fn(&Value) -> Value),
}

impl Column {
    pub(crate) fn age() -> Self {
        Self::path("Age", "date", 0, ".metadata.creationTimestamp")
    }

    pub(crate) fn path(name: &str, kind: &str, priority: i64, path: &str) -> Self {
        let cell = Cell::Path(JsonPath::parse(path));
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            description: String::new(),
            priority,
            cell,
        }
    }

    pub(crate) fn computed(name: &str, priority: i64, cell: fn(&Value) -> Value) -> Self {
        let cell = Cell::Computed(cell);
        Self {
            name: name.to_owned(),
            kind: "string".to_owned(),
            description: String::new(),
            priority,
            cell,
        }
    }

    /// An entry of `additionalPrinterColumns`.
    pub(crate) fn from_crd(column: &Value) -> Self {
        let text = |field: &str| column[field].as_str().unwrap_or_default();
        let mut parsed = Self::path(
            text("name"),
            text("type"),
            column["priority"].as_i64().unwrap_or(0),
            text("jsonPath"),
        );
        text("description").clone_into(&mut parsed.description);
        parsed
    }

    fn definition(&self) -> Value {
        json!({ "name": self.name, "type": self.kind, "format": "", "description": self.description, "priority": self.priority })
    }

    fn value(&self, object: &Value) -> Value {
        let path = match &self.cell {
            Cell::Computed(cell) => return cell(object),
            Cell::Path(path) => path,
        };
        let found = path.find(object);
        match (self.kind.as_str(), found.first()) {
            // Real servers print dates as ages and leave the cells of absent fields null.
            (_, None) => Value::Null,
            ("date", Some(at)) => at.as_str().map_or(Value::Null, |at| json!(age_since(at))),
            ("string", Some(_)) => json!(
                found
                    .iter()
                    .map(|value| plain(value))
                    .collect::<Vec<_>>()
                    .join(",")
            ),
            (_, Some(value)) => (*value).clone(),
        }
    }
}

/// A table of `objects`. `include` is the query's `includeObject`: `Object`, `None`, or metadata only.
pub(crate) fn render(resource: &Resource, objects: &[Arc<Value>], version: &str, include: &str) -> Value {
    let name =
        json!({ "name": "Name", "type": "string", "format": "name", "description": "", "priority": 0 });
    let columns: Vec<Value> = std::iter::once(name)
        .chain(resource.columns.iter().map(Column::definition))
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| row(resource, object, include))
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": { "resourceVersion": version },
        "columnDefinitions": columns, "rows": rows,
    })
}

/// The object's metadata alone, as `PartialObjectMetadata`.
pub(crate) fn partial(object: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] })
}

fn row(resource: &Resource, object: &Arc<Value>, include: &str) -> Value {
    let name = object["metadata"]["name"].clone();
    let cells: Vec<Value> = std::iter::once(name)
        .chain(resource.columns.iter().map(|column| column.value(object)))
        .collect();
    let mut row = json!({ "cells": cells });
    match include {
        "None" => {}
        "Object" => row["object"] = (**object).clone(),
        _ => row["object"] = partial(object),
    }
    row
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Time since an RFC 3339 moment the way kubectl writes ages: `45s`, `3m10s`, `7h`, `12d`, `2y`.
fn age_since(at: &str) -> String {
    OffsetDateTime::parse(at, &Rfc3339).map_or_else(
        |_| "<invalid>".to_owned(),
        |at| age((OffsetDateTime::now_utc() - at).whole_seconds()),
    )
}

fn age(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let with_rest = |whole: i64, unit: char, rest: i64, small: char| match rest {
        0 => format!("{whole}{unit}"),
        _ => format!("{whole}{unit}{rest}{small}"),
    };
    match seconds {
        // A clock that runs ahead by a second is no error worth a word.
        ..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => with_rest(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => with_rest(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => with_rest(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        _ => with_rest(days / 365, 'y', days % 365, 'd'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_writes_them() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (190, "3m10s"),
            (3600, "60m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (90_000, "25h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
            (63_072_000, "2y"),
        ] {
            assert_eq!(age(seconds), text, "{seconds} s");
        }
    }

    #[test]
    fn a_row_has_a_cell_per_column_and_null_for_what_is_absent() {
        let columns = json!([{ "name": "Mode", "type": "string", "jsonPath": ".spec.mode" },
            { "name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status" },
            { "name": "MTU", "type": "integer", "priority": 1, "jsonPath": ".spec.mtu" }]);
        let columns = columns
            .as_array()
            .into_iter()
            .flatten()
            .map(Column::from_crd)
            .collect();
        let resource = Resource {
            columns,
            ..Resource::default()
        };
        let object = Arc::new(json!({ "metadata": { "name": "x" }, "spec": { "mtu": 9000 },
            "status": { "conditions": [{ "type": "Other", "status": "False" }, { "type": "Ready", "status": "True" }] } }));
        let table = render(&resource, &[object], "7", "None");
        assert_eq!(table["rows"], json!([{ "cells": ["x", null, "True", 9000] }]));
        assert_eq!(table["columnDefinitions"][3]["priority"], 1);
    }
}
