//! The paths to all peers: is there one, does the peer answer, do packets of full size come through.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use warren_kernel::echo::{self, LADDER, SMALL};
use warren_model::status::{AgentStatus, PeerStatus};
use warren_model::{Family, NodeName, PathKind};

use super::agent::AgentFacts;
use super::finding::Finding;
use super::settings::Settings;
use crate::admin_socket;
use crate::units;

const PATH: &str = "peer-path";
const REACHABLE: &str = "peer-reachable";
const MTU: &str = "path-mtu";

/// How long the answer to a small one may take.
const SMALL_LIMIT: Duration = Duration::from_secs(2);
/// How long answers to large ones may take.
const LARGE_LIMIT: Duration = Duration::from_secs(3);
/// How long each length that is tried where full size does not come through is waited for.
const RUNG_LIMIT: Duration = Duration::from_millis(1000);

/// Without a session a handshake is begun at once, and again after 5 s (WireGuard's REKEY_TIMEOUT).
const HANDSHAKE: Duration = Duration::from_secs(6);
/// With one, the peer acknowledges what it heard after 10 s at the latest (KEEPALIVE_TIMEOUT).
const KEEPALIVE: Duration = Duration::from_secs(12);
/// A session is used no longer than this (REJECT_AFTER_TIME), seconds.
const SESSION_SECONDS: u64 = 180;
/// Between two looks at the agent's status.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// One peer with a path.
#[derive(Debug, Clone)]
struct Tried {
    peer: PeerStatus,
    /// Its node-local addresses of the families this node has.
    addresses: Vec<IpAddr>,
    /// Those that answered a small packet.
    small: BTreeSet<IpAddr>,
    /// Those that answered one of full size.
    large: BTreeSet<IpAddr>,
    /// The longest that came through, for those that did not.
    longest: BTreeMap<IpAddr, usize>,
    /// Whether anything came back by its lane meanwhile.
    heard: bool,
}

/// Tries all peers, and judges.
pub(super) async fn check(settings: &Settings, agent: &AgentFacts) -> Vec<Finding> {
    let Ok(status) = &agent.status else {
        let why = "the agent, which knows the peers, does not answer";
        return vec![Finding::skipped(REACHABLE, why), Finding::skipped(MTU, why)];
    };
    let mut findings = vec![judge_paths(status)];
    let mut tried = with_path(status);
    if tried.is_empty() {
        let why = "there is no peer with a path";
        findings.extend([Finding::skipped(REACHABLE, why), Finding::skipped(MTU, why)]);
        return findings;
    }
    let socket = settings.run_dir.join(admin_socket::FILE_NAME);
    if let Err(error) = try_all(&mut tried, status.pod_mtu, &socket).await {
        let why = format!("cannot send ICMP echo requests: {error}; this takes CAP_NET_RAW");
        findings.extend([
            Finding::skipped(REACHABLE, why.clone()),
            Finding::skipped(MTU, why),
        ]);
        return findings;
    }
    findings.extend(judge_reachable(&tried));
    findings.extend(judge_mtu(&tried, status.pod_mtu));
    findings
}

fn with_path(status: &AgentStatus) -> Vec<Tried> {
    let families: BTreeSet<Family> = status.pod_cidrs.iter().map(|cidr| cidr.family()).collect();
    let peers = status.peers.iter().filter(|peer| peer.path.is_some());
    let tried = peers.map(|peer| Tried {
        addresses: peer
            .pod_cidrs
            .iter()
            .filter(|cidr| families.contains(&cidr.family()))
            .map(|cidr| cidr.node_address())
            .collect(),
        peer: peer.clone(),
        small: BTreeSet::new(),
        large: BTreeSet::new(),
        longest: BTreeMap::new(),
        heard: false,
    });
    tried.filter(|it| !it.addresses.is_empty()).collect()
}

async fn try_all(tried: &mut [Tried], pod_mtu: u32, socket: &Path) -> std::io::Result<()> {
    let all: Vec<IpAddr> = tried.iter().flat_map(|it| it.addresses.clone()).collect();
    let mut small = answering(all, SMALL, SMALL_LIMIT).await?;
    listen_for_silent(tried, &small, socket).await;
    let missing = |small: &BTreeSet<IpAddr>| {
        let heard = tried.iter().filter(|it| it.heard);
        let addresses = heard.flat_map(|it| it.addresses.clone());
        addresses.filter(|it| !small.contains(it)).collect::<Vec<_>>()
    };
    small.extend(answering(missing(&small), SMALL, SMALL_LIMIT).await?);

    let full = usize::try_from(pod_mtu).unwrap_or(usize::MAX);
    let large = answering(small.iter().copied().collect(), full, LARGE_LIMIT).await?;
    let mut short: Vec<IpAddr> = small.difference(&large).copied().collect();
    let mut longest = BTreeMap::new();
    for length in LADDER.into_iter().filter(|length| *length < full) {
        for address in answering(short.clone(), length, RUNG_LIMIT).await? {
            longest.insert(address, length);
        }
        short.retain(|address| !longest.contains_key(address));
    }
    for it in tried {
        let of_peer = |set: &BTreeSet<IpAddr>| -> BTreeSet<IpAddr> {
            it.addresses
                .iter()
                .copied()
                .filter(|address| set.contains(address))
                .collect()
        };
        it.small = of_peer(&small);
        it.large = of_peer(&large);
        let of_it = |address: &IpAddr| Some((*address, *longest.get(address)?));
        it.longest = it.addresses.iter().filter_map(of_it).collect();
    }
    Ok(())
}

async fn answering(
    addresses: Vec<IpAddr>,
    length: usize,
    limit: Duration,
) -> std::io::Result<BTreeSet<IpAddr>> {
    if addresses.is_empty() {
        return Ok(BTreeSet::new());
    }
    tokio::task::spawn_blocking(move || echo::answering(&addresses, length, limit))
        .await
        .map_err(std::io::Error::other)?
}

/// The requests have made each lane speak. Those that did not answer may still be heard: by a handshake, or by the
/// acknowledgement of what reached them. Then it is not the lane that is cut.
async fn listen_for_silent(tried: &mut [Tried], answered: &BTreeSet<IpAddr>, socket: &Path) {
    let mut silent: BTreeMap<NodeName, u64> = tried
        .iter()
        .filter(|it| it.peer.path == Some(PathKind::Wireguard))
        .filter(|it| !it.addresses.iter().any(|address| answered.contains(address)))
        .map(|it| (it.peer.node.clone(), it.peer.rx_bytes))
        .collect();
    let with_session = tried
        .iter()
        .any(|it| silent.contains_key(&it.peer.node) && in_session(&it.peer));
    let limit = if with_session { KEEPALIVE } else { HANDSHAKE };
    let deadline = Instant::now() + limit;
    while !silent.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(LOOK_AGAIN).await;
        let Ok(now) = admin_socket::ask::<AgentStatus>(socket, "/status").await else {
            continue;
        };
        for peer in now.peers {
            let Some(before) = silent.get(&peer.node) else {
                continue;
            };
            let heard = peer.rx_bytes > *before && in_session(&peer);
            if heard {
                silent.remove(&peer.node);
            }
            if let Some(it) = tried.iter_mut().find(|it| it.peer.node == peer.node) {
                it.heard |= heard;
                it.peer = peer;
            }
        }
    }
}

/// Whether there is a session: only then do bytes received mean that both ways are open, and not that a peer keeps asking
/// for a handshake and does not hear the answer.
fn in_session(peer: &PeerStatus) -> bool {
    peer.handshake_age_seconds
        .is_some_and(|age| age < SESSION_SECONDS)
}

fn judge_paths(status: &AgentStatus) -> Finding {
    let without: Vec<String> = status
        .peers
        .iter()
        .filter(|peer| peer.path.is_none())
        .map(|peer| format!("{}: {}", peer.node, peer.reason))
        .collect();
    if without.is_empty() {
        let paths = units::count(status.peers.len(), "peer");
        return Finding::ok(PATH, format!("{paths}, each with a path"));
    }
    Finding::fail(
        PATH,
        format!("no path to {}", units::first_few(&without, 3)),
        "traffic with such a peer is dropped, not sent in the clear. Usually its agent does not run or has not published: run \
         warren doctor there; `warren status` shows what each node publishes",
    )
}

fn judge_reachable(tried: &[Tried]) -> Vec<Finding> {
    let troubled: Vec<_> = tried
        .iter()
        .filter_map(|it| Some(reachability(it)?.about(it.peer.node.to_string())))
        .collect();
    if troubled.is_empty() {
        vec![Finding::ok(
            REACHABLE,
            format!("{} answer", units::count(tried.len(), "peer")),
        )]
    } else {
        troubled
    }
}

/// What is wrong with the way to a peer; `None`: nothing.
fn reachability(it: &Tried) -> Option<Finding> {
    let mute: Vec<String> = it
        .addresses
        .iter()
        .filter(|address| !it.small.contains(*address))
        .map(ToString::to_string)
        .collect();
    if mute.is_empty() {
        return None;
    }
    let peer = &it.peer;
    let age = units::age(peer.handshake_age_seconds);
    let mute = mute.join(" and ");
    if it.small.is_empty() && peer.path == Some(PathKind::Wireguard) && !it.heard {
        let (endpoint, port) = match peer.endpoint {
            Some(endpoint) => (endpoint.to_string(), endpoint.port().to_string()),
            None => ("no known endpoint".to_owned(), "its lane's port".to_owned()),
        };
        return Some(Finding::fail(
            REACHABLE,
            format!("nothing comes back from {endpoint}; the last handshake was {age}"),
            format!(
                "let UDP {port} through between the two nodes, both ways. The usual cause is a firewall that drops by default: \
                 look at nft list ruleset on {0} and here, and at the cloud's security group. If {0} is down, it is that; see also \
                 warren doctor on {0}",
                peer.node
            ),
        ));
    }
    if it.small.is_empty() && peer.path != Some(PathKind::Wireguard) {
        return Some(Finding::fail(
            REACHABLE,
            format!("{mute} does not answer by the path {}", path(peer)),
            format!(
                "between the nodes UDP 4789 must pass (vxlan), or packets with pod addresses (direct); see warren doctor on {}",
                peer.node
            ),
        ));
    }
    Some(Finding::warn(
        REACHABLE,
        format!("{mute} does not answer, though its lane is heard (handshake {age})"),
        format!(
            "either {0} drops ICMP that comes by its lanes, which harms nothing else, or its lane lacks that address, or a firewall \
             has cut one way of its UDP port a moment ago: see warren doctor on {0}, and run this again in 3 minutes",
            peer.node
        ),
    ))
}

fn path(peer: &PeerStatus) -> String {
    peer.path.map(|path| path.to_string()).unwrap_or_default()
}

fn judge_mtu(tried: &[Tried], pod_mtu: u32) -> Vec<Finding> {
    let troubled: Vec<_> = tried
        .iter()
        .filter_map(|it| Some(black_hole(it, pod_mtu)?.about(it.peer.node.to_string())))
        .collect();
    if !troubled.is_empty() {
        return troubled;
    }
    if tried.iter().all(|it| it.large.is_empty()) {
        return vec![Finding::skipped(MTU, "no peer answers even small packets")];
    }
    vec![Finding::ok(
        MTU,
        format!("packets of {pod_mtu} bytes come through"),
    )]
}

/// Small packets come through and those of full size do not.
fn black_hole(it: &Tried, pod_mtu: u32) -> Option<Finding> {
    let lost = it.small.difference(&it.large).next()?;
    let best = match it.longest.get(lost) {
        Some(length) => format!("{length} do"),
        None => format!("{SMALL} do"),
    };
    Some(Finding::fail(
        MTU,
        format!("packets of {pod_mtu} bytes to {lost} are lost, those of {best}"),
        "the network between the nodes has a smaller MTU than this node's interface says: correct the interface's MTU or the \
         network's, or set spec.mtu in the Mesh to a value that comes through (it is the pods' MTU, and holds for all nodes)",
    ))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use crate::doctor::agent::tests::healthy;
    use crate::doctor::finding::Verdict;

    const ADDRESS: &str = "10.244.1.1";

    fn tried(small: bool, large: bool, heard: bool) -> Tried {
        let mut it = with_path(&healthy()).remove(0);
        assert_eq!(it.addresses, [ADDRESS.parse::<IpAddr>().unwrap()]);
        let all: BTreeSet<IpAddr> = it.addresses.iter().copied().collect();
        if small {
            it.small = all.clone();
        }
        if large {
            it.large = all;
        }
        it.heard = heard;
        it
    }

    #[test]
    fn a_silent_peer_is_named_with_endpoint_port_and_the_usual_cause() {
        let findings = judge_reachable(&[tried(true, true, true), tried(false, false, false)]);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].result, Verdict::Fail);
        assert_eq!(findings[0].subject.as_deref(), Some("b"));
        assert!(findings[0].found.contains("192.0.2.1:51821"), "{findings:?}");
        let remedy = findings[0].remedy.as_deref().unwrap();
        assert!(
            remedy.contains("UDP 51821") && remedy.contains("firewall"),
            "{remedy}"
        );
    }

    #[test]
    fn a_peer_that_is_heard_but_drops_echo_is_a_warning() {
        let findings = judge_reachable(&[tried(false, false, true)]);
        assert_eq!(findings[0].result, Verdict::Warn);
        assert_eq!(
            judge_reachable(&[tried(true, true, false)])[0].result,
            Verdict::Ok
        );
    }

    #[test]
    fn a_black_hole_is_where_small_packets_pass_and_large_ones_do_not() {
        let mut hole = tried(true, false, true);
        hole.longest.insert(ADDRESS.parse().unwrap(), 1232);
        let findings = judge_mtu(&[hole], 1440);
        assert_eq!(findings[0].result, Verdict::Fail);
        assert!(
            findings[0].found.contains("1440") && findings[0].found.contains("1232"),
            "{findings:?}"
        );
        assert_eq!(judge_mtu(&[tried(true, true, true)], 1440)[0].result, Verdict::Ok);
        let dead = judge_mtu(&[tried(false, false, false)], 1440);
        assert_eq!(dead[0].result, Verdict::Skipped);
    }

    #[test]
    fn a_peer_without_a_path_fails_and_is_not_tried() {
        let mut status = healthy();
        status.peers[0].path = None;
        status.peers[0].reason = "it publishes nothing".to_owned();
        assert!(with_path(&status).is_empty());
        let finding = judge_paths(&status);
        assert_eq!(finding.result, Verdict::Fail);
        assert!(finding.found.contains("b: it publishes nothing"), "{finding:?}");
        assert_eq!(judge_paths(&healthy()).result, Verdict::Ok);
    }
}
