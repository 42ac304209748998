//! Copies of this test program inside nodes that are told what to do.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout};

use super::nodes::Node;

/// A copy in a node, told what to do by lines and telling what it has done by lines. It ends with this value.
pub(crate) struct Partner {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Partner {
    /// Starts a copy to run the test `name` as `role`.
    pub(crate) fn new(node: &Node, name: &str, role: &str) -> Self {
        let mut child = node.play(name, role);
        Self {
            input: child.stdin.take().unwrap(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }

    /// Tells it something.
    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// Waits until it says something with these words, and gives that line.
    pub(crate) fn wait_for(&mut self, words: &str) -> String {
        let mut said = self.lines.by_ref().map(Result::unwrap);
        said.find(|line| line.contains(words))
            .unwrap_or_else(|| panic!("it has ended without saying {words:?}"))
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
