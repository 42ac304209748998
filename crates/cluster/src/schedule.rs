//! Rotations of keys by schedule, as the Mesh's status has them.
//!
//! A rotation begins where the elected agent writes `status.scheduledEpoch`, with the node's identity, as all of the status. The spec is
//! the operator's: to write it takes a right that would let any node turn encryption off, and whoever keeps the Mesh in a
//! repository would undo it. The write is bound to the version of the Mesh that was seen, so one rotation begins, whoever is elected.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use warren_model::Refusal;
use warren_model::mesh::MESH_NAME;
use warren_model::schedule::{Rotations, Scheduled};

use crate::events::{ROTATION_BEGUN, ROTATION_PUT_OFF};
use crate::snapshot::Snapshot;

/// How far apart the clocks of two agents may be, seconds: as much as the shortest interval.
const SKEW: i64 = 3600;

/// For how long it is told that a rotation by schedule has begun, seconds. An Event lasts an hour, and who is elected after that is not to
/// tell it again.
const NEWS: i64 = 600;

/// What is to be done at that time, in seconds since 1970. No two agents that see the same differ but by their clocks.
pub fn scheduled(snapshot: &Snapshot, now: i64) -> Scheduled {
    let Some(mesh) = &snapshot.mesh_object else {
        return Scheduled::Nothing;
    };
    let keys = &snapshot.mesh.keys;
    let rotations = Rotations {
        interval: keys.rotation_interval,
        mesh: &mesh.uid,
        epoch: keys.epoch,
        since: since(snapshot, now).map(|since| since.0.as_second()),
        is_accepted: mesh.problems.is_empty(),
    };
    rotations.scheduled(snapshot.nodes.values(), now)
}

/// What is to be told at that time as an Event of the Mesh, if anything is.
pub fn notice(snapshot: &Snapshot, now: i64) -> Option<Refusal> {
    let notice = |code, message: String| Some(Refusal::new(format!("Mesh/{MESH_NAME}"), code, message));
    if let Scheduled::PutOff(due, unsettled) = scheduled(snapshot, now) {
        let due = Timestamp::from_second(due).unwrap_or_default();
        return notice(
            ROTATION_PUT_OFF,
            format!("a rotation of keys by schedule has been due since {due} and waits: {unsettled}"),
        );
    }
    let status = snapshot.mesh_object.as_ref()?.status.as_ref()?;
    let epoch = i64::from(snapshot.mesh.keys.epoch.number());
    let begun = since(snapshot, now)?.0.as_second();
    let is_news = status.scheduled_epoch == Some(epoch) && now < begun.saturating_add(NEWS);
    is_news.then_some(())?;
    notice(
        ROTATION_BEGUN,
        format!("keys are rotated to epoch {epoch} by schedule (spec.keys.rotationInterval)"),
    )
}

/// Since when the epoch in force is asked for, as the status says. `None`: it speaks of another epoch, or of a time to come, as
/// an agent would write whose clock is wrong.
pub(crate) fn since(snapshot: &Snapshot, now: i64) -> Option<Time> {
    let status = snapshot.mesh_object.as_ref()?.status.as_ref()?;
    let is_of_epoch = status.epoch == i64::from(snapshot.mesh.keys.epoch.number());
    let since = status.epoch_since.clone().filter(|_| is_of_epoch)?;
    (since.0.as_second() <= now.saturating_add(SKEW)).then_some(since)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use warren_model::{AnnouncedKey, Announcement, Epoch, Node};

    use super::*;
    use crate::mesh_resource::MeshStatus;
    use crate::mesh_status::mesh_status;
    use crate::snapshot::ObservedMesh;

    const THEN: i64 = 1_700_000_000;
    const HOUR: i64 = 3600;

    fn epoch(number: u32) -> Epoch {
        Epoch::new(number).unwrap()
    }

    /// A mesh of one node that lives in an epoch, with an interval of ten hours.
    fn living_in(number: u32) -> Snapshot {
        let key = AnnouncedKey {
            epoch: epoch(number),
            public_key: "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=".parse().unwrap(),
            port: 1,
        };
        let node = Node {
            name: "a".parse().unwrap(),
            uid: "a".to_owned(),
            created: 0,
            pod_cidrs: vec!["10.0.1.0/24".parse().unwrap()],
            internal_ips: Vec::new(),
            announcement: Some(Announcement::new(vec![key], epoch(number), BTreeSet::new())),
            ready: true,
        };
        let mut snapshot = Snapshot {
            nodes: BTreeMap::from([(node.name.clone(), node)]),
            mesh_object: Some(ObservedMesh {
                uid: "m".into(),
                version: "17".into(),
                generation: 3,
                problems: Vec::new(),
                status: None,
            }),
            ..Snapshot::default()
        };
        snapshot.mesh.keys.epoch = epoch(number);
        snapshot.mesh.keys.rotation_interval = Some(Duration::from_secs(10 * 3600));
        snapshot
    }

    /// The steward writes what is due at that time, and the watch shows it.
    fn reported(snapshot: &mut Snapshot, now: i64) -> MeshStatus {
        let mut status = mesh_status(snapshot, &[], now);
        if let Scheduled::Now(epoch) = scheduled(snapshot, now) {
            status.scheduled_epoch = Some(i64::from(epoch.number()));
        }
        if let Some(mesh) = &mut snapshot.mesh_object {
            mesh.status = Some(status.clone());
        }
        status
    }

    #[test]
    fn the_interval_counts_from_when_the_epoch_was_first_seen_and_one_rotation_begins() {
        let mut snapshot = living_in(3);
        assert_eq!(
            scheduled(&snapshot, THEN),
            Scheduled::Nothing,
            "nobody has written when it began"
        );
        reported(&mut snapshot, THEN);
        let late = THEN + 11 * HOUR;
        assert!(matches!(scheduled(&snapshot, late - 2 * HOUR), Scheduled::At(_)));
        assert_eq!(reported(&mut snapshot, late).scheduled_epoch, Some(4));
        // That epoch is in force now, and the node has not followed.
        snapshot.mesh.keys.epoch = epoch(4);
        assert_eq!(scheduled(&snapshot, late), Scheduled::Nothing);
        let status = reported(&mut snapshot, late);
        assert_eq!((status.epoch, status.scheduled_epoch), (4, Some(4)));
        assert!(
            matches!(scheduled(&snapshot, late), Scheduled::At(_)),
            "it counts from here"
        );
    }

    #[test]
    fn what_the_schedule_does_is_told_once() {
        let mut snapshot = living_in(3);
        reported(&mut snapshot, THEN);
        assert_eq!(notice(&snapshot, THEN), None, "an operator's rotation is no news");
        let late = THEN + 11 * HOUR;
        reported(&mut snapshot, late);
        snapshot.mesh.keys.epoch = epoch(4);
        reported(&mut snapshot, late);
        let begun = notice(&snapshot, late).unwrap();
        assert_eq!(
            (begun.object.as_str(), begun.code.as_str()),
            ("Mesh/default", ROTATION_BEGUN)
        );
        assert!(begun.message.contains("epoch 4"), "{}", begun.message);
        assert_eq!(notice(&snapshot, late + NEWS), None);
        let put_off = notice(&snapshot, late + 12 * HOUR).unwrap();
        assert_eq!(put_off.code, ROTATION_PUT_OFF);
        assert!(
            put_off.message.contains("a has not finished"),
            "{}",
            put_off.message
        );
    }

    #[test]
    fn a_time_to_come_is_not_believed_and_written_anew() {
        let mut snapshot = living_in(3);
        reported(&mut snapshot, THEN + 48 * HOUR);
        assert_eq!(scheduled(&snapshot, THEN), Scheduled::Nothing);
        let status = reported(&mut snapshot, THEN);
        assert_eq!(status.epoch_since.unwrap().0.as_second(), THEN);
        // Clocks that differ by less than the shortest interval are no reason to write.
        let again = reported(&mut snapshot, THEN - HOUR / 2);
        assert_eq!(again.epoch_since.unwrap().0.as_second(), THEN);
    }
}
