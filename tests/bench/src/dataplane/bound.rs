//! What these cores would allow: carrying bytes as bare veth does, and sealing and opening each of them once.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// What a packet of an interface with the usual MTU holds.
const PACKET: usize = 1420;

/// How long the cipher is measured, each way.
const TIME: Duration = Duration::from_millis(300);

/// Between two looks at the clock.
const PACKETS: u32 = 200;

/// How fast one core is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cipher {
    /// Bytes a second.
    pub(super) sealing: f64,
    pub(super) opening: f64,
}

impl Cipher {
    /// Measures ring's ChaCha20-Poly1305, the fastest there is in Rust.
    pub(super) fn measure() -> anyhow::Result<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).map_err(|_| anyhow!("a key of 32 bytes"))?;
        let key = LessSafeKey::new(key);
        let nonce = || Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let mut packet = [1; PACKET];
        let sealing = speed(|| {
            key.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut packet)
                .map(drop)
                .map_err(|_| anyhow!("cannot seal"))
        })?;
        let plain = [1; PACKET];
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed)
            .map_err(|_| anyhow!("cannot seal"))?;
        let mut packet = sealed.clone();
        let opening = speed(|| {
            packet.copy_from_slice(&sealed);
            key.open_in_place(nonce(), Aad::empty(), &mut packet)
                .map(drop)
                .map_err(|_| anyhow!("cannot open"))
        })?;
        Ok(Self { sealing, opening })
    }

    /// Gigabytes a second that `cores` can carry, where carrying one without a tunnel takes so much processor time.
    pub(super) fn bound(self, cores: f64, plain_seconds_a_gigabyte: f64) -> f64 {
        cores / (plain_seconds_a_gigabyte + 1e9 / self.sealing + 1e9 / self.opening)
    }
}

/// Bytes a second.
fn speed(mut packet: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let (started, mut packets) = (Instant::now(), 0);
    while started.elapsed() < TIME {
        for _ in 0..PACKETS {
            packet()?;
        }
        packets += PACKETS;
    }
    Ok(f64::from(packets) * 1420.0 / started.elapsed().as_secs_f64())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn sealing_opening_and_carrying_share_the_cores() {
        let cipher = Cipher {
            sealing: 2e9,
            opening: 2e9,
        };
        assert!((cipher.bound(2.0, 1.0) - 1.0).abs() < 1e-9);
        assert!((cipher.bound(4.0, 1.0) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_cipher_has_a_speed() {
        let cipher = Cipher::measure().unwrap();
        assert!(cipher.sealing > 1e6 && cipher.opening > 1e6, "{cipher:?}");
    }
}
