//! Names that come from the runtime and end up in paths and kernel requests.

use std::fmt;
use std::path::{Component, Path};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest container id or network name. They end up in file names, which Linux limits to this.
const MAX_ID_BYTES: usize = 255;
/// The longest interface name: IFNAMSIZ without the final NUL.
const MAX_IF_NAME_BYTES: usize = 15;
/// The longest path: PATH_MAX without the final NUL.
const MAX_PATH_BYTES: usize = 4095;

/// A parsed name that is written as a plain string.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                $check(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A container's id: a letter or digit, then letters, digits, `_`, `.` and `-` (CNI specification, section 2,
    /// `CNI_CONTAINERID`), at most 255 bytes. It has no `/`, so it is safe as a file name.
    ContainerId, check_id
}

name! {
    /// A network's name; the same characters as a container's id (CNI specification, section 1, `name`).
    NetworkName, check_id
}

name! {
    /// The name of a network interface: 1 to 15 bytes, not `.` or `..`, no `/`, `:`, white space, control character
    /// or `%` (which the kernel takes for a pattern to fill in).
    IfName, check_if_name
}

name! {
    /// The path of a network namespace: absolute, without `..`, naming a file.
    NetnsPath, check_netns
}

impl NetnsPath {
    /// As a path to open.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }
}

/// What makes one attachment: an interface of a container. At most one exists of each.
///
/// Written as GC's `cni.dev/valid-attachments` writes it, `{"containerID", "ifname"}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttachmentId {
    /// The container (`CNI_CONTAINERID`).
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// The interface in it (`CNI_IFNAME`).
    #[serde(rename = "ifname")]
    pub if_name: IfName,
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.if_name)
    }
}

/// Why a text is not the name it should be. The text is not repeated in full, since it may be of any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is no text.
    #[error("is empty")]
    Empty,
    /// It has more bytes than allowed.
    #[error("has {got} bytes, at most {most} are allowed")]
    TooLong {
        /// How many it has.
        got: usize,
        /// How many it may have.
        most: usize,
    },
    /// It begins with something else than an ASCII letter or digit.
    #[error("must begin with a letter or digit")]
    Start,
    /// It has a character that is not allowed.
    #[error("has the character {0:?}, which is not allowed")]
    Character(char),
    /// It is `.` or `..`, or a path with such a part.
    #[error("must not be or contain \"..\" or be \".\"")]
    Dots,
    /// The path is relative, or names no file.
    #[error("must be an absolute path of a file")]
    NotAbsolute,
}

pub(crate) fn check_id(text: &str) -> Result<(), NameError> {
    check_length(text, MAX_ID_BYTES)?;
    if !text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return Err(NameError::Start);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    refuse(text, |c| !allowed(c))
}

fn check_if_name(text: &str) -> Result<(), NameError> {
    check_length(text, MAX_IF_NAME_BYTES)?;
    if matches!(text, "." | "..") {
        return Err(NameError::Dots);
    }
    refuse(text, |c| {
        matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control()
    })
}

fn check_netns(text: &str) -> Result<(), NameError> {
    check_length(text, MAX_PATH_BYTES)?;
    refuse(text, char::is_control)?;
    let path = Path::new(text);
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(NameError::Dots);
    }
    if !path.is_absolute() || path.file_name().is_none() {
        return Err(NameError::NotAbsolute);
    }
    Ok(())
}

fn check_length(text: &str, most: usize) -> Result<(), NameError> {
    match text.len() {
        0 => Err(NameError::Empty),
        got if got > most => Err(NameError::TooLong { got, most }),
        _ => Ok(()),
    }
}

fn refuse(text: &str, wrong: impl Fn(char) -> bool) -> Result<(), NameError> {
    text.chars()
        .find(|c| wrong(*c))
        .map_or(Ok(()), |c| Err(NameError::Character(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_ids_cannot_leave_a_directory() {
        for good in ["a", "0", "abc-DEF_1.2", "a..b", &"f".repeat(255)] {
            assert!(good.parse::<ContainerId>().is_ok(), "{good}");
        }
        for (bad, error) in [
            ("", NameError::Empty),
            ("..", NameError::Start),
            ("-rf", NameError::Start),
            (".hidden", NameError::Start),
            ("a/b", NameError::Character('/')),
            ("a\0", NameError::Character('\0')),
            ("a b", NameError::Character(' ')),
            ("aé", NameError::Character('é')),
            (&"f".repeat(256), NameError::TooLong { got: 256, most: 255 }),
        ] {
            assert_eq!(bad.parse::<ContainerId>(), Err(error), "{bad}");
        }
    }

    #[test]
    fn interface_names_are_those_the_kernel_takes_literally() {
        for good in ["eth0", "a", "net-1.2", "123456789012345", "..."] {
            assert!(good.parse::<IfName>().is_ok(), "{good}");
        }
        for (bad, error) in [
            ("", NameError::Empty),
            (".", NameError::Dots),
            ("..", NameError::Dots),
            ("a/b", NameError::Character('/')),
            ("eth0:1", NameError::Character(':')),
            ("eth 0", NameError::Character(' ')),
            ("eth\u{a0}0", NameError::Character('\u{a0}')),
            ("eth%d", NameError::Character('%')),
            ("eth\n", NameError::Character('\n')),
            ("1234567890123456", NameError::TooLong { got: 16, most: 15 }),
            ("ääääääää", NameError::TooLong { got: 16, most: 15 }),
        ] {
            assert_eq!(bad.parse::<IfName>(), Err(error), "{bad}");
        }
    }

    #[test]
    fn namespace_paths_are_absolute_and_go_straight_down() {
        for good in ["/var/run/netns/cni-1", "/proc/7/ns/net"] {
            assert!(good.parse::<NetnsPath>().is_ok(), "{good}");
        }
        for (bad, error) in [
            ("", NameError::Empty),
            ("run/netns/a", NameError::NotAbsolute),
            ("/", NameError::NotAbsolute),
            ("/run/../etc/passwd", NameError::Dots),
            ("/run/netns/..", NameError::Dots),
            ("/run/a\0b", NameError::Character('\0')),
        ] {
            assert_eq!(bad.parse::<NetnsPath>(), Err(error), "{bad}");
        }
    }
}
