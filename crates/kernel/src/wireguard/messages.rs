//! WireGuard's messages: what a change is on the wire, and what a dump says. Pure.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums are foreign and open"
)]

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAllowedIpFlags,
    WireguardAttribute, WireguardCmd, WireguardMessage, WireguardPeer, WireguardPeerAttribute,
    WireguardPeerFlags, WireguardTimeSpec,
};
use warren_model::{PrivateKey, PublicKey};
use warren_plan::{LaneChange, LaneObserved, PeerConfig, PeerObserved};

/// As many allowed IPs go into one message. A nested attribute has a length of 16 bits and each takes up to 40 bytes;
/// the netlink crates panic beyond.
pub(super) const CHUNK: usize = 400;

/// The peer that takes a prefix from another to be removed with it. It never has an endpoint, so that nothing is ever
/// sent to it.
const PARKING: [u8; 32] = *b"warren: a peer to park a prefix.";

/// The messages that make one change, to be sent in this order.
pub(super) fn of_change(name: &str, change: &LaneChange, key: Option<&PrivateKey>) -> Vec<WireguardMessage> {
    match change {
        LaneChange::SetKey(public) => {
            // A key of zeros is how the kernel is told to forget its key.
            let none = [0; 32];
            let secret = key
                .filter(|_| public.is_some())
                .map_or(none, |key| *key.expose_bytes());
            vec![set(name, WireguardAttribute::PrivateKey(secret))]
        }
        LaneChange::SetPort(port) => vec![set(name, WireguardAttribute::ListenPort(*port))],
        LaneChange::AddPeer(key, config) => add_peer(name, key, config),
        LaneChange::SetEndpoint(key, endpoint) => {
            vec![peer(
                name,
                key,
                vec![UPDATE, WireguardPeerAttribute::Endpoint(*endpoint)],
            )]
        }
        LaneChange::SetKeepalive(key, seconds) => {
            vec![peer(
                name,
                key,
                vec![UPDATE, WireguardPeerAttribute::PersistentKeepalive(*seconds)],
            )]
        }
        LaneChange::AddAllowedIp(key, net) => {
            let nets = WireguardPeerAttribute::AllowedIps(vec![allowed_ip(net)]);
            vec![peer(name, key, vec![UPDATE, nets])]
        }
        LaneChange::RemoveAllowedIp(key, net) => {
            let mut gone = allowed_ip(net);
            gone.0
                .push(WireguardAllowedIpAttr::Flags(WireguardAllowedIpFlags::RemoveMe));
            vec![peer(
                name,
                key,
                vec![UPDATE, WireguardPeerAttribute::AllowedIps(vec![gone])],
            )]
        }
        LaneChange::RemovePeer(key) => vec![peer(name, key, vec![REMOVE])],
    }
}

/// Removes one prefix, from whoever holds it, on a kernel without a flag for that: in one message another peer is made
/// that takes the prefix over, and removed again. The holder's other prefixes never have a gap.
pub(super) fn removal_by_parking(name: &str, net: &IpNet) -> WireguardMessage {
    let key = WireguardPeerAttribute::PublicKey(PARKING);
    let taker = WireguardPeer(vec![
        key.clone(),
        WireguardPeerAttribute::AllowedIps(vec![allowed_ip(net)]),
    ]);
    let gone = WireguardPeer(vec![key, REMOVE]);
    set(name, WireguardAttribute::Peers(vec![taker, gone]))
}

/// The device that the messages of one dump describe. A peer with many allowed IPs comes in several.
pub(super) fn merge(messages: Vec<WireguardMessage>, now: SystemTime) -> LaneObserved {
    let mut device = LaneObserved::default();
    for attribute in messages.into_iter().flat_map(|message| message.attributes) {
        match attribute {
            WireguardAttribute::PublicKey(bytes) => device.public_key = PublicKey::from_bytes(bytes).ok(),
            WireguardAttribute::ListenPort(port) => device.port = port,
            WireguardAttribute::Peers(peers) => {
                for peer in peers {
                    merge_peer(&mut device, peer, now);
                }
            }
            _ => {}
        }
    }
    device
}

/// The private key that the messages of one dump hold. A device without a key has none.
pub(super) fn take_private_key(messages: Vec<WireguardMessage>) -> Option<PrivateKey> {
    let mut attributes = messages.into_iter().flat_map(|message| message.attributes);
    attributes.find_map(|attribute| match attribute {
        WireguardAttribute::PrivateKey(mut bytes) => Some(PrivateKey::from_bytes(&mut bytes)),
        _ => None,
    })
}

/// Only changes a peer that is there: a change that comes after the peer's removal does not bring it back.
const UPDATE: WireguardPeerAttribute = WireguardPeerAttribute::Flags(WireguardPeerFlags::UpdateOnly);

const REMOVE: WireguardPeerAttribute = WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe);

fn add_peer(name: &str, key: &PublicKey, config: &PeerConfig) -> Vec<WireguardMessage> {
    let nets: Vec<WireguardAllowedIp> = config.allowed_ips.iter().map(allowed_ip).collect();
    let mut chunks = nets.chunks(CHUNK);
    let first = chunks.next().unwrap_or_default().to_vec();
    let attributes = vec![
        WireguardPeerAttribute::Endpoint(config.endpoint),
        WireguardPeerAttribute::PersistentKeepalive(config.keepalive),
        WireguardPeerAttribute::AllowedIps(first),
    ];
    let mut messages = vec![peer(name, key, attributes)];
    messages.extend(chunks.map(|chunk| {
        peer(
            name,
            key,
            vec![UPDATE, WireguardPeerAttribute::AllowedIps(chunk.to_vec())],
        )
    }));
    messages
}

fn set(name: &str, attribute: WireguardAttribute) -> WireguardMessage {
    WireguardMessage {
        cmd: WireguardCmd::SetDevice,
        attributes: vec![WireguardAttribute::IfName(name.to_owned()), attribute],
    }
}

fn peer(name: &str, key: &PublicKey, mut attributes: Vec<WireguardPeerAttribute>) -> WireguardMessage {
    attributes.insert(0, WireguardPeerAttribute::PublicKey(*key.as_bytes()));
    set(name, WireguardAttribute::Peers(vec![WireguardPeer(attributes)]))
}

fn allowed_ip(net: &IpNet) -> WireguardAllowedIp {
    let family = match net {
        IpNet::V4(_) => WireguardAddressFamily::Ipv4,
        IpNet::V6(_) => WireguardAddressFamily::Ipv6,
    };
    WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Family(family),
        WireguardAllowedIpAttr::IpAddr(net.network()),
        WireguardAllowedIpAttr::Cidr(net.prefix_len()),
    ])
}

fn merge_peer(device: &mut LaneObserved, peer: WireguardPeer, now: SystemTime) {
    let key = peer.0.iter().find_map(|attribute| match attribute {
        WireguardPeerAttribute::PublicKey(bytes) => PublicKey::from_bytes(*bytes).ok(),
        _ => None,
    });
    let Some(key) = key else { return };
    let observed: &mut PeerObserved = device.peers.entry(key).or_default();
    for attribute in peer.0 {
        match attribute {
            WireguardPeerAttribute::Endpoint(endpoint) => observed.endpoint = Some(endpoint),
            WireguardPeerAttribute::PersistentKeepalive(seconds) => observed.keepalive = seconds,
            WireguardPeerAttribute::LastHandshake(at) => observed.handshake_age = age(at, now),
            WireguardPeerAttribute::RxBytes(bytes) => observed.rx_bytes = bytes,
            WireguardPeerAttribute::TxBytes(bytes) => observed.tx_bytes = bytes,
            WireguardPeerAttribute::AllowedIps(nets) => {
                observed.allowed_ips.extend(nets.iter().filter_map(net));
            }
            _ => {}
        }
    }
}

/// The kernel says when on the wall clock; never is the epoch. A clock set back in between makes the age zero.
fn age(at: WireguardTimeSpec, now: SystemTime) -> Option<Duration> {
    let seconds = u64::try_from(at.seconds).ok().filter(|seconds| *seconds > 0)?;
    let nanoseconds = u32::try_from(at.nano_seconds).ok()?;
    let since_epoch = now.duration_since(UNIX_EPOCH).ok()?;
    Some(since_epoch.saturating_sub(Duration::new(seconds, nanoseconds)))
}

fn net(allowed_ip: &WireguardAllowedIp) -> Option<IpNet> {
    let (mut address, mut length): (Option<IpAddr>, Option<u8>) = (None, None);
    for attribute in &allowed_ip.0 {
        match attribute {
            WireguardAllowedIpAttr::IpAddr(ip) => address = Some(*ip),
            WireguardAllowedIpAttr::Cidr(cidr) => length = Some(*cidr),
            _ => {}
        }
    }
    IpNet::new(address?, length?).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use netlink_packet_core::Emitable;

    use super::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32]).unwrap()
    }

    fn config(nets: impl IntoIterator<Item = IpNet>) -> PeerConfig {
        PeerConfig {
            endpoint: "192.0.2.1:51820".parse().unwrap(),
            allowed_ips: nets.into_iter().collect(),
            keepalive: 25,
        }
    }

    fn many(count: u32) -> BTreeSet<IpNet> {
        (0..count)
            .map(|number| IpNet::new(IpAddr::V6((u128::from(number) << 64).into()), 64).unwrap())
            .collect()
    }

    /// What the kernel would say of a device that was sent these messages: the same attributes. Only true of additions.
    fn echo(messages: Vec<WireguardMessage>) -> LaneObserved {
        merge(messages, UNIX_EPOCH)
    }

    fn peers(message: &WireguardMessage) -> &[WireguardPeer] {
        message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                WireguardAttribute::Peers(peers) => Some(peers.as_slice()),
                _ => None,
            })
            .unwrap()
    }

    #[test]
    fn no_message_is_too_long_for_its_lengths_of_sixteen_bits() {
        let change = LaneChange::AddPeer(key(7), config(many(5000)));
        let messages = of_change("warren0", &change, None);
        assert_eq!(messages.len(), 13);
        for message in &messages {
            let length = message.buffer_len();
            assert!(length < 32 * 1024, "{length}");
            message.emit(&mut vec![0; length]);
        }
        assert_eq!(echo(messages).peers[&key(7)].allowed_ips, many(5000));
    }

    #[test]
    fn only_the_first_message_of_a_new_peer_can_make_it() {
        let messages = of_change("warren0", &LaneChange::AddPeer(key(7), config(many(801))), None);
        let updates: Vec<bool> = messages
            .iter()
            .map(|message| peers(message)[0].0.contains(&UPDATE))
            .collect();
        assert_eq!(updates, [false, true, true]);
    }

    #[test]
    fn a_peer_without_allowed_ips_is_made_all_the_same() {
        let messages = of_change("warren0", &LaneChange::AddPeer(key(7), config([])), None);
        assert_eq!(
            echo(messages).peers[&key(7)].endpoint,
            Some("192.0.2.1:51820".parse().unwrap())
        );
    }

    #[test]
    fn no_change_ever_replaces_all() {
        let net: IpNet = "10.244.2.0/24".parse().unwrap();
        let secret = PrivateKey::from_bytes(&mut [9; 32]);
        let changes = [
            LaneChange::SetKey(Some(key(7))),
            LaneChange::SetKey(None),
            LaneChange::SetPort(51820),
            LaneChange::AddPeer(key(7), config(many(900))),
            LaneChange::SetEndpoint(key(7), "192.0.2.1:1".parse().unwrap()),
            LaneChange::SetKeepalive(key(7), 0),
            LaneChange::AddAllowedIp(key(7), net),
            LaneChange::RemoveAllowedIp(key(7), net),
            LaneChange::RemovePeer(key(7)),
        ];
        let mut messages: Vec<_> = changes
            .iter()
            .flat_map(|change| of_change("warren0", change, Some(&secret)))
            .collect();
        messages.push(removal_by_parking("warren0", &net));
        for message in messages {
            let text = format!("{message:?}");
            assert!(
                !text.contains("ReplacePeers") && !text.contains("ReplaceAllowedIps"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_key_is_set_by_its_private_half_and_forgotten_by_zeros() {
        let secret = PrivateKey::from_bytes(&mut [9; 32]);
        let sent = |change| {
            of_change("warren0", &change, Some(&secret))
                .remove(0)
                .attributes
                .remove(1)
        };
        let bytes = *secret.expose_bytes();
        assert_eq!(
            sent(LaneChange::SetKey(Some(key(7)))),
            WireguardAttribute::PrivateKey(bytes)
        );
        assert_eq!(
            sent(LaneChange::SetKey(None)),
            WireguardAttribute::PrivateKey([0; 32])
        );
    }

    #[test]
    fn parking_takes_the_prefix_before_it_goes() {
        let message = removal_by_parking("warren0", &"10.244.2.0/24".parse().unwrap());
        let [taker, gone] = peers(&message) else {
            panic!("two peers, in order")
        };
        assert_eq!(taker.0[0], gone.0[0]);
        assert!(matches!(taker.0[1], WireguardPeerAttribute::AllowedIps(_)));
        assert_eq!(gone.0[1], REMOVE);
        assert!(PublicKey::from_bytes(PARKING).is_ok());
    }

    #[test]
    fn the_private_key_of_a_device_is_what_was_set_and_a_device_without_one_has_none() {
        let secret = PrivateKey::from_bytes(&mut [9; 32]);
        let set = |key| of_change("warren0", &LaneChange::SetKey(Some(key)), Some(&secret));
        let found = take_private_key(set(key(7))).unwrap();
        assert_eq!(found.expose_bytes(), secret.expose_bytes());
        let without = of_change("warren0", &LaneChange::SetPort(51820), None);
        assert!(take_private_key(without).is_none());
    }

    #[test]
    fn a_peer_that_comes_in_several_messages_is_one_peer() {
        let part = |attributes: Vec<WireguardPeerAttribute>| peer("warren0", &key(7), attributes);
        let nets = |text: &str| WireguardPeerAttribute::AllowedIps(vec![allowed_ip(&text.parse().unwrap())]);
        let at = WireguardTimeSpec {
            seconds: 1000,
            nano_seconds: 500_000_000,
        };
        let messages = vec![
            part(vec![
                WireguardPeerAttribute::LastHandshake(at),
                WireguardPeerAttribute::RxBytes(5),
                nets("10.244.2.0/24"),
            ]),
            part(vec![nets("fd10::/64")]),
        ];
        let observed = merge(messages, UNIX_EPOCH + Duration::from_secs(1010));
        let peer = &observed.peers[&key(7)];
        assert_eq!(observed.peers.len(), 1);
        assert_eq!(peer.allowed_ips.len(), 2);
        assert_eq!(
            (peer.rx_bytes, peer.handshake_age),
            (5, Some(Duration::from_millis(9500)))
        );
    }

    #[test]
    fn no_handshake_yet_is_no_age_and_a_clock_set_back_is_age_zero() {
        let now = UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(
            age(
                WireguardTimeSpec {
                    seconds: 0,
                    nano_seconds: 0
                },
                now
            ),
            None
        );
        assert_eq!(
            age(
                WireguardTimeSpec {
                    seconds: 200,
                    nano_seconds: 0
                },
                now
            ),
            Some(Duration::ZERO)
        );
    }
}
