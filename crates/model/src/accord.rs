//! What two nodes must agree on to change the path between them without loss: on which rules, and how far each has come.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::path::PathKind;

/// A number that stands for all that decides by which kind of path any two nodes reach each other. Nodes with the same
/// accord make the same choices. Written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Accord(pub u64);

impl fmt::Display for Accord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Accord {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or("an accord has 16 hexadecimal digits")
    }
}

impl TryFrom<String> for Accord {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Accord> for String {
    fn from(accord: Accord) -> Self {
        accord.to_string()
    }
}

/// How far a node has come with an accord. Its peers send by a path in the clear only once it takes what comes there, and
/// take what it still sends by an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The accord by which it takes packets now.
    pub accepts: Accord,
    /// The accord by which it sends to all its peers; `None` while it still sends to some by an earlier one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sends: Option<Accord>,
    /// The kinds of path by which it may be sending now, and those by which others may still send because it took them.
    pub by: BTreeSet<PathKind>,
}

impl Progress {
    /// Whether it has done all that this accord asks for: it sends by no other path than the one chosen.
    pub fn has_settled(&self, accord: Accord) -> bool {
        self.sends == Some(accord)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accord_is_16_digits_and_nothing_else() {
        for number in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let text = Accord(number).to_string();
            assert_eq!((text.len(), text.parse()), (16, Ok(Accord(number))));
        }
        for text in [
            "",
            "0",
            "+000000000000001",
            "000000000000000g",
            "00000000000000000",
        ] {
            assert!(text.parse::<Accord>().is_err(), "{text}");
        }
    }
}
