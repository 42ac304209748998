//! Linux namespaces: making those of a lab, holding those of a node, and running programs in them.

#![expect(
    unsafe_code,
    reason = "fork, and work between fork and exec, have no safe form"
)]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getegid, geteuid};

/// Puts this process into mount, network and host name namespaces of its own, and its children into a new PID
/// namespace, which ends with the first of them. Without the right to do so it becomes root of a user namespace first.
///
/// The process must have one thread. Says whether there is a user namespace.
pub(crate) fn isolate() -> anyhow::Result<bool> {
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS;
    let (uid, gid) = (geteuid(), getegid());
    let user = match if uid.is_root() {
        unshare(flags)
    } else {
        Err(Errno::EPERM)
    } {
        Ok(()) => false,
        Err(Errno::EPERM) => {
            unshare(flags | CloneFlags::CLONE_NEWUSER).context(
                "this user may not make namespaces here. Run as root, or allow user namespaces \
                 (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
                 kernel.apparmor_restrict_unprivileged_userns)",
            )?;
            // A user may map their own group only after giving up setgroups, user_namespaces(7).
            for (file, text) in [
                ("setgroups", "deny".to_owned()),
                ("uid_map", format!("0 {uid} 1")),
                ("gid_map", format!("0 {gid} 1")),
            ] {
                fs::write(format!("/proc/self/{file}"), text)
                    .with_context(|| format!("write /proc/self/{file}"))?;
            }
            true
        }
        Err(error) => return Err(error).context("make network, mount and PID namespaces"),
    };
    Ok(user)
}

/// Splits the process. The caller must have one thread.
#[expect(
    clippy::disallowed_methods,
    reason = "the first process of a PID namespace is made by fork alone"
)]
pub(crate) fn split() -> nix::Result<ForkResult> {
    // SAFETY: the process has one thread, so no lock is held by a thread that the child lacks.
    unsafe { fork() }
}

/// Waits for a child and says how a shell would report its end.
pub(crate) fn wait(child: Pid) -> i32 {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => return code,
            Ok(WaitStatus::Signaled(_, signal, _)) => return 128 + signal as i32,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return 1,
        }
    }
}

/// Process 1 of a PID namespace: collects what is orphaned there until `main` ends; its own end then kills the rest.
pub(crate) fn reap_until_end_of(main: Pid) -> i32 {
    loop {
        match waitpid(None::<Pid>, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == main => return code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => return 128 + signal as i32,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return 1,
        }
    }
}

/// Has the kernel kill this process when its parent ends.
pub(crate) fn die_with_parent() -> nix::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
}

/// Covers what a mount namespace shares with the host, so that nothing made in it appears there: `/run`, and with
/// `proc` the `/proc` of the new PID namespace.
pub(crate) fn cover_host(proc: bool) -> anyhow::Result<()> {
    const NONE: Option<&str> = None;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).context("make all mounts private")?;
    let strict = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    if proc {
        mount(
            Some("proc"),
            "/proc",
            Some("proc"),
            strict | MsFlags::MS_NOEXEC,
            NONE,
        )
        .context("mount a /proc of the lab's own; a container must have an unmasked /proc for that")?;
    }
    mount(Some("tmpfs"), "/run", Some("tmpfs"), strict, Some("mode=0755"))
        .context("mount a /run of the lab's own")?;
    // Debian's /var/lock and programs' lock files (xtables.lock) live here.
    fs::create_dir_all("/run/lock").context("make /run/lock")?;
    // So that /sys/class/net shows this namespace. Refused inside some containers, where nothing else depends on it.
    if let Err(error) = mount(
        Some("sysfs"),
        "/sys",
        Some("sysfs"),
        strict | MsFlags::MS_NOEXEC,
        NONE,
    ) {
        tracing::debug!(%error, "/sys stays the host's");
    }
    Ok(())
}

/// Puts this process into namespaces of a node within a lab: mount, network and host name.
pub(crate) fn become_node(name: &str) -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS)
        .context("make the namespaces of a node")?;
    cover_host(false)?;
    nix::unistd::sethostname(name).context("set the host name")
}

/// Handles of namespaces. They exist as long as one process or one handle has them.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// Only of a lab without root, and only for who comes from outside: entered first.
    user: Option<OwnedFd>,
    /// Only for who comes from outside: for children.
    pid: Option<OwnedFd>,
    mount: OwnedFd,
    net: OwnedFd,
    uts: OwnedFd,
}

impl Namespaces {
    /// Those of a process in the same lab, for who is in the lab already.
    pub(crate) fn of_process(pid: u32) -> anyhow::Result<Self> {
        let open = |kind: &str| open_ns(&Path::new("/proc").join(pid.to_string()).join("ns").join(kind));
        Ok(Self {
            user: None,
            pid: None,
            mount: open("mnt")?,
            net: open("net")?,
            uts: open("uts")?,
        })
    }

    /// The same, with the network namespace that is mounted at `net`, a path as the process `pid` sees it.
    pub(crate) fn with_net(&self, pid: u32, net: &Path) -> anyhow::Result<Self> {
        let seen = Path::new("/proc")
            .join(pid.to_string())
            .join("root")
            .join(net.strip_prefix("/").unwrap_or(net));
        Ok(Self {
            net: open_ns(&seen)?,
            ..self.try_clone()?
        })
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            user: self.user.as_ref().map(OwnedFd::try_clone).transpose()?,
            pid: self.pid.as_ref().map(OwnedFd::try_clone).transpose()?,
            mount: self.mount.try_clone()?,
            net: self.net.try_clone()?,
            uts: self.uts.try_clone()?,
        })
    }

    /// What a process outside of the lab needs to enter, in the order that [`Self::from_handles`] takes; called by one
    /// that is inside. `user`: the lab has a user namespace.
    pub(crate) fn handles(&self, user: bool) -> io::Result<Vec<OwnedFd>> {
        let mine = |kind: &str| File::open(format!("/proc/self/ns/{kind}")).map(OwnedFd::from);
        let mut all = vec![
            self.mount.try_clone()?,
            self.net.try_clone()?,
            self.uts.try_clone()?,
            mine("pid")?,
        ];
        if user {
            all.push(mine("user")?);
        }
        Ok(all)
    }

    /// From what [`Self::handles`] gave; `None` if that is not it.
    pub(crate) fn from_handles(handles: Vec<OwnedFd>) -> Option<Self> {
        let mut handles = handles.into_iter();
        let (mount, net, uts, pid) = (handles.next()?, handles.next()?, handles.next()?, handles.next()?);
        Some(Self {
            user: handles.next(),
            pid: Some(pid),
            mount,
            net,
            uts,
        })
    }

    /// Has a program start in these namespaces. The handles must live until it has started.
    pub(crate) fn apply(&self, command: &mut Command) {
        let fds = [self.mount.as_raw_fd(), self.net.as_raw_fd(), self.uts.as_raw_fd()];
        let enter = move || {
            for fd in fds {
                set_raw(fd)?;
            }
            Ok(())
        };
        // SAFETY: the closure runs between fork and exec; it makes system calls and allocates nothing. The descriptors
        // were open when the process was forked, as the caller keeps `self` until then.
        unsafe {
            command.pre_exec(enter);
        }
    }

    /// Runs a program in these namespaces with this process's stdio, and returns its exit code. The process must have
    /// one thread and comes from outside of the lab.
    pub(crate) fn run_from_outside(&self, command: &mut Command) -> anyhow::Result<i32> {
        if let Some(user) = &self.user {
            setns(user, CloneFlags::CLONE_NEWUSER).context("enter the lab's user namespace")?;
        }
        let Some(pid) = &self.pid else {
            bail!("no PID namespace to enter")
        };
        setns(pid, CloneFlags::CLONE_NEWPID).context("enter the lab's PID namespace")?;
        self.apply(command);
        let mut child = command
            .spawn()
            .with_context(|| format!("run {}", command.get_program().display()))?;
        // Ctrl-C goes to the whole foreground group: it is the program's to act on, not ours.
        for ignored in [Signal::SIGINT, Signal::SIGQUIT] {
            // SAFETY: ignoring a signal runs no handler.
            unsafe { signal(ignored, SigHandler::SigIgn) }.context("ignore a signal")?;
        }
        let status = child.wait().context("wait for the program")?;
        Ok(exit_code(status))
    }
}

/// An exit status as one number, as a shell reports it.
pub(crate) fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn open_ns(path: &Path) -> anyhow::Result<OwnedFd> {
    File::open(path)
        .map(OwnedFd::from)
        .with_context(|| format!("open the namespace {}", path.display()))
}

fn set_raw(fd: RawFd) -> io::Result<()> {
    // SAFETY: setns takes a descriptor and reads no memory.
    if unsafe { libc::setns(fd, 0) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
