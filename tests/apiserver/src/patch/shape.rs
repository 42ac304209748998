//! What kind of list or map stands at a path: merged by key, a set, or replaced whole.
//!
//! For built-in kinds the answer comes from the table below, which holds the `patchMergeKey` and
//! `x-kubernetes-list-type` marks of the kinds that are served; for custom resources it comes from their schema.

use serde_json::Value;

/// How a list is merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// Items are objects told apart by these fields.
    Map(Vec<String>),
    /// Items are scalars, each at most once.
    Set,
    /// One value.
    Atomic,
}

/// A place in an object.
#[derive(Debug, Clone)]
pub(crate) struct Shape<'a> {
    schema: Schema<'a>,
    /// Names of the fields above, this one last; list items add nothing.
    path: Vec<&'a str>,
}

#[derive(Debug, Clone, Copy)]
enum Schema<'a> {
    Builtin,
    /// Custom resource: the schema here, or nothing is known.
    Custom(Option<&'a Value>),
}

impl<'a> Shape<'a> {
    /// The root of an object of a built-in kind (`schema` none) or of a custom resource.
    pub(crate) fn root(schema: Option<&'a Value>) -> Self {
        let schema = schema.map_or(Schema::Builtin, |schema| Schema::Custom(Some(schema)));
        Self {
            schema,
            path: Vec::new(),
        }
    }

    pub(crate) fn field(&self, name: &'a str) -> Self {
        let schema = match self.schema {
            // Metadata is the same for every kind.
            Schema::Custom(_) if self.path.is_empty() && name == "metadata" => Schema::Builtin,
            Schema::Builtin => Schema::Builtin,
            Schema::Custom(schema) => {
                let known = schema.and_then(|s| s.get("properties")?.get(name));
                Schema::Custom(known.or_else(|| schema?.get("additionalProperties")))
            }
        };
        let mut path = self.path.clone();
        path.push(name);
        Self { schema, path }
    }

    pub(crate) fn item(&self) -> Self {
        let schema = match self.schema {
            Schema::Builtin => Schema::Builtin,
            Schema::Custom(schema) => Schema::Custom(schema.and_then(|s| s.get("items"))),
        };
        Self {
            schema,
            path: self.path.clone(),
        }
    }

    pub(crate) fn list(&self) -> ListKind {
        match self.schema {
            Schema::Builtin => builtin_list(self.parent(), self.name()),
            Schema::Custom(schema) => custom_list(schema),
        }
    }

    /// Whether a map here is one value for ownership.
    pub(crate) fn is_atomic_map(&self) -> bool {
        match self.schema {
            Schema::Builtin => ATOMIC_MAPS.contains(&self.name()),
            Schema::Custom(schema) => {
                schema.is_some_and(|s| s.get("x-kubernetes-map-type") == Some(&"atomic".into()))
            }
        }
    }

    fn name(&self) -> &'a str {
        self.path.last().copied().unwrap_or_default()
    }

    fn parent(&self) -> &'a str {
        self.path.len().checked_sub(2).map_or("", |at| self.path[at])
    }
}

/// Value a key field stands for when it is absent: `ports` are keyed by protocol too, which is optional.
pub(crate) fn key_default(key: &str) -> Option<&'static str> {
    (key == "protocol").then_some("TCP")
}

const ATOMIC_MAPS: &[&str] = &[
    "selector",
    "nodeSelector",
    "podSelector",
    "namespaceSelector",
    "labelSelector",
    "fieldRef",
    "configMapKeyRef",
    "secretKeyRef",
    "resourceFieldRef",
    "involvedObject",
    "regarding",
    "targetRef",
    "roleRef",
];

fn builtin_list(parent: &str, name: &str) -> ListKind {
    let keys: &[&str] = match (parent, name) {
        (_, "containers" | "initContainers" | "ephemeralContainers" | "env" | "volumes") => &["name"],
        (_, "imagePullSecrets" | "secrets") => &["name"],
        ("containers" | "initContainers" | "ephemeralContainers", "ports") => &["containerPort", "protocol"],
        ("spec", "ports") => &["port", "protocol"],
        (_, "volumeMounts") => &["mountPath"],
        (_, "volumeDevices") => &["devicePath"],
        (_, "topologySpreadConstraints") => &["topologyKey", "whenUnsatisfiable"],
        (_, "conditions") => &["type"],
        ("status", "addresses") => &["type"],
        (_, "podIPs" | "hostIPs" | "hostAliases") => &["ip"],
        ("metadata", "ownerReferences") => &["uid"],
        ("metadata", "finalizers") | ("spec", "podCIDRs") => return ListKind::Set,
        _ => return ListKind::Atomic,
    };
    ListKind::Map(keys.iter().map(|&key| key.to_owned()).collect())
}

fn custom_list(schema: Option<&Value>) -> ListKind {
    let Some(schema) = schema else {
        return ListKind::Atomic;
    };
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema
                .get("x-kubernetes-list-map-keys")
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            ListKind::Map(keys.filter_map(Value::as_str).map(str::to_owned).collect())
        }
        Some(_) | None => ListKind::Atomic,
    }
}
