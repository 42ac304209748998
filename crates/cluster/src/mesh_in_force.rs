//! Which configuration holds, given the `Mesh` objects that exist.

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use serde_json::Value;
use warren_model::mesh::{Keys, MESH_NAME};
use warren_model::{Epoch, Mesh, Refusal};

use crate::mesh_decode::{FieldError, decode_spec};
use crate::mesh_resource::MeshStatus;

/// A `Mesh` object as it was read: its spec is any JSON until [`MeshInForce::update`] has looked at it.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshObject {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `metadata.generation`: rises with each change of the spec.
    pub generation: i64,
    /// `spec`; null when absent.
    pub spec: Value,
    /// `status`, if it can be read.
    pub status: Option<MeshStatus>,
}

impl From<DynamicObject> for MeshObject {
    fn from(mut object: DynamicObject) -> Self {
        Self {
            uid: object.metadata.uid.unwrap_or_default(),
            version: object.metadata.resource_version.unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            spec: object.data.get_mut("spec").map(Value::take).unwrap_or_default(),
            status: object
                .data
                .get_mut("status")
                .and_then(|status| serde_json::from_value(status.take()).ok()),
        }
    }
}

/// The configuration that holds, and the memory it takes to keep holding the last good one while the object is wrong.
#[derive(Debug, Default)]
pub struct MeshInForce {
    mesh: Mesh,
    /// The object whose spec `mesh` is; `None`: `mesh` is the defaults.
    uid: Option<String>,
    /// The epoch that its spec asks for.
    asked_for: Option<Epoch>,
    problems: Vec<String>,
}

impl MeshInForce {
    /// The configuration that holds.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// What is wrong with the object's spec, as every process words it that finds it so, whatever it held before.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Looks at the objects that exist, by name, and says what is refused of them. Without the object `default` the
    /// defaults hold; with a wrong one the last good configuration of this process, or else the defaults. `furthest`: where a
    /// schedule may have come to ([`warren_model::schedule::furthest`]); `None`: not known yet, so that none counts.
    pub fn update(
        &mut self,
        objects: &BTreeMap<String, MeshObject>,
        furthest: Option<Epoch>,
    ) -> Vec<Refusal> {
        let others = objects.keys().filter(|name| name.as_str() != MESH_NAME);
        let mut refusals: Vec<_> = others.map(|name| not_default(name)).collect();
        let Some(object) = objects.get(MESH_NAME) else {
            *self = Self::default();
            return refusals;
        };
        self.problems.clear();
        match decode_spec(&object.spec).and_then(|mesh| self.not_backwards(object, mesh)) {
            Ok(mesh) => {
                self.asked_for = Some(mesh.keys.epoch);
                self.mesh = Mesh {
                    generation: object.generation,
                    keys: self.with_schedule(object, mesh.keys, furthest),
                    ..mesh
                };
                self.uid = Some(object.uid.clone());
            }
            Err(errors) => {
                self.problems = errors.iter().map(ToString::to_string).collect();
                refusals.extend(errors.iter().map(|error| self.invalid(error)));
            }
        }
        refusals
    }

    /// Epochs of one object never decrease: nodes have destroyed the older keys.
    fn not_backwards(&self, object: &MeshObject, mesh: Mesh) -> Result<Mesh, Vec<FieldError>> {
        let held = self.asked_for.unwrap_or(Epoch::FIRST);
        if self.uid.as_ref() == Some(&object.uid) && mesh.keys.epoch < held {
            return Err(vec![FieldError {
                field: "spec.keys.epoch",
                problem: format!(
                    "went from {held} to {}: set it to {held} or more",
                    mesh.keys.epoch
                ),
            }]);
        }
        Ok(mesh)
    }

    /// What the spec says of keys, and the schedule, if that has gone on from there. A rotation that this process has seen begin is
    /// not called off where the schedule is, in its midst. Any node may write the schedule, so it counts up to the one epoch that can be
    /// next: who writes an absurd one brings no more than one rotation after the other, and those end with the interval.
    fn with_schedule(&self, object: &MeshObject, keys: Keys, furthest: Option<Epoch>) -> Keys {
        let scheduled = object.status.as_ref().and_then(|status| status.scheduled_epoch);
        let scheduled = scheduled
            .filter(|_| keys.rotation_interval.is_some())
            .and_then(|epoch| Some(Epoch::new(u32::try_from(epoch).ok()?)?.min(furthest?)));
        let held = Some(self.mesh.keys.epoch).filter(|_| self.uid.as_ref() == Some(&object.uid));
        match scheduled.max(held) {
            Some(later) if later > keys.epoch => Keys {
                epoch: later,
                // A schedule renews every node's.
                nodes: Vec::new(),
                ..keys
            },
            Some(_) | None => keys,
        }
    }

    fn invalid(&self, error: &FieldError) -> Refusal {
        let held = if self.uid.is_some() {
            "the configuration before this change holds"
        } else {
            "the defaults hold (encryption on, no fallback)"
        };
        let message = format!("{error}; until then {held}");
        Refusal::new(format!("Mesh/{MESH_NAME}"), "invalid-mesh-field", message)
    }
}

fn not_default(name: &str) -> Refusal {
    let message = format!("only the Mesh named {MESH_NAME} counts: move its spec there and delete this one");
    Refusal::new(format!("Mesh/{name}"), "mesh-not-default", message)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use serde_json::json;
    use warren_model::Encryption;

    use super::*;

    fn objects(all: &[(&str, &str, Value)]) -> BTreeMap<String, MeshObject> {
        let object = |(name, uid, spec): &(&str, &str, Value)| {
            let read = MeshObject {
                uid: (*uid).to_owned(),
                version: "1".to_owned(),
                generation: 1,
                spec: spec.clone(),
                status: None,
            };
            ((*name).to_owned(), read)
        };
        all.iter().map(object).collect()
    }

    fn codes(refusals: &[Refusal]) -> Vec<(&str, &str)> {
        refusals
            .iter()
            .map(|it| (it.object.as_str(), it.code.as_str()))
            .collect()
    }

    #[test]
    fn a_wrong_object_keeps_what_held_before_and_without_before_the_defaults() {
        let mut force = MeshInForce::default();
        let refusals = force.update(
            &objects(&[("default", "u", json!({"encryption": "none", "mtu": 1}))]),
            None,
        );
        assert_eq!(codes(&refusals), [("Mesh/default", "invalid-mesh-field")]);
        assert!(
            refusals[0].message.contains("spec.mtu"),
            "{}",
            refusals[0].message
        );
        assert!(
            refusals[0].message.contains("the defaults hold"),
            "{}",
            refusals[0].message
        );
        assert_eq!(*force.mesh(), Mesh::default());

        assert_eq!(
            force.update(&objects(&[("default", "u", json!({"encryption": "none"}))]), None),
            []
        );
        assert_eq!(force.mesh().encryption, Encryption::None);
        let refusals = force.update(
            &objects(&[("default", "u", json!({"encryption": "wireguard", "mtu": 1}))]),
            None,
        );
        assert!(
            refusals[0].message.contains("before this change"),
            "{}",
            refusals[0].message
        );
        assert_eq!(force.mesh().encryption, Encryption::None);
    }

    #[test]
    fn a_deleted_object_brings_the_defaults_back() {
        let mut force = MeshInForce::default();
        force.update(&objects(&[("default", "u", json!({"encryption": "none"}))]), None);
        assert_eq!(force.update(&objects(&[]), None), []);
        assert_eq!(*force.mesh(), Mesh::default());
        // The memory is gone too: an object that comes wrong after that finds the defaults.
        force.update(&objects(&[("default", "v", json!({"encryption": 1}))]), None);
        assert_eq!(*force.mesh(), Mesh::default());
    }

    #[test]
    fn an_object_of_another_name_is_refused_and_has_no_effect() {
        let mut force = MeshInForce::default();
        let both = [
            ("default", "u", json!({"mtu": 1400})),
            ("other", "v", json!({"encryption": "none"})),
        ];
        let refusals = force.update(&objects(&both), None);
        assert_eq!(codes(&refusals), [("Mesh/other", "mesh-not-default")]);
        assert_eq!(
            (force.mesh().encryption, force.mesh().mtu),
            (Encryption::Wireguard, Some(1400))
        );
    }

    #[test]
    fn the_epoch_of_one_object_never_decreases() {
        let epoch =
            |uid: &'static str, number: u32| objects(&[("default", uid, json!({"keys": {"epoch": number}}))]);
        let mut force = MeshInForce::default();
        assert_eq!(force.update(&epoch("u", 5), None), []);
        let refusals = force.update(&epoch("u", 4), None);
        assert!(
            refusals[0].message.contains("went from 5 to 4"),
            "{}",
            refusals[0].message
        );
        assert_eq!(force.mesh().keys.epoch.number(), 5);
        assert_eq!(force.update(&epoch("u", 6), None), []);
        assert_eq!(
            force.update(&epoch("new", 1), None),
            [],
            "another object begins anew"
        );
        assert_eq!(force.mesh().keys.epoch.number(), 1);
    }

    fn scheduled_to(keys: Value, scheduled: Option<i64>) -> BTreeMap<String, MeshObject> {
        let mut all = objects(&[("default", "u", json!({ "keys": keys }))]);
        let status = MeshStatus {
            scheduled_epoch: scheduled,
            ..MeshStatus::default()
        };
        all.get_mut("default").unwrap().status = Some(status);
        all
    }

    fn up_to(number: u32) -> Option<Epoch> {
        Epoch::new(number)
    }

    #[test]
    fn a_schedule_goes_on_from_the_spec_and_renews_all_keys_and_an_operator_from_the_schedule() {
        let keys = |epoch: u32, interval: bool| match interval {
            true => json!({"epoch": epoch, "nodes": ["a"], "rotationInterval": "1h"}),
            false => json!({"epoch": epoch, "nodes": ["a"]}),
        };
        let now = |force: &MeshInForce| (force.mesh().keys.epoch.number(), force.mesh().keys.nodes.len());
        let mut force = MeshInForce::default();
        for (keys, scheduled, expected, why) in [
            (
                keys(2, false),
                Some(7),
                (2, 1),
                "without an interval there is no schedule",
            ),
            (keys(2, true), None, (2, 1), "nothing has been rotated by it"),
            (keys(2, true), Some(3), (3, 0), "the schedule has gone on"),
            (
                keys(2, false),
                Some(3),
                (3, 0),
                "called off in the midst of a rotation",
            ),
            (keys(2, true), Some(-1), (3, 0), "no epoch"),
            (keys(4, true), Some(3), (4, 1), "the operator has gone on"),
        ] {
            assert_eq!(
                force.update(&scheduled_to(keys, scheduled), up_to(5)),
                [],
                "{why}"
            );
            assert_eq!(now(&force), expected, "{why}");
        }
        let refusals = force.update(&scheduled_to(keys(3, true), Some(3)), up_to(5));
        assert!(
            refusals[0].message.contains("went from 4 to 3"),
            "{}",
            refusals[0].message
        );
    }

    #[test]
    fn a_forged_schedule_goes_one_epoch_at_a_time_and_ends_with_the_interval() {
        let mut force = MeshInForce::default();
        let absurd = Some(i64::from(u32::MAX));
        let mut epoch_while = |keys: Value, furthest: Option<Epoch>| {
            assert_eq!(force.update(&scheduled_to(keys, absurd), furthest), []);
            force.mesh().keys.epoch.number()
        };
        let keys = || json!({"epoch": 2, "rotationInterval": "1h"});
        assert_eq!(
            epoch_while(keys(), None),
            2,
            "it is not known yet where nodes are"
        );
        assert_eq!(epoch_while(keys(), up_to(6)), 6);
        assert_eq!(epoch_while(keys(), up_to(7)), 7);
        let off = || json!({"epoch": 2});
        assert_eq!(epoch_while(off(), up_to(7)), 7, "what is under way is finished");
        assert_eq!(epoch_while(off(), up_to(8)), 7);
    }

    #[test]
    fn an_object_is_read_with_whatever_it_holds() {
        let read = |data: Value| -> MeshObject {
            let mut object = json!({"apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh", "metadata": {"uid": "u", "generation": 3}});
            object
                .as_object_mut()
                .unwrap()
                .append(&mut data.as_object().unwrap().clone());
            serde_json::from_value::<DynamicObject>(object).unwrap().into()
        };
        let object = read(json!({"spec": {"mtu": 1}, "status": {"nodes": 2}}));
        assert_eq!(
            (object.uid.as_str(), object.generation, &object.spec),
            ("u", 3, &json!({"mtu": 1}))
        );
        assert_eq!(object.status.unwrap().nodes, 2);
        assert_eq!(read(json!({})).spec, Value::Null);
        assert_eq!(read(json!({"spec": 7, "status": {"nodes": "x"}})).status, None);
    }
}
