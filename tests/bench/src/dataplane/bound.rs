//! What these cores would allow: carrying bytes as bare veth does, and sealing and opening each of them once.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use warren_cipher::Key;

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
    /// Measures the implementation that this key is for, on two packets at once, as `warren-wg` handles them.
    pub(super) fn measure(key: &Key) -> anyhow::Result<Self> {
        let mut packets = [[1; PACKET]; 2];
        let sealing = speed(|| {
            std::hint::black_box(key.seal_two([0, 1], packets.each_mut().map(|packet| &mut packet[..])));
            Ok(())
        })?;
        let sealed = [0, 1].map(|counter| {
            let mut sealed = vec![1; PACKET];
            let tag = key.seal(counter, &mut sealed);
            sealed.extend(tag);
            sealed
        });
        let mut places = sealed.clone();
        let opening = speed(|| {
            for (place, sealed) in places.iter_mut().zip(&sealed) {
                place.copy_from_slice(sealed);
            }
            let opened = key.open_two([0, 1], places.each_mut().map(|place| &mut place[..]));
            match opened {
                [Ok(_), Ok(_)] => Ok(()),
                _ => Err(anyhow!("cannot open")),
            }
        })?;
        Ok(Self { sealing, opening })
    }

    /// Gigabytes a second that `cores` can carry, where carrying one without a tunnel takes so much processor time.
    pub(super) fn bound(self, cores: f64, plain_seconds_a_gigabyte: f64) -> f64 {
        cores / (plain_seconds_a_gigabyte + 1e9 / self.sealing + 1e9 / self.opening)
    }
}

/// Bytes a second of what handles two packets.
fn speed(mut two: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let (started, mut packets) = (Instant::now(), 0);
    while started.elapsed() < TIME {
        for _ in 0..PACKETS / 2 {
            two()?;
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
        for key in [Key::new(&[7; 32]), Key::with_ring(&[7; 32])] {
            let cipher = Cipher::measure(&key).unwrap();
            assert!(cipher.sealing > 1e6 && cipher.opening > 1e6, "{cipher:?}");
        }
    }
}
