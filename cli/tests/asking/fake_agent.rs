//! An agent's admin socket that gives one answer, to one request a connection.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;

use tempfile::TempDir;

pub(crate) struct FakeAgent {
    run_dir: TempDir,
}

impl FakeAgent {
    /// Answers until the test ends.
    pub(crate) fn start(status: u16, body: &str) -> Self {
        let run_dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(run_dir.path().join("admin.sock")).unwrap();
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let head = BufReader::new(stream.try_clone().unwrap()).lines();
                let head: Vec<String> = head
                    .map(Result::unwrap)
                    .take_while(|line| !line.is_empty())
                    .collect();
                // A caller that only looked whether anybody listens sends nothing.
                if head.first().is_some_and(|line| line.starts_with("GET /")) {
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        });
        Self { run_dir }
    }

    pub(crate) fn run_dir(&self) -> &str {
        self.run_dir.path().to_str().unwrap()
    }
}
