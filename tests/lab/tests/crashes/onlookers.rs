//! Those who look all the time: at traffic that must not stop, and at the guard that must stand.

use std::cell::Cell;
use std::collections::BTreeSet;

use warren_lab::{Place, PodFacts};

use crate::support::{ping_first, ping_flow};
use crate::trial::Trial;

impl Trial {
    /// How many of how many echo requests were answered; stops at the first that was not.
    pub(crate) async fn ping_until(&self, from: &PodFacts, to: &PodFacts, over: &Cell<bool>) -> usize {
        let mut answered = 0;
        while !over.get() {
            for address in &to.addresses {
                let flow = ping_flow();
                ping_first(&self.lab, &Place::Pod(from.key.clone()), address, &flow).await;
                // With a deadline it goes on until so many have been answered, so a late last answer is waited for.
                let argv = [
                    "ping", "-n", "-e", &flow, "-i", "0.02", "-w", "10", "-c", "40", address,
                ];
                let output = self.lab.run(Place::Pod(from.key.clone()), &argv).await.unwrap();
                let sequence = |line: &str| line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse().ok();
                let seen: BTreeSet<u32> = output.stdout.lines().filter_map(sequence).collect();
                let lost: Vec<u32> = (1..=40).filter(|n| !seen.contains(n)).collect();
                if !lost.is_empty() {
                    panic!(
                        "{address} did not answer {lost:?}; dropped by the guards: {}",
                        self.drops().await
                    );
                }
                answered += 40;
            }
        }
        answered
    }

    /// What the guards of both pods' nodes have dropped, and their connection tracking.
    pub(crate) async fn drops(&self) -> String {
        let counters = "nft list counters table inet warren; cat /proc/net/stat/nf_conntrack";
        let mut drops = String::new();
        for pod in [&self.here, &self.there] {
            let output = self
                .lab
                .run(Place::Node(pod.node.clone()), &["sh", "-c", counters])
                .await
                .unwrap();
            drops += &output.stdout;
        }
        drops
    }

    /// How often it was looked for, and found.
    pub(crate) async fn look_for_the_guard_until(&self, over: &Cell<bool>) -> usize {
        let mut looks = 0;
        while !over.get() {
            let table = self
                .in_node(&["nft", "--terse", "list", "table", "inet", "warren"])
                .await;
            assert!(table.success(), "the guard is not there: {table:?}");
            assert!(
                table.stdout.contains("counter name \"plaintext-out\" drop"),
                "the guard is empty: {table:?}"
            );
            looks += 1;
        }
        looks
    }
}
