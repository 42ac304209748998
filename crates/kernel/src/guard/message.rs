//! The netlink messages that [`netfilter`](super::netfilter) sends and reads, byte by byte: headers and alignment as in
//! netlink(7), types and attributes as in `linux/netfilter/nfnetlink.h` and `nf_tables.h`.

use std::net::IpAddr;

use warren_plan::OpenPod;

use super::DropCounter;
use super::render::{PODS_V4, PODS_V6, TABLE};

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

const NLA_F_NESTED: u16 = 1 << 15;
const NLA_F_NET_BYTEORDER: u16 = 1 << 14;

/// `IFNAMSIZ`: the first part of a key, an interface's name with zeros behind.
const NAME_BYTES: usize = 16;
/// Elements a message: an attribute has at most 64 KiB, and one element takes less than 64 bytes.
const ELEMENTS_AT_MOST: usize = 500;
const HEADER_BYTES: usize = 16;
/// `struct nfgenmsg`: family, version, and an identifier in network byte order.
const FAMILY_HEADER_BYTES: usize = 4;

/// One question.
pub(super) struct Request {
    kind: u16,
    attributes: Attributes,
}

impl Request {
    /// For the generation of all rules.
    pub(super) fn generation() -> Self {
        Self {
            kind: NFT_MSG_GETGEN,
            attributes: Attributes::default(),
        }
    }

    /// For all counters of the table.
    pub(super) fn counters() -> Self {
        let mut attributes = Attributes::default();
        attributes.text(NFTA_OBJ_TABLE, TABLE);
        attributes.number(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
        Self {
            kind: NFT_MSG_GETOBJ,
            attributes,
        }
    }

    /// For the open pods of one family.
    pub(super) fn pods(v6: bool) -> Self {
        Self {
            kind: NFT_MSG_GETSETELEM,
            attributes: set(v6),
        }
    }

    /// Whether the answer is a list, with an end of its own.
    pub(super) fn is_dump(&self) -> bool {
        self.kind != NFT_MSG_GETGEN
    }

    pub(super) fn bytes(&self, sequence: u32) -> Vec<u8> {
        let flags = libc::NLM_F_REQUEST | if self.is_dump() { libc::NLM_F_DUMP } else { 0 };
        let mut bytes = Vec::new();
        push(
            &mut bytes,
            self.kind,
            flags,
            sequence,
            libc::NFPROTO_INET,
            0,
            &self.attributes,
        );
        bytes
    }
}

/// One transaction that changes which pods are open.
pub(super) struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    changes: Vec<(u16, i32, Attributes)>,
}

impl Batch {
    /// One that is refused (`ERESTART`) unless the rules are of this generation. The first message has this number.
    pub(super) fn new(sequence: u32, generation: u32) -> Self {
        let mut attributes = Attributes::default();
        attributes.number(NFNL_BATCH_GENID, generation);
        let mut bytes = Vec::new();
        push(
            &mut bytes,
            NFNL_MSG_BATCH_BEGIN,
            libc::NLM_F_REQUEST,
            sequence,
            libc::AF_UNSPEC,
            NFNL_SUBSYS_NFTABLES,
            &attributes,
        );
        Self {
            bytes,
            sequence,
            changes: Vec::new(),
        }
    }

    /// Opens pods.
    pub(super) fn open(&mut self, pods: &[OpenPod]) {
        self.change(NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE, pods);
    }

    /// Closes pods that are open.
    pub(super) fn close(&mut self, pods: &[OpenPod]) {
        self.change(NFT_MSG_DELSETELEM, 0, pods);
    }

    fn change(&mut self, kind: u16, flags: i32, pods: &[OpenPod]) {
        for v6 in [false, true] {
            let of_family: Vec<&OpenPod> = pods.iter().filter(|pod| pod.address.is_ipv6() == v6).collect();
            for some in of_family.chunks(ELEMENTS_AT_MOST) {
                let mut attributes = set(v6);
                attributes.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                    for pod in some {
                        list.nest(NFTA_LIST_ELEM, |element| {
                            element.nest(NFTA_SET_ELEM_KEY, |key| key.bytes(NFTA_DATA_VALUE, &key_of(pod)));
                        });
                    }
                });
                self.changes.push((kind, flags, attributes));
            }
        }
    }

    /// The bytes, the number of the last change, which is answered, and that of the last message. `None`: there is
    /// nothing to change.
    pub(super) fn finish(mut self) -> Option<(Vec<u8>, u32, u32)> {
        let last = self.changes.len().checked_sub(1)?;
        for (index, (kind, flags, attributes)) in self.changes.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let answered = if index == last { libc::NLM_F_ACK } else { 0 };
            let flags = libc::NLM_F_REQUEST | flags | answered;
            push(
                &mut self.bytes,
                *kind,
                flags,
                self.sequence,
                libc::NFPROTO_INET,
                0,
                attributes,
            );
        }
        let last_change = self.sequence;
        let end = last_change.wrapping_add(1);
        push(
            &mut self.bytes,
            NFNL_MSG_BATCH_END,
            libc::NLM_F_REQUEST,
            end,
            libc::AF_UNSPEC,
            NFNL_SUBSYS_NFTABLES,
            &Attributes::default(),
        );
        Some((self.bytes, last_change, end))
    }
}

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

/// Appends one message.
fn push(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: i32,
    sequence: u32,
    family: i32,
    resource: u16,
    attributes: &Attributes,
) {
    let length = HEADER_BYTES + FAMILY_HEADER_BYTES + attributes.0.len();
    // A batch is split long before that.
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(u16::try_from(flags).unwrap_or_default().to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([u8::try_from(family).unwrap_or_default(), 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(&attributes.0);
}

/// Attributes to send, each padded to four bytes.
#[derive(Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), b"\0"].concat());
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(kind | NLA_F_NESTED, &inner.0);
    }
}

/// The messages in what one read gave. What is cut off is left out.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
        let message = bytes.get(..length).filter(|_| length >= HEADER_BYTES)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message(message))
    })
}

/// A message that came, header and all.
pub(super) struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    pub(super) fn sequence(&self) -> u32 {
        u32::from_ne_bytes(part(self.0, 8))
    }

    /// Somebody changed what was being listed.
    pub(super) fn is_interrupted(&self) -> bool {
        const NLM_F_DUMP_INTR: u16 = 0x10;
        u16::from_ne_bytes(part(self.0, 6)) & NLM_F_DUMP_INTR != 0
    }

    /// The end of a list.
    pub(super) fn is_done(&self) -> bool {
        self.kind() == NLMSG_DONE
    }

    /// The error number that a request is answered with, 0 for none; `None` if this is something else. A list may end
    /// with one as well.
    pub(super) fn error(&self) -> Option<i32> {
        let number = || i32::from_ne_bytes(part(self.0, HEADER_BYTES)).saturating_neg();
        match self.kind() {
            NLMSG_ERROR => Some(number()),
            NLMSG_DONE if number() != 0 => Some(number()),
            _ => None,
        }
    }

    pub(super) fn generation(&self) -> Option<u32> {
        let of_kind = self.kind() == NFT_MSG_NEWGEN;
        let value = find(self.attributes(), NFTA_GEN_ID).filter(|_| of_kind)?;
        Some(u32::from_be_bytes(*value.first_chunk()?))
    }

    pub(super) fn counter(&self) -> Option<DropCounter> {
        let attributes = self.attributes();
        let name = find(attributes, NFTA_OBJ_NAME).filter(|_| self.kind() == NFT_MSG_NEWOBJ)?;
        let data = find(attributes, NFTA_OBJ_DATA)?;
        let number = |kind| Some(u64::from_be_bytes(*find(data, kind)?.first_chunk()?));
        Some(DropCounter {
            reason: String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name)).into_owned(),
            packets: number(NFTA_COUNTER_PACKETS)?,
            bytes: number(NFTA_COUNTER_BYTES)?,
        })
    }

    /// The open pods of a family in this part of their list.
    pub(super) fn pods(&self, v6: bool) -> impl Iterator<Item = OpenPod> + use<'a> {
        let of_kind = self.kind() == NFT_MSG_NEWSETELEM;
        let list = find(self.attributes(), NFTA_SET_ELEM_LIST_ELEMENTS).filter(|_| of_kind);
        attributes(list.unwrap_or_default())
            .filter_map(|(_, element)| find(find(element, NFTA_SET_ELEM_KEY)?, NFTA_DATA_VALUE))
            .filter_map(move |key| pod_of(key, v6))
    }

    fn kind(&self) -> u16 {
        u16::from_ne_bytes(part(self.0, 4))
    }

    fn attributes(&self) -> &'a [u8] {
        self.0
            .get(HEADER_BYTES + FAMILY_HEADER_BYTES..)
            .unwrap_or_default()
    }
}

/// Bytes at a place; zeros where there are none.
fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().unwrap_or([0; N])
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// Kind and value of each attribute. What is cut off is left out.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(part(bytes, 2)) & !(NLA_F_NESTED | NLA_F_NET_BYTEORDER);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
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
