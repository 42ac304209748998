//! Who has the UDP ports of the lanes.

use std::collections::BTreeMap;
use std::fs;

use warren_model::Lane;

use super::agent::AgentFacts;
use super::finding::Finding;

const CHECK: &str = "udp-ports";

/// What the Mesh's ports are by default, a lane each.
const DEFAULT_PORTS: [u16; 2] = [51820, 51821];

/// The userspace device, as the kernel calls its process.
const DEVICE: &str = "warren-wg";

/// Holders of UDP ports.
pub(super) type Ports = BTreeMap<u16, Holder>;

/// Who has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holder {
    /// A socket without a process: one of the kernel's own, as its WireGuard has.
    Kernel,
    /// A process by name and number.
    Process(String, u32),
    /// A process that cannot be seen from here.
    Hidden,
}

/// Lists them.
pub(super) fn gather() -> Ports {
    let mut inodes = BTreeMap::new();
    for file in ["/proc/net/udp", "/proc/net/udp6"] {
        inodes.extend(sockets(&fs::read_to_string(file).unwrap_or_default()));
    }
    let processes = if inodes.values().any(|inode| *inode != 0) {
        owners()
    } else {
        BTreeMap::new()
    };
    let holder = |inode: u64| match (inode, processes.get(&inode)) {
        (0, _) => Holder::Kernel,
        (_, Some((name, pid))) => Holder::Process(name.clone(), *pid),
        (_, None) => Holder::Hidden,
    };
    inodes
        .into_iter()
        .map(|(port, inode)| (port, holder(inode)))
        .collect()
}

/// Ports and inodes of a listing like `/proc/net/udp` (proc_pid_net(5)): the local address is the second column, its port
/// in hexadecimal; the inode is the tenth.
fn sockets(text: &str) -> Vec<(u16, u64)> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (_, port) = fields.nth(1)?.rsplit_once(':')?;
            Some((u16::from_str_radix(port, 16).ok()?, fields.nth(7)?.parse().ok()?))
        })
        .collect()
}

/// The processes that have sockets open, by the sockets' inodes.
fn owners() -> BTreeMap<u64, (String, u32)> {
    let mut owners = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(name) = fs::read_to_string(entry.path().join("comm")) else {
            continue;
        };
        for file in fs::read_dir(entry.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let target = fs::read_link(file.path()).unwrap_or_default();
            let inode = target
                .to_str()
                .and_then(|it| it.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode {
                owners.insert(inode, (name.trim().to_owned(), pid));
            }
        }
    }
    owners
}

/// What it means.
pub(super) fn judge(ports: &Ports, agent: &AgentFacts) -> Finding {
    let wanted = match &agent.status {
        Ok(status) => Lane::ALL.map(|lane| {
            let of_lane = status.lanes.iter().find(|it| it.lane == lane);
            of_lane
                .map(|it| it.port)
                .filter(|port| *port != 0)
                .unwrap_or(DEFAULT_PORTS[lane.index()])
        }),
        Err(_) => DEFAULT_PORTS,
    };
    let taken: Vec<String> = wanted
        .iter()
        .filter_map(|port| match ports.get(port)? {
            Holder::Process(name, pid) if name != DEVICE => {
                Some(format!("UDP {port} is {name}'s (process {pid})"))
            }
            Holder::Process(..) | Holder::Kernel | Holder::Hidden => None,
        })
        .collect();
    if !taken.is_empty() {
        return Finding::fail(
            CHECK,
            taken.join(", "),
            "a lane cannot receive: end that program, or give the Mesh other ports (spec.ports)",
        );
    }
    let ours = wanted.iter().filter(|port| ports.contains_key(port)).count();
    let up = agent
        .status
        .iter()
        .flat_map(|status| &status.lanes)
        .filter(|lane| lane.up)
        .count();
    let names = wanted.map(|port| port.to_string()).join(" and ");
    if ours < up {
        return Finding::fail(
            CHECK,
            format!("of UDP {names} only {ours} is bound, though {up} lanes are up"),
            "the agent sets a lane's port with its next pass; if it does not, see agent-pass",
        );
    }
    let state = if ours == 0 { "free" } else { "bound by the lanes" };
    Finding::ok(CHECK, format!("UDP {names}: {state}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::agent::tests::healthy;
    use crate::doctor::finding::Verdict;

    #[test]
    fn a_listing_of_the_kernel_is_read() {
        let text = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            \x20 100: 00000000:CA6D 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 ffff 0\n";
        assert_eq!(sockets(text), [(51821, 4711)]);
    }

    #[test]
    fn a_port_is_ours_free_or_taken() {
        let process = |name: &str| Holder::Process(name.to_owned(), 7);
        let stopped = AgentFacts::stopped();
        let agent = AgentFacts::answering(healthy());
        let ours = Ports::from([(51820, process(DEVICE)), (51821, Holder::Kernel)]);
        assert_eq!(judge(&ours, &agent).result, Verdict::Ok);
        assert_eq!(judge(&Ports::new(), &stopped).result, Verdict::Ok);
        let taken = Ports::from([(51820, process(DEVICE)), (51821, process("wg-quick"))]);
        for agent in [&agent, &stopped] {
            let finding = judge(&taken, agent);
            assert_eq!(finding.result, Verdict::Fail);
            assert!(finding.found.contains("51821 is wg-quick's"), "{finding:?}");
        }
        let deaf = Ports::from([(51820, process(DEVICE))]);
        assert_eq!(judge(&deaf, &agent).result, Verdict::Fail);
    }
}
