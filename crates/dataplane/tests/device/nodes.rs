//! Nodes of a test network: each one namespaces for network, mounts and processes, all on one Ethernet segment.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use warren_dataplane::uapi::parse_drops;

use super::others::Implementation;

/// The program under test.
pub(crate) const WARREN_WG: &str = env!("CARGO_BIN_EXE_warren-wg");

/// Prints the numbers of the device processes of a node, as the node sees them.
pub(crate) const DEVICES: &str =
    "cd /proc; for p in [0-9]*; do read name < $p/comm && [ \"$name\" = warren-wg ] && echo $p; done; true";

/// How long anything may take to become true.
const DEADLINE: Duration = Duration::from_secs(20);

/// Set for a copy of the test program that runs inside a node: what it is to do there.
const ROLE: &str = "WARREN_DATAPLANE_ROLE";

/// Stands before what such a copy says: the test harness says things too.
const SAYING: &str = "saying:";

/// What runs as process 1 of the namespaces of a machine. It tells its number outside, gives itself what a machine
/// has, and waits for the end of its input and of orphans; everything in its namespaces ends with it.
const HOLD_MACHINE: &str = "read pid rest < /proc/self/stat && mount -t proc proc /proc && \
     mount -t tmpfs tmpfs /run && { [ /run -ef /var/run ] || mount --bind /run /var/run; } && \
     ip link set lo up && echo $pid && cat; exit";

/// The same for the wire between machines.
const HOLD_SEGMENT: &str = "read pid rest < /proc/self/stat && echo $pid && cat; exit";

/// A network segment with nodes on it.
pub(crate) struct Network {
    segment: Namespace,
    nodes: u8,
}

/// A machine of the network, with the addresses `192.0.2.N` and `fd99::N`.
pub(crate) struct Node {
    namespace: Namespace,
    /// Number of the node, from 1.
    pub(crate) n: u8,
}

/// A WireGuard key.
pub(crate) struct Key {
    /// The private half, in base64.
    pub(crate) private: String,
    /// The public half, in base64.
    pub(crate) public: String,
}

struct Namespace {
    pid: u32,
    holder: Child,
    /// Closed to end it.
    input: Option<ChildStdin>,
    /// Arguments of nsenter that lead inside.
    enter: Vec<String>,
}

impl Network {
    /// `None`, with the reason printed, where namespaces cannot be had.
    pub(crate) fn new() -> Option<Self> {
        match Namespace::new(None) {
            Ok(segment) => {
                segment.ip("link add segment type bridge");
                segment.ip("link set segment up");
                Some(Self { segment, nodes: 0 })
            }
            Err(why) => {
                assert!(
                    std::env::var("WARREN_REQUIRE").as_deref() != Ok("all"),
                    "required: {why}"
                );
                eprintln!("skipped: {why}");
                None
            }
        }
    }

    /// Adds a node.
    pub(crate) fn node(&mut self) -> Node {
        self.nodes += 1;
        let n = self.nodes;
        let namespace = Namespace::new(Some(&self.segment)).unwrap();
        self.segment.ip(&format!(
            "link add port{n} type veth peer name eth0 netns {}",
            namespace.pid
        ));
        self.segment.ip(&format!("link set port{n} master segment up"));
        namespace.ip(&format!("addr add 192.0.2.{n}/24 dev eth0"));
        namespace.ip(&format!("-6 addr add fd99::{n}/64 dev eth0 nodad"));
        namespace.ip("link set eth0 up");
        Node { namespace, n }
    }
}

impl Node {
    /// Runs a shell command, and fails if it does.
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        assert!(
            output.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a shell command.
    pub(crate) fn try_sh(&self, script: &str) -> Output {
        self.namespace
            .command("sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Starts the device `wg0` with a key and the addresses `10.5.N.1/16` and `fd05::N/64`, configured by `wg`.
    pub(crate) fn start_device(&self) -> Key {
        self.start(Implementation::Warren).unwrap()
    }

    /// The same with a device of any implementation; `None` where its program is missing.
    pub(crate) fn start(&self, implementation: Implementation) -> Option<Key> {
        self.sh(&implementation.command()?);
        Some(self.configure_device())
    }

    /// The same with another build of the program under test.
    pub(crate) fn start_device_of(&self, program: &str) -> Key {
        self.sh(&format!(
            "{program} --log info,warren_dataplane=debug wg0 2>/run/wg0.log"
        ));
        self.configure_device()
    }

    /// Gives a device that runs what [`Self::start_device`] does.
    pub(crate) fn configure_device(&self) -> Key {
        let n = self.n;
        let private = self.sh("umask 077; wg genkey | tee /run/key").trim().to_owned();
        self.sh("wg set wg0 listen-port 51820 private-key /run/key");
        self.sh(&format!(
            "ip addr add 10.5.{n}.1/16 dev wg0; ip -6 addr add fd05::{n}/64 dev wg0 nodad"
        ));
        self.sh("ip link set wg0 up");
        // Not all implementations know their own.
        let public = self.sh("wg pubkey </run/key").trim().to_owned();
        Key { private, public }
    }

    /// Whether a ping gets an answer at once.
    pub(crate) fn pings(&self, address: &str) -> bool {
        self.try_sh(&format!("ping -n -c 1 -W 1 {address}"))
            .status
            .success()
    }

    /// Sends ten pings to an address that does not answer.
    pub(crate) fn pings_in_vain(&self, address: &str) {
        let output = self.try_sh(&format!("ping -n -q -c 10 -i 0.01 -W 1 {address}"));
        assert!(!output.status.success(), "{address} answers");
    }

    /// Whether pings get an answer in the end.
    pub(crate) fn expect_ping(&self, address: &str) {
        eventually(&format!("node {} reaches {address}", self.n), || {
            self.pings(address)
        });
    }

    /// What `wg show wg0 WHAT` says about a peer, or an empty text.
    pub(crate) fn shows(&self, what: &str, peer: &Key) -> String {
        let shown = self.sh(&format!("wg show wg0 {what}"));
        let line = shown.lines().find_map(|line| line.strip_prefix(&peer.public));
        line.unwrap_or_default().trim().to_owned()
    }

    /// How often packets were dropped for a reason.
    pub(crate) fn drops(&self, reason: &str) -> u64 {
        let drops = parse_drops(&self.ask("get=drops\n\n")).unwrap();
        drops.into_iter().find(|(name, _)| name == reason).unwrap().1
    }

    /// Bytes and packets that the device has handed to the kernel.
    pub(crate) fn delivered(&self) -> (u64, u64) {
        let interfaces = self.sh("cat /proc/net/dev");
        let counts = interfaces
            .lines()
            .find_map(|line| line.trim().strip_prefix("wg0:"));
        let mut counts = counts
            .unwrap()
            .split_whitespace()
            .map(|count| count.parse().unwrap());
        (counts.next().unwrap(), counts.next().unwrap())
    }

    /// Resident memory of the device, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = self.sh(&format!("cat /proc/$({DEVICES})/status"));
        let size = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        size.unwrap().split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Connects to the configuration socket.
    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path("/run/wireguard/wg0.sock")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Sends text to the configuration socket and gives the answer.
    pub(crate) fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A file of the node as seen from outside.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.namespace.pid))
    }

    /// A program to be run inside the node.
    pub(crate) fn command(&self, program: &str) -> Command {
        self.namespace.command(program)
    }

    /// Starts a copy of this test program inside the node, to run the test `name` as `role` (see [`role`]).
    pub(crate) fn play(&self, name: &str, role: &str) -> Child {
        let mut command = self
            .namespace
            .command(std::env::current_exe().unwrap().to_str().unwrap());
        command.args([name, "--exact", "--nocapture"]).env(ROLE, role);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

/// What this copy of the test program is to do, if it runs inside a node.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Waits until a condition holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < DEADLINE, "not so within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20)); // between two looks at the condition
    }
}

/// Runs a copy of the test `name` inside a node as `role`, and gives it back once it has said that it is ready (see
/// [`say`]), with what it says from then on.
pub(crate) fn play_until_ready(node: &Node, name: &str, role: &str) -> (Player, Sayings) {
    let mut player = Player(node.play(name, role));
    let mut sayings = Sayings(BufReader::new(player.0.stdout.take().unwrap()).lines());
    assert_eq!(sayings.next_of("ready"), "", "{role}");
    (player, sayings)
}

/// A copy of this program that ends with its owner.
pub(crate) struct Player(Child);

impl Player {
    /// Closes its input.
    pub(crate) fn tell_to_end(&mut self) {
        drop(self.0.stdin.take());
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.tell_to_end();
        let _ = self.0.wait();
    }
}

/// What a copy of this program says.
pub(crate) struct Sayings(Lines<BufReader<ChildStdout>>);

impl Sayings {
    /// The rest of the next line that is said on a topic.
    pub(crate) fn next_of(&mut self, topic: &str) -> String {
        let marker = format!("{SAYING}{topic} ");
        let said = self.0.by_ref().map_while(Result::ok).find_map(|line| {
            let at = line.find(&marker)?;
            Some(line[at + marker.len()..].to_owned())
        });
        said.unwrap_or_else(|| panic!("the other end has ended without {topic:?}"))
    }
}

/// Ends this copy of the program once its input ends: with its owner.
pub(crate) fn end_with_owner() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

/// Says something on a topic to who runs this copy of the program.
pub(crate) fn say(topic: &str, text: &str) {
    println!("{SAYING}{topic} {text}");
}

/// Makes two devices peers: each may send from its node's `10.5.N.0/24` and `fd05::N`, and both know where the other
/// is, at an address such as `192.0.2.` or `[fd99::` with the node's number behind it and `closing` after that.
pub(crate) fn join(a: (&Node, &Key), b: (&Node, &Key), prefix: &str, closing: &str) {
    for ((node, _), (other, key)) in [(a, b), (b, a)] {
        let n = other.n;
        node.sh(&format!(
            "wg set wg0 peer {} endpoint '{prefix}{n}{closing}:51820' allowed-ips 10.5.{n}.0/24,fd05::{n}/128",
            key.public
        ));
    }
}

/// A key of base64 as the socket has it.
pub(crate) fn hex(base64: &str) -> String {
    let key: warren_model::PublicKey = base64.parse().unwrap();
    key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Namespace {
    /// Namespaces of a machine, or, for the `segment` itself, of the wire between machines. Machines belong to the user
    /// namespace of the segment, so that interfaces can be moved between them.
    fn new(segment: Option<&Self>) -> Result<Self, String> {
        let owner = std::fs::metadata("/proc/self").map_err(|error| error.to_string())?;
        let root = std::os::unix::fs::MetadataExt::uid(&owner) == 0;
        let mut command = Command::new(if segment.is_some() && !root {
            "nsenter"
        } else {
            "unshare"
        });
        match segment {
            Some(segment) if !root => {
                command.arg(format!("--user=/proc/{}/ns/user", segment.pid));
                command.args(["--preserve-credentials", "unshare"]);
            }
            None if !root => {
                command.args(["--user", "--map-root-user"]);
            }
            _ => {}
        }
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c"]);
        command.arg(if segment.is_some() {
            HOLD_MACHINE
        } else {
            HOLD_SEGMENT
        });
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command
            .spawn()
            .map_err(|error| format!("cannot run unshare: {error}"))?;
        let mut pid = String::new();
        BufReader::new(holder.stdout.take().unwrap())
            .read_line(&mut pid)
            .map_err(|error| error.to_string())?;
        let Ok(pid) = pid.trim().parse() else {
            let _ = holder.wait();
            return Err("no namespaces: run as root, or allow user namespaces".to_owned());
        };
        let mut enter = vec![format!("--net=/proc/{pid}/ns/net")];
        if segment.is_some() {
            enter.extend([
                format!("--mount=/proc/{pid}/ns/mnt"),
                format!("--pid=/proc/{pid}/ns/pid"),
            ]);
        }
        if !root {
            enter.extend([
                format!("--user=/proc/{pid}/ns/user"),
                "--preserve-credentials".to_owned(),
            ]);
        }
        let input = holder.stdin.take();
        Ok(Self {
            pid,
            holder,
            input,
            enter,
        })
    }

    /// A command to be run inside. The segment has only a network of its own: it names machines by outside numbers.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(&self.enter).args(["--", program]);
        command
    }

    fn ip(&self, arguments: &str) {
        let output = self.command("ip").args(arguments.split(' ')).output().unwrap();
        assert!(
            output.status.success(),
            "ip {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.holder.wait();
    }
}
