//! No private key is in anything that the programs emit, nor in memory once it was retired.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::json;
use support::{ask_agent, lab, skip};
use warren_lab::switch;
use warren_lab::{ApiKind, Lab, LabOptions, Output, Place, PodOptions, rotation};

/// Where private keys may be.
const STORE: &str = "state/keys";

/// Of `warren`, as an operator runs it with a kubeconfig.
const COMMANDS: [&[&str]; 13] = [
    &["status"],
    &["status", "--peers"],
    &["status", "--output", "json"],
    &["plan"],
    &["plan", "--output", "json"],
    &["keys", "list"],
    &["keys", "list", "--output", "json"],
    &["keys", "status"],
    &["keys", "status", "--output", "json"],
    &["keys", "verify"],
    &["keys", "verify", "--output", "json"],
    &["keys", "accept", "node1"],
    &["keys", "rotate", "--wait", "--timeout", "60"],
];

/// Of an agent's admin server.
const PAGES: [&str; 8] = [
    "/",
    "/config",
    "/metrics",
    "/status",
    "/plan",
    "/healthz",
    "/readyz",
    "/no-such-page",
];

/// Of the API: all that agents write or read.
const OBJECTS: [&str; 5] = [
    "/api/v1/nodes",
    "/api/v1/events",
    "/api/v1/pods",
    "/apis/warren-mesh.io/v1alpha1/meshes",
    "/apis/coordination.k8s.io/v1/leases",
];

#[tokio::test]
async fn nothing_that_the_programs_emit_holds_a_private_key() {
    let options = LabOptions {
        nodes: 2,
        api: ApiKind::Embedded,
        log: "trace".to_owned(),
        environment: [("LOG_LEVEL".to_owned(), "verbose".to_owned())].into(),
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    for node in ["node1", "node2"] {
        lab.pod_add(PodOptions::new(format!("on-{node}").as_str(), node))
            .await
            .unwrap();
    }
    switch::begin_with(&lab, &json!({})).await.unwrap();
    let mut keys = private_keys(&lab);
    assert_eq!(keys.len(), 2);

    let mut emitted: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    // The last of these rotates.
    for arguments in COMMANDS {
        let kubeconfig = lab.kubeconfig_inside();
        let output = lab
            .warren(&[arguments, &["--kubeconfig", &kubeconfig]].concat())
            .await
            .unwrap();
        assert_eq!(output.code, 0, "warren {arguments:?}: {output:?}");
        emitted.insert(format!("warren {arguments:?}"), text_of(output));
    }
    keys.extend(private_keys(&lab));
    assert_eq!(keys.len(), 4, "the rotation has made new ones");
    for node in ["node1", "node2"] {
        for page in PAGES {
            let answer = ask_agent(&lab, node, page).await.unwrap();
            emitted.insert(format!("{node} {page}"), answer.into_bytes());
        }
        for format in ["table", "json"] {
            let output = on_node(&lab, node, &format!("warren doctor --output {format}")).await;
            emitted.insert(format!("{node} doctor {format}"), text_of(output));
        }
        let script = "find /run/warren -type f -exec cat {} +; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ";
        emitted.insert(
            format!("{node} run folder, arguments"),
            text_of(on_node(&lab, node, script).await),
        );
    }
    for path in OBJECTS {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        let objects = lab.client().request_text(request).await.unwrap();
        emitted.insert(path.to_owned(), objects.into_bytes());
    }
    for (case, output) in errors(&lab).await {
        assert!(
            !output.success() && output.stderr.contains("epoch-2.key"),
            "{case}: {output:?}"
        );
        emitted.insert(case, text_of(output));
    }
    // Logs, records, CNI configuration, and what crossed the underlay.
    let (files, stores) = files_below(lab.dir());
    let log = files.keys().filter(|path| path.ends_with("agent.log")).count();
    assert!(
        log == 2 && files.keys().any(|path| path.ends_with("underlay.pcap")),
        "{:?}",
        files.keys()
    );
    emitted.extend(
        files
            .into_iter()
            .map(|(path, content)| (path.display().to_string(), content)),
    );

    let forms: Vec<Vec<u8>> = keys.iter().flat_map(forms).collect();
    // The search can find what it looks for.
    for (path, content) in &stores {
        assert!(
            forms.iter().any(|form| holds(content, form)),
            "{}",
            path.display()
        );
    }
    let found: Vec<&String> = emitted
        .iter()
        .filter(|(_, content)| forms.iter().any(|form| holds(content, form)))
        .map(|(from, _)| from)
        .collect();
    assert!(found.is_empty(), "{found:#?}");
    let empty: Vec<&String> = emitted
        .iter()
        .filter(|(_, it)| it.is_empty())
        .map(|(from, _)| from)
        .collect();
    assert!(
        empty.len() < emitted.len() / 2,
        "little was emitted at all: {empty:#?}"
    );
}

#[tokio::test]
async fn a_retired_key_is_gone_from_the_memory_of_agent_and_device() {
    let options = LabOptions {
        nodes: 2,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    switch::begin_with(&lab, &json!({})).await.unwrap();
    let before = private_keys(&lab);
    let programs = programs_of(&lab);
    assert_eq!(
        programs.len(),
        6,
        "two agents, each with a device a lane: {programs:?}"
    );
    let search = |keys: &[[u8; 32]]| -> io::Result<usize> {
        let mut found = 0;
        for pid in &programs {
            found += keys
                .iter()
                .map(|key| in_memory(pid, key))
                .sum::<io::Result<usize>>()?;
        }
        Ok(found)
    };
    match search(&before) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            skip::<()>("not allowed to read the memory of other processes: run as root");
            return;
        }
        found => assert!(found.unwrap() > 0, "the search finds keys that are in use"),
    }
    rotation::rotate(&lab, &[]).await.unwrap();
    assert_eq!(programs_of(&lab), programs, "the same processes");
    assert_eq!(search(&before).unwrap(), 0, "retired keys are still in memory");
    assert!(search(&private_keys(&lab)).unwrap() > 0);
}

#[tokio::test]
async fn agent_and_device_leave_no_core_file() {
    let options = LabOptions {
        nodes: 1,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    let programs = programs_of(&lab);
    assert!(programs.len() >= 2, "{programs:?}");
    for pid in programs {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        let limits: Vec<&str> = line["Max core file size".len()..].split_whitespace().collect();
        assert_eq!(limits[..2], ["0", "0"], "{pid}: {line}");
    }
}

/// What an agent says whose key file cannot be used.
async fn errors(lab: &Lab) -> Vec<(String, Output)> {
    lab.node_stop("node2").await.unwrap();
    let agent = "warren-agent --admin-addr 127.0.0.1:1986";
    let key = "$WARREN_STATE_DIR/keys/epoch-2.key";
    let mut errors = Vec::new();
    for (case, spoil) in [
        ("too open", format!("chmod 0644 {key}")),
        (
            "too long",
            format!("chmod 0600 {key}; cat {key} {key} > {key}.x; cat {key}.x > {key}; rm {key}.x"),
        ),
        ("too short", format!("truncate -s 40 {key}")),
    ] {
        let output = on_node(lab, "node2", &format!("{spoil}; {agent}")).await;
        errors.push((format!("an agent whose key file is {case}"), output));
    }
    errors
}

async fn on_node(lab: &Lab, node: &str, script: &str) -> Output {
    lab.run(Place::Node(node.to_owned()), &["sh", "-c", script])
        .await
        .unwrap()
}

fn text_of(output: Output) -> Vec<u8> {
    [output.stdout, output.stderr].concat().into_bytes()
}

/// The private keys of all nodes, from their disks.
fn private_keys(lab: &Lab) -> Vec<[u8; 32]> {
    let mut keys = Vec::new();
    for node in fs::read_dir(lab.dir().join("nodes")).unwrap() {
        for file in fs::read_dir(node.unwrap().path().join(STORE)).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|it| it == "key") {
                keys.push(decoded(fs::read_to_string(path).unwrap().trim()));
            }
        }
    }
    keys
}

/// The bytes of a key in base64 (RFC 4648, section 4), without asking the code that is tested.
fn decoded(text: &str) -> [u8; 32] {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let value = |letter: u8| ALPHABET.iter().position(|it| *it == letter).unwrap();
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0, 0);
    for letter in text.trim_end_matches('=').bytes() {
        bits = (bits << 6) | value(letter);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap());
        }
    }
    bytes.try_into().unwrap()
}

/// What a key may look like: as it is, in base64 of either alphabet, in hexadecimal, as a list of numbers.
fn forms(key: &[u8; 32]) -> Vec<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut base64 = String::new();
    // The last letters depend on what follows.
    for three in key.chunks_exact(3) {
        let bits = three
            .iter()
            .fold(0, |bits: usize, byte| (bits << 8) | usize::from(*byte));
        for shift in [18, 12, 6, 0] {
            base64.push(char::from(ALPHABET[(bits >> shift) & 63]));
        }
    }
    let mut hexadecimal = String::new();
    for byte in key {
        write!(hexadecimal, "{byte:02x}").unwrap();
    }
    let numbers: Vec<String> = key.iter().map(u8::to_string).collect();
    vec![
        key.to_vec(),
        base64.replace('+', "-").replace('/', "_").into_bytes(),
        base64.into_bytes(),
        hexadecimal.to_uppercase().into_bytes(),
        hexadecimal.into_bytes(),
        numbers.join(", ").into_bytes(),
        numbers.join(",").into_bytes(),
    ]
}

fn holds(content: &[u8], form: &[u8]) -> bool {
    content.windows(form.len()).any(|part| part == form)
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// All files, and apart from them those of key stores.
fn files_below(folder: &Path) -> (Files, Files) {
    let (mut files, mut stores) = (Files::new(), Files::new());
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let content = fs::read(entry.path()).unwrap();
                let to = if folder.ends_with(STORE) {
                    &mut stores
                } else {
                    &mut files
                };
                to.insert(entry.path(), content);
            }
        }
    }
    (files, stores)
}

/// The lab's agents and devices, by process id as the host counts.
fn programs_of(lab: &Lab) -> Vec<String> {
    let read = |pid: &str, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let pids = fs::read_dir("/proc").unwrap();
    let pids = pids.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let all: Vec<String> = pids
        .filter(|pid| pid.bytes().all(|it| it.is_ascii_digit()))
        .collect();
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let place = lab.dir().display().to_string();
    let agents: Vec<&String> = all
        .iter()
        .filter(|pid| read(pid, "comm").trim() == "warren-agent" && read(pid, "cmdline").contains(&place))
        .collect();
    let nodes: Vec<_> = agents.iter().map(|pid| namespace(pid)).collect();
    let devices = all
        .iter()
        .filter(|pid| read(pid, "comm").trim() == "warren-wg" && nodes.contains(&namespace(pid)));
    let mut programs: Vec<String> = devices.chain(agents.iter().copied()).cloned().collect();
    programs.sort();
    programs
}

/// How often a key is in what a process can write.
fn in_memory(pid: &str, key: &[u8; 32]) -> io::Result<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut found = 0;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else {
            continue;
        };
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let address = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = (address(start), address(end));
        let mut content = vec![0; usize::try_from(end - start).unwrap()];
        // What is reserved and not there cannot be read.
        if memory.read_exact_at(&mut content, start).is_err() {
            continue;
        }
        found += memchr_count(&content, key);
    }
    Ok(found)
}

/// How often these bytes occur, by their first one.
fn memchr_count(content: &[u8], key: &[u8; 32]) -> usize {
    let mut starts = content.iter().enumerate().filter(|(_, byte)| **byte == key[0]);
    let is_there = |(at, _): &(usize, &u8)| content.get(*at..*at + 32) == Some(key.as_slice());
    starts.by_ref().filter(is_there).count()
}
