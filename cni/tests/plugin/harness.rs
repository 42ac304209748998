//! Calls of the plugin, and the fake agent.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use warren_cni_wire::message::{decode_request, encode_reply};
use warren_cni_wire::{Outcome, Reply, Request};

/// How long anything may take that should happen at once, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const NETNS: &str = "/var/run/netns/cni-1";

/// An agent that takes one request, remembers it and says what it is told to.
pub(crate) struct FakeAgent {
    dir: TempDir,
    requests: Receiver<Vec<u8>>,
}

impl FakeAgent {
    pub(crate) fn answering(outcome: Outcome) -> Self {
        Self::saying(encode_reply(&Reply { outcome }).expect("the outcome is a right one"))
    }

    /// Says just these bytes, and then closes the connection.
    pub(crate) fn saying(bytes: impl Into<Vec<u8>>) -> Self {
        Self::start(bytes.into(), After::Close)
    }

    /// Says just these bytes, and then nothing for as long as the plugin is there.
    pub(crate) fn hanging_after(bytes: impl Into<Vec<u8>>) -> Self {
        Self::start(bytes.into(), After::Hang)
    }

    pub(crate) fn run_dir(&self) -> &Path {
        self.dir.path()
    }

    /// The request it got.
    pub(crate) fn request(&self) -> Request {
        let line = self
            .requests
            .recv_timeout(PATIENCE)
            .expect("the plugin asks the agent");
        assert_eq!(line.last(), Some(&b'\n'), "a request ends with a newline");
        decode_request(&line).expect("the plugin sends right requests")
    }

    /// Whether nobody has asked, once the plugin has ended.
    pub(crate) fn was_not_asked(&self) -> bool {
        self.requests.try_recv().is_err()
    }

    fn start(bytes: Vec<u8>, after: After) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let listener = UnixListener::bind(dir.path().join("cni.sock")).expect("a socket in it");
        let (sender, requests) = mpsc::channel();
        thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a connection");
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            reader.read_until(b'\n', &mut line).expect("a request");
            drop(sender.send(line));
            // The plugin may have given up before the end of what it is told, which is what some tests are about.
            drop(reader.get_mut().write_all(&bytes));
            match after {
                After::Close => drop(reader.get_mut().shutdown(Shutdown::Both)),
                // Ends when the plugin does.
                After::Hang => drop(reader.read_until(b'\n', &mut Vec::new())),
            }
        });
        Self { dir, requests }
    }
}

enum After {
    Close,
    Hang,
}

/// One call of the plugin, by default a right one.
pub(crate) struct Call {
    process: Process,
    conf: Value,
    stdin: Option<Vec<u8>>,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Call {
    pub(crate) fn new(command: &str, version: &str, run_dir: &Path) -> Self {
        let mut process = Process::new(env!("CARGO_BIN_EXE_warren-cni"));
        process
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_NETNS", NETNS)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env(
                "CNI_ARGS",
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;\
                 K8S_POD_UID=6f1",
            );
        let conf = json!({
            "cniVersion": version,
            "name": "warren",
            "type": "warren-cni",
            "runDir": run_dir,
        });
        Self {
            process,
            conf,
            stdin: None,
        }
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.process.env(name, value);
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.process.env_remove(name);
        self
    }

    /// Sets a field of the network configuration.
    pub(crate) fn conf(mut self, key: &str, value: Value) -> Self {
        self.conf[key] = value;
        self
    }

    /// Replaces the network configuration altogether.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    pub(crate) fn run(mut self) -> Ended {
        let stdin = self.stdin.unwrap_or_else(|| self.conf.to_string().into_bytes());
        self.process
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.process.spawn().expect("the plugin starts");
        let mut pipe = child.stdin.take().expect("its stdin is a pipe");
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || {
            // It may not read all of it, or any.
            drop(pipe.write_all(&stdin));
            drop(pipe);
            drop(sender.send(child.wait_with_output()));
        });
        let output = ended
            .recv_timeout(PATIENCE)
            .expect("the plugin ends by itself")
            .expect("its output");
        Ended {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// The result of a call that has to have succeeded with one.
    pub(crate) fn result(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", String::from_utf8_lossy(&self.stdout));
        serde_json::from_slice(&self.stdout).expect("the result is JSON")
    }

    /// Asserts success without a word.
    pub(crate) fn succeeded_silently(&self) {
        let said = (
            self.code,
            String::from_utf8_lossy(&self.stdout).into_owned(),
            self.stderr.clone(),
        );
        assert_eq!(said, (Some(0), String::new(), String::new()));
    }

    /// Asserts an error structure with this version and code, and gives back message and details.
    pub(crate) fn error(&self, version: &str, code: u32) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        let error: Value = serde_json::from_slice(&self.stdout).expect("the error is JSON");
        assert_eq!(
            (&error["cniVersion"], &error["code"]),
            (&json!(version), &json!(code)),
            "{error}"
        );
        let msg = error["msg"].as_str().expect("an error has a message");
        assert!(!msg.is_empty());
        format!("{msg}: {}", error["details"].as_str().unwrap_or_default())
    }
}

/// A directory in which nothing listens.
pub(crate) fn nobody() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().to_owned();
    (dir, path)
}
