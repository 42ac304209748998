//! Keeping keys out of core dumps.

use std::fs::File;

use nix::errno::Errno;
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};

/// What keeps the memory of this process off the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoreDumps {
    /// No dump of any kind, and no other process of the same user can attach to this one.
    Forbidden,
    /// No core file. A `core_pattern` that pipes to a program (systemd-coredump) gets the dump all the same.
    Limited,
}

/// Forbids core dumps of this process, and core files of its children. Call it before the first key is read.
///
/// The process is made undumpable (prctl(2), PR_SET_DUMPABLE), which is what also stops dumps to a program and
/// debuggers; its files in `/proc/self` belong to root from then on. If that keeps it from its own namespaces, as it
/// can in a user namespace, the process stays dumpable: an agent that cannot open `/proc/self/ns/net` does not work.
///
/// # Errors
/// When the kernel refuses one of the two.
pub fn forbid_core_dumps() -> Result<CoreDumps, Errno> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    set_dumpable(false)?;
    if File::open("/proc/self/ns/net").is_ok() {
        Ok(CoreDumps::Forbidden)
    } else {
        set_dumpable(true)?;
        Ok(CoreDumps::Limited)
    }
}
