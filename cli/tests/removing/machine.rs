//! A machine on which Warren is installed, as far as `uninstall-node` can tell.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

/// Set where a test runs in namespaces of its own already.
const INSIDE: &str = "WARREN_TEST_ALONE";
const UNSHARE: [&str; 5] = ["unshare", "--user", "--map-root-user", "--net", "--mount"];

/// Runs a test as root of namespaces of its own. Where these cannot be had, it is skipped, or fails if nothing may be.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let probe = Command::new(UNSHARE[0])
        .args(&UNSHARE[1..])
        .args(["nft", "list", "tables"])
        .output();
    if !probe.as_ref().is_ok_and(|output| output.status.success()) {
        assert!(
            std::env::var_os("WARREN_REQUIRE").is_none(),
            "no namespaces of one's own with nftables here: {probe:?}"
        );
        eprintln!("skipped: no namespaces of one's own with nftables here: {probe:?}");
        return;
    }
    let output = Command::new(UNSHARE[0])
        .args(&UNSHARE[1..])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        stdout.contains("1 passed"),
        "{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[derive(Debug)]
pub(crate) struct Uninstalled {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) struct Machine {
    folder: TempDir,
    /// `rp_filter` as it was before Warren.
    rp_filter: String,
}

const RP_FILTER: &str = "/proc/sys/net/ipv4/conf/all/rp_filter";

impl Machine {
    /// With one of everything: files, a device, a pod's veth, a route, a sysctl and the guard.
    pub(crate) fn installed() -> Self {
        let rp_filter = fs::read_to_string(RP_FILTER).unwrap().trim().to_owned();
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
            rp_filter,
        };
        for (file, content) in [
            ("cni-conf/10-warren.conflist", "{}"),
            ("cni-bin/warren-cni", "plugin"),
            ("state-of-warren/keys/epoch-1.key", "secret"),
            ("state-of-warren/attachments.json", "{}"),
        ] {
            let path = machine.path(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        fs::create_dir_all(machine.path("run-of-warren")).unwrap();
        drop(UnixListener::bind(machine.path("run-of-warren/admin.sock")).unwrap());

        machine.run("ip link set lo up");
        machine.run("ip link add wrn0123456789a type veth peer name pod");
        machine.run("ip link set wrn0123456789a up");
        machine.run("ip tuntap add dev warren1 mode tun");
        machine.run("ip link set warren1 up");
        machine.run("ip tuntap add dev warren0 mode tun");
        machine.run("ip route add 10.244.7.7/32 dev wrn0123456789a proto 87");
        machine.run("nft add table inet warren");
        machine.device("warren1");

        let changed = if machine.rp_filter == "2" { "1" } else { "2" };
        let recorded = format!(r#"{{"ipv4/conf/all/rp_filter": "{}"}}"#, machine.rp_filter);
        fs::write(machine.path("state-of-warren/sysctls.json"), recorded).unwrap();
        fs::write(RP_FILTER, changed).unwrap();
        machine
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// Runs `warren uninstall-node` with the folders of this machine. It must not hang, so it asks nobody.
    pub(crate) fn uninstall(&self, more: &[&str]) -> Uninstalled {
        let output = Command::new(env!("CARGO_BIN_EXE_warren"))
            .arg("uninstall-node")
            .arg("--yes")
            .arg("--state-dir")
            .arg(self.path("state-of-warren"))
            .arg("--run-dir")
            .arg(self.path("run-of-warren"))
            .arg("--cni-conf-dir")
            .arg(self.path("cni-conf"))
            .arg("--cni-bin-dir")
            .arg(self.path("cni-bin"))
            .arg("--wireguard-dir")
            .arg(self.path("wireguard"))
            .args(more)
            .output()
            .unwrap();
        Uninstalled {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn holds_nothing_of_ours(&self) {
        let links = self.says("ip -o link show");
        assert!(!links.contains("warren") && !links.contains("wrn"), "{links}");
        assert_eq!(self.says("ip route show table all proto 87"), "");
        assert!(!self.says("nft list tables").contains("inet warren"));
        assert_eq!(fs::read_to_string(RP_FILTER).unwrap().trim(), self.rp_filter);
        for gone in [
            "cni-conf/10-warren.conflist",
            "cni-bin/warren-cni",
            "state-of-warren",
            "run-of-warren",
            "wireguard",
        ] {
            assert!(!self.path(gone).exists(), "{gone}");
        }
    }

    pub(crate) fn run(&self, command: &str) {
        self.says(command);
    }

    /// What a command prints.
    pub(crate) fn says(&self, command: &str) -> String {
        let mut words = command.split_whitespace();
        let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// A userspace device's process as others see it: when its socket's file is gone, its connections and its interface
    /// are, too.
    fn device(&self, interface: &'static str) {
        let folder = self.path("wireguard");
        fs::create_dir_all(&folder).unwrap();
        let socket = folder.join(format!("{interface}.sock"));
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            // Nothing is asked of it: reading is waiting.
            while socket.exists() {
                let nothing = (&stream).read(&mut [0]);
                assert!(!nothing.is_ok_and(|len| len > 0), "it was only to be ended");
            }
            let deleted = Command::new("ip")
                .args(["link", "delete", interface])
                .status()
                .unwrap();
            assert!(deleted.success());
        });
    }

    /// A device that takes connections and does not end.
    pub(crate) fn device_that_hangs(&self, interface: &str) {
        let listener = UnixListener::bind(self.path("wireguard").join(format!("{interface}.sock"))).unwrap();
        std::thread::spawn(move || {
            let taken: Vec<_> = listener.incoming().collect();
            drop(taken);
        });
    }
}
