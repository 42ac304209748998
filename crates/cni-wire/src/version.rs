//! Versions of the CNI specification.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A version of the CNI specification that Warren speaks, oldest first.
///
/// Versions before 0.3.0 are left out: their result holds one address per family and no interfaces, and no
/// runtime still in use asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum SpecVersion {
    /// 0.3.0: results list interfaces and addresses.
    V0_3_0,
    /// 0.3.1: the same with clearer words.
    V0_3_1,
    /// 0.4.0: adds CHECK, and `prevResult` on DEL.
    V0_4_0,
    /// 1.0.0: drops `version` from addresses.
    V1_0_0,
    /// 1.1.0: adds GC, STATUS and the MTU of interfaces and routes.
    V1_1_0,
}

impl SpecVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 5] = [
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// The newest, in which errors are told as long as the runtime's own version is not known.
    pub const NEWEST: Self = Self::V1_1_0;

    /// As the specification writes it, `1.1.0`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<SpecVersion> for &'static str {
    fn from(version: SpecVersion) -> Self {
        version.as_str()
    }
}

impl FromStr for SpecVersion {
    type Err = UnsupportedVersion;

    fn from_str(text: &str) -> Result<Self, UnsupportedVersion> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
            .ok_or_else(|| UnsupportedVersion {
                asked: text.to_owned(),
            })
    }
}

impl TryFrom<String> for SpecVersion {
    type Error = UnsupportedVersion;

    fn try_from(text: String) -> Result<Self, UnsupportedVersion> {
        text.parse()
    }
}

/// A `cniVersion` that is none of [`SpecVersion::ALL`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "CNI version {asked:?} is not supported; set cniVersion in the network configuration to one of {}",
    SpecVersion::ALL.map(SpecVersion::as_str).join(", ")
)]
pub struct UnsupportedVersion {
    /// What the configuration asks for.
    pub asked: String,
}

/// The answer to VERSION.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionReply {
    /// The version the runtime named on stdin, given back as it is.
    pub cni_version: String,
    /// What it may choose from.
    pub supported_versions: Vec<SpecVersion>,
}

impl VersionReply {
    /// The reply to what stood on stdin. Anything from which no version can be read, such as an empty stdin, is
    /// answered in the newest version: VERSION is how a runtime finds out what to say, so it must not fail.
    pub fn to_stdin(stdin: &[u8]) -> Self {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Asked {
            cni_version: String,
        }
        let cni_version = match serde_json::from_slice::<Asked>(stdin) {
            Ok(asked) if is_version(&asked.cni_version) => asked.cni_version,
            Ok(_) | Err(_) => SpecVersion::NEWEST.to_string(),
        };
        Self {
            cni_version,
            supported_versions: SpecVersion::ALL.to_vec(),
        }
    }
}

/// Three numbers with dots between, as `cniVersion` has them.
fn is_version(text: &str) -> bool {
    let number = |part: &str| (1..=5).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split('.').count() == 3 && text.split('.').all(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_read_back_from_its_text() {
        for version in SpecVersion::ALL {
            assert_eq!(version.as_str().parse(), Ok(version));
        }
        assert!(SpecVersion::ALL.is_sorted());
    }

    #[test]
    fn an_unsupported_version_is_named_with_those_that_are_supported() {
        let text = SpecVersion::from_str("0.2.0").map_err(|error| error.to_string());
        assert_eq!(
            text,
            Err("CNI version \"0.2.0\" is not supported; set cniVersion in the network configuration to one of \
                 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"
                .to_owned())
        );
    }

    #[test]
    fn version_gives_back_what_was_asked_and_survives_anything_else() {
        for (stdin, expected) in [
            (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"),
            (r#"{"cniVersion":"2.7.0"}"#, "2.7.0"),
            (r#"{"cniVersion":"../../etc"}"#, "1.1.0"),
            (r#"{"cniVersion":7}"#, "1.1.0"),
            ("{}", "1.1.0"),
            ("", "1.1.0"),
            ("nonsense", "1.1.0"),
        ] {
            assert_eq!(
                VersionReply::to_stdin(stdin.as_bytes()).cni_version,
                expected,
                "{stdin}"
            );
        }
    }
}
