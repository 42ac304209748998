//! `warren status`: the mesh as all agents see it.

mod clear;
mod findings;
mod nodes;
mod peers;
mod report;
#[cfg(test)]
pub(crate) mod samples;
mod summary;

use crate::arguments::{OutputFormat, StatusArguments};
use crate::outcome::{self, Outcome};
use crate::survey::survey;
use report::StatusReport;

/// Asks, prints, and with `--check` says whether the mesh is whole.
pub(crate) async fn status(arguments: StatusArguments) -> anyhow::Result<Outcome> {
    let report = StatusReport::new(survey(&arguments.agents, "/status").await?);
    match arguments.agents.output {
        OutputFormat::Table => outcome::print(render(&report, arguments.peers).as_bytes())?,
        OutputFormat::Json => outcome::print_json(&report)?,
    };
    Ok(if arguments.check && !report.summary.whole {
        Outcome::Short
    } else {
        Outcome::Done
    })
}

/// The report for people, section after section, the verdict last.
fn render(report: &StatusReport, all_peers: bool) -> String {
    let sections = [
        nodes::render(report),
        peers::render(report, all_peers),
        clear::render(&report.in_the_clear),
        findings::render(report),
        summary::render(report),
    ];
    let present: Vec<String> = sections
        .into_iter()
        .filter(|section| !section.is_empty())
        .collect();
    present.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples::{mesh, rotating, troubled};

    #[test]
    fn a_whole_mesh_is_two_tables_and_a_verdict() {
        insta::assert_snapshot!(render(&mesh(), false), @r"
        NODE  READY  KEY       EPOCH  LANE                 PODS   MTU  PEERS
        a     yes    qqqqqqqq  3      warren1 (userspace)    12  1420    2/2
        b     yes    sbGxsbGx  3      warren1 (userspace)    12  1420    2/2
        c     yes    uLi4uLi4  3      warren1 (userspace)    12  1420    2/2

        FROM  TO  PATH       KEY       EPOCH  ENDPOINT          HANDSHAKE  RECEIVED     SENT
        a     b   wireguard  sbGxsbGx  3      192.0.2.98:51821  12s ago     1.5 KiB  3.0 MiB
        a     c   wireguard  uLi4uLi4  3      192.0.2.99:51821  12s ago     1.5 KiB  3.0 MiB
        b     a   wireguard  qqqqqqqq  3      192.0.2.97:51821  12s ago     1.5 KiB  3.0 MiB
        b     c   wireguard  uLi4uLi4  3      192.0.2.99:51821  12s ago     1.5 KiB  3.0 MiB
        c     a   wireguard  qqqqqqqq  3      192.0.2.97:51821  12s ago     1.5 KiB  3.0 MiB
        c     b   wireguard  sbGxsbGx  3      192.0.2.98:51821  12s ago     1.5 KiB  3.0 MiB

        ready: 3 of 3 nodes
        encrypted: 6 of 6 paths
        steward: b
        ");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_reason() {
        insta::assert_snapshot!(render(&troubled(), false), @r"
        NODE  READY        KEY       EPOCH  LANE                 PODS   MTU  PEERS  NOTE
        a     yes          qqqqqqqq  3      warren1 (userspace)    12  1420    2/3
        b     yes          sbGxsbGx  3      warren1 (userspace)    12  1420    2/2
        c     yes          uLi4uLi4  3      down                   12  1420    1/1  no lane is up: the kernel has no WireGuard
        d     unreachable  -         -      -                       -     -      -  no answer within 5 s; its agent has published nothing yet
        e     no           -         -      warren1 (userspace)    12  1420    0/0

        FROM  TO  PATH       KEY       EPOCH  ENDPOINT          HANDSHAKE  RECEIVED     SENT  REASON
        a     b   wireguard  sbGxsbGx  3      192.0.2.98:51821  never       1.5 KiB  3.0 MiB
        a     c   wireguard  uLi4uLi4  3      192.0.2.99:51821  12s ago     1.5 KiB  3.0 MiB
        a     e   none       -         -      -                 -               0 B      0 B  publishes no key
        b     a   wireguard  qqqqqqqq  3      192.0.2.97:51821  12s ago     1.5 KiB  3.0 MiB
        b     e   vxlan      -         -      -                 -               0 B      0 B  spec.fallback is vxlan, and it has no WireGuard
        c     a   wireguard  qqqqqqqq  3      192.0.2.97:51821  12s ago     1.5 KiB  3.0 MiB

        In the clear by configuration:
          vxlan, because spec.fallback is vxlan, and it has no WireGuard: b to e

        Refused objects:
          Node/e: 10.244.1.0/24 is node a's; delete Node e (overlapping-pod-cidr); seen by a, b

        Dropped by the guard:
          NODE  REASON         PACKETS  BYTES
          b     plaintext-out        7  700 B

        Dropped by WireGuard devices:
          NODE  INTERFACE  REASON      PACKETS
          b     warren1    no_session        5

        MTU black holes:
          b to a: packets of 1420 bytes are lost, those of 1376 come through; pods have 1420

        Failed in the last pass:
          a: nft cannot change table inet warren: busy�[2J

        ready: 3 of 5 nodes
        encrypted: 4 of 10 paths; without a handshake yet: 1; in the clear: 1 vxlan (b to e); no path: 1 (a to e); unknown: 4 (their agents did not answer)
        steward: a
        ");
    }

    #[test]
    fn a_rotation_shows_both_keys_and_lanes() {
        insta::assert_snapshot!(render(&rotating(), false), @r"
        NODE  READY  KEY                EPOCH  LANE                         PODS   MTU  PEERS
        a     yes    qqqqqqqq,q6urq6ur  3,4    warren0,warren1 (userspace)    12  1420    1/1
        b     yes    sbGxsbGx,srKysrKy  3,4    warren0,warren1 (userspace)    12  1420    1/1

        FROM  TO  PATH       KEY       EPOCH  ENDPOINT          HANDSHAKE  RECEIVED     SENT
        a     b   wireguard  srKysrKy  4      192.0.2.98:51820  12s ago     1.5 KiB  3.0 MiB
        b     a   wireguard  q6urq6ur  4      192.0.2.97:51820  12s ago     1.5 KiB  3.0 MiB

        ready: 2 of 2 nodes
        encrypted: 2 of 2 paths
        steward: a
        ");
    }
}
