//! Finds MTU black holes: paths on which packets of full size are lost without a word although shorter ones come through,
//! because a network between the nodes takes less than their interfaces say.
//!
//! A peer is sent an echo request of full size through its path when it is first reached, when its path or the size changes,
//! and then every ten minutes; one that full size does not reach is asked again every ten seconds. Only peers with a
//! session in use are asked: a probe neither causes a handshake nor keeps a session alive, so a mesh that is idle stays so.

mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use warren_kernel::echo::{self, LADDER, SMALL};
use warren_model::status::MtuHole;
use warren_model::{Family, MtuProbe, NodeName, Path};
use warren_plan::Desired;
use warren_telemetry::Drain;

use crate::view::View;
use schedule::{Candidate, Schedule, Verdict};

/// How long packets of full size are waited for; those that do not answer are asked again meanwhile.
const FULL: Duration = Duration::from_secs(2);
/// The same of each shorter length.
const SHORTER: Duration = Duration::from_secs(1);
/// A session is renewed by who sends when it is older than this (REKEY_AFTER_TIME in the WireGuard paper). No probe is to do
/// that, so some of it is left.
const SESSION: Duration = Duration::from_secs(110);

/// When probing is tried again after it could not be done at all.
const AFTER_FAILURE: Duration = Duration::from_secs(600);

/// What was found: the peers to which full size does not come through.
pub type Holes = Arc<BTreeMap<NodeName, MtuHole>>;

/// Probes until the drain is signalled, and tells what it finds.
pub async fn run(mut views: watch::Receiver<Arc<View>>, found: watch::Sender<Holes>, drain: Drain) {
    let mut schedule = Schedule::default();
    loop {
        let view = Arc::clone(&views.borrow_and_update());
        let (candidates, size) = match &view.desired {
            Some(desired) if view.snapshot.mesh.mtu_probe != MtuProbe::Off => {
                schedule.retain(|node| desired.peers.contains_key(node));
                (candidates(&view, desired), desired.full_mtu)
            }
            Some(_) => {
                schedule.retain(|_| false);
                (Vec::new(), 0)
            }
            // Nothing is known of the peers yet.
            None => (Vec::new(), 0),
        };
        let batch = schedule.due(&candidates, size, Instant::now());
        if !batch.is_empty() {
            let probing = tokio::task::spawn_blocking(move || probe(batch, size));
            let probed = tokio::select! {
                () = drain.drained() => return,
                probed = probing => probed.unwrap_or_else(|ended| Err(io::Error::other(ended))),
            };
            match probed {
                Ok(probed) => schedule.record(probed, size, Instant::now()),
                Err(error) => {
                    tracing::warn!(%error, "cannot probe the MTU of paths: the agent needs CAP_NET_RAW");
                    tokio::select! {
                        () = drain.drained() => return,
                        () = tokio::time::sleep(AFTER_FAILURE) => continue,
                    }
                }
            }
        }
        tell(&found, schedule.holes());
        let next = schedule.next(&candidates, size, Instant::now());
        let due = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = drain.drained() => return,
            () = due => {}
            changed = views.changed() => if changed.is_err() { return },
        }
    }
}

/// The peers that a packet reaches without a handshake, each by an address that this node has a source for.
fn candidates(view: &View, desired: &Desired) -> Vec<Candidate> {
    let own: BTreeSet<Family> = desired
        .guard
        .local
        .iter()
        .map(|net| Family::of(net.addr()))
        .collect();
    let candidate = |(name, plan): (&NodeName, &warren_plan::PeerPlan)| {
        let path = plan.path?;
        let in_session = match path {
            Path::Wireguard(lane) => {
                let (_, key) = plan.key?;
                let peer = view.observed.lanes.get(&lane)?.peers.get(&key)?;
                peer.handshake_age.is_some_and(|age| age < SESSION)
            }
            Path::Vxlan | Path::Ipip | Path::Direct => true,
        };
        let node = view.snapshot.nodes.get(name)?;
        let cidr = node.pod_cidrs.iter().find(|cidr| own.contains(&cidr.family()))?;
        in_session.then_some(Candidate {
            node: name.clone(),
            address: cidr.node_address(),
            path: path.kind(),
        })
    };
    desired.peers.iter().filter_map(candidate).collect()
}

/// Asks them all with packets of that size, and those that do not answer with shorter ones.
fn probe(batch: Vec<Candidate>, size: u32) -> io::Result<Vec<(Candidate, Verdict)>> {
    let full = usize::try_from(size).unwrap_or(usize::MAX);
    let mut missing: Vec<IpAddr> = batch.iter().map(|candidate| candidate.address).collect();
    let answering = |addresses: &[IpAddr], length, limit| {
        if addresses.is_empty() {
            return Ok(BTreeSet::new());
        }
        echo::answering(addresses, length, limit)
    };
    let mut whole = answering(&missing, full, FULL)?;
    missing.retain(|address| !whole.contains(address));
    // Who answers this is there, and not just gone.
    let there = answering(&missing, SMALL, SHORTER)?;
    missing.retain(|address| there.contains(address));
    let mut passes: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for length in LADDER.into_iter().filter(|length| *length < full) {
        for address in answering(&missing, length, SHORTER)? {
            passes.insert(address, length);
        }
        missing.retain(|address| !passes.contains_key(address));
    }
    // It may have been a moment's loss, or a processor that was busy elsewhere.
    let short: Vec<IpAddr> = there.difference(&whole).copied().collect();
    whole.extend(answering(&short, full, FULL)?);
    let verdict = |candidate: &Candidate| {
        if whole.contains(&candidate.address) {
            Verdict::Whole
        } else if there.contains(&candidate.address) {
            let passes = passes.get(&candidate.address).copied().unwrap_or(SMALL);
            Verdict::Short(MtuHole {
                lost: size,
                passes: u32::try_from(passes).unwrap_or(size),
            })
        } else {
            Verdict::Silent
        }
    };
    Ok(batch
        .into_iter()
        .map(|candidate| {
            let verdict = verdict(&candidate);
            (candidate, verdict)
        })
        .collect())
}

/// Tells of each hole when it comes and goes.
fn tell(found: &watch::Sender<Holes>, holes: BTreeMap<NodeName, MtuHole>) {
    found.send_if_modified(|told| {
        for (peer, hole) in &holes {
            if told.get(peer) != Some(hole) {
                tracing::warn!(
                    %peer,
                    lost = hole.lost,
                    passes = hole.passes,
                    "packets of full size are lost on the way to a peer: the network takes less than this node's interface says"
                );
            }
        }
        for peer in told.keys().filter(|peer| !holes.contains_key(*peer)) {
            tracing::info!(%peer, "packets of full size come through again");
        }
        let changed = **told != holes;
        if changed {
            *told = Arc::new(holes);
        }
        changed
    });
}
