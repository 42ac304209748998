//! What is sent: questions, and transactions that change which pods are open.

use warren_plan::OpenPod;

use super::attributes::Attributes;
use super::{
    FAMILY_HEADER_BYTES, HEADER_BYTES, NFNL_BATCH_GENID, NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END,
    NFNL_SUBSYS_NFTABLES, NFT_MSG_DELSETELEM, NFT_MSG_GETGEN, NFT_MSG_GETOBJ, NFT_MSG_GETSETELEM,
    NFT_MSG_NEWSETELEM, NFT_OBJECT_COUNTER, NFTA_DATA_VALUE, NFTA_LIST_ELEM, NFTA_OBJ_TABLE, NFTA_OBJ_TYPE,
    NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_LIST_ELEMENTS, key_of, set,
};

/// Elements a message: an attribute has at most 64 KiB, and one element takes less than 64 bytes.
const ELEMENTS_AT_MOST: usize = 500;

/// One question.
pub(in crate::guard) struct Request {
    kind: u16,
    attributes: Attributes,
}

impl Request {
    /// For the generation of all rules.
    pub(in crate::guard) fn generation() -> Self {
        Self {
            kind: NFT_MSG_GETGEN,
            attributes: Attributes::default(),
        }
    }

    /// For all counters of a table.
    pub(in crate::guard) fn counters(table: &str) -> Self {
        let mut attributes = Attributes::default();
        attributes.text(NFTA_OBJ_TABLE, table);
        attributes.number(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
        Self {
            kind: NFT_MSG_GETOBJ,
            attributes,
        }
    }

    /// For the open pods of one family.
    pub(in crate::guard) fn pods(v6: bool) -> Self {
        Self {
            kind: NFT_MSG_GETSETELEM,
            attributes: set(v6),
        }
    }

    /// Whether the answer is a list, with an end of its own.
    pub(in crate::guard) fn is_dump(&self) -> bool {
        self.kind != NFT_MSG_GETGEN
    }

    pub(in crate::guard) fn bytes(&self, sequence: u32) -> Vec<u8> {
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
pub(in crate::guard) struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    changes: Vec<(u16, i32, Attributes)>,
}

impl Batch {
    /// One that is refused (`ERESTART`) unless the rules are of this generation. The first message has this number.
    pub(in crate::guard) fn new(sequence: u32, generation: u32) -> Self {
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
    pub(in crate::guard) fn open(&mut self, pods: &[OpenPod]) {
        self.change(NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE, pods);
    }

    /// Closes pods that are open.
    pub(in crate::guard) fn close(&mut self, pods: &[OpenPod]) {
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
    pub(in crate::guard) fn finish(mut self) -> Option<(Vec<u8>, u32, u32)> {
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
