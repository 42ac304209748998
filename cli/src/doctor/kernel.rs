//! What Warren needs of the kernel, tried out in a network namespace that is made for it and ends with the check.
//!
//! In it the real things are made, by the code the agent makes them with: a guard, a pod's veth, a VXLAN interface, a
//! WireGuard device. That also loads modules where the kernel has them as such.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use warren_kernel::veth::{self, PodLink};
use warren_kernel::{Kernel, KernelConfig, wireguard};
use warren_model::status::AgentStatus;
use warren_model::{Family, PathKind};
use warren_plan::{Action, Guard, Mac, Vxlan};

use super::finding::Finding;

/// Where userspace devices make their interfaces.
const TUN: &str = "/dev/net/tun";

/// A MAC of nobody (locally administered).
const MAC: Mac = Mac([0x02, 0, 0, 0, 0, 1]);

/// What worked, or why it did not.
#[derive(Debug)]
pub(super) struct KernelFacts {
    nftables: Result<(), String>,
    veth: Result<(), String>,
    vxlan: Result<(), String>,
    wireguard: Result<(), String>,
    tun: Result<(), String>,
    ipv6: bool,
}

/// Tries everything.
pub(super) async fn gather() -> KernelFacts {
    let tried = tokio::task::spawn_blocking(|| {
        std::thread::Builder::new()
            .name("doctor-kernel".to_owned())
            .spawn(in_fresh_namespace)
            .map_err(|error| format!("cannot start a thread: {error}"))?
            .join()
            .unwrap_or_else(|_| Err("the thread that tried it has failed".to_owned()))
    })
    .await
    .unwrap_or_else(|error| Err(error.to_string()));
    let [nftables, veth, vxlan, wireguard] = match tried {
        Ok(tried) => tried,
        Err(error) => std::array::from_fn(|_| Err(error.clone())),
    };
    KernelFacts {
        nftables,
        veth,
        vxlan,
        wireguard,
        tun: open_tun().map_err(|error| error.to_string()),
        ipv6: has_ipv6(),
    }
}

type Tried = Result<(), String>;

/// Runs on a thread of its own, which nothing else ever uses: it has left the node's network for good.
fn in_fresh_namespace() -> Result<[Tried; 4], String> {
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|errno| format!("cannot make a network namespace to try it in: {errno}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(async {
        let kernel = Kernel::new(KernelConfig::default()).map_err(text)?;
        let vxlan = Vxlan {
            port: 4789,
            mac: MAC,
            local: Ipv4Addr::new(192, 0, 2, 1).into(),
        };
        let pod = PodLink {
            host_name: "wrndoctor".to_owned(),
            // This thread's, so that both sides are in it.
            netns: PathBuf::from("/proc/thread-self/ns/net"),
            if_name: "doctor0".to_owned(),
            mac: MAC,
            mtu: 1400,
            addresses: vec![Ipv4Addr::new(192, 0, 2, 2).into()],
            label: None,
        };
        Ok([
            kernel
                .apply(&Action::InstallGuard(Guard::default()))
                .await
                .map_err(text),
            veth::create(&pod).await.map_err(text),
            kernel
                .apply(&Action::CreateVxlan(vxlan, 1400))
                .await
                .map_err(text),
            wireguard::probe(&kernel).await.map_err(text),
        ])
    })
}

fn text(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

fn open_tun() -> io::Result<()> {
    OpenOptions::new().read(true).write(true).open(TUN).map(drop)
}

fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
        && fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6")
            .is_ok_and(|value| value.trim() == "0")
}

/// What it means, for what the agent uses.
pub(super) fn judge(facts: &KernelFacts, status: Option<&AgentStatus>) -> Vec<Finding> {
    vec![
        required(
            "nftables",
            &facts.nftables,
            "the guard can be installed",
            "install nftables (nft 1.0 or newer), and use a kernel with nf_tables, nft_chain_nat and nft_masq; without them \
             the agent does not start",
        ),
        required(
            "veth",
            &facts.veth,
            "pods' interfaces can be made",
            "load the module veth (modprobe veth); no pod can be attached without it",
        ),
        vxlan(facts, status),
        ipv6(facts, status),
        wireguard_module(facts),
        tun(facts, status),
    ]
}

fn required(check: &'static str, tried: &Tried, ok: &str, remedy: &str) -> Finding {
    match tried {
        Ok(()) => Finding::ok(check, ok),
        Err(error) => Finding::fail(check, error.clone(), remedy),
    }
}

fn vxlan(facts: &KernelFacts, status: Option<&AgentStatus>) -> Finding {
    let used = status.is_some_and(|status| {
        let paths = status.peers.iter().filter_map(|peer| peer.path);
        !status.encryption || paths.into_iter().any(|path| path == PathKind::Vxlan)
    });
    match &facts.vxlan {
        Ok(()) => Finding::ok("vxlan", "the overlay without encryption could be made"),
        Err(error) if used => Finding::fail(
            "vxlan",
            error.clone(),
            "load the module vxlan (modprobe vxlan), or set spec.encryption: wireguard in the Mesh",
        ),
        Err(error) => Finding::skipped("vxlan", format!("not used with encryption on; {error}")),
    }
}

fn ipv6(facts: &KernelFacts, status: Option<&AgentStatus>) -> Finding {
    let wanted = status.is_some_and(|status| {
        let cidrs = &status.pod_cidrs;
        cidrs.iter().any(|cidr| cidr.family() == Family::V6)
    });
    match (facts.ipv6, wanted) {
        (true, _) => Finding::ok("ipv6", "enabled"),
        (false, false) => Finding::skipped("ipv6", "disabled, and the node has no IPv6 pod CIDR"),
        (false, true) => Finding::fail(
            "ipv6",
            "disabled, but the node has an IPv6 pod CIDR",
            "set net.ipv6.conf.all.disable_ipv6=0 and remove ipv6.disable from the kernel's command line, or take the IPv6 \
             CIDR off the node",
        ),
    }
}

fn wireguard_module(facts: &KernelFacts) -> Finding {
    match (&facts.wireguard, &facts.tun) {
        (Ok(()), _) => Finding::ok("wireguard-module", "the kernel has WireGuard"),
        (Err(why), Ok(())) => Finding::ok(
            "wireguard-module",
            format!("not needed: the userspace device takes its place ({why})"),
        ),
        (Err(why), Err(_)) => Finding::fail(
            "wireguard-module",
            why.clone(),
            "load the module wireguard, or tun for the userspace device: the node has neither",
        ),
    }
}

fn tun(facts: &KernelFacts, status: Option<&AgentStatus>) -> Finding {
    let of_kernel = status.is_some_and(|status| status.lanes.iter().any(|lane| lane.device == "kernel"));
    match &facts.tun {
        Ok(()) => Finding::ok("tun", format!("{TUN} can be opened")),
        Err(error) if of_kernel || facts.wireguard.is_ok() => Finding::skipped(
            "tun",
            format!("not needed with the kernel's WireGuard; {TUN}: {error}"),
        ),
        Err(error) => Finding::fail(
            "tun",
            format!("cannot open {TUN}: {error}"),
            "load the module tun (modprobe tun); in a container, mount the device: the userspace device needs it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::agent::tests::healthy;
    use crate::doctor::finding::Verdict;

    fn facts() -> KernelFacts {
        KernelFacts {
            nftables: Ok(()),
            veth: Ok(()),
            vxlan: Ok(()),
            wireguard: Err("no module".to_owned()),
            tun: Ok(()),
            ipv6: true,
        }
    }

    fn failed(facts: &KernelFacts, status: Option<&AgentStatus>) -> Vec<&'static str> {
        let findings = judge(facts, status).into_iter();
        findings
            .filter(|it| it.result == Verdict::Fail)
            .map(|it| it.check)
            .collect()
    }

    #[test]
    fn one_kind_of_device_is_enough_and_none_is_not() {
        assert_eq!(failed(&facts(), None), Vec::<&str>::new());
        let no_tun = || Err("no such device".to_owned());
        let of_kernel = KernelFacts {
            wireguard: Ok(()),
            tun: no_tun(),
            ..facts()
        };
        assert_eq!(failed(&of_kernel, None), Vec::<&str>::new());
        let neither = KernelFacts {
            tun: no_tun(),
            ..facts()
        };
        assert_eq!(failed(&neither, None), ["wireguard-module", "tun"]);
    }

    #[test]
    fn vxlan_and_ipv6_matter_only_where_they_are_used() {
        let bare = KernelFacts {
            vxlan: Err("unknown type".to_owned()),
            ipv6: false,
            ..facts()
        };
        assert_eq!(failed(&bare, Some(&healthy())), Vec::<&str>::new());
        let mut open = healthy();
        open.encryption = false;
        open.pod_cidrs
            .extend("fd00::/64".parse::<warren_model::PodCidr>());
        assert_eq!(failed(&bare, Some(&open)), ["vxlan", "ipv6"]);
    }

    #[test]
    fn without_nftables_there_is_no_network() {
        let broken = KernelFacts {
            nftables: Err("cannot run nft".to_owned()),
            ..facts()
        };
        assert_eq!(failed(&broken, None), ["nftables"]);
    }
}
