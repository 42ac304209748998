//! A node whose disk is full, read-only, or has lost or damaged what the agent kept on it.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::path::PathBuf;
use std::time::Instant;

use support::{PATIENCE, ask_agent, lab, ping, until};
use warren_lab::{CniCommand, Lab, LabOptions, Place, PodFacts, PodOptions};

/// "Input/output failure", CNI specification section 5.
const IO_FAILURE: &str = "code 5";

#[tokio::test]
async fn a_lost_or_damaged_file_of_addresses_costs_no_packet_and_gives_no_address_twice() {
    let options = LabOptions {
        nodes: 2,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    let (kept, other) = (
        add(&lab, "kept", "node1").await,
        add(&lab, "other", "node1").await,
    );
    add(&lab, "from", "node2").await;
    let from = Place::Pod("from".into());
    assert_eq!(ping(&lab, &from, &kept.addresses[0], 1).await, (1, 1));

    let file = attachments(&lab).await;
    let whole = std::fs::read(&file).unwrap();
    let losses = async {
        for (nth, damaged) in [Some(&whole[..whole.len() / 2]), Some(b"\0\xff"), None]
            .into_iter()
            .enumerate()
        {
            lab.node_kill("node1").await.unwrap();
            match damaged {
                Some(damaged) => std::fs::write(&file, damaged).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            lab.node_start("node1").await.unwrap();
            for pod in ["kept", "other"] {
                lab.pod_cni(pod, CniCommand::Check)
                    .await
                    .unwrap_or_else(|error| panic!("{pod} after {damaged:?}: {error:#}"));
            }
            let new = add(&lab, &format!("new{nth}"), "node1").await;
            for address in &new.addresses {
                assert!(
                    !kept.addresses.contains(address) && !other.addresses.contains(address),
                    "{address} has been given twice after {damaged:?}"
                );
            }
            if let Some(damaged) = damaged {
                assert_eq!(
                    std::fs::read(file.with_extension("json.damaged")).unwrap(),
                    damaged
                );
            }
        }
    };
    let ((sent, received), ()) = tokio::join!(ping(&lab, &from, &kept.addresses[0], 300), losses);
    assert_eq!((sent, received), (300, 300), "sent and received");

    lab.pod_remove("other").await.unwrap();
    let left = std::fs::read_to_string(&file).unwrap();
    assert!(left.contains(&kept.container_id), "{left}");
    assert!(
        !left.contains(&other.container_id),
        "DEL frees what was recovered: {left}"
    );
    for address in &kept.addresses {
        assert_eq!(ping(&lab, &from, address, 1).await, (1, 1));
    }
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn an_interface_that_does_not_tell_whose_it_is_is_named_and_its_pod_keeps_working() {
    let options = LabOptions {
        nodes: 2,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    let to = add(&lab, "to", "node1").await;
    add(&lab, "from", "node2").await;
    let from = Place::Pod("from".into());
    assert_eq!(ping(&lab, &from, &to.addresses[0], 1).await, (1, 1));

    lab.node_stop("node1").await.unwrap();
    std::fs::remove_file(attachments(&lab).await).unwrap();
    let name = on_node1(&lab, "basename /sys/class/net/wrn*").await;
    let label = on_node1(&lab, "cat /sys/class/net/wrn*/ifalias").await;
    assert!(label.contains(&to.container_id), "{label}");
    on_node1(&lab, &format!("ip link set {name} alias ''")).await;
    let refused = lab.node_start("node1").await.unwrap_err();
    let refused = format!("{refused:#}");
    assert!(
        refused.contains(&name) && refused.contains("warren uninstall-node"),
        "{refused}"
    );
    for address in &to.addresses {
        assert_eq!(ping(&lab, &from, address, 5).await, (5, 5));
    }

    on_node1(&lab, &format!("ip link set {name} alias '{label}'")).await;
    lab.node_start("node1").await.unwrap();
    lab.pod_cni("to", CniCommand::Check).await.unwrap();
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn a_full_disk_keeps_pods_from_coming_and_nothing_else() {
    let fill = "head -c 16M /dev/zero > $WARREN_STATE_DIR/filling; test -s $WARREN_STATE_DIR/filling";
    a_disk_that_takes_nothing(fill, "rm $WARREN_STATE_DIR/filling").await;
}

#[tokio::test]
async fn a_read_only_disk_keeps_pods_from_coming_and_nothing_else() {
    let remount = |how| format!("mount -o remount,{how} $WARREN_STATE_DIR");
    a_disk_that_takes_nothing(&remount("ro"), &remount("rw")).await;
}

/// Has the state directory take nothing more, restarts the agent on it, and has it take writes again.
async fn a_disk_that_takes_nothing(spoil: &str, mend: &str) {
    let options = LabOptions {
        nodes: 2,
        agents: false,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    on_node1(&lab, "mount -t tmpfs -o size=512k tmpfs $WARREN_STATE_DIR").await;
    futures::future::try_join_all(["node1", "node2"].map(|it| lab.node_start(it)))
        .await
        .unwrap();
    let (stays, leaves) = (
        add(&lab, "stays", "node1").await,
        add(&lab, "leaves", "node1").await,
    );
    add(&lab, "from", "node2").await;
    let from = Place::Pod("from".into());
    assert_eq!(ping(&lab, &from, &stays.addresses[0], 1).await, (1, 1));

    on_node1(&lab, spoil).await;
    let restart = async {
        let refused = lab
            .pod_add(PodOptions::new("refused", "node1"))
            .await
            .unwrap_err();
        let refused = format!("{refused:#}");
        assert!(
            refused.contains(IO_FAILURE) && refused.contains("attachments.json: free space on the disk"),
            "{refused}"
        );
        lab.node_stop("node1").await.unwrap();
        lab.node_start("node1").await.unwrap();
        lab.pod_cni("stays", CniCommand::Check).await.unwrap();
        lab.pod_remove("leaves")
            .await
            .unwrap_or_else(|error| panic!("a pod that ends may be what makes room: {error:#}"));
    };
    let ((sent, received), ()) = tokio::join!(ping(&lab, &from, &stays.addresses[0], 150), restart);
    assert_eq!((sent, received), (150, 150), "sent and received");
    let links = on_node1(&lab, "ls -d /sys/class/net/wrn*").await;
    assert_eq!(
        links.lines().count(),
        1,
        "only the pod that stays has one: {links}"
    );

    on_node1(&lab, mend).await;
    let new = add(&lab, "new", "node1").await;
    assert!(new.addresses.iter().all(|it| !stays.addresses.contains(it)));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let held = on_node1(&lab, "cat $WARREN_STATE_DIR/attachments.json").await;
        if !held.contains(&leaves.container_id) {
            assert!(held.contains(&stays.container_id) && held.contains(&new.container_id));
            break;
        }
        assert!(Instant::now() < deadline, "an address was not freed: {held}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn an_agent_that_first_starts_on_a_full_disk_says_so_and_goes_on_once_there_is_room() {
    let fill = "head -c 16M /dev/zero > $WARREN_STATE_DIR/filling; test -s $WARREN_STATE_DIR/filling";
    a_first_start(fill, "rm $WARREN_STATE_DIR/filling", "No space left on device").await;
}

#[tokio::test]
async fn an_agent_that_first_starts_on_a_read_only_disk_says_so_and_goes_on_once_it_may_write() {
    let remount = |how| format!("mount -o remount,{how} $WARREN_STATE_DIR");
    a_first_start(&remount("ro"), &remount("rw"), "Read-only file system").await;
}

/// Starts a node's first agent on a state directory that takes nothing, and then has it take writes.
async fn a_first_start(spoil: &str, mend: &str, why: &str) {
    let options = LabOptions {
        nodes: 1,
        agents: false,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    on_node1(&lab, "mount -t tmpfs -o size=512k tmpfs $WARREN_STATE_DIR").await;
    on_node1(&lab, spoil).await;
    let watched = async {
        until("/readyz to say what is waited for", async || {
            let said = ask_agent(&lab, "node1", "/readyz").await.unwrap_or_default();
            [
                "nodes/node1/state",
                why,
                "check that its disk is there, writable and not full",
            ]
            .iter()
            .all(|part| said.contains(part))
        })
        .await;
        let made = on_node1(
            &lab,
            "ls /sys/class/net $WARREN_CNI_CONF_DIR; find $WARREN_STATE_DIR -type f; nft list tables",
        )
        .await;
        for half in ["warren0", "warren1", ".conflist", ".key"] {
            assert!(!made.contains(half), "{half}: {made}");
        }
        assert!(
            made.contains("table inet warren"),
            "the guard is in force: {made}"
        );
        on_node1(&lab, mend).await;
    };
    let (started, ()) = tokio::join!(lab.node_start("node1"), watched);
    started.unwrap();
    add(&lab, "pod", "node1").await;
    let key = on_node1(&lab, "stat -c '%a %s' $WARREN_STATE_DIR/keys/epoch-1.key").await;
    assert_eq!(key, "600 45");
}

async fn add(lab: &Lab, name: &str, node: &str) -> PodFacts {
    lab.pod_add(PodOptions::new(name, node)).await.unwrap()
}

/// The first node's file of attachments, as the host sees it.
async fn attachments(lab: &Lab) -> PathBuf {
    lab.facts().await.unwrap().nodes[0]
        .disk
        .join("state/attachments.json")
}

/// Runs a script on the first node and returns what it printed.
async fn on_node1(lab: &Lab, script: &str) -> String {
    let output = lab
        .run(Place::Node("node1".to_owned()), &["sh", "-c", script])
        .await
        .unwrap();
    assert!(output.success(), "{script}: {output:?}");
    output.stdout.trim().to_owned()
}
