//! What a pod's veth tells of its attachment: the alias of its host side, written before the veth is up.
//!
//! The veth is in use for just as long as its addresses are. So when the file of attachments is lost, what the veths
//! say is all there is to know.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;
use warren_ipam::Owner;
use warren_kernel::veth::MAX_LABEL;

/// What every label begins with.
const MARK: &str = "warren:";

/// One attachment, as its veth tells of it: `warren:CONTAINERID/IFNAME ADDRESS[,ADDRESS] NETNS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Whose veth it is.
    pub owner: Owner,
    /// The addresses the pod was given, at least one.
    pub addresses: Vec<IpAddr>,
    /// Path of the pod's network namespace, as the runtime gave it.
    pub netns: String,
}

impl Label {
    /// The text for the kernel; `None` if it is too long for it, which takes a container id or a path far longer than
    /// those of any runtime. Such a veth cannot be told whose it is.
    pub fn to_alias(&self) -> Option<String> {
        Some(self.to_string()).filter(|text| text.len() <= MAX_LABEL)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        write!(f, "{MARK}{} {} {}", self.owner, addresses.join(","), self.netns)
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let text = text.strip_prefix(MARK).ok_or(LabelError::Mark)?;
        let mut fields = text.splitn(3, ' ');
        let mut field = || {
            fields
                .next()
                .filter(|it| !it.is_empty())
                .ok_or(LabelError::Fields)
        };
        let (owner, addresses, netns) = (field()?, field()?, field()?);
        let (container_id, if_name) = owner.rsplit_once('/').ok_or(LabelError::Fields)?;
        let addresses: Result<Vec<IpAddr>, _> = addresses.split(',').map(str::parse).collect();
        Ok(Self {
            owner: Owner {
                container_id: container_id.to_owned(),
                if_name: if_name.to_owned(),
            },
            addresses: addresses.map_err(|_| LabelError::Address)?,
            netns: netns.to_owned(),
        })
    }
}

/// Why an alias is no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LabelError {
    /// Somebody else's alias.
    #[error("it does not begin with {MARK:?}")]
    Mark,
    /// It is cut off.
    #[error("it does not have an owner, addresses and a namespace")]
    Fields,
    /// No IP address where one should be.
    #[error("one of its addresses is none")]
    Address,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn label() -> Label {
        Label {
            owner: Owner {
                container_id: "0123456789abcdef".repeat(4),
                if_name: "eth0".to_owned(),
            },
            addresses: vec!["10.244.1.5".parse().unwrap(), "fd10:244:1::5".parse().unwrap()],
            netns: "/var/run/netns/cni-3f0b6a52-6a5b-4c0e-9d6e-0d1f7f0f8a11".to_owned(),
        }
    }

    #[test]
    fn a_label_is_read_as_it_was_written_and_fits_what_runtimes_give() {
        let label = label();
        let alias = label.to_alias().unwrap();
        assert!(alias.starts_with("warren:0123456789abcdef0123"));
        assert!(alias.ends_with(
            "/eth0 10.244.1.5,fd10:244:1::5 /var/run/netns/cni-3f0b6a52-6a5b-4c0e-9d6e-0d1f7f0f8a11"
        ));
        assert_eq!(alias.parse::<Label>().unwrap(), label);
        let spaced = Label {
            netns: "/run/my netns/a".to_owned(),
            ..label.clone()
        };
        assert_eq!(spaced.to_string().parse::<Label>().unwrap(), spaced);
        let long = Label {
            netns: format!("/{}", "n".repeat(MAX_LABEL)),
            ..label
        };
        assert_eq!(long.to_alias(), None);
    }

    #[test]
    fn a_label_that_was_cut_off_is_not_taken_for_another() {
        let label = label();
        let whole = label.to_string();
        let netns_begins = whole.len() - label.netns.len();
        for cut in 0..=netns_begins {
            whole[..cut].parse::<Label>().unwrap_err();
        }
        assert_eq!(
            "warren:a/eth0 10.0.0.1,x /n".parse::<Label>(),
            Err(LabelError::Address)
        );
        assert_eq!("uplink".parse::<Label>(), Err(LabelError::Mark));
    }
}
