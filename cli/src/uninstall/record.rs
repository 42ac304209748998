//! What was removed and what is left, printed as it happens.

use std::fmt::Display;

use crate::outcome::{self, Outcome};
use crate::units::count;

/// Counts, and prints a line each. That the line cannot be printed is no reason to stop halfway.
#[derive(Debug, Default)]
pub(super) struct Record {
    removed: usize,
    left: usize,
}

impl Record {
    /// It was there and is gone.
    pub(super) fn removed(&mut self, what: &dyn Display) {
        self.removed += 1;
        line(&format!("removed {what}"));
    }

    /// It has its old value again.
    pub(super) fn restored(&mut self, what: &dyn Display) {
        self.removed += 1;
        line(&format!("restored {what}"));
    }

    /// It is there still.
    pub(super) fn left(&mut self, what: &dyn Display, why: &dyn Display) {
        self.left += 1;
        eprintln!("warren: left {what}: {why}");
    }

    /// Something to know.
    pub(super) fn note(&mut self, text: &str) {
        line(&format!("note: {text}"));
    }

    /// The last line, and what it comes to.
    pub(super) fn finish(self) -> Outcome {
        if self.left > 0 {
            eprintln!("warren: {} left; see above", count(self.left, "thing"));
            return Outcome::Short;
        }
        line(if self.removed > 0 {
            "Warren is removed from this node"
        } else {
            "nothing of Warren is on this node"
        });
        Outcome::Done
    }
}

fn line(text: &str) {
    // Nobody may be reading any more; the removal goes on.
    drop(outcome::print(format!("{text}\n").as_bytes()));
}
