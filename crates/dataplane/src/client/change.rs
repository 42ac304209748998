//! Changes of a plan as a request of the configuration protocol.

use ipnet::IpNet;
use warren_model::{PrivateKey, PublicKey};
use warren_plan::lane::{LaneChange, PeerConfig};

use super::{ClientError, public_half};
use crate::uapi::{AllowedIpChange, PrivateKeyChange, SetDevice, SetPeer};

/// The request that makes the changes.
pub(super) fn request(
    changes: &[LaneChange],
    private_key: Option<&PrivateKey>,
) -> Result<SetDevice, ClientError> {
    let mut device = SetDevice::default();
    for change in changes {
        match change {
            LaneChange::SetKey(Some(public_key)) => {
                device.private_key = Some(PrivateKeyChange::Set(matching(*public_key, private_key)?));
            }
            LaneChange::SetKey(None) => device.private_key = Some(PrivateKeyChange::Clear),
            LaneChange::SetPort(port) => device.listen_port = Some(*port),
            LaneChange::AddPeer(key, config) => device.peers.push(whole(*key, config)),
            LaneChange::SetEndpoint(key, endpoint) => device.peers.push(SetPeer {
                endpoint: Some(*endpoint),
                ..existing(*key)
            }),
            LaneChange::SetKeepalive(key, seconds) => device.peers.push(SetPeer {
                persistent_keepalive: Some(*seconds),
                ..existing(*key)
            }),
            LaneChange::AddAllowedIp(key, net) => device.peers.push(one(*key, AllowedIpChange::Add, *net)),
            LaneChange::RemoveAllowedIp(key, net) => {
                device.peers.push(one(*key, AllowedIpChange::Remove, *net))
            }
            LaneChange::RemovePeer(key) => device.peers.push(SetPeer {
                remove: true,
                ..SetPeer::new(*key)
            }),
        }
    }
    Ok(device)
}

/// A peer with all it needs, whatever there was.
fn whole(key: PublicKey, config: &PeerConfig) -> SetPeer {
    SetPeer {
        endpoint: Some(config.endpoint),
        persistent_keepalive: Some(config.keepalive),
        replace_allowed_ips: true,
        allowed_ips: config
            .allowed_ips
            .iter()
            .copied()
            .map(AllowedIpChange::Add)
            .collect(),
        ..SetPeer::new(key)
    }
}

/// A change to a peer that must not make one: a bare peer would be worse than none.
fn existing(key: PublicKey) -> SetPeer {
    SetPeer {
        update_only: true,
        ..SetPeer::new(key)
    }
}

fn one(key: PublicKey, change: fn(IpNet) -> AllowedIpChange, net: IpNet) -> SetPeer {
    SetPeer {
        allowed_ips: vec![change(net)],
        ..existing(key)
    }
}

fn matching(public_key: PublicKey, private_key: Option<&PrivateKey>) -> Result<PrivateKey, ClientError> {
    let key = private_key.filter(|key| public_half(key) == Some(public_key));
    let key = key.ok_or(ClientError::WrongKey { public_key })?;
    Ok(PrivateKey::from_bytes(&mut { *key.expose_bytes() }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32]).unwrap()
    }

    fn text(changes: &[LaneChange]) -> String {
        request(changes, None)
            .unwrap()
            .to_text()
            .replace(&"07".repeat(32), "KEY")
    }

    #[test]
    fn a_new_peer_comes_whole() {
        let config = PeerConfig {
            endpoint: "192.0.2.1:51820".parse().unwrap(),
            allowed_ips: ["10.244.1.0/24".parse().unwrap()].into(),
            keepalive: 25,
        };
        assert_eq!(
            text(&[LaneChange::SetPort(51820), LaneChange::AddPeer(key(7), config)]),
            "set=1\nlisten_port=51820\npublic_key=KEY\nendpoint=192.0.2.1:51820\npersistent_keepalive_interval=25\n\
             replace_allowed_ips=true\nallowed_ip=10.244.1.0/24\n\n"
        );
    }

    #[test]
    fn a_change_to_a_peer_makes_none() {
        let net = "10.244.1.0/24".parse().unwrap();
        let existing = "set=1\npublic_key=KEY\nupdate_only=true\n";
        assert_eq!(
            text(&[LaneChange::AddAllowedIp(key(7), net)]),
            format!("{existing}allowed_ip=10.244.1.0/24\n\n")
        );
        assert_eq!(
            text(&[LaneChange::RemoveAllowedIp(key(7), net)]),
            format!("{existing}allowed_ip=-10.244.1.0/24\n\n")
        );
        assert_eq!(
            text(&[LaneChange::RemovePeer(key(7))]),
            "set=1\npublic_key=KEY\nremove=true\n\n"
        );
    }

    #[test]
    fn a_private_key_that_is_not_the_one_meant_is_not_sent() {
        let private = PrivateKey::from_bytes(&mut [9; 32]);
        let public = public_half(&private).unwrap();
        assert!(request(&[LaneChange::SetKey(Some(public))], Some(&private)).is_ok());
        for (meant, at_hand) in [(key(7), Some(&private)), (public, None)] {
            let refused = request(&[LaneChange::SetKey(Some(meant))], at_hand);
            assert!(matches!(refused, Err(ClientError::WrongKey { .. })));
        }
    }
}
