//! The floor rule: a crate depends only on crates of strictly lower floors, and pure crates on nothing that
//! could make their answers depend on when, where or how often they are asked.
//!
//! Strictly lower makes circles impossible, so there is no search for them: every circle has an arrow that does
//! not go down, and that arrow is named.

use std::fmt;

use cargo_metadata::{DependencyKind, Metadata};

/// What a crate is, which decides the rules beside its floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No runtime, clock, randomness, environment, file or socket.
    Pure,
    /// Touches the world.
    Effectful,
    /// Exists for tests: whoever tests may use it as a dev-dependency, whatever the floors say.
    Test,
}

/// One crate's place in the house.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) name: &'static str,
    pub(crate) floor: u8,
    pub(crate) kind: Kind,
}

/// Every crate of the workspace, lowest floor first. A crate that is not listed is an error: whoever adds one
/// decides where it belongs.
pub(crate) const ROOMS: &[Room] = &[
    room("warren-model", 0, Kind::Pure),
    room("warren-cipher", 0, Kind::Pure),
    room("warren-telemetry", 0, Kind::Effectful),
    room("warren-policy", 1, Kind::Pure),
    room("warren-ipam", 1, Kind::Pure),
    room("warren-cni-wire", 1, Kind::Pure),
    room("warren-plan", 2, Kind::Pure),
    room("warren-kernel", 3, Kind::Effectful),
    room("warren-cluster", 3, Kind::Effectful),
    room("warren-dataplane", 3, Kind::Effectful),
    room("warren-keymgr", 4, Kind::Effectful),
    room("warren-agent", 5, Kind::Effectful),
    room("warren-cni", 5, Kind::Effectful),
    room("warren", 5, Kind::Effectful),
    room("warren-testapi", 6, Kind::Test),
    room("xtask", 6, Kind::Effectful),
    room("warren-lab", 7, Kind::Test),
    room("warren-bench", 8, Kind::Test),
];

const fn room(name: &'static str, floor: u8, kind: Kind) -> Room {
    Room { name, floor, kind }
}

/// Crates from elsewhere that a pure crate must not name as a dependency, and what each would bring in. A name
/// that ends in `*` stands for all that begin so.
const IMPURE: &[(&str, &str)] = &[
    ("tokio*", "an async runtime"),
    ("async-*", "an async runtime"),
    ("futures*", "an async runtime"),
    ("smol", "an async runtime"),
    ("mio", "sockets"),
    ("socket2", "sockets"),
    ("quinn*", "sockets"),
    ("hyper*", "sockets"),
    ("axum*", "sockets"),
    ("reqwest", "sockets"),
    ("kube*", "sockets"),
    ("rtnetlink", "sockets"),
    ("genetlink", "sockets"),
    ("rand*", "randomness"),
    ("fastrand", "randomness"),
    ("getrandom", "randomness"),
    ("uuid", "randomness"),
    ("chrono", "a clock"),
    ("time", "a clock"),
    ("quanta", "a clock"),
    ("libc", "system calls"),
    ("nix", "system calls"),
    ("rustix", "system calls"),
    ("tempfile", "files"),
    ("atomic-write-file", "files"),
    ("walkdir", "files"),
];

/// A crate of the workspace as the rule sees it.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Arrow>,
}

/// One dependency of a member.
#[derive(Debug)]
pub(crate) struct Arrow {
    pub(crate) to: String,
    /// Only for tests, examples and benches.
    pub(crate) dev: bool,
    /// The other end is in this workspace.
    pub(crate) ours: bool,
}

/// One breach of the rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Breach {
    /// The crate has no place in [`ROOMS`].
    UnknownCrate(String),
    /// The dependency does not go down.
    NotDown {
        from: String,
        from_floor: u8,
        to: String,
        to_floor: u8,
    },
    /// A pure crate depends on a crate of ours that is not pure.
    ImpureNeighbour { from: String, to: String },
    /// A pure crate depends on a crate from elsewhere that brings in the world.
    ImpureDependency {
        from: String,
        to: String,
        brings: &'static str,
    },
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCrate(name) => {
                write!(f, "{name} has no floor: give it one in xtask/src/floors.rs")
            }
            Self::NotDown {
                from,
                from_floor,
                to,
                to_floor,
            } => write!(
                f,
                "{from} (floor {from_floor}) depends on {to} (floor {to_floor}): dependencies go to lower floors only"
            ),
            Self::ImpureNeighbour { from, to } => {
                write!(f, "{from} is pure but depends on {to}, which is not")
            }
            Self::ImpureDependency { from, to, brings } => {
                write!(f, "{from} is pure but depends on {to}, which brings in {brings}")
            }
        }
    }
}

/// The workspace's members and what each asks for, from `cargo metadata`.
pub(crate) fn members(metadata: &Metadata) -> Vec<Member> {
    let arrow = |dependency: &cargo_metadata::Dependency| Arrow {
        to: dependency.name.clone(),
        dev: dependency.kind == DependencyKind::Development,
        ours: dependency.path.is_some(),
    };
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| Member {
            name: package.name.to_string(),
            dependencies: package.dependencies.iter().map(arrow).collect(),
        })
        .collect()
}

/// All breaches in the given graph, in the order of its members.
pub(crate) fn check(members: &[Member], rooms: &[Room]) -> Vec<Breach> {
    members
        .iter()
        .flat_map(|member| check_member(member, rooms))
        .collect()
}

fn check_member(member: &Member, rooms: &[Room]) -> Vec<Breach> {
    let Some(from) = find(&member.name, rooms) else {
        return vec![Breach::UnknownCrate(member.name.clone())];
    };
    member
        .dependencies
        .iter()
        .filter_map(|arrow| check_arrow(from, arrow, rooms))
        .collect()
}

fn check_arrow(from: &Room, arrow: &Arrow, rooms: &[Room]) -> Option<Breach> {
    if !arrow.ours {
        let brings = if from.kind == Kind::Pure && !arrow.dev {
            impurity(&arrow.to)
        } else {
            None
        }?;
        return Some(Breach::ImpureDependency {
            from: from.name.into(),
            to: arrow.to.clone(),
            brings,
        });
    }
    // An unknown neighbour is reported once, as a member.
    let to = find(&arrow.to, rooms)?;
    let for_tests = arrow.dev && (from.kind == Kind::Test || to.kind == Kind::Test);
    if to.floor >= from.floor && !for_tests {
        return Some(Breach::NotDown {
            from: from.name.into(),
            from_floor: from.floor,
            to: to.name.into(),
            to_floor: to.floor,
        });
    }
    (from.kind == Kind::Pure && to.kind != Kind::Pure && !arrow.dev).then(|| Breach::ImpureNeighbour {
        from: from.name.into(),
        to: to.name.into(),
    })
}

fn find<'r>(name: &str, rooms: &'r [Room]) -> Option<&'r Room> {
    rooms.iter().find(|room| room.name == name)
}

/// What a dependency of this name would bring into a pure crate, if anything.
fn impurity(name: &str) -> Option<&'static str> {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    IMPURE
        .iter()
        .find(|(pattern, _)| matches(pattern))
        .map(|(_, brings)| *brings)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUSE: &[Room] = &[
        room("cellar", 0, Kind::Pure),
        room("boiler", 0, Kind::Effectful),
        room("hall", 1, Kind::Pure),
        room("attic", 2, Kind::Effectful),
        room("crane", 3, Kind::Test),
    ];

    fn member(name: &str, dependencies: &[Arrow]) -> Member {
        let copy = |arrow: &Arrow| Arrow {
            to: arrow.to.clone(),
            ..*arrow
        };
        Member {
            name: name.into(),
            dependencies: dependencies.iter().map(copy).collect(),
        }
    }

    fn ours(to: &str) -> Arrow {
        Arrow {
            to: to.into(),
            dev: false,
            ours: true,
        }
    }

    fn foreign(to: &str) -> Arrow {
        Arrow {
            to: to.into(),
            dev: false,
            ours: false,
        }
    }

    fn dev(arrow: Arrow) -> Arrow {
        Arrow { dev: true, ..arrow }
    }

    fn not_down(from: &str, from_floor: u8, to: &str, to_floor: u8) -> Breach {
        Breach::NotDown {
            from: from.into(),
            from_floor,
            to: to.into(),
            to_floor,
        }
    }

    #[test]
    fn a_house_whose_arrows_all_go_down_has_no_breach() {
        let members = [
            member("cellar", &[foreign("serde")]),
            member("hall", &[ours("cellar")]),
            member("attic", &[ours("hall"), ours("boiler"), foreign("tokio")]),
        ];
        assert_eq!(check(&members, HOUSE), []);
    }

    #[test]
    fn an_arrow_upward_is_reported_with_both_names_and_floors() {
        let breaches = check(&[member("hall", &[ours("attic")])], HOUSE);
        assert_eq!(breaches, [not_down("hall", 1, "attic", 2)]);
        assert_eq!(
            breaches[0].to_string(),
            "hall (floor 1) depends on attic (floor 2): dependencies go to lower floors only"
        );
    }

    #[test]
    fn an_arrow_to_the_same_floor_is_reported() {
        let breaches = check(&[member("boiler", &[ours("cellar")])], HOUSE);
        assert_eq!(breaches, [not_down("boiler", 0, "cellar", 0)]);
    }

    #[test]
    fn a_circle_is_reported_by_the_arrow_that_closes_it() {
        let members = [
            member("cellar", &[ours("hall")]),
            member("hall", &[ours("cellar")]),
        ];
        assert_eq!(check(&members, HOUSE), [not_down("cellar", 0, "hall", 1)]);
    }

    #[test]
    fn a_crate_without_a_floor_is_reported_once() {
        let members = [member("shed", &[]), member("attic", &[ours("shed")])];
        assert_eq!(check(&members, HOUSE), [Breach::UnknownCrate("shed".into())]);
    }

    #[test]
    fn a_pure_crate_may_not_reach_the_world_through_a_dependency() {
        let breaches = check(
            &[member("hall", &[foreign("tokio-util"), foreign("ipnet")])],
            HOUSE,
        );
        let expected = Breach::ImpureDependency {
            from: "hall".into(),
            to: "tokio-util".into(),
            brings: "an async runtime",
        };
        assert_eq!(breaches, [expected]);
    }

    #[test]
    fn a_pure_crate_may_not_depend_on_a_neighbour_that_is_not_pure() {
        let breaches = check(&[member("hall", &[ours("boiler")])], HOUSE);
        assert_eq!(
            breaches,
            [Breach::ImpureNeighbour {
                from: "hall".into(),
                to: "boiler".into()
            }]
        );
    }

    #[test]
    fn tests_may_use_test_crates_and_randomness_but_no_other_upper_floor() {
        let members = [member(
            "hall",
            &[
                dev(ours("crane")),
                dev(foreign("rand")),
                dev(ours("boiler")),
                dev(ours("attic")),
            ],
        )];
        assert_eq!(check(&members, HOUSE), [not_down("hall", 1, "attic", 2)]);
    }

    #[test]
    fn the_table_names_no_crate_twice() {
        let mut names: Vec<_> = ROOMS.iter().map(|room| room.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
