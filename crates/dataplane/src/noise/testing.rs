//! What tests of the protocol share.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rand_core::{CryptoRng, RngCore};
use warren_model::{PrivateKey, PublicKey};

use super::Gate;

/// Random numbers that are the same each time (splitmix64). No secret at all.
pub(crate) struct TestRng(u64);

impl TestRng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One of `0..bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }
}

impl RngCore for TestRng {
    fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for TestRng {}

/// A device's keys, made of one byte.
pub(crate) fn gate(byte: u8) -> Gate {
    Gate::new(&PrivateKey::from_bytes(&mut [byte; 32]))
}

/// The public key of a device's keys.
pub(crate) fn public(gate: &Gate) -> PublicKey {
    PublicKey::from_bytes(*gate.local().public_bytes()).unwrap()
}
