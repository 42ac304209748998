//! The Lease `warren-steward`: which agent reports for the mesh, and what it has reported.
//!
//! `manifests/base` makes the object, so that agents need no right to create Leases but only to read and update this one.
//! It is read and written as the ServiceAccount: NodeRestriction keeps nodes from any Lease but their own heartbeat.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, Error, ResourceExt};
use thiserror::Error;

use crate::api_error::{describe, retry_after, status_code};
use crate::election::{LEASE, Record};

/// `metadata.name`.
pub const LEASE_NAME: &str = "warren-steward";

/// The annotation that lists what the holder has taken in hand to report: the keys ([`crate::events::Finding::key`]) of
/// refusals, in hexadecimal, separated by commas. By it the others see that a refusal was not overlooked.
pub const REPORTED: &str = "warren-mesh.io/reported";

/// What another than us may have written there, at most.
const LONGEST: i32 = 60;

/// The Lease as it was read or written last.
#[derive(Debug, Clone, PartialEq)]
pub struct StewardLease(Lease);

impl StewardLease {
    /// What of it decides the election.
    pub fn record(&self) -> Record {
        let spec = self.0.spec.as_ref();
        let holder = spec.and_then(|it| it.holder_identity.clone());
        let seconds = spec.and_then(|it| it.lease_duration_seconds);
        let seconds = seconds.and_then(|it| u64::try_from(it.clamp(1, LONGEST)).ok());
        Record {
            version: self.0.resource_version().unwrap_or_default(),
            holder: holder.filter(|holder| !holder.is_empty()),
            duration: seconds.map_or(LEASE, Duration::from_secs),
        }
    }

    /// How often it has gone from one holder to another: the number of the term.
    pub fn transitions(&self) -> i32 {
        self.0
            .spec
            .as_ref()
            .and_then(|it| it.lease_transitions)
            .unwrap_or_default()
    }

    /// What its holder has taken in hand to report. What cannot be read is not there.
    pub fn reported(&self) -> BTreeSet<u64> {
        let annotation = self.0.annotations().get(REPORTED).map(String::as_str);
        let keys = annotation.unwrap_or_default().split(',');
        keys.filter_map(|key| u64::from_str_radix(key, 16).ok()).collect()
    }

    /// The same, held by that agent from `now` on, and with that list.
    fn signed(&self, me: &str, reported: &BTreeSet<u64>, now: Timestamp) -> Lease {
        let before = self.record().holder;
        let mut lease = self.0.clone();
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if before.as_deref() != Some(me) {
            spec.acquire_time = Some(MicroTime(now));
            // The first holder takes it from nobody.
            let turn = i32::from(before.is_some());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default().saturating_add(turn));
        }
        spec.holder_identity = Some(me.to_owned());
        spec.lease_duration_seconds = i32::try_from(LEASE.as_secs()).ok();
        spec.renew_time = Some(MicroTime(now));
        let list: Vec<_> = reported.iter().map(|key| format!("{key:016x}")).collect();
        lease
            .annotations_mut()
            .insert(REPORTED.to_owned(), list.join(","));
        lease
    }
}

/// Reads the Lease.
pub async fn read(client: &Client, namespace: &str) -> Result<StewardLease, LeaseError> {
    let leases = Api::<Lease>::namespaced(client.clone(), namespace);
    match leases.get(LEASE_NAME).await {
        Ok(lease) => Ok(StewardLease(lease)),
        Err(error) => Err(LeaseError::new(namespace, &error)),
    }
}

/// Takes or renews the Lease, if it is still as it was seen.
pub async fn sign(
    client: &Client,
    namespace: &str,
    seen: &StewardLease,
    me: &str,
    reported: &BTreeSet<u64>,
) -> Result<StewardLease, LeaseError> {
    let leases = Api::<Lease>::namespaced(client.clone(), namespace);
    let lease = seen.signed(me, reported, Timestamp::now());
    // It carries the version that was seen; the server answers 409 when there is another by now.
    match leases.replace(LEASE_NAME, &PostParams::default(), &lease).await {
        Ok(lease) => Ok(StewardLease(lease)),
        Err(error) => Err(LeaseError::new(namespace, &error)),
    }
}

/// The Lease was not read or not written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LeaseError {
    /// It does not exist.
    #[error(
        "there is no Lease {namespace}/{LEASE_NAME}, so nobody writes the Mesh's status and Events: apply manifests/base, \
         and set --namespace where that is not the agents' namespace"
    )]
    Absent {
        /// Where it was looked for.
        namespace: String,
    },
    /// These credentials may not read or update it.
    #[error(
        "not allowed to use the Lease {namespace}/{LEASE_NAME} ({reason}), so this agent never writes the Mesh's status and \
         Events: apply the Role warren-steward of manifests/base for the account of --steward-token, or else for the one the agent reads with"
    )]
    Forbidden {
        /// Where it is.
        namespace: String,
        /// What the server said.
        reason: String,
    },
    /// Somebody else has written it meanwhile.
    #[error("the Lease has changed meanwhile")]
    Changed,
    /// The server is overloaded, broken or not reached, or takes no such Lease.
    #[error("cannot use the Lease {namespace}/{LEASE_NAME}: {reason}; it is tried again")]
    Unavailable {
        /// Where it is.
        namespace: String,
        /// What happened.
        reason: String,
        /// How long the server asks to be left alone.
        wait: Option<Duration>,
    },
}

impl LeaseError {
    fn new(namespace: &str, error: &Error) -> Self {
        let namespace = namespace.to_owned();
        match status_code(error) {
            Some(404) => Self::Absent { namespace },
            Some(409) => Self::Changed,
            Some(401 | 403) => Self::Forbidden {
                namespace,
                reason: describe(error),
            },
            Some(_) | None => Self::Unavailable {
                namespace,
                reason: describe(error),
                wait: retry_after(error),
            },
        }
    }

    /// Whether only the operator can mend it.
    pub fn needs_operator(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::Forbidden { .. })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fake_api::{Answer, FakeApi, status};

    fn lease(json: Value) -> StewardLease {
        StewardLease(serde_json::from_value(json).unwrap())
    }

    /// As `kubectl apply` makes it.
    fn unheld() -> StewardLease {
        lease(json!({"metadata": {"name": LEASE_NAME, "resourceVersion": "7"}}))
    }

    #[test]
    fn the_first_holder_the_next_and_a_renewal_are_told_apart() {
        let (start, later) = (
            Timestamp::from_second(1000).unwrap(),
            Timestamp::from_second(2000).unwrap(),
        );
        assert_eq!(unheld().record().holder, None);
        let first = StewardLease(unheld().signed("a", &BTreeSet::from([255, 1]), start));
        let spec = serde_json::to_value(first.0.spec.as_ref().unwrap()).unwrap();
        let time = "1970-01-01T00:16:40.000000Z";
        assert_eq!(
            spec,
            json!({"holderIdentity": "a", "leaseDurationSeconds": 8, "acquireTime": time, "renewTime": time, "leaseTransitions": 0})
        );
        assert_eq!(
            first.0.annotations()[REPORTED],
            "0000000000000001,00000000000000ff"
        );
        assert_eq!(first.reported(), BTreeSet::from([1, 255]));
        assert_eq!(
            first.record(),
            Record {
                version: "7".into(),
                holder: Some("a".into()),
                duration: LEASE
            }
        );

        let renewed = StewardLease(first.signed("a", &BTreeSet::new(), later));
        let spec = renewed.0.spec.as_ref().unwrap();
        assert_eq!(
            (spec.acquire_time.as_ref(), spec.renew_time.as_ref()),
            (Some(&MicroTime(start)), Some(&MicroTime(later)))
        );
        assert_eq!((renewed.transitions(), renewed.reported()), (0, BTreeSet::new()));

        let taken = StewardLease(renewed.signed("b", &BTreeSet::new(), later));
        assert_eq!(
            (taken.transitions(), taken.record().holder.as_deref()),
            (1, Some("b"))
        );
        assert_eq!(taken.0.spec.unwrap().acquire_time, Some(MicroTime(later)));
    }

    #[test]
    fn what_others_wrote_there_is_bounded() {
        let odd = lease(json!({
            "metadata": {"name": LEASE_NAME, "annotations": {REPORTED: "xyz,,2,-1"}},
            "spec": {"holderIdentity": "", "leaseDurationSeconds": 86400},
        }));
        assert_eq!(odd.record().holder, None);
        assert_eq!(odd.record().duration, Duration::from_secs(60));
        assert_eq!(odd.reported(), BTreeSet::from([2]));
    }

    #[tokio::test]
    async fn a_lease_is_written_whole_with_the_version_that_was_seen() {
        let api = FakeApi::default();
        let answer = json!({"metadata": {"name": LEASE_NAME, "resourceVersion": "8"}, "spec": {"holderIdentity": "a"}});
        api.next_write_answers(Answer {
            code: 200,
            body: answer,
        });
        let signed = sign(&api.client(), "ns", &unheld(), "a", &BTreeSet::new())
            .await
            .unwrap();
        assert_eq!(signed.record().version, "8");
        let asked = api.log().pop().unwrap();
        assert_eq!(asked.method, "PUT");
        assert_eq!(
            asked.path,
            "/apis/coordination.k8s.io/v1/namespaces/ns/leases/warren-steward"
        );
        let body: Value = serde_json::from_str(&asked.body).unwrap();
        assert_eq!(body["metadata"]["resourceVersion"], "7");
        assert_eq!(body["spec"]["holderIdentity"], "a");
    }

    #[tokio::test]
    async fn each_answer_says_who_can_mend_it() {
        for (code, operator) in [(403, true), (404, true), (409, false), (500, false)] {
            let api = FakeApi::default();
            api.next_write_answers(status(code, "Reason"));
            let error = sign(&api.client(), "ns", &unheld(), "a", &BTreeSet::new())
                .await
                .unwrap_err();
            assert_eq!(error.needs_operator(), operator, "{error:?}");
            assert_eq!(error.to_string().contains("manifests/base"), operator, "{error}");
            assert_eq!(error == LeaseError::Changed, code == 409);
        }
    }
}
