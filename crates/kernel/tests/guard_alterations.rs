//! What others do to the guard's table, and how it is heard of.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod rooms;

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;

use futures::{Stream, StreamExt as _};
use rooms::{node, sh};
use warren_kernel::{Kernel, KernelEvent};
use warren_plan::{Action, Guard, OpenPod};

#[test]
fn what_others_do_to_the_table_is_heard_of_and_written_over() {
    node(
        "what_others_do_to_the_table_is_heard_of_and_written_over",
        async |node| {
            let kernel = &node.kernel;
            let mut heard = alterations(kernel);
            let guard = guard();
            let install = Action::InstallGuard(guard.clone());
            kernel.apply(&install).await.unwrap();
            let before = sh("nft list table inet warren");
            for change in [
                "nft flush ruleset",
                "nft delete table inet warren",
                "nft flush table inet warren",
                "nft insert rule inet warren incoming accept",
                "nft flush set inet warren pods4",
                "nft add element inet warren pods4 '{ wrnother . 10.244.1.6 }'",
                // Of these no look at the table finds a trace.
                "nft replace rule inet warren outgoing handle \
                     $(nft -a list chain inet warren outgoing | grep -m 1 plaintext-out | sed 's/.*handle //') accept",
                "nft replace rule inet warren incoming handle \
                     $(nft -a list chain inet warren incoming | grep -m 1 plaintext-in | sed 's/.*handle //') \
                     ip saddr 10.244.2.0/24 counter name plaintext-in drop",
                "nft add table inet warren '{ flags dormant; }'",
                "nft add table inet theirs; nft delete table inet warren; nft add table inet theirs",
            ] {
                sh(change);
                tokio::time::timeout(rooms::DEADLINE, heard.next())
                    .await
                    .unwrap_or_else(|_| panic!("not heard: {change}"));
                assert_eq!(kernel.observe(&[]).await.unwrap().guard, None, "{change}");
                kernel.apply(&install).await.unwrap();
                let observed = kernel.observe(&[]).await.unwrap();
                assert_eq!(observed.guard, Some(guard.fingerprint()), "{change}");
                let now = sh("nft list table inet warren");
                assert_eq!(without_counts(&now), without_counts(&before), "{change}");
            }
            assert!(silent_stream(&mut heard).await);
        },
    );
}

#[test]
fn what_we_do_and_what_others_do_to_tables_of_their_own_is_not_heard_of() {
    node(
        "what_we_do_and_what_others_do_to_tables_of_their_own_is_not_heard_of",
        async |node| {
            let kernel = &node.kernel;
            let mut heard = alterations(kernel);
            let mut guard = guard();
            for number in 1..=5 {
                guard
                    .sealed
                    .insert(format!("172.{number}.0.0/16").parse().unwrap());
                kernel.apply(&Action::InstallGuard(guard.clone())).await.unwrap();
                kernel.observe(&[]).await.unwrap();
                sh("nft add table inet theirs; nft add chain inet theirs warren; \
                    nft add table ip warren; nft delete table ip warren");
                for address in [6, 7] {
                    kernel.observe(&[]).await.unwrap();
                    guard.pods.insert(OpenPod {
                        interface: format!("wrn{number}"),
                        address: std::net::Ipv4Addr::from([10, 244, 1, address]).into(),
                    });
                    kernel.apply(&Action::InstallGuard(guard.clone())).await.unwrap();
                }
                sh("nft delete table inet theirs");
            }
            assert!(silent_stream(&mut heard).await);
            // Not deaf: it was silent for a reason.
            sh("nft delete table inet warren");
            assert!(!silent_stream(&mut heard).await);
        },
    );
}

#[test]
fn where_news_are_lost_the_table_counts_as_altered_until_it_is_written_anew() {
    node(
        "where_news_are_lost_the_table_counts_as_altered_until_it_is_written_anew",
        async |node| {
            let kernel = &node.kernel;
            let mut heard = alterations(kernel);
            let guard = guard();
            let install = Action::InstallGuard(guard.clone());
            kernel.apply(&install).await.unwrap();
            // More than the largest buffer takes, and among it the table's end.
            let many: Vec<String> = (0..250_u32)
                .flat_map(|a| (0..250_u32).map(move |b| format!("10.7.{a}.{b}")))
                .collect();
            let mut script = "add table ip theirs\ndelete table inet warren\n".to_owned();
            for set in ["one", "two", "three"] {
                script += &format!(
                    "add set ip theirs {set} {{ type ipv4_addr; }}\nadd element ip theirs {set} {{ {} }}\n",
                    many.join(", ")
                );
            }
            let path = node.state.path().join("script");
            std::fs::write(&path, script).unwrap();
            sh(&format!("nft -f {}", path.display()));
            let sockets = sh("cat /proc/thread-self/net/netlink");
            let dropped = |line: &str| line.split_whitespace().nth(8)?.parse::<u64>().ok();
            assert!(
                sockets.lines().filter_map(dropped).any(|count| count > 0),
                "{sockets}"
            );
            tokio::time::timeout(rooms::DEADLINE, heard.next()).await.unwrap();
            kernel.apply(&install).await.unwrap();
            assert!(silent_stream(&mut heard).await);
            assert_eq!(
                kernel.observe(&[]).await.unwrap().guard,
                Some(guard.fingerprint())
            );
        },
    );
}

/// What the kernel says of changes of the guard by others.
fn alterations(kernel: &Kernel) -> impl Stream<Item = ()> + Unpin + use<> {
    let events = kernel.events().unwrap();
    events.filter_map(|event| ready((event == KernelEvent::Guard).then_some(())))
}

/// Whether nothing is to be had of a stream. What happened before is there already: the kernel announces a transaction
/// before it returns to who has asked for it.
async fn silent_stream(stream: &mut (impl Stream<Item = ()> + Unpin)) -> bool {
    // The runtime has to look at the socket once.
    let soon = std::time::Duration::from_millis(100);
    tokio::time::timeout(soon, stream.next()).await.is_err()
}

/// A listing without what the counters say.
fn without_counts(listing: &str) -> String {
    let lines = listing.lines().filter(|line| !line.contains("packets "));
    lines.collect::<Vec<_>>().join("\n")
}

fn guard() -> Guard {
    let networks = ["10.244.0.0/16".parse().unwrap(), "fd10:244::/32".parse().unwrap()];
    let pod = OpenPod {
        interface: "wrnpod".to_owned(),
        address: "10.244.1.5".parse().unwrap(),
    };
    Guard {
        local: ["10.244.1.0/24".parse().unwrap()].into(),
        sealed: networks.into(),
        clear: BTreeMap::new(),
        pods: [pod].into(),
        masquerade: BTreeSet::new(),
        pod_networks: networks.into(),
    }
}
