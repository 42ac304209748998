//! What a path means.

use super::query::decode;

/// A path, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Health,
    Version,
    CoreVersions,
    Groups,
    Group(String),
    Resources(String, String),
    OpenApiV2,
    OpenApiV3Index,
    /// The document of `api/v1` or `apis/GROUP/VERSION`.
    OpenApiV3(String),
    Faults,
    Object(Address),
    Unknown,
}

/// Where an object or a collection is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    pub(crate) plural: String,
    pub(crate) name: String,
    /// Subresource, empty for the object itself.
    pub(crate) sub: String,
    /// What follows the subresource, still encoded: the path behind `proxy`.
    pub(crate) rest: String,
}

pub(crate) fn parse(path: &str) -> Route {
    let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
    match steps.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => Route::Health,
        ["version"] => Route::Version,
        ["warren-faults"] => Route::Faults,
        ["openapi", "v2"] => Route::OpenApiV2,
        ["openapi", "v3"] => Route::OpenApiV3Index,
        ["openapi", "v3", root @ ..] => Route::OpenApiV3(root.join("/")),
        ["api"] => Route::CoreVersions,
        ["apis"] => Route::Groups,
        ["apis", group] => Route::Group((*group).to_owned()),
        ["api", version] => Route::Resources(String::new(), (*version).to_owned()),
        ["apis", group, version] => Route::Resources((*group).to_owned(), (*version).to_owned()),
        ["api", version, rest @ ..] => address("", version, rest, path),
        ["apis", group, version, rest @ ..] => address(group, version, rest, path),
        _ => Route::Unknown,
    }
}

fn address(group: &str, version: &str, steps: &[&str], path: &str) -> Route {
    // `namespaces/x` and `namespaces/x/status` are about the namespace itself.
    let (namespace, steps) = match steps {
        ["namespaces", namespace, plural, rest @ ..]
            if !["status", "finalize"].contains(plural) || !rest.is_empty() =>
        {
            (*namespace, &steps[2..])
        }
        _ => ("", steps),
    };
    let (plural, name, sub, rest) = match steps {
        [plural] => (*plural, "", "", String::new()),
        [plural, name] => (*plural, *name, "", String::new()),
        // The path behind `proxy` is the other server's: empty steps and a last slash may mean something there.
        [plural, name, "proxy", ..] => {
            let rest = path.split_once("/proxy").map_or("", |(_, rest)| rest);
            (*plural, *name, "proxy", rest.to_owned())
        }
        [plural, name, sub] => (*plural, *name, *sub, String::new()),
        _ => return Route::Unknown,
    };
    Route::Object(Address {
        group: group.to_owned(),
        version: version.to_owned(),
        namespace: decode(namespace, false),
        plural: plural.to_owned(),
        name: decode(name, false),
        sub: sub.to_owned(),
        rest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> [String; 6] {
        let Route::Object(a) = parse(path) else {
            panic!("{path} is no object path")
        };
        [a.group, a.namespace, a.plural, a.name, a.sub, a.rest]
    }

    #[test]
    fn object_paths_are_taken_apart() {
        assert_eq!(parts("/api/v1/nodes"), ["", "", "nodes", "", "", ""]);
        assert_eq!(parts("/api/v1/namespaces/x"), ["", "", "namespaces", "x", "", ""]);
        assert_eq!(
            parts("/api/v1/namespaces/x/status"),
            ["", "", "namespaces", "x", "status", ""]
        );
        assert_eq!(
            parts("/api/v1/namespaces/x/pods/y/status"),
            ["", "x", "pods", "y", "status", ""]
        );
        assert_eq!(
            parts("/apis/g.io/v1/meshes/default"),
            ["g.io", "", "meshes", "default", "", ""]
        );
        assert_eq!(
            parts("/apis/rbac/v1/clusterroles/system%3Anode"),
            ["rbac", "", "clusterroles", "system:node", "", ""]
        );
        assert_eq!(
            parts("/api/v1/nodes/n:9586/proxy/a/"),
            ["", "", "nodes", "n:9586", "proxy", "/a/"]
        );
        assert_eq!(parse("/nonsense"), Route::Unknown);
    }
}
