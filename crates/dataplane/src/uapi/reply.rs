//! Answers of a device, from text: the client's half of the protocol.

use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use warren_model::{PrivateKey, PublicKey};

use super::parse::{allowed_ip, key_bytes, number};
use super::{DeviceState, Errno, PeerState, PresharedKey};

/// An answer that is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// The device refused.
    #[error("the device refused it: {}", std::io::Error::from_raw_os_error(*.0))]
    Refused(
        /// An error number of errno.h.
        i32,
    ),
    /// It ends before `errno`.
    #[error("the answer is cut short")]
    CutShort,
    /// A line that means nothing. Its value is not shown, because it may be a key.
    #[error("the answer has a line that makes no sense: {key}")]
    Malformed {
        /// What stands before the `=`.
        key: String,
    },
}

/// Parses the answer to `get=1`. Keys that we do not know are passed over, as `wg` does.
pub fn parse_device(text: &str) -> Result<DeviceState, ReplyError> {
    let mut device = DeviceState::default();
    for_each_line(text, |key, value| {
        if key == "public_key" {
            let public_key = PublicKey::from_bytes(*key_bytes(value)?).map_err(|_| Errno::INVALID)?;
            device.peers.push(PeerState::new(public_key));
        } else if let Some(peer) = device.peers.last_mut() {
            peer_line(peer, key, value)?;
        } else {
            match key {
                "private_key" => device.private_key = Some(PrivateKey::from_bytes(&mut *key_bytes(value)?)),
                "listen_port" => device.listen_port = number(value)?,
                "fwmark" => device.fwmark = number(value)?,
                _ => {}
            }
        }
        Ok(())
    })?;
    Ok(device)
}

/// Parses the answer to `get=drops` into names of reasons with their counts.
pub fn parse_drops(text: &str) -> Result<Vec<(String, u64)>, ReplyError> {
    let mut drops = Vec::new();
    for_each_line(text, |key, value| {
        drops.push((key.to_owned(), number(value)?));
        Ok(())
    })?;
    Ok(drops)
}

/// Parses the answer to `set=1`.
pub fn parse_status(text: &str) -> Result<(), ReplyError> {
    for_each_line(text, |_, _| Err(Errno::INVALID))
}

fn peer_line(peer: &mut PeerState, key: &str, value: &str) -> Result<(), Errno> {
    match key {
        "preshared_key" => peer.preshared_key = PresharedKey::from_bytes(&mut *key_bytes(value)?),
        "endpoint" => peer.endpoint = Some(value.parse::<SocketAddr>().map_err(|_| Errno::INVALID)?),
        "last_handshake_time_sec" => {
            let nanos = peer.last_handshake.unwrap_or_default().subsec_nanos();
            peer.last_handshake = some_time(Duration::new(number(value)?, nanos));
        }
        "last_handshake_time_nsec" => {
            let secs = peer.last_handshake.unwrap_or_default().as_secs();
            let nanos = number::<u32>(value)?;
            if nanos >= 1_000_000_000 {
                return Err(Errno::INVALID);
            }
            peer.last_handshake = some_time(Duration::new(secs, nanos));
        }
        "rx_bytes" => peer.rx_bytes = number(value)?,
        "tx_bytes" => peer.tx_bytes = number(value)?,
        "persistent_keepalive_interval" => peer.persistent_keepalive = number(value)?,
        "allowed_ip" => peer.allowed_ips.push(allowed_ip(value)?),
        _ => {}
    }
    Ok(())
}

/// The time 0 means that there was no handshake.
fn some_time(time: Duration) -> Option<Duration> {
    Some(time).filter(|time| !time.is_zero())
}

/// Hands each line before `errno` to `take`, then says what `errno` says. `wireguard-go` negates the number.
fn for_each_line(
    text: &str,
    mut take: impl FnMut(&str, &str) -> Result<(), Errno>,
) -> Result<(), ReplyError> {
    for line in text.lines() {
        let (key, value) = line.split_once('=').ok_or_else(|| malformed(line))?;
        if key == "errno" {
            return match number(value.strip_prefix('-').unwrap_or(value)) {
                Ok(0) => Ok(()),
                Ok(errno) => Err(ReplyError::Refused(errno)),
                Err(_) => Err(malformed(key)),
            };
        }
        take(key, value).map_err(|_| malformed(key))?;
    }
    Err(ReplyError::CutShort)
}

fn malformed(key: &str) -> ReplyError {
    ReplyError::Malformed {
        key: key.chars().take(40).collect(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::super::print;
    use super::super::print::tests::device_state;
    use super::*;
    use crate::drops::{DropCounters, DropReason};

    #[test]
    fn drops_are_read_back() {
        let counters = DropCounters::default();
        counters.count(DropReason::BadSource);
        let drops = parse_drops(&print::drops(&counters)).unwrap();
        assert_eq!(drops.len(), DropReason::ALL.len());
        assert!(drops.contains(&("bad_source".to_owned(), 1)));
    }

    #[test]
    fn a_refusal_is_understood_with_either_sign() {
        assert_eq!(parse_status("errno=98\n\n"), Err(ReplyError::Refused(98)));
        assert_eq!(parse_status("errno=-98\n\n"), Err(ReplyError::Refused(98)));
        assert_eq!(
            parse_status(&print::status(Err(Errno::INVALID))),
            Err(ReplyError::Refused(22))
        );
        assert_eq!(parse_status(&print::status(Ok(()))), Ok(()));
    }

    #[test]
    fn an_answer_cut_short_is_no_answer() {
        assert_eq!(
            parse_device("listen_port=51820\n").err(),
            Some(ReplyError::CutShort)
        );
        assert_eq!(parse_status("").err(), Some(ReplyError::CutShort));
    }

    #[test]
    fn unknown_keys_are_passed_over() {
        assert_eq!(
            parse_device("colour=blue\nlisten_port=7\nerrno=0\n\n")
                .unwrap()
                .listen_port,
            7
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = (parse_device(&text), parse_drops(&text), parse_status(&text));
        }

        #[test]
        fn what_is_printed_is_parsed_again(state in device_state()) {
            let text = state.to_text();
            prop_assert_eq!(&parse_device(&text).unwrap().to_text(), &text);
        }
    }
}
