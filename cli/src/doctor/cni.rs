//! What makes the container runtime call us: the CNI configuration and the plugins it names.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::agent::AgentFacts;
use super::finding::Finding;
use super::settings::Settings;

/// Our configuration.
pub(super) const CONFIGURATION: &str = "10-warren.conflist";
/// Our plugin.
const PLUGIN: &str = "warren-cni";
/// What runtimes take for configurations (libcni, `ConfFiles`).
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];
/// How long a plugin may take to say its version.
const ANSWER: Duration = Duration::from_secs(5);

/// What is there.
#[derive(Debug)]
pub(super) struct CniFacts {
    /// The configurations' file names in the order runtimes read them.
    names: io::Result<Vec<String>>,
    /// Our own; `None`: it is not there.
    ours: Option<Result<Conflist, String>>,
    /// For each plugin it names (at least our own), whether it can be run.
    plugins: Vec<(String, Result<(), String>)>,
}

#[derive(Debug, Clone, Deserialize)]
struct Conflist {
    plugins: Vec<Plugin>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Plugin {
    #[serde(rename = "type")]
    kind: String,
    run_dir: Option<std::path::PathBuf>,
}

/// Looks, and asks each plugin for its version.
pub(super) async fn gather(settings: &Settings) -> CniFacts {
    let ours = match fs::read(settings.cni_conf_dir.join(CONFIGURATION)) {
        Ok(text) => Some(serde_json::from_slice::<Conflist>(&text).map_err(|error| error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(error.to_string())),
    };
    let mut named = vec![PLUGIN.to_owned()];
    if let Some(Ok(conflist)) = &ours {
        let others = conflist.plugins.iter().map(|plugin| plugin.kind.clone());
        named.extend(others.filter(|kind| kind != PLUGIN));
    }
    let mut plugins = Vec::new();
    for name in named {
        let answer = version(&settings.cni_bin_dir.join(&name)).await;
        plugins.push((name, answer));
    }
    CniFacts {
        names: names(&settings.cni_conf_dir),
        ours,
        plugins,
    }
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
        if let (true, Some(name)) = (EXTENSIONS.contains(&extension), path.file_name()) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Runs a plugin for what it answers to VERSION, which touches nothing.
async fn version(program: &Path) -> Result<(), String> {
    let ask = async {
        let mut child = Command::new(program)
            .env("CNI_COMMAND", "VERSION")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read it is judged by what it prints.
            let _ = stdin.write_all(br#"{"cniVersion":"1.0.0"}"#).await;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(ANSWER, ask)
        .await
        .map_err(|_| format!("no answer within {} s", ANSWER.as_secs()))?
        .map_err(|error| format!("cannot be run: {error}"))?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    if output.status.success() && answer["supportedVersions"].is_array() {
        Ok(())
    } else {
        Err(format!(
            "does not answer VERSION as a CNI plugin ({})",
            output.status
        ))
    }
}

/// What it means.
pub(super) fn judge(facts: &CniFacts, settings: &Settings, agent: &AgentFacts) -> Vec<Finding> {
    let mut findings = vec![configuration(facts, settings, agent)];
    for (name, answer) in &facts.plugins {
        let path = settings.cni_bin_dir.join(name).display().to_string();
        findings.push(match answer {
            Ok(()) => Finding::ok("cni-plugin", "answers VERSION"),
            Err(_) if facts.ours.is_none() && !agent.runs() => {
                Finding::skipped("cni-plugin", "no agent has been here")
            }
            Err(error) if name == PLUGIN => Finding::fail(
                "cni-plugin",
                format!("{path} {error}"),
                "restart the agent, it installs the plugin (in a cluster its init container does); the runtime's folder of \
                 plugins must be the one the agent writes to, and on a file system mounted without noexec",
            ),
            Err(error) => Finding::fail(
                "cni-plugin",
                format!("{path} {error}"),
                format!(
                    "the chain needs it, and no pod can be attached: install the CNI plugin {name}, or remove it there and \
                     restart the agent, which leaves out what is not installed"
                ),
            ),
        }
        .about(name.clone()));
    }
    findings
}

fn configuration(facts: &CniFacts, settings: &Settings, agent: &AgentFacts) -> Finding {
    const CHECK: &str = "cni-conf";
    let path = settings.cni_conf_dir.join(CONFIGURATION);
    let path = path.display();
    let ours = match &facts.ours {
        Some(Ok(conflist)) => conflist.plugins.iter().find(|plugin| plugin.kind == PLUGIN),
        Some(Err(error)) => {
            return Finding::fail(
                CHECK,
                format!("{path} is damaged: {error}"),
                "start the agent, or wait 10 s if it runs: it writes the file anew",
            );
        }
        None => {
            return Finding::fail(
                CHECK,
                format!("there is no {path}: the runtime has no network for pods"),
                if agent.runs() {
                    "the agent writes it once it is ready: see agent-ready, and that the folder can be written to"
                } else {
                    "start the agent: it writes the file once it is ready"
                },
            );
        }
    };
    let Some(plugin) = ours else {
        return Finding::fail(
            CHECK,
            format!("{path} names no plugin {PLUGIN}"),
            "start the agent, or wait 10 s if it runs: it writes the file anew",
        );
    };
    if let Some(other) = plugin.run_dir.as_ref().filter(|dir| **dir != settings.run_dir) {
        return Finding::fail(
            CHECK,
            format!(
                "{path} sends the plugin to {}, but the agent's sockets are in {}",
                other.display(),
                settings.run_dir.display()
            ),
            "start the agent with the --run-dir it is to have; it writes the file anew",
        );
    }
    match &facts.names {
        Ok(names) => match names.first().filter(|first| *first != CONFIGURATION) {
            None => Finding::ok(CHECK, format!("{CONFIGURATION} comes first")),
            Some(first) => Finding::fail(
                CHECK,
                format!(
                    "{first} sorts before {CONFIGURATION}, and runtimes take the first: new pods get another network"
                ),
                format!(
                    "remove {}, which another network plugin has left or still writes; then delete the pods it attached",
                    settings.cni_conf_dir.join(first).display()
                ),
            ),
        },
        Err(error) => Finding::fail(
            CHECK,
            format!("cannot list {}: {error}", settings.cni_conf_dir.display()),
            "it must be the folder the runtime reads; name it with --cni-conf-dir",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    fn settings() -> Settings {
        Settings {
            node: "a".parse().expect("a name"),
            run_dir: "/run/warren".into(),
            state_dir: "/s".into(),
            cni_conf_dir: "/c".into(),
            cni_bin_dir: "/b".into(),
            wireguard_dir: "/w".into(),
            kubeconfig: None,
            publish_kubeconfig: None,
            keys_in_memory: false,
        }
    }

    fn facts(names: &[&str], ours: Option<&str>) -> CniFacts {
        CniFacts {
            names: Ok(names.iter().map(|&it| it.to_owned()).collect()),
            ours: ours.map(|text| serde_json::from_str(text).map_err(|error| error.to_string())),
            plugins: vec![(PLUGIN.to_owned(), Ok(()))],
        }
    }

    fn judged(facts: &CniFacts) -> Vec<Finding> {
        judge(facts, &settings(), &AgentFacts::stopped())
    }

    const WHOLE: &str = r#"{"plugins": [{"type": "warren-cni", "runDir": "/run/warren"}]}"#;

    #[test]
    fn a_configuration_that_runtimes_would_not_take_is_found() {
        let whole = judged(&facts(&["10-warren.conflist", "99-x.conf"], Some(WHOLE)));
        assert!(whole.iter().all(|it| it.result == Verdict::Ok), "{whole:?}");
        for (names, ours, said) in [
            (&[][..], None, "there is no"),
            (&["10-warren.conflist"], Some("{"), "damaged"),
            (
                &["10-warren.conflist"],
                Some(r#"{"plugins": []}"#),
                "names no plugin",
            ),
            (
                &["10-warren.conflist"],
                Some(r#"{"plugins": [{"type": "warren-cni", "runDir": "/else"}]}"#),
                "/else",
            ),
            (
                &["00-other.conflist", "10-warren.conflist"],
                Some(WHOLE),
                "00-other.conflist sorts before",
            ),
        ] {
            let findings = judged(&facts(names, ours));
            assert_eq!(findings[0].result, Verdict::Fail, "{said}");
            assert!(findings[0].found.contains(said), "{findings:?}");
        }
    }

    #[test]
    fn a_plugin_of_the_chain_that_does_not_run_is_named() {
        let mut broken = facts(&["10-warren.conflist"], Some(WHOLE));
        let absent = Err("cannot be run: no such file".to_owned());
        broken.plugins.push(("portmap".to_owned(), absent));
        let findings = judged(&broken);
        assert_eq!(findings[2].result, Verdict::Fail);
        assert_eq!(findings[2].subject.as_deref(), Some("portmap"));
    }

    #[tokio::test]
    async fn a_program_that_is_no_plugin_does_not_pass_for_one() {
        let error = version(Path::new("/bin/true")).await.expect_err("it is none");
        assert!(error.contains("VERSION"), "{error}");
        let error = version(Path::new("/nonexistent"))
            .await
            .expect_err("it is absent");
        assert!(error.contains("cannot be run"), "{error}");
    }
}
