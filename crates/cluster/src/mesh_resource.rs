//! The `Mesh` resource as it stands in the API: `meshes.warren-mesh.io`, v1alpha1, cluster-scoped.
//!
//! These types make the schema and write the object. An object that is *read* goes through [`crate::mesh_decode`]
//! instead, which takes any JSON and names the field that is wrong: a server before 1.25 ignores the CEL rules, and an
//! object that these types cannot take must not blind the agent to the rest.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, JSON, JSONSchemaProps, ValidationRule,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The API group of everything Warren defines.
pub const GROUP: &str = "warren-mesh.io";

/// The version of the group that this code speaks.
pub const VERSION: &str = "v1alpha1";

/// Smallest `spec.mtu` but 0: what every IPv4 host must take (RFC 791).
pub const MIN_MTU: u16 = 576;

/// Largest `spec.mtu`: the jumbo frames that hardware carries.
pub const MAX_MTU: u16 = 9216;

/// Most entries of `spec.keys.accepted`, and of `spec.keys.revoked`.
pub const MAX_LISTED_KEYS: usize = 1000;

/// Most entries of `spec.podNetworks`.
pub const MAX_POD_NETWORKS: usize = 64;

/// A rule in CEL that a server since 1.25 holds an object to.
#[derive(Clone, Copy, Serialize)]
struct CelRule {
    rule: &'static str,
    message: &'static str,
}

const NAME_RULE: CelRule = CelRule {
    rule: "self.metadata.name == 'default'",
    message: "there is one Mesh and its name is `default`: rename this one",
};
const MTU_RULE: CelRule = CelRule {
    rule: "self == 0 || self >= 576",
    message: "must be 0 (find out) or 576 to 9216",
};
const PORTS_RULE: CelRule = CelRule {
    rule: "self.wireguard[0] != self.wireguard[1] && !(self.vxlan in self.wireguard)",
    message: "the three ports must differ",
};
const EPOCH_RULE: CelRule = CelRule {
    rule: "self >= oldSelf",
    message: "epochs never decrease: give the old value or more",
};
const INTERVAL_RULE: CelRule = CelRule {
    rule: "self == '' || duration(self) >= duration('1h')",
    message: "must be absent or empty (never) or 1h or more",
};

/// All resource definitions of the group, as `manifests/base/crds` holds them.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![mesh_crd()];
    crds.extend(crate::policy::resources::crds());
    crds
}

/// The configuration of the whole mesh: how pod packets travel between nodes.
#[derive(CustomResource, JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "warren-mesh.io",
    version = "v1alpha1",
    kind = "Mesh",
    plural = "meshes",
    singular = "mesh",
    category = "warren",
    status = "MeshStatus",
    derive = "PartialEq",
    doc = "Mesh is the configuration of a Warren network. The one object named `default` counts; without it every \
           field has its default: encryption on, no fallback."
)]
#[serde(default, rename_all = "camelCase")]
pub struct MeshSpec {
    /// Whether pod packets between nodes are encrypted. `wireguard`: all of them are, or they are not sent. `none`:
    /// they travel by `overlay`, in the clear.
    pub encryption: EncryptionSpec,
    /// With encryption on: what may carry packets, in the clear, to a node that cannot do WireGuard. `none`: nothing,
    /// that node is not reached.
    pub fallback: FallbackSpec,
    /// How packets travel with encryption off.
    pub overlay: OverlaySpec,
    /// MTU of pods and tunnels in bytes, 576 to 9216 (at least 1280 where pods have IPv6); 0 finds it out.
    #[schemars(range(min = 0, max = 9216))]
    #[schemars(extend("x-kubernetes-validations" = [MTU_RULE]))]
    pub mtu: i32,
    /// What agents do about paths that lose packets of full size although small ones pass, as where a network takes less
    /// than the nodes' interfaces say. They find them with an echo request of full size to each peer in use, now and then.
    /// `off`: they do not look. `report`: status and metrics name them. `lower`: also, pods, and the routes of nodes to
    /// that peer's pods, get the MTU that comes through, until full size does.
    pub mtu_probe: MtuProbeSpec,
    /// UDP ports of the nodes.
    #[schemars(extend("x-kubernetes-validations" = [PORTS_RULE]))]
    pub ports: PortsSpec,
    /// Key epochs and their rotation.
    pub keys: KeysSpec,
    /// Masquerade what pods send outside the pod network.
    pub nat_outgoing: bool,
    /// How network policy is enforced.
    pub policy: PolicySettingsSpec,
    /// CIDRs that hold the pods of any node, known or not yet known, such as the `--cluster-cidr` of the cluster. With
    /// encryption on nothing to or from them crosses between nodes in the clear, not even before the node that owns a
    /// part of them is known.
    #[schemars(
        length(max = 64),
        inner(length(max = 43), regex(pattern = r"^[0-9a-fA-F:.]+/[0-9]{1,3}$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub pod_networks: Vec<String>,
}

/// `spec.encryption`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncryptionSpec {
    /// Everything between nodes goes through WireGuard.
    Wireguard,
    /// No encryption.
    None,
}

/// `spec.fallback`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FallbackSpec {
    /// A node without WireGuard is not reached.
    None,
    /// VXLAN, in the clear.
    Vxlan,
    /// IP in IP, in the clear.
    Ipip,
}

/// `spec.mtuProbe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MtuProbeSpec {
    /// Paths are not probed.
    Off,
    /// Black holes are named.
    Report,
    /// And the MTU of pods, and of what nodes send to them, is lowered.
    Lower,
}

/// `spec.overlay`.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OverlaySpec {
    /// The encapsulation between nodes with encryption off; `none`: plain routes, all nodes in one subnet.
    pub mode: OverlayModeSpec,
    /// Leave traffic inside one subnet without encapsulation.
    pub cross_subnet: bool,
}

/// `spec.overlay.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OverlayModeSpec {
    /// VXLAN.
    Vxlan,
    /// IP in IP.
    Ipip,
    /// Plain routes.
    None,
}

/// `spec.ports`.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortsSpec {
    /// Of the two WireGuard lanes: `warren0`, then `warren1`.
    #[schemars(length(equal = 2), inner(range(min = 1, max = 65535)))]
    pub wireguard: Vec<i32>,
    /// Of VXLAN.
    #[schemars(range(min = 1, max = 65535))]
    pub vxlan: i32,
}

/// `spec.keys`.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KeysSpec {
    /// The epoch the cluster lives in, or moves to. Raise it by one (`warren keys rotate` does) to rotate the keys.
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    #[schemars(extend("x-kubernetes-validations" = [EPOCH_RULE]))]
    pub epoch: i64,
    /// The nodes whose keys the rotation to `epoch` renews; empty: all.
    #[schemars(length(max = 5000), inner(length(min = 1, max = 253)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub nodes: Vec<String>,
    /// How often keys are rotated by schedule, as hours, minutes and seconds (`720h`), 1h or more; absent: never. Each time
    /// up to a tenth of it later, and only once the rotation before is finished. Counted from the last rotation, by schedule or not.
    // No default of "": servers as old as 1.20, built with a newer Go, take an empty string for null and refuse it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 20),
        regex(pattern = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$")
    )]
    #[schemars(extend("x-kubernetes-validations" = [INTERVAL_RULE]))]
    pub rotation_interval: Option<String>,
    /// What becomes of a key that a node changes outside a rotation. `none`: it is taken, and reported. `strict`: the one
    /// before stays in force until an operator accepts the new one (`warren keys accept` does).
    pub pinning: PinningSpec,
    /// Public keys that are accepted although they came outside a rotation.
    #[schemars(
        length(max = 1000),
        inner(length(equal = 44), regex(pattern = r"^[A-Za-z0-9+/]{43}=$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub accepted: Vec<String>,
    /// Public keys that nobody believes in, whichever node publishes them (`warren keys revoke` adds those of a node). A node
    /// that finds its own here makes a new one.
    #[schemars(
        length(max = 1000),
        inner(length(equal = 44), regex(pattern = r"^[A-Za-z0-9+/]{43}=$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub revoked: Vec<String>,
}

/// `spec.keys.pinning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PinningSpec {
    /// Changes are taken and reported.
    None,
    /// Changes wait for an operator.
    Strict,
}

/// `spec.policy`.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicySettingsSpec {
    /// What becomes of the pods that a policy selects which cannot be honoured. `closed`: nothing passes that the policy,
    /// had it been understood, might have kept from passing. `open`: as if there were no such policy.
    pub on_invalid: OnInvalidSpec,
    /// What becomes of connections that a change of policy forbids. `cut`: they end within a second. `keep`: they go on
    /// until they end by themselves.
    pub established: EstablishedSpec,
    /// Whether each agent writes a line to its log for a flow that policy denies on its node: both ends by name, the policy
    /// and its rule. At most 100 lines in 10 seconds; what goes beyond is counted.
    pub log_denied: bool,
}

/// `spec.policy.onInvalid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnInvalidSpec {
    /// The pods fail closed.
    Closed,
    /// The policy does not count.
    Open,
}

/// `spec.policy.established`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EstablishedSpec {
    /// They go on.
    Keep,
    /// They are cut.
    Cut,
}

/// What the agents report of the mesh as a whole; one of them writes it.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MeshStatus {
    /// Nodes that have a pod CIDR.
    pub nodes: i64,
    /// Those of them that are Ready and publish a key of the current epoch.
    pub ready: i64,
    /// The epoch the Mesh asks for.
    pub epoch: i64,
    /// The newest epoch that every reporting node has settled in; absent while none reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled: Option<i64>,
    /// Since when the Mesh asks for `epoch`, as far as the agents have seen. `spec.keys.rotationInterval` counts from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch_since: Option<Time>,
    /// The epoch of the last rotation that was begun by schedule. Where it is later than `spec.keys.epoch` and
    /// `spec.keys.rotationInterval` is set, it counts instead: the spec is the operator's, and no agent writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_epoch: Option<i64>,
    /// `Accepted`, `Ready` and `Settled`.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

impl Default for MeshSpec {
    fn default() -> Self {
        Self {
            encryption: EncryptionSpec::Wireguard,
            fallback: FallbackSpec::None,
            overlay: OverlaySpec::default(),
            mtu: 0,
            mtu_probe: MtuProbeSpec::Report,
            ports: PortsSpec::default(),
            keys: KeysSpec::default(),
            nat_outgoing: true,
            policy: PolicySettingsSpec::default(),
            pod_networks: Vec::new(),
        }
    }
}

impl Default for PolicySettingsSpec {
    fn default() -> Self {
        Self {
            on_invalid: OnInvalidSpec::Closed,
            established: EstablishedSpec::Cut,
            log_denied: false,
        }
    }
}

impl Default for OverlaySpec {
    fn default() -> Self {
        Self {
            mode: OverlayModeSpec::Vxlan,
            cross_subnet: false,
        }
    }
}

impl Default for PortsSpec {
    fn default() -> Self {
        Self {
            wireguard: vec![51820, 51821],
            vxlan: 4789,
        }
    }
}

impl Default for KeysSpec {
    fn default() -> Self {
        Self {
            epoch: 1,
            nodes: Vec::new(),
            rotation_interval: None,
            pinning: PinningSpec::None,
            accepted: Vec::new(),
            revoked: Vec::new(),
        }
    }
}

/// What `kubectl get mesh` prints, beside the name: heading, type and where it is.
const COLUMNS: [(&str, &str, &str); 7] = [
    ("Encryption", "string", ".spec.encryption"),
    ("Fallback", "string", ".spec.fallback"),
    ("Epoch", "integer", ".spec.keys.epoch"),
    ("Settled", "integer", ".status.settled"),
    ("Nodes", "integer", ".status.nodes"),
    ("Ready", "integer", ".status.ready"),
    ("Age", "date", ".metadata.creationTimestamp"),
];

/// The derived definition, and what the derive does not say: an object may leave out `spec`, which the server then
/// fills; the rule on its name; the printed columns.
fn mesh_crd() -> CustomResourceDefinition {
    let mut crd = Mesh::crd();
    for version in &mut crd.spec.versions {
        version.additional_printer_columns = Some(COLUMNS.map(column).into());
        let root = version
            .schema
            .as_mut()
            .and_then(|it| it.open_api_v3_schema.as_mut());
        if let Some(root) = root {
            finish(root);
        }
    }
    crd
}

fn column((heading, kind, path): (&str, &str, &str)) -> CustomResourceColumnDefinition {
    CustomResourceColumnDefinition {
        name: heading.to_owned(),
        type_: kind.to_owned(),
        json_path: path.to_owned(),
        ..CustomResourceColumnDefinition::default()
    }
}

fn finish(root: &mut JSONSchemaProps) {
    root.required = None;
    root.x_kubernetes_validations = Some(vec![ValidationRule {
        rule: NAME_RULE.rule.to_owned(),
        message: Some(NAME_RULE.message.to_owned()),
        ..ValidationRule::default()
    }]);
    if let Some(spec) = root.properties.as_mut().and_then(|it| it.get_mut("spec")) {
        spec.default = Some(JSON(serde_json::json!({})));
    }
}

#[cfg(test)]
#[path = "mesh_resource_tests.rs"]
mod tests;
