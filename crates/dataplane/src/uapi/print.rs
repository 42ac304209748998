//! Requests and answers as text. All of it may hold keys: it is overwritten when it is dropped.

use std::fmt::{Display, Write};

use warren_model::PrivateKey;
use zeroize::Zeroizing;

use super::{
    AllowedIpChange, DeviceState, Errno, PeerState, PresharedKey, PresharedKeyChange, PrivateKeyChange,
};
use super::{SetDevice, SetPeer};
use crate::drops::DropCounters;

/// Bytes that one peer and one allowed IP take at most, so that a text is allocated once: growing would leave copies
/// of its keys behind.
const PEER_LEN: usize = 512;
const ALLOWED_IP_LEN: usize = 64;

impl SetDevice {
    /// The request as text, with the empty line that ends it.
    pub fn to_text(&self) -> Zeroizing<String> {
        let lens = self
            .peers
            .iter()
            .map(|peer| PEER_LEN + peer.allowed_ips.len() * ALLOWED_IP_LEN);
        let mut text = Text::with_capacity(PEER_LEN + lens.sum::<usize>());
        self.print(&mut text);
        text.end()
    }

    fn print(&self, text: &mut Text) {
        text.line("set", 1);
        match &self.private_key {
            Some(PrivateKeyChange::Set(key)) => text.key("private_key", key.expose_bytes()),
            Some(PrivateKeyChange::Clear) => text.key("private_key", &[0; 32]),
            None => {}
        }
        text.optional("listen_port", self.listen_port);
        text.optional("fwmark", self.fwmark);
        text.flag("replace_peers", self.replace_peers);
        for peer in &self.peers {
            peer.print(text);
        }
    }
}

impl SetPeer {
    fn print(&self, text: &mut Text) {
        text.key("public_key", self.public_key.as_bytes());
        text.flag("remove", self.remove);
        text.flag("update_only", self.update_only);
        match &self.preshared_key {
            Some(PresharedKeyChange::Set(key)) => text.key("preshared_key", key.expose_bytes()),
            Some(PresharedKeyChange::Clear) => text.key("preshared_key", &[0; 32]),
            None => {}
        }
        text.optional("endpoint", self.endpoint);
        text.optional("persistent_keepalive_interval", self.persistent_keepalive);
        text.flag("replace_allowed_ips", self.replace_allowed_ips);
        for change in &self.allowed_ips {
            match change {
                AllowedIpChange::Add(net) => text.line("allowed_ip", net),
                AllowedIpChange::Remove(net) => text.line("allowed_ip", format_args!("-{net}")),
            }
        }
    }
}

impl DeviceState {
    /// The answer to `get=1`, with the empty line that ends it.
    pub fn to_text(&self) -> Zeroizing<String> {
        let lens = self
            .peers
            .iter()
            .map(|peer| PEER_LEN + peer.allowed_ips.len() * ALLOWED_IP_LEN);
        let mut text = Text::with_capacity(PEER_LEN + lens.sum::<usize>());
        self.print(&mut text);
        text.end()
    }

    fn print(&self, text: &mut Text) {
        if let Some(key) = &self.private_key {
            text.key("private_key", PrivateKey::expose_bytes(key));
        }
        text.optional("listen_port", Some(self.listen_port).filter(|port| *port != 0));
        text.optional("fwmark", Some(self.fwmark).filter(|mark| *mark != 0));
        for peer in &self.peers {
            peer.print(text);
        }
        text.line("errno", 0);
    }
}

impl PeerState {
    fn print(&self, text: &mut Text) {
        text.key("public_key", self.public_key.as_bytes());
        text.key(
            "preshared_key",
            self.preshared_key
                .as_ref()
                .map_or(&[0; 32], PresharedKey::expose_bytes),
        );
        text.line("protocol_version", 1);
        text.optional("endpoint", self.endpoint);
        let last_handshake = self.last_handshake.unwrap_or_default();
        text.line("last_handshake_time_sec", last_handshake.as_secs());
        text.line("last_handshake_time_nsec", last_handshake.subsec_nanos());
        text.line("tx_bytes", self.tx_bytes);
        text.line("rx_bytes", self.rx_bytes);
        text.line("persistent_keepalive_interval", self.persistent_keepalive);
        for net in &self.allowed_ips {
            text.line("allowed_ip", net);
        }
    }
}

/// The answer to `get=drops`.
pub(super) fn drops(counters: &DropCounters) -> Zeroizing<String> {
    let mut text = Text::with_capacity(PEER_LEN);
    for (reason, count) in counters.all() {
        text.line(reason.name(), count);
    }
    text.line("errno", 0);
    text.end()
}

/// The answer to `set=1`, and to any request that failed. The numbers of errno.h are negated, as wireguard-go does it:
/// `wg set` names the error only then, and prints "Unknown error -98" otherwise.
pub(super) fn status(result: Result<(), Errno>) -> Zeroizing<String> {
    let mut text = Text::with_capacity(ALLOWED_IP_LEN);
    text.line("errno", result.err().map_or(0, |errno| -errno.0));
    text.end()
}

struct Text(Zeroizing<String>);

impl Text {
    fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(String::with_capacity(capacity)))
    }

    fn line(&mut self, key: &str, value: impl Display) {
        writeln!(self.0, "{key}={value}").expect("writing to a String cannot fail");
    }

    fn optional(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.line(key, value);
        }
    }

    fn flag(&mut self, key: &str, value: bool) {
        if value {
            self.line(key, true);
        }
    }

    fn key(&mut self, key: &str, bytes: &[u8; 32]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.0.push_str(key);
        self.0.push('=');
        for byte in bytes {
            self.0.push(DIGITS[usize::from(byte >> 4)].into());
            self.0.push(DIGITS[usize::from(byte & 15)].into());
        }
        self.0.push('\n');
    }

    fn end(mut self) -> Zeroizing<String> {
        self.0.push('\n');
        self.0
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
pub(super) mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    use ipnet::IpNet;
    use proptest::option;
    use proptest::prelude::*;
    use warren_model::PublicKey;

    use super::*;

    // Only here may what holds keys be shown: proptest prints what made a law fail.
    macro_rules! shown_by_what_it_prints {
        ($($shown:ty),*) => {$(
            impl std::fmt::Debug for $shown {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    let mut text = Text::with_capacity(0);
                    self.print(&mut text);
                    f.write_str(&text.0)
                }
            }
        )*};
    }
    shown_by_what_it_prints!(SetDevice, SetPeer, DeviceState, PeerState);

    fn key() -> impl Strategy<Value = [u8; 32]> {
        any::<[u8; 32]>()
    }

    fn public_key() -> impl Strategy<Value = PublicKey> {
        key().prop_filter_map("low order", |bytes| PublicKey::from_bytes(bytes).ok())
    }

    fn endpoint() -> impl Strategy<Value = SocketAddr> {
        any::<(IpAddr, u16)>().prop_map(SocketAddr::from)
    }

    fn net() -> impl Strategy<Value = IpNet> {
        (any::<IpAddr>(), any::<u8>()).prop_map(|(address, len)| {
            let len = if address.is_ipv4() { len % 33 } else { len % 129 };
            IpNet::new(address, len).unwrap().trunc()
        })
    }

    prop_compose! {
        fn set_peer()(
            public_key in public_key(),
            remove in any::<bool>(),
            update_only in any::<bool>(),
            preshared in option::of(key()),
            endpoint in option::of(endpoint()),
            persistent_keepalive in option::of(any::<u16>()),
            replace_allowed_ips in any::<bool>(),
            allowed_ips in prop::collection::vec((any::<bool>(), net()), 0..5),
        ) -> SetPeer {
            let preshared_key = preshared.map(|mut bytes| {
                PresharedKey::from_bytes(&mut bytes).map_or(PresharedKeyChange::Clear, PresharedKeyChange::Set)
            });
            let change = |(add, net)| if add { AllowedIpChange::Add(net) } else { AllowedIpChange::Remove(net) };
            let allowed_ips = allowed_ips.into_iter().map(change).collect();
            SetPeer {
                public_key, remove, update_only, preshared_key, endpoint, persistent_keepalive, replace_allowed_ips,
                allowed_ips,
            }
        }
    }

    prop_compose! {
        pub(in super::super) fn set_device()(
            private in option::of(option::of(key())),
            listen_port in option::of(any::<u16>()),
            fwmark in option::of(any::<u32>()),
            replace_peers in any::<bool>(),
            peers in prop::collection::vec(set_peer(), 0..4),
        ) -> SetDevice {
            let private_key = private.map(|bytes| match bytes {
                Some(mut bytes) => PrivateKeyChange::Set(PrivateKey::from_bytes(&mut bytes)),
                None => PrivateKeyChange::Clear,
            });
            SetDevice { private_key, listen_port, fwmark, replace_peers, peers }
        }
    }

    prop_compose! {
        fn peer_state()(
            public_key in public_key(),
            preshared in key(),
            endpoint in option::of(endpoint()),
            handshake in option::of((1..1_u64 << 40, 0..1_000_000_000_u32)),
            rx_bytes in any::<u64>(),
            tx_bytes in any::<u64>(),
            persistent_keepalive in any::<u16>(),
            allowed_ips in prop::collection::vec(net(), 0..5),
        ) -> PeerState {
            let mut preshared = preshared;
            PeerState {
                public_key,
                preshared_key: PresharedKey::from_bytes(&mut preshared),
                endpoint,
                last_handshake: handshake.map(|(secs, nanos)| Duration::new(secs, nanos)),
                rx_bytes,
                tx_bytes,
                persistent_keepalive,
                allowed_ips,
            }
        }
    }

    prop_compose! {
        pub(in super::super) fn device_state()(
            private in option::of(key()),
            listen_port in any::<u16>(),
            fwmark in any::<u32>(),
            peers in prop::collection::vec(peer_state(), 0..4),
        ) -> DeviceState {
            let private_key = private.map(|mut bytes| PrivateKey::from_bytes(&mut bytes));
            DeviceState { private_key, listen_port, fwmark, peers }
        }
    }

    proptest! {
        #[test]
        fn a_text_fits_the_room_made_for_it(set in set_device(), state in device_state()) {
            let nets = |count: usize| PEER_LEN + count * ALLOWED_IP_LEN;
            let room = PEER_LEN + set.peers.iter().map(|peer| nets(peer.allowed_ips.len())).sum::<usize>();
            prop_assert!(set.to_text().len() <= room);
            let room = PEER_LEN + state.peers.iter().map(|peer| nets(peer.allowed_ips.len())).sum::<usize>();
            prop_assert!(state.to_text().len() <= room);
        }
    }
}
