//! An API server that takes one change to a Node and tells what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use serde_json::json;

use crate::served::kubeconfig_to;

pub(crate) struct FakeApi {
    kubeconfig: PathBuf,
    asked: JoinHandle<(String, String)>,
}

impl FakeApi {
    /// Listens in this machine, and writes a kubeconfig into the folder.
    pub(crate) fn start(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let kubeconfig = folder.join("kubeconfig");
        let config = kubeconfig_to(listener.local_addr().unwrap());
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let asked = std::thread::spawn(move || answer_one(&listener));
        Self { kubeconfig, asked }
    }

    pub(crate) fn kubeconfig(&self) -> &str {
        self.kubeconfig.to_str().unwrap()
    }

    /// The one request: its first line and its body.
    pub(crate) fn asked(self) -> (String, String) {
        self.asked.join().unwrap()
    }
}

fn answer_one(listener: &TcpListener) -> (String, String) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = Vec::new();
    for line in reader.by_ref().lines().map(Result::unwrap) {
        if line.is_empty() {
            break;
        }
        head.push(line.to_lowercase());
    }
    let length = head
        .iter()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}).to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{node}",
        node.len()
    );
    stream.write_all(answer.as_bytes()).unwrap();
    (head.swap_remove(0), String::from_utf8(body).unwrap())
}
