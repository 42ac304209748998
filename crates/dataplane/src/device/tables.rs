//! The peers of a device, by everything that packets and configuration look them up by.

use std::collections::BTreeMap;
use std::sync::Arc;

use warren_model::PublicKey;

use super::member::Member;
use crate::allowed_ips::AllowedIps;

/// All peers. A table is never changed while packets look at it: a changed copy takes its place.
#[derive(Clone, Default)]
pub(super) struct Tables {
    pub(super) by_key: BTreeMap<PublicKey, Arc<Member>>,
    pub(super) allowed_ips: AllowedIps<Arc<Member>>,
}
