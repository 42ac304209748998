//! Key epochs, and the lane each epoch lives in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A key epoch: the cluster lives in one, a rotation raises it by one. The first is 1; 0 does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Epoch(u32);

impl Epoch {
    /// The epoch a cluster begins with.
    pub const FIRST: Self = Self(1);

    /// The epoch of that number; `None` for 0.
    pub fn new(number: u32) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// Its number, 1 or more.
    pub fn number(self) -> u32 {
        self.0
    }

    /// The lane its key lives in: the parity of its number.
    pub fn lane(self) -> Lane {
        if self.0.is_multiple_of(2) {
            Lane::Zero
        } else {
            Lane::One
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u32> for Epoch {
    type Error = &'static str;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        Self::new(number).ok_or("epochs start at 1")
    }
}

impl From<Epoch> for u32 {
    fn from(epoch: Epoch) -> Self {
        epoch.0
    }
}

/// One of the two WireGuard devices of a node. Both always receive; routes decide which one sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// `warren0`, keys of even epochs.
    Zero,
    /// `warren1`, keys of odd epochs.
    One,
}

impl Lane {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::Zero, Self::One];

    /// The name of its network interface.
    pub fn interface(self) -> &'static str {
        match self {
            Self::Zero => "warren0",
            Self::One => "warren1",
        }
    }

    /// 0 or 1, for arrays with an entry a lane.
    pub fn index(self) -> usize {
        match self {
            Self::Zero => 0,
            Self::One => 1,
        }
    }

    /// The lane whose interface has that name.
    pub fn of_interface(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.interface() == name)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.interface())
    }
}
