//! The table of docs/paths.md, row by row: what it says is what both ends choose.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use warren_model::{
    Accord, AnnouncedKey, Announcement, Encryption, Epoch, Fallback, Lane, Mesh, Node, OverlayMode, Path,
    PathKind, Progress, PublicKey,
};
use warren_plan::{Cluster, Endpoints, InForce, Local, UnderlayAddress, accord, compute};

const TABLE: &str = include_str!("../../../docs/paths.md");
const COLUMNS: [&str; 10] = [
    "encryption",
    "fallback",
    "overlay",
    "crossSubnet",
    "here",
    "there",
    "subnet",
    "routed",
    "works",
    "path",
];

/// One row, with one value in each column.
#[derive(Debug, Clone)]
struct Row(BTreeMap<&'static str, String>);

/// Every row of the table, those with `any` once for each value.
fn rows() -> Vec<Row> {
    let lines = TABLE
        .lines()
        .skip_while(|line| !line.starts_with("| encryption |"));
    let lines = lines.skip(2).take_while(|line| line.starts_with('|'));
    lines
        .flat_map(|line| {
            let cells: Vec<String> = line
                .trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect();
            assert_eq!(cells.len(), COLUMNS.len(), "{line}");
            expanded(Row(COLUMNS.into_iter().zip(cells).collect()))
        })
        .collect()
}

fn expanded(row: Row) -> Vec<Row> {
    let Some((column, _)) = row.0.iter().find(|(_, cell)| *cell == "any") else {
        return vec![row];
    };
    let values: &[&str] = match *column {
        "fallback" => &["none", "vxlan", "ipip"],
        "overlay" => &["vxlan", "ipip", "none"],
        "crossSubnet" | "works" => &["yes", "no"],
        "subnet" => &["near", "far"],
        "routed" => &["none", "wireguard", "vxlan", "ipip", "direct"],
        other => panic!("no values for any {other}"),
    };
    let with = |value: &&str| {
        let mut row = row.clone();
        row.0.insert(column, (*value).to_owned());
        expanded(row)
    };
    values.iter().flat_map(with).collect()
}

impl Row {
    fn cell(&self, column: &str) -> &str {
        &self.0[column]
    }

    fn mesh(&self) -> Mesh {
        let mut mesh = Mesh {
            encryption: match self.cell("encryption") {
                "wireguard" => Encryption::Wireguard,
                "none" => Encryption::None,
                other => panic!("{other}"),
            },
            fallback: match self.cell("fallback") {
                "none" => Fallback::None,
                "vxlan" => Fallback::Vxlan,
                "ipip" => Fallback::Ipip,
                other => panic!("{other}"),
            },
            ..Mesh::default()
        };
        mesh.overlay.mode = match self.cell("overlay") {
            "vxlan" => OverlayMode::Vxlan,
            "ipip" => OverlayMode::Ipip,
            "none" => OverlayMode::None,
            other => panic!("{other}"),
        };
        mesh.overlay.cross_subnet = self.cell("crossSubnet") == "yes";
        mesh
    }

    /// What the row says is chosen at the one end or, with the ends exchanged, at the other.
    fn chosen(&self, exchanged: bool) -> Option<PathKind> {
        let (mut ends, far) = (
            [
                end("here", 0, self.cell("here")),
                end("there", 1, self.cell("there")),
            ],
            self.cell("subnet") == "far",
        );
        for end in &mut ends {
            if self.cell("subnet") == "near, IPv6 alone" {
                end.ips.retain(IpAddr::is_ipv6);
            }
        }
        if far {
            ends[1].ips = ["198.51.100.2", "2001:db8:9::2"]
                .map(|ip| ip.parse().unwrap())
                .into();
        }
        if exchanged {
            ends.reverse();
        }
        let routed = path(self.cell("routed"));
        choose(&self.mesh(), &ends, routed, self.cell("works") == "yes")
    }
}

/// One of two nodes.
#[derive(Debug, Clone)]
struct End {
    name: &'static str,
    number: u8,
    /// `None`: it has published nothing.
    can: Option<BTreeSet<PathKind>>,
    ips: Vec<IpAddr>,
}

fn end(name: &'static str, number: u8, can: &str) -> End {
    let kind = |letter| match letter {
        'w' => PathKind::Wireguard,
        'v' => PathKind::Vxlan,
        'i' => PathKind::Ipip,
        other => panic!("{other}"),
    };
    let can = match can {
        "?" => None,
        "-" => Some(BTreeSet::new()),
        letters => Some(letters.chars().map(kind).collect()),
    };
    let ips = [
        format!("192.0.2.{}", number + 1),
        format!("2001:db8::{}", number + 1),
    ];
    End {
        name,
        number,
        can,
        ips: ips.map(|ip| ip.parse().unwrap()).into(),
    }
}

fn path(word: &str) -> Option<PathKind> {
    match word {
        "none" => None,
        "wireguard" => Some(PathKind::Wireguard),
        "vxlan" => Some(PathKind::Vxlan),
        "ipip" => Some(PathKind::Ipip),
        "direct" => Some(PathKind::Direct),
        other => panic!("{other}"),
    }
}

/// What the first of two ends chooses, which sends to the other by `routed`; `works`: the path chosen is proven.
fn choose(mesh: &Mesh, ends: &[End; 2], routed: Option<PathKind>, works: bool) -> Option<PathKind> {
    let key = |end: &End| PublicKey::from_bytes([end.number + 2; 32]).unwrap();
    let net = |end: &End| -> IpNet { format!("10.244.{}.0/24", end.number).parse().unwrap() };
    let node = |end: &End, progress: Option<Progress>| {
        let announced = AnnouncedKey {
            epoch: Epoch::FIRST,
            public_key: key(end),
            port: 51821,
        };
        let announcement = end.can.clone().map(|can| {
            let announcement = Announcement::new(vec![announced], Epoch::FIRST, can).unwrap();
            Ok(match progress {
                Some(progress) => announcement.with_progress(progress),
                None => announcement,
            })
        });
        Node {
            name: end.name.parse().unwrap(),
            uid: end.name.to_owned(),
            created: 0,
            pod_cidrs: vec![net(end).to_string().parse().unwrap()],
            internal_ips: end.ips.clone(),
            announcement,
            ready: true,
        }
    };
    let [here, there] = ends;
    let underlay = |ip: &IpAddr| UnderlayAddress {
        interface: "eth0".to_owned(),
        net: IpNet::new(*ip, if ip.is_ipv4() { 24 } else { 64 }).unwrap(),
        mtu: 1500,
    };
    let mut in_force = InForce {
        has_lanes: true,
        ..InForce::default()
    };
    let routed = routed.map(|kind| match kind {
        PathKind::Wireguard => Path::Wireguard(Lane::One),
        PathKind::Vxlan => Path::Vxlan,
        PathKind::Ipip => Path::Ipip,
        PathKind::Direct => Path::Direct,
    });
    in_force.routed.extend(routed.map(|path| (net(there), path)));
    if works {
        in_force.proven.insert((Lane::One, key(there)));
    }
    let local = Local {
        node: here.name.parse().unwrap(),
        keys: [(Epoch::FIRST, key(here))].into(),
        can: here.can.clone().unwrap_or_default(),
        attachments: Vec::new(),
        underlay: here.ips.iter().map(underlay).collect(),
        underlay_routes: Vec::new(),
        networks_before: BTreeSet::new(),
        endpoints_before: Endpoints::new(),
        mtu_holes: BTreeMap::new(),
        settled: None,
        in_force,
    };
    let mut cluster = Cluster {
        nodes: [node(here, None), node(there, None)]
            .map(|node| (node.name.clone(), node))
            .into(),
        mesh: mesh.clone(),
        refusals: Vec::new(),
    };
    let same = accord(&cluster, &local);
    let progress = Progress {
        accepts: if works { same } else { Accord(!same.0) },
        sends: None,
        by: BTreeSet::new(),
    };
    cluster
        .nodes
        .insert(there.name.parse().unwrap(), node(there, Some(progress)));
    let desired = compute(&cluster, &local);
    desired.peers[there.name].path.map(|path| path.kind())
}

#[test]
fn what_the_table_says_is_what_both_ends_choose() {
    let rows = rows();
    assert!(rows.len() > 500, "{} rows were read", rows.len());
    for row in rows {
        let expected = path(row.cell("path"));
        assert_eq!(row.chosen(false), expected, "{row:?}");
        // What a node has not published of itself it knows all the same.
        if row.cell("there") != "?" {
            assert_eq!(row.chosen(true), expected, "the other end of {row:?}");
        }
    }
}

fn an_end(name: &'static str, number: u8) -> impl Strategy<Value = End> {
    let can =
        subsequence(vec!['w', 'v', 'i'], 0..=3).prop_map(|letters| letters.into_iter().collect::<String>());
    let ips = select(vec![
        vec!["192.0.2", "2001:db8:"],
        vec!["198.51.100", "2001:db8:9:"],
        vec!["192.0.2"],
        vec!["2001:db8:"],
        vec!["2001:db8:9:", "192.0.2"],
    ]);
    (can, ips).prop_map(move |(can, nets)| {
        let can = if can.is_empty() { "-".to_owned() } else { can };
        let address = |net: &str| {
            let separator = if net.contains(':') { ":" } else { "." };
            format!("{net}{separator}{}", number + 1).parse().unwrap()
        };
        End {
            ips: nets.into_iter().map(address).collect(),
            ..end(name, number, &can)
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2048) })]

    #[test]
    fn both_ends_come_to_the_same_kind_of_path(
        here in an_end("here", 0), there in an_end("there", 1),
        encryption in select(vec![Encryption::Wireguard, Encryption::None]),
        fallback in select(vec![Fallback::None, Fallback::Vxlan, Fallback::Ipip]),
        mode in select(vec![OverlayMode::Vxlan, OverlayMode::Ipip, OverlayMode::None]),
        cross_subnet in any::<bool>(),
    ) {
        let mut mesh = Mesh { encryption, fallback, ..Mesh::default() };
        mesh.overlay.mode = mode;
        mesh.overlay.cross_subnet = cross_subnet;
        let forth = choose(&mesh, &[here.clone(), there.clone()], None, true);
        let back = choose(&mesh, &[there, here], None, true);
        prop_assert_eq!(forth, back);
    }
}
