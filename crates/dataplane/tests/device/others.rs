//! Implementations of WireGuard in userspace, ours and those of others.

use std::path::PathBuf;

use super::nodes::WARREN_WG;

/// Names a folder with the programs of the others, as `hack/peers.sh` makes one. Without it `PATH` is searched.
const FOLDER: &str = "WARREN_PEERS";

/// A program that makes a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Implementation {
    /// The program under test.
    Warren,
    /// The reference, in Go.
    WireguardGo,
    /// Mullvad's, in Rust.
    Gotatun,
    /// Cloudflare's, in Rust.
    Boringtun,
}

impl Implementation {
    /// The shell command that makes the device `wg0` and returns once it can be configured. `None`, with the reason
    /// printed, where the program is missing.
    pub(crate) fn command(self) -> Option<String> {
        let (name, arguments) = match self {
            Self::Warren => {
                return Some(format!(
                    "{WARREN_WG} --log info,warren_dataplane=debug wg0 2>>/run/wg0.log"
                ));
            }
            Self::WireguardGo => ("wireguard-go", ""),
            Self::Gotatun => ("gotatun", "--disable-drop-privileges --log /run/wg0.log"),
            // Without a socket for each peer, which would stay with the address that it was made with.
            Self::Boringtun => (
                "boringtun-cli",
                "--disable-drop-privileges --disable-connected-udp --log /run/wg0.log",
            ),
        };
        let Some(program) = find(name) else {
            assert!(
                std::env::var("WARREN_REQUIRE").as_deref() != Ok("all"),
                "required: {name}: set {FOLDER} to what hack/peers.sh prints"
            );
            eprintln!("skipped: no {name}: set {FOLDER} to what hack/peers.sh prints");
            return None;
        };
        Some(format!("{} {arguments} wg0", program.display()))
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os(FOLDER).or_else(|| std::env::var_os("PATH"))?;
    std::env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}
