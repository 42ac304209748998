//! WireGuard keys: Curve25519 points and scalars of 32 bytes, in base64 of 44 characters (RFC 4648, padded).

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A peer's public key: 32 bytes that are a usable Curve25519 point. All-zero and other low-order points are refused,
/// because a Diffie-Hellman with them is known to everybody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Takes raw bytes; fails for a point of low order.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        if is_low_order(&bytes) {
            Err(KeyError::LowOrder)
        } else {
            Ok(Self(bytes))
        }
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight characters of the base64 form, for logs and tables.
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_bytes(decode(text)?)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

/// A private key. It has neither `Debug`, `Display`, `Clone` nor `Serialize`, and its memory is overwritten when it is
/// dropped; whoever wants its bytes must say so by name. They stay in one place: a value that is moved, as into a map and out of
/// it, leaves what it was behind, where nothing overwrites it.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey(Box<[u8; 32]>);

impl PrivateKey {
    /// Takes 32 secret bytes and clamps them as RFC 7748, section 5 asks. The caller's copy is overwritten.
    pub fn from_bytes(bytes: &mut [u8; 32]) -> Self {
        let mut key = Self(Box::new([0; 32]));
        key.0.copy_from_slice(bytes);
        bytes.zeroize();
        key.0[0] &= 248;
        key.0[31] = (key.0[31] & 127) | 64;
        key
    }

    /// The secret bytes. Hand them to a device or a file and to nothing else.
    pub fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Text or bytes that are not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not base64 of exactly 32 bytes.
    #[error("not a WireGuard key: it takes 44 characters of base64 that hold 32 bytes")]
    Malformed,
    /// A point whose shared secret anyone can compute (the all-zero key among them).
    #[error("a public key of low order, which would encrypt to nobody's secret")]
    LowOrder,
}

fn decode(text: &str) -> Result<[u8; 32], KeyError> {
    let bytes = STANDARD.decode(text).map_err(|_| KeyError::Malformed)?;
    bytes.try_into().map_err(|_| KeyError::Malformed)
}

/// The points of order 1, 2, 4 and 8 on Curve25519 and its twist, little-endian, the top bit cleared
/// (Bernstein, "Curve25519: new Diffie-Hellman speed records"; the list is that of <https://cr.yp.to/ecdh.html>).
fn is_low_order(bytes: &[u8; 32]) -> bool {
    const P: [u8; 32] = near_p(0xed);
    const ORDER_8_A: [u8; 32] = [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ];
    const ORDER_8_B: [u8; 32] = [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ];
    let mut point = *bytes;
    point[31] &= 127;
    let mut one = [0; 32];
    one[0] = 1;
    [[0; 32], one, ORDER_8_A, ORDER_8_B, near_p(0xec), P, near_p(0xee)].contains(&point)
}

/// A number close to the field prime 2^255 - 19, by its lowest byte.
const fn near_p(lowest: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = lowest;
    bytes[31] = 0x7f;
    bytes
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_44_characters_of_base64() {
        let text = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
        let key: PublicKey = text.parse().unwrap();
        assert_eq!(key.to_string(), text);
        assert_eq!(key.short(), "HIgo9xNz");
        for bad in [
            "",
            "HIgo9xNz",
            &text[..43],
            "!Igo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=",
        ] {
            assert_eq!(bad.parse::<PublicKey>(), Err(KeyError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn points_of_low_order_are_refused_with_and_without_the_top_bit() {
        for lowest in [0xec, 0xed, 0xee] {
            let mut bytes = near_p(lowest);
            assert_eq!(PublicKey::from_bytes(bytes), Err(KeyError::LowOrder));
            bytes[31] |= 0x80;
            assert_eq!(PublicKey::from_bytes(bytes), Err(KeyError::LowOrder));
        }
        assert_eq!(PublicKey::from_bytes([0; 32]), Err(KeyError::LowOrder));
        assert!(PublicKey::from_bytes([7; 32]).is_ok());
    }

    #[test]
    fn a_private_key_is_clamped_and_the_callers_copy_is_overwritten() {
        let mut bytes = [0xff; 32];
        let key = PrivateKey::from_bytes(&mut bytes);
        assert_eq!(bytes, [0; 32]);
        assert_eq!((key.expose_bytes()[0], key.expose_bytes()[31]), (248, 127));
    }
}
