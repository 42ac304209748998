//! How long a pass thinks when one node of a large cluster has changed, and how much memory its agent takes.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, ensure};
use ipnet::IpNet;
use warren_model::{Mesh, PathKind};
use warren_plan::lane::Endpoints;
use warren_plan::{Attachment, Cluster, InForce, Local, Mac, Observed, UnderlayAddress, compute, diff};

use crate::cluster::{announcement, first_epoch, key, node};
use crate::machine::Machine;
use crate::report::{Report, WARREN};
use crate::resident;
use crate::statistics::Samples;

/// Cluster sizes, how often each is planned a round, and how long that may take, ms.
const SIZES: [(u16, u8, f64); 2] = [(1000, 60, 10.0), (5000, 30, 50.0)];

/// Pods on the node that plans: as many as a kubelet takes.
const PODS: u8 = 110;

/// How many peers an agent may have in [`RESIDENT_LIMIT`].
const PEERS: u16 = 1000;

/// MiB.
const RESIDENT_LIMIT: f64 = 64.0;

pub(crate) async fn bench(rounds: u32) -> anyhow::Result<Report> {
    let mut report = Report::new("plan", Machine::look(&["nftables"]));
    let mut times: BTreeMap<u16, Vec<f64>> = BTreeMap::new();
    let mut memory = resident::Memory::default();
    for _ in 0..rounds {
        for (size, runs, _) in SIZES {
            times.entry(size).or_default().extend(plan(size, runs)?);
        }
        memory.add(resident::measure(PEERS).await?);
    }
    let mut medians = Vec::new();
    for (size, values) in times {
        let samples = Samples::new(values).context("no run")?;
        report.row(
            &format!("{size} nodes, one changed"),
            WARREN,
            "compute + diff",
            "ms",
            &samples,
        );
        medians.push((size, samples.median()));
    }
    let case = format!("{PEERS} peers");
    let agent = Samples::new(memory.agent).context("no agent was seen")?;
    let devices = Samples::new(memory.devices).context("no device was seen")?;
    report.row(&case, WARREN, "agent resident", "MiB", &agent);
    report.row(&case, WARREN, "devices resident, both", "MiB", &devices);
    for ((size, median), (_, _, limit)) in medians.into_iter().zip(SIZES) {
        report.bar_under(&format!("compute + diff at {size} nodes"), median, "ms", limit);
    }
    report.bar_under(
        &format!("agent at {PEERS} peers"),
        agent.max(),
        "MiB resident",
        RESIDENT_LIMIT,
    );
    Ok(report)
}

/// The times, in ms, of planning for a cluster of that size after one node has got a new key and a new address, with a
/// kernel that is as the cluster was before.
fn plan(size: u16, runs: u8) -> anyhow::Result<Vec<f64>> {
    let mut cluster = Cluster {
        mesh: Mesh::default(),
        ..Cluster::default()
    };
    for number in 0..size {
        let node = node(number)?;
        cluster.nodes.insert(node.name.clone(), node);
    }
    let mut local = local(&cluster)?;
    let before = compute(&cluster, &local);
    local.endpoints_before = before.endpoints();
    let mut observed = Observed::default();
    for attachment in &local.attachments {
        let made = before.links.get(&attachment.interface);
        observed.links.insert(
            attachment.interface.clone(),
            made.context("a pod without a link")?.clone(),
        );
    }
    for step in diff(&before, &observed.clone()) {
        observed.apply(&step.action);
    }
    ensure!(
        diff(&before, &observed).is_empty(),
        "the kernel is as it should be, and there are steps all the same"
    );

    let mut times = Vec::new();
    for run in 0..runs {
        let mut changed = cluster.clone();
        let number = 1 + u16::from(run) * (size / 100);
        let mut after = node(number)?;
        after.internal_ips = vec![IpAddr::from([10, 213, 0, run])];
        after.announcement = Some(Ok(announcement(key(number, 1)?)?));
        changed.nodes.insert(after.name.clone(), after);

        let started = Instant::now();
        let desired = compute(black_box(&changed), black_box(&local));
        let steps = diff(&desired, &observed);
        times.push(started.elapsed().as_secs_f64() * 1000.0);
        ensure!(
            (1..=4).contains(&steps.len()),
            "one node has changed, and there are {} steps",
            steps.len()
        );
    }
    Ok(times)
}

/// The first node as it is itself.
fn local(cluster: &Cluster) -> anyhow::Result<Local> {
    let own = node(0)?;
    let [v4, v6] = own.pod_cidrs[..] else {
        anyhow::bail!("a node without two pod CIDRs")
    };
    let pods = (0..PODS).map(|n| Attachment {
        pod: format!("default/pod{n}"),
        interface: format!("wrn{n:012x}"),
        mac: Mac([2, 0, 0, 0, 0, n]),
        addresses: vec![nth(v4.net(), n), nth(v6.net(), n)],
    });
    let networks = cluster.nodes.values().filter(|it| it.name != own.name);
    Ok(Local {
        keys: BTreeMap::from([(first_epoch()?, key(0, 0)?)]),
        can: BTreeSet::from([PathKind::Wireguard, PathKind::Vxlan]),
        attachments: pods.collect(),
        underlay: vec![UnderlayAddress {
            interface: "eth0".to_owned(),
            net: IpNet::new(own.internal_ips[0], 8)?,
            mtu: 1500,
        }],
        underlay_routes: Vec::new(),
        mtu_holes: BTreeMap::new(),
        networks_before: networks.flat_map(|it| &it.pod_cidrs).map(|it| it.net()).collect(),
        endpoints_before: Endpoints::new(),
        settled: None,
        in_force: InForce::default(),
        node: own.name,
    })
}

/// The address so many after the node-local one.
fn nth(net: IpNet, n: u8) -> IpAddr {
    match net.network() {
        IpAddr::V4(it) => IpAddr::from((u32::from(it) + 2 + u32::from(n)).to_be_bytes()),
        IpAddr::V6(it) => IpAddr::from((u128::from(it) + 2 + u128::from(n)).to_be_bytes()),
    }
}
