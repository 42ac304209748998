//! Programs that run in a place of the lab, and what they need to get there.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;

use super::state::Keeper;
use crate::control::{Output, Place, Run};
use crate::namespaces::{Namespaces, exit_code};

impl Keeper {
    /// Runs a program to its end.
    pub(super) async fn run(&self, run: Run) -> anyhow::Result<Output> {
        let (program, arguments) = run.argv.split_first().context("no program to run")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(self.environment(&run.place).await?)
            .envs(&run.env);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // The handles live until the program has started.
        let mut child = self
            .within(&run.place, |namespaces| {
                namespaces.apply(command.as_std_mut());
                command.spawn().with_context(|| format!("run {program}"))
            })
            .await?;
        let mut stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin.take() {
                // A program need not read what it is given.
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, run.stdin.as_bytes()).await;
            }
        };
        let limit = Duration::from_millis(run.timeout_ms);
        let both = async { tokio::join!(feed, child.wait_with_output()).1 };
        let Ok(output) = tokio::time::timeout(limit, both).await else {
            bail!("{} did not end within {limit:?}", run.argv.join(" "))
        };
        let output = output.with_context(|| format!("wait for {program}"))?;
        Ok(Output {
            code: exit_code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Does something with the namespaces of a place.
    pub(super) async fn within<T>(
        &self,
        place: &Place,
        act: impl FnOnce(&Namespaces) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        match place {
            Place::Root => act(&Namespaces::of_process(std::process::id())?),
            Place::Node(name) => act(&self.node(name)?.inside().namespaces),
            Place::Pod(key) => act(&self.pod(key)?.lock().await.namespaces),
        }
    }

    /// What a program that is run in a place finds in its environment.
    pub(super) async fn environment(&self, place: &Place) -> anyhow::Result<BTreeMap<String, String>> {
        let node = match place {
            Place::Root => None,
            Place::Node(name) => Some(self.node(name)?),
            Place::Pod(key) => {
                let name = self.pod(key)?.lock().await.node.clone();
                Some(self.node(&name)?)
            }
        };
        let mut env = BTreeMap::new();
        match node {
            Some(node) => {
                env.extend(
                    node.env()
                        .iter()
                        .map(|(k, v)| (k.clone(), v.to_string_lossy().into_owned())),
                );
            }
            None => {
                env.insert(
                    "PATH".to_owned(),
                    self.binaries.search_path().to_string_lossy().into_owned(),
                );
                env.insert(
                    "KUBECONFIG".to_owned(),
                    self.dir.inside_kubeconfig().to_string_lossy().into_owned(),
                );
            }
        }
        Ok(env)
    }
}
