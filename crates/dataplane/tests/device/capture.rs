//! What passes an interface, as `tcpdump` sees it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use super::nodes::Node;

/// A capture under way. Ends with its owner.
pub(crate) struct Capture<'n> {
    node: &'n Node,
    file: String,
    tcpdump: Child,
}

impl Node {
    /// Captures what matches a filter on an interface, from now on.
    pub(crate) fn capture(&self, interface: &str, filter: &str) -> Capture<'_> {
        // A file of its own for each capture: a node has one for each interface and filter at most.
        let sum = filter
            .bytes()
            .fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let file = format!("/run/{interface}-{sum:08x}");
        // With packets of any length there would be room for eight of them until tcpdump reads them.
        let mut tcpdump = self
            .command("sh")
            .args([
                "-c",
                &format!(
                    "tcpdump -nn -vv -l -s 2048 --immediate-mode -Z root -i {interface} '{filter}' >{file} & cat; kill $!"
                ),
            ])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(tcpdump.stderr.take().unwrap()).lines();
        let listening = said.any(|line| line.unwrap().contains("listening on"));
        assert!(listening, "tcpdump -i {interface} {filter} has ended");
        Capture {
            node: self,
            file,
            tcpdump,
        }
    }
}

impl Capture<'_> {
    /// Whether anything has been captured.
    pub(crate) fn has_any(&self) -> bool {
        !self.text().is_empty()
    }

    /// How many packets have been captured.
    pub(crate) fn count(&self) -> usize {
        self.text().lines().count()
    }

    /// What has been captured: a line for each packet.
    pub(crate) fn text(&self) -> String {
        let text = std::fs::read_to_string(self.node.path(&self.file)).unwrap();
        // What goes on with white space belongs to the line before. The last one may be unfinished.
        let end = text.rfind('\n').unwrap_or(0);
        text[..end].replace("\n    ", " ").replace("\n\t", " ")
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.tcpdump.stdin.take());
        let _ = self.tcpdump.wait();
    }
}

/// The TOS or traffic class that a line of [`Capture::text`] tells; `None` for a line that is not a packet's first.
pub(crate) fn tos_of(line: &str) -> Option<u8> {
    let is_v4 = line.contains(" IP (");
    if !is_v4 && !line.contains(" IP6 (") {
        return None;
    }
    // No class is told where it is zero.
    let at = line.find(if is_v4 { "tos 0x" } else { "class 0x" });
    let digits = at.map(|at| &line[at..]).and_then(|rest| rest.split_once("0x"));
    let digits = digits.and_then(|(_, rest)| rest.split(',').next());
    Some(u8::from_str_radix(digits.unwrap_or("0"), 16).unwrap())
}
