//! Requests from text.

use std::net::SocketAddr;
use std::str::FromStr;

use ipnet::IpNet;
use warren_model::{PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::{
    AllowedIpChange, Errno, PresharedKey, PresharedKeyChange, PrivateKeyChange, Request, SetDevice, SetPeer,
};

impl Request {
    /// Parses one request, given without the empty line that ends it.
    ///
    /// # Errors
    /// [`Errno::INVALID`] for anything that is not exactly a request: an unknown key, a value out of range, a peer's
    /// key before any `public_key`.
    pub fn parse(text: &[u8]) -> Result<Self, Errno> {
        let text = std::str::from_utf8(text).map_err(|_| Errno::INVALID)?;
        let mut lines = text.split_terminator('\n');
        match lines.next() {
            Some("get=1") => lines.next().map_or(Ok(Self::Get), |_| Err(Errno::INVALID)),
            Some("get=drops") => lines.next().map_or(Ok(Self::GetDrops), |_| Err(Errno::INVALID)),
            Some("set=1") => parse_set(lines).map(Self::Set),
            _ => Err(Errno::INVALID),
        }
    }
}

fn parse_set<'a>(lines: impl Iterator<Item = &'a str>) -> Result<SetDevice, Errno> {
    let mut device = SetDevice::default();
    for line in lines {
        let (key, value) = line.split_once('=').ok_or(Errno::INVALID)?;
        if key == "public_key" {
            let public_key = PublicKey::from_bytes(*key_bytes(value)?).map_err(|_| Errno::INVALID)?;
            device.peers.push(SetPeer::new(public_key));
        } else if let Some(peer) = device.peers.last_mut() {
            set_peer_line(peer, key, value)?;
        } else {
            set_device_line(&mut device, key, value)?;
        }
    }
    Ok(device)
}

fn set_device_line(device: &mut SetDevice, key: &str, value: &str) -> Result<(), Errno> {
    match key {
        "private_key" => {
            let mut bytes = key_bytes(value)?;
            device.private_key = Some(if *bytes == [0; 32] {
                PrivateKeyChange::Clear
            } else {
                PrivateKeyChange::Set(PrivateKey::from_bytes(&mut bytes))
            });
        }
        "listen_port" => device.listen_port = Some(number(value)?),
        "fwmark" => device.fwmark = Some(number(value)?),
        "replace_peers" => device.replace_peers = yes(value)?,
        _ => return Err(Errno::INVALID),
    }
    Ok(())
}

fn set_peer_line(peer: &mut SetPeer, key: &str, value: &str) -> Result<(), Errno> {
    match key {
        "remove" => peer.remove = yes(value)?,
        "update_only" => peer.update_only = yes(value)?,
        "preshared_key" => {
            let key = PresharedKey::from_bytes(&mut *key_bytes(value)?);
            peer.preshared_key = Some(key.map_or(PresharedKeyChange::Clear, PresharedKeyChange::Set));
        }
        // A zone is a number (`[fe80::1%2]:51820`): interface names are not the parser's to look up.
        "endpoint" => peer.endpoint = Some(SocketAddr::from_str(value).map_err(|_| Errno::INVALID)?),
        "persistent_keepalive_interval" => peer.persistent_keepalive = Some(number(value)?),
        "replace_allowed_ips" => {
            // What was listed before this line would be given and taken away again.
            peer.allowed_ips.clear();
            peer.replace_allowed_ips = yes(value)?;
        }
        "allowed_ip" => peer.allowed_ips.push(allowed_ip_change(value)?),
        "protocol_version" if value == "1" => {}
        _ => return Err(Errno::INVALID),
    }
    Ok(())
}

fn allowed_ip_change(value: &str) -> Result<AllowedIpChange, Errno> {
    match value.strip_prefix('-') {
        Some(prefix) => allowed_ip(prefix).map(AllowedIpChange::Remove),
        None => allowed_ip(value).map(AllowedIpChange::Add),
    }
}

/// A prefix, host bits cleared as the kernel clears them.
pub(super) fn allowed_ip(text: &str) -> Result<IpNet, Errno> {
    IpNet::from_str(text)
        .map(|net| net.trunc())
        .map_err(|_| Errno::INVALID)
}

/// A number of decimal digits and nothing else.
pub(super) fn number<N: FromStr>(text: &str) -> Result<N, Errno> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Errno::INVALID);
    }
    text.parse().map_err(|_| Errno::INVALID)
}

/// 32 bytes from 64 hexadecimal digits.
pub(super) fn key_bytes(text: &str) -> Result<Zeroizing<[u8; 32]>, Errno> {
    let mut bytes = Zeroizing::new([0; 32]);
    if text.len() != 64 {
        return Err(Errno::INVALID);
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(bytes)
}

fn digit(character: u8) -> Result<u8, Errno> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        b'A'..=b'F' => Ok(character - b'A' + 10),
        _ => Err(Errno::INVALID),
    }
}

fn yes(value: &str) -> Result<bool, Errno> {
    if value == "true" {
        Ok(true)
    } else {
        Err(Errno::INVALID)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::super::print::tests::set_device;
    use super::*;

    const KEY: &str = "1c8828f7137324c58b2804928624ea2326f1674537c062e251e2753ca7fcca4c";

    fn parse_set(text: &str) -> Result<SetDevice, Errno> {
        match Request::parse(text.as_bytes())? {
            Request::Set(set) => Ok(set),
            Request::Get | Request::GetDrops => panic!("not a set request"),
        }
    }

    #[test]
    fn a_whole_request_is_understood() {
        let set = parse_set(&format!(
            "set=1\nprivate_key={KEY}\nlisten_port=51820\nfwmark=7\nreplace_peers=true\npublic_key={KEY}\n\
             update_only=true\npreshared_key={KEY}\nendpoint=[fd00::1]:51821\npersistent_keepalive_interval=25\n\
             replace_allowed_ips=true\nallowed_ip=10.1.2.3/16\nallowed_ip=-fd00:1::/64\nprotocol_version=1\n"
        ))
        .unwrap();
        assert_eq!(
            (set.listen_port, set.fwmark, set.replace_peers),
            (Some(51820), Some(7), true)
        );
        assert!(matches!(set.private_key, Some(PrivateKeyChange::Set(_))));
        let peer = &set.peers[0];
        assert!(peer.update_only && peer.replace_allowed_ips && !peer.remove);
        assert!(matches!(peer.preshared_key, Some(PresharedKeyChange::Set(_))));
        assert_eq!(peer.endpoint, Some("[fd00::1]:51821".parse().unwrap()));
        assert_eq!(peer.persistent_keepalive, Some(25));
        let expected = [
            AllowedIpChange::Add("10.1.0.0/16".parse().unwrap()),
            AllowedIpChange::Remove("fd00:1::/64".parse().unwrap()),
        ];
        assert_eq!(peer.allowed_ips, expected);
    }

    #[test]
    fn keys_of_zeroes_mean_no_key() {
        let zero = "0".repeat(64);
        let set = parse_set(&format!(
            "set=1\nprivate_key={zero}\npublic_key={KEY}\npreshared_key={zero}\n"
        ))
        .unwrap();
        assert!(matches!(set.private_key, Some(PrivateKeyChange::Clear)));
        assert!(matches!(
            set.peers[0].preshared_key,
            Some(PresharedKeyChange::Clear)
        ));
    }

    #[test]
    fn what_is_not_exactly_a_request_is_invalid() {
        let peer = format!("set=1\npublic_key={KEY}\n");
        let zero = format!("set=1\npublic_key={}\n", "0".repeat(64));
        for bad in [
            "",
            "get=2",
            "get=1\nget=1",
            "set=2\n",
            "set=1\nlisten_port\n",
            "set=1\nlisten_port=\n",
            "set=1\nlisten_port=65536\n",
            "set=1\nlisten_port=+1\n",
            "set=1\nlisten_port=-1\n",
            "set=1\nfwmark=0x10\n",
            "set=1\nreplace_peers=false\n",
            "set=1\nallowed_ip=10.0.0.0/8\n",
            "set=1\nprivate_key=00\n",
            "set=1\nunknown=1\n",
            &zero,
            &format!("{peer}private_key={KEY}\n"),
            &format!("{peer}allowed_ip=10.0.0.0\n"),
            &format!("{peer}allowed_ip=10.0.0.0/33\n"),
            &format!("{peer}allowed_ip=--10.0.0.0/8\n"),
            &format!("{peer}endpoint=10.0.0.1\n"),
            &format!("{peer}endpoint=node:51820\n"),
            &format!("{peer}protocol_version=2\n"),
            &format!("{peer}preshared_key={}\n", "g".repeat(64)),
        ] {
            assert_eq!(
                Request::parse(bad.as_bytes()).err(),
                Some(Errno::INVALID),
                "{bad:?} was taken"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Request::parse(&bytes);
        }

        #[test]
        fn no_lines_make_it_panic(lines in "set=1\n((private_key|public_key|endpoint|allowed_ip|fwmark|[a-z_]{0,8})=[-0-9a-f.:/\\[\\]]{0,70}\n){0,6}") {
            let _ = Request::parse(lines.as_bytes());
        }

        #[test]
        fn what_is_printed_is_parsed_again(set in set_device()) {
            let text = set.to_text();
            let body = text.strip_suffix("\n\n").unwrap();
            prop_assert!(!body.contains("\n\n"), "an empty line ends a request");
            prop_assert_eq!(&parse_set(body).unwrap().to_text(), &text);
        }
    }
}
