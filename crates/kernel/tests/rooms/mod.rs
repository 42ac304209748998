//! Network namespaces for the tests: a fresh one for the thread of the test, which is the node, and rooms beside it.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::future::Future;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use warren_kernel::{Kernel, KernelConfig};

/// Set in the environment of a test program that runs itself again inside a user namespace.
const INSIDE: &str = "WARREN_KERNEL_TEST_INSIDE";

/// How long anything here may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Runs a test with the thread in a network namespace of its own. `name` is the test's path, needed to run it again in
/// a user namespace where the tests do not run as root.
pub(crate) fn node<F: Future<Output = ()>>(name: &str, body: impl FnOnce(Node) -> F) {
    if !nix::unistd::geteuid().is_root() {
        return again_in_user_namespace(name);
    }
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
        return skip(&format!("no network namespaces: {errno}"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        sh("ip link set lo up");
        let state = tempfile::tempdir().unwrap();
        let config = KernelConfig {
            state_dir: state.path().to_owned(),
            ..KernelConfig::default()
        };
        let kernel = Kernel::new(config).unwrap();
        body(Node { kernel, state }).await;
    });
}

/// The node under test: the namespace of the test's own thread.
pub(crate) struct Node {
    pub(crate) kernel: Kernel,
    pub(crate) state: tempfile::TempDir,
}

/// Another network namespace, held by a thread that does what it is told there.
pub(crate) struct Room {
    path: PathBuf,
    work: Option<Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<JoinHandle<()>>,
}

impl Room {
    pub(crate) fn new() -> Self {
        let (work, orders) = channel::<Box<dyn FnOnce() + Send>>();
        let (ready, path) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ready
                .send(format!(
                    "/proc/{}/task/{}/ns/net",
                    std::process::id(),
                    nix::unistd::gettid()
                ))
                .unwrap();
            orders.into_iter().for_each(|order| order());
        });
        let room = Self {
            path: path.recv().unwrap().into(),
            work: Some(work),
            thread: Some(thread),
        };
        room.sh("ip link set lo up");
        room
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a closure inside.
    pub(crate) fn run<T: Send + 'static>(&self, closure: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = channel();
        let order = Box::new(move || sender.send(closure()).unwrap());
        self.work.as_ref().unwrap().send(order).unwrap();
        receiver.recv().expect("the closure in the room panicked")
    }

    /// Runs a command line inside that must succeed.
    pub(crate) fn sh(&self, line: &str) -> String {
        let line = line.to_owned();
        self.run(move || sh(&line))
    }

    /// A bound UDP socket inside.
    pub(crate) fn udp(&self, address: &str) -> UdpSocket {
        let address = address.to_owned();
        self.run(move || udp(&address))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        drop(self.work.take());
        // A room whose closure panicked has already failed the test.
        let _ = self.thread.take().unwrap().join();
    }
}

/// A veth pair between the node and a room, up at both ends.
pub(crate) fn cable(node_end: &str, room: &Room, room_end: &str) {
    let path = room.path().display();
    // Made here and moved: a namespace is named to `ip` by a process, and threads have numbers of their own.
    sh(&format!("ip link add {node_end} type veth peer name {room_end}"));
    sh(&format!(
        "ip link set {room_end} netns {}",
        path.to_string().split('/').nth(4).unwrap()
    ));
    sh(&format!("ip link set {node_end} up"));
    room.sh(&format!("ip link set {room_end} up"));
    // The end that came up first carries packets only once the kernel has noticed its carrier.
    wait_for(&format!("ip -o link show {node_end}"), "state UP");
}

/// Waits until a command line prints something.
pub(crate) fn wait_for(line: &str, text: &str) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let printed = sh(line);
        if printed.contains(text) {
            return;
        }
        assert!(Instant::now() < deadline, "{line} prints no {text:?}: {printed}");
    }
}

pub(crate) fn udp(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap_or_else(|error| panic!("bind {address}: {error}"));
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// Sends one datagram and says who the receiver thinks sent it.
pub(crate) fn delivered(from: &UdpSocket, to: &UdpSocket) -> IpAddr {
    send(from, to.local_addr().unwrap());
    let mut buffer = [0; 64];
    let (_, source) = to.recv_from(&mut buffer).expect("the datagram did not arrive");
    source.ip()
}

/// Sends one datagram. That the guard drops it at once (EPERM) is no failure of sending.
pub(crate) fn send(from: &UdpSocket, to: SocketAddr) {
    match from.send_to(b"x", to) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
        sent => drop(sent.unwrap()),
    }
}

/// Whether nothing waits to be read.
pub(crate) fn silent(socket: &UdpSocket) -> bool {
    socket.set_nonblocking(true).unwrap();
    let nothing = socket.recv(&mut [0; 64]).is_err();
    socket.set_nonblocking(false).unwrap();
    nothing
}

/// Waits until a counter of the guard has this value.
pub(crate) async fn dropped(kernel: &Kernel, reason: &str, packets: u64) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let counters = kernel.guard_counters().await.unwrap();
        let found = counters
            .iter()
            .find(|counter| counter.reason == reason)
            .unwrap()
            .packets;
        if found == packets {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{reason} is {found}, not {packets}: {counters:?}"
        );
        tokio::task::yield_now().await;
    }
}

/// Runs a command line that must succeed; returns what it printed.
pub(crate) fn sh(line: &str) -> String {
    let output = try_sh(line);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{line}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

pub(crate) fn try_sh(line: &str) -> Output {
    Command::new("sh").args(["-c", line]).output().unwrap()
}

fn again_in_user_namespace(name: &str) {
    if std::env::var_os(INSIDE).is_some() {
        return skip("not root inside a user namespace of our own");
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount"])
        .arg(program)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output();
    match output {
        Err(error) => skip(&format!("no unshare program: {error}")),
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("unshare failed") => {
            skip("no user namespaces for this user");
        }
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let ran = output.status.success() && text.contains("1 passed");
            assert!(ran, "{text}{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

fn skip(reason: &str) {
    assert!(
        std::env::var("WARREN_REQUIRE").as_deref() != Ok("all"),
        "cannot be skipped: {reason}"
    );
    eprintln!("skipped: {reason}");
}
