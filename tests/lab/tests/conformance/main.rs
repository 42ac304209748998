//! The CNI specification, as an independent client holds us to it: `cnitool`, the client that the authors of the
//! specification publish with their library, calls the real plugin on nodes of a lab, in each version and with each
//! choice of address families.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod chain;
mod client;
mod errors;
mod gc;
mod status;
#[path = "../support/mod.rs"]
mod support;
mod verbs;

use std::process::Command;

use support::skip;
use warren_lab::{Families, Lab, LabOptions, Place};

/// The node that the client runs on.
pub(crate) const NODE: &str = "node1";

/// Where [`NODE`] is in a lab.
pub(crate) fn here() -> Place {
    Place::Node(NODE.to_owned())
}

/// A lab and the path of cnitool; `None` if this machine lacks either.
pub(crate) async fn lab_with_client(options: LabOptions) -> Option<(Lab, String)> {
    let Some(cnitool) = cnitool() else {
        return skip("there is no cnitool 1.3 or newer here; hack/cnitool.sh builds it");
    };
    Some((support::lab(options).await?, cnitool))
}

/// A lab of two nodes.
pub(crate) fn two_nodes(families: Families) -> LabOptions {
    LabOptions {
        nodes: 2,
        families,
        ..LabOptions::default()
    }
}

/// A lab of one, with both families.
pub(crate) fn one_node() -> LabOptions {
    LabOptions {
        nodes: 1,
        ..LabOptions::default()
    }
}

/// On `PATH`, or where hack/cnitool.sh puts it.
fn cnitool() -> Option<String> {
    let script = "PATH=$PATH:${WARREN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/warren}/unpacked/usr/bin; command -v cnitool";
    let found = Command::new("sh").args(["-c", script]).output().unwrap();
    let path = String::from_utf8(found.stdout).unwrap().trim().to_owned();
    // Without arguments it tells what it can do. GC came to it with CNI 1.1.0.
    let knows_gc = || {
        let usage = Command::new(&path).output().unwrap();
        String::from_utf8_lossy(&usage.stderr).contains(" gc ")
    };
    (found.status.success() && knows_gc()).then_some(path)
}
