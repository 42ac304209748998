//! Giving up what the process does not need once its interface and its sockets are open.
//!
//! | kept | for |
//! |---|---|
//! | `CAP_NET_ADMIN` | the mark of datagrams, and socket buffers beyond the system's limit, when they are configured anew |
//! | `CAP_NET_BIND_SERVICE` | a listen port below 1024 |
//!
//! Nothing more can be had by executing a program either (`no_new_privs`). Where the process was started without one
//! of the two, it does without.

use std::io;

/// Numbers of the capabilities that are kept (capabilities(7)).
const CAP_NET_BIND_SERVICE: u32 = 10;
const CAP_NET_ADMIN: u32 = 12;

/// The capabilities that are kept, as a set.
const KEPT: u32 = 1 << CAP_NET_ADMIN | 1 << CAP_NET_BIND_SERVICE;

/// `_LINUX_CAPABILITY_VERSION_3`: sets of 64 bits.
const VERSION: u32 = 0x2008_0522;

/// `__user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// `__user_cap_data_struct`: 32 bits of each set.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up everything but what is kept. For this thread and those that it starts: call it before there are others.
pub(super) fn reduce() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    let mut sets = [Sets::default(); 2];
    call(libc::SYS_capget, &mut sets)?;
    // Both are in the lower half. To lose an inheritable capability is to lose the ambient one too.
    let kept = sets[0].permitted & KEPT;
    let mut sets = [
        Sets {
            effective: kept,
            permitted: kept,
            inheritable: 0,
        },
        Sets::default(),
    ];
    call(libc::SYS_capset, &mut sets)
}

/// `capget` or `capset` for this thread.
fn call(number: libc::c_long, sets: &mut [Sets; 2]) -> io::Result<()> {
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    #[expect(unsafe_code, reason = "libc has no function for it")]
    // SAFETY: both calls take a header and, for this version of it, two structures of sets, which `capget` fills in.
    let result = unsafe { libc::syscall(number, &raw mut header, sets.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
