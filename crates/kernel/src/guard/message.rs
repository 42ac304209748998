//! The netlink messages that [`netfilter`](super::netfilter) sends and reads, byte by byte: headers and alignment as in
//! netlink(7), types and attributes as in `linux/netfilter/nfnetlink.h` and `nf_tables.h`.

pub(crate) mod attributes;
mod reply;
mod request;
pub(crate) mod socket;

use std::net::IpAddr;

use warren_plan::OpenPod;

use super::render::TABLE;
use super::rules::{PODS_V4, PODS_V6};
use attributes::Attributes;
pub(crate) use reply::{Message, messages};
pub(super) use request::{Batch, Request};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_BATCH_GENID: u16 = 1;

const NFT_MSG_NEWSETELEM: u16 = NFNL_SUBSYS_NFTABLES << 8 | 12;
const NFT_MSG_GETSETELEM: u16 = NFNL_SUBSYS_NFTABLES << 8 | 13;
const NFT_MSG_DELSETELEM: u16 = NFNL_SUBSYS_NFTABLES << 8 | 14;
const NFT_MSG_NEWGEN: u16 = NFNL_SUBSYS_NFTABLES << 8 | 15;
const NFT_MSG_GETGEN: u16 = NFNL_SUBSYS_NFTABLES << 8 | 16;
const NFT_MSG_NEWOBJ: u16 = NFNL_SUBSYS_NFTABLES << 8 | 18;
const NFT_MSG_GETOBJ: u16 = NFNL_SUBSYS_NFTABLES << 8 | 19;

const NFTA_GEN_ID: u16 = 1;
const NFTA_GEN_PROC_NAME: u16 = 3;
/// The same in all messages about something in a table: `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE` and so on.
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_OBJ_TABLE: u16 = 1;
const NFTA_OBJ_NAME: u16 = 2;
const NFTA_OBJ_TYPE: u16 = 3;
const NFTA_OBJ_DATA: u16 = 4;
const NFT_OBJECT_COUNTER: u32 = 1;
const NFTA_COUNTER_BYTES: u16 = 1;
const NFTA_COUNTER_PACKETS: u16 = 2;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;

/// `IFNAMSIZ`: the first part of a key, an interface's name with zeros behind.
const NAME_BYTES: usize = 16;
const HEADER_BYTES: usize = 16;
/// `struct nfgenmsg`: family, version, and an identifier in network byte order.
const FAMILY_HEADER_BYTES: usize = 4;

/// The set of one family's open pods.
fn set(v6: bool) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.text(NFTA_SET_ELEM_LIST_TABLE, TABLE);
    attributes.text(NFTA_SET_ELEM_LIST_SET, if v6 { PODS_V6 } else { PODS_V4 });
    attributes
}

/// Interface and address, one behind the other.
fn key_of(pod: &OpenPod) -> Vec<u8> {
    let mut key = pod.interface.clone().into_bytes();
    key.resize(NAME_BYTES, 0);
    match pod.address {
        IpAddr::V4(address) => key.extend(address.octets()),
        IpAddr::V6(address) => key.extend(address.octets()),
    }
    key
}

fn pod_of(key: &[u8], v6: bool) -> Option<OpenPod> {
    let (name, address) = key.split_at_checked(NAME_BYTES)?;
    let name = name.split(|byte| *byte == 0).next()?;
    let address = if v6 {
        IpAddr::from(<[u8; 16]>::try_from(address).ok()?)
    } else {
        IpAddr::from(<[u8; 4]>::try_from(address).ok()?)
    };
    Some(OpenPod {
        interface: String::from_utf8_lossy(name).into_owned(),
        address,
    })
}

/// Bytes at a place; zeros where there are none.
fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(interface: &str, address: IpAddr) -> OpenPod {
        OpenPod {
            interface: interface.to_owned(),
            address,
        }
    }

    #[test]
    fn what_a_batch_opens_reads_back() {
        let v4 = pod("wrn0123456789ab", IpAddr::from([10, 244, 1, 5]));
        let v6 = pod("wrn0", IpAddr::from([0xfd; 16]));
        let mut batch = Batch::new(7, 3);
        batch.open(&[v6.clone(), v4.clone()]);
        let (bytes, last_change, last) = batch.finish().unwrap_or_default();
        assert_eq!((last_change, last), (9, 10));
        let all: Vec<Message<'_>> = messages(&bytes).collect();
        assert_eq!(
            all.iter().map(Message::sequence).collect::<Vec<_>>(),
            [7, 8, 9, 10]
        );
        assert_eq!(all[1].pods(false).collect::<Vec<_>>(), [v4]);
        assert_eq!(all[2].pods(true).collect::<Vec<_>>(), [v6]);
    }

    #[test]
    fn a_batch_without_changes_is_none() {
        let mut batch = Batch::new(1, 1);
        batch.open(&[]);
        batch.close(&[]);
        assert!(batch.finish().is_none());
    }

    #[test]
    fn what_is_cut_off_is_left_out() {
        let mut batch = Batch::new(1, 1);
        batch.open(&[pod("wrn0", IpAddr::from([10, 244, 1, 5]))]);
        let (bytes, ..) = batch.finish().unwrap_or_default();
        let whole = messages(&bytes).count();
        for end in 0..bytes.len() {
            let read: Vec<_> = messages(&bytes[..end])
                .flat_map(|message| message.pods(false))
                .collect();
            assert!(read.len() <= 1 && messages(&bytes[..end]).count() < whole);
        }
    }
}
