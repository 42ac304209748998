//! What a process that has forbidden its core dumps can still do. Each case runs in a process of its own, because
//! what it does to the process cannot be undone.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs::File;
use std::process::Command;

use nix::sys::prctl::get_dumpable;
use nix::sys::resource::{Resource, getrlimit};
use warren_keymgr::{CoreDumps, forbid_core_dumps};

/// Tells a process started by these tests that it is the one to make undumpable.
const INSIDE: &str = "WARREN_TEST_CORE_DUMPS_INSIDE";

#[test]
fn a_process_can_still_reach_its_own_namespaces() {
    if std::env::var_os(INSIDE).is_some() {
        return check_this_process();
    }
    let output = myself(&[]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn so_can_one_in_a_user_namespace() {
    let unshare = ["unshare", "--user", "--map-root-user", "--net"];
    let probe = Command::new(unshare[0]).args(&unshare[1..]).arg("true").output();
    if !probe.as_ref().is_ok_and(|output| output.status.success()) {
        assert!(
            std::env::var_os("WARREN_REQUIRE").is_none(),
            "cannot make a user namespace: {probe:?}"
        );
        eprintln!("skipped: cannot make a user namespace: {probe:?}");
        return;
    }
    let output = myself(&unshare).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn check_this_process() {
    assert!(
        get_dumpable().unwrap(),
        "this process is undumpable before it asked for it"
    );
    let core_dumps = forbid_core_dumps().unwrap();
    assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
    assert_eq!(get_dumpable().unwrap(), core_dumps == CoreDumps::Limited);
    for path in [
        "/proc/self/ns/net",
        "/proc/thread-self/ns/net",
        "/proc/self/ns/mnt",
    ] {
        File::open(path).unwrap();
    }
    // Where a process is root of its namespace, the strict form works.
    assert_eq!(core_dumps, CoreDumps::Forbidden);
}

/// This test program once more, by way of another command, running the first test alone.
fn myself(through: &[&str]) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut line: Vec<_> = through.iter().map(std::ffi::OsString::from).collect();
    line.push(program.into());
    let mut command = Command::new(&line[0]);
    command
        .args(&line[1..])
        .args([
            "--exact",
            "a_process_can_still_reach_its_own_namespaces",
            "--nocapture",
        ])
        .env(INSIDE, "1");
    command
}
