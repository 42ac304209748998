//! Starting a device so that it outlives whoever starts it.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use super::exchange::DEADLINE;
use super::{ClientError, Userspace, cgroup};

/// How much of what a failing program says is passed on.
const MESSAGE_LEN: usize = 2000;

/// Runs the program, which goes to the background, and waits until it says that the device answers.
pub(super) async fn spawn(devices: &Userspace, interface: &str) -> Result<(), ClientError> {
    let result = try_spawn(devices, interface).await;
    if result.is_err() {
        cgroup::remove(Path::new(cgroup::ROOT), interface).await;
    }
    result
}

async fn try_spawn(devices: &Userspace, interface: &str) -> Result<(), ClientError> {
    let program = &devices.warren_wg;
    let mut command = Command::new(program);
    command.arg("--run-dir").arg(&devices.run_dir);
    if let Some(log_dir) = &devices.log_dir {
        command.args(["--log", "info"]);
        command
            .arg("--log-file")
            .arg(log_dir.join(format!("{interface}.log")));
    }
    command.arg("--").arg(interface);
    // What is meant for another device, or would keep this one in the foreground.
    for name in ["WG_TUN_FD", "WG_UAPI_FD", "WG_PROCESS_FOREGROUND", "LOG_LEVEL"] {
        command.env_remove(name);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    join_own_cgroup(&mut command, interface);

    let failed = |message: String| ClientError::Failed {
        program: program.clone(),
        interface: interface.to_owned(),
        message,
    };
    let spawned = command.spawn().map_err(|source| ClientError::Spawn {
        program: program.clone(),
        source,
    })?;
    // The program keeps standard error open until it is ready or has failed, so this ends with either.
    let output = timeout(DEADLINE, spawned.wait_with_output())
        .await
        .map_err(|_| failed("it was not ready within 5 s".to_owned()))?
        .map_err(|source| failed(source.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(failed(message.trim().chars().take(MESSAGE_LEN).collect()))
}

/// Lets the program begin in a cgroup of its own, if we may make one.
fn join_own_cgroup(command: &mut Command, interface: &str) {
    let groups = cgroup::make(Path::new(cgroup::ROOT), interface);
    if groups.is_empty() {
        tracing::debug!(%interface, "no cgroup of its own for the device");
        return;
    }
    #[expect(unsafe_code, reason = "what runs between fork and exec has no safe form")]
    // SAFETY: between fork and exec the closure makes only system calls, on memory and descriptors that exist before
    // the fork. Failure is of no consequence.
    unsafe {
        command.pre_exec(move || {
            for processes in &groups {
                // "0" stands for the process that writes it.
                libc::write(processes.as_raw_fd(), b"0".as_ptr().cast(), 1);
            }
            Ok(())
        });
    }
}
