//! Nothing leaked, nothing half made, nothing given twice.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::trial::{Trial, patiently};

/// What the agent keeps in its state folder.
const STATE: [&str; 6] = [
    "attachments.json",
    "endpoints.json",
    "guard.json",
    "keys",
    "known-keys.json",
    "sysctls.json",
];

impl Trial {
    /// Nothing is left to do, and record, links and pods tell the same.
    pub(crate) async fn assert_sound(&self) {
        self.wait_until_it_plans_nothing().await;
        let pods = self.pods().await;
        let containers: BTreeSet<&str> = pods.iter().map(|pod| pod.container_id.as_str()).collect();

        let stored = std::fs::read(self.disk.join("state/attachments.json")).unwrap();
        let stored: Value = serde_json::from_slice(&stored).unwrap();
        let of = |list: &str, field: &str| -> Vec<String> {
            let list = stored[list].as_array().unwrap().iter();
            list.map(|it| it[field].as_str().unwrap().to_owned()).collect()
        };
        for list in ["attachments", "allocations"] {
            let recorded = of(list, "containerId");
            assert_eq!(recorded.len(), pods.len(), "{list}: {stored:#}");
            let recorded: BTreeSet<&str> = recorded.iter().map(String::as_str).collect();
            assert_eq!(recorded, containers, "{list}");
        }
        for pod in &pods {
            let mut held = stored["allocations"].as_array().unwrap().iter();
            let held = held.find(|it| it["containerId"] == *pod.container_id).unwrap();
            let held: BTreeSet<&str> = held["addresses"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_str)
                .collect();
            assert_eq!(
                held,
                pod.addresses.iter().map(String::as_str).collect(),
                "{}",
                pod.key
            );
        }
        let given: Vec<&String> = pods.iter().flat_map(|pod| &pod.addresses).collect();
        let distinct: BTreeSet<&String> = given.iter().copied().collect();
        assert_eq!(distinct.len(), given.len(), "an address twice: {given:?}");

        let links = self
            .in_node(&["ip", "-json", "link", "show", "type", "veth"])
            .await;
        let links: Vec<Value> = serde_json::from_str(&links.stdout).unwrap();
        let ours: Vec<&Value> = links
            .iter()
            .filter(|link| link["ifname"].as_str().unwrap().starts_with("wrn"))
            .collect();
        let names: BTreeSet<String> = ours
            .iter()
            .map(|it| it["ifname"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, of("attachments", "interface").into_iter().collect());
        for link in ours {
            assert!(
                link["link_netnsid"].is_u64() && link["operstate"] == "UP",
                "half a veth: {link}"
            );
        }

        let files = std::fs::read_dir(self.disk.join("state")).unwrap();
        let files: Vec<String> = files
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        let foreign: Vec<&String> = files.iter().filter(|it| !STATE.contains(&it.as_str())).collect();
        assert!(foreign.is_empty(), "left in the state folder: {foreign:?}");
    }

    pub(crate) async fn wait_until_it_plans_nothing(&self) {
        patiently("a plan without steps", async || {
            let plan = self.in_node(&["warren", "plan", "--local"]).await;
            anyhow::ensure!(
                plan.success() && plan.stdout.contains("nothing to do"),
                "{plan:?}"
            );
            Ok(())
        })
        .await;
    }
}
