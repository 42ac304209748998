//! What comes back.

use warren_plan::OpenPod;

use super::attributes::{attributes, find};
use super::{
    FAMILY_HEADER_BYTES, HEADER_BYTES, NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN, NFT_MSG_NEWOBJ,
    NFT_MSG_NEWSETELEM, NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS, NFTA_DATA_VALUE, NFTA_GEN_ID,
    NFTA_GEN_PROC_NAME, NFTA_OBJ_DATA, NFTA_OBJ_NAME, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_TABLE_NAME, NLMSG_DONE, NLMSG_ERROR, part, pod_of,
};
use crate::guard::DropCounter;

/// The messages in what one read gave. What is cut off is left out.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
        let message = bytes.get(..length).filter(|_| length >= HEADER_BYTES)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message(message))
    })
}

/// A message that came, header and all.
pub(crate) struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    pub(crate) fn sequence(&self) -> u32 {
        u32::from_ne_bytes(part(self.0, 8))
    }

    /// Somebody changed what was being listed.
    pub(crate) fn is_interrupted(&self) -> bool {
        const NLM_F_DUMP_INTR: u16 = 0x10;
        u16::from_ne_bytes(part(self.0, 6)) & NLM_F_DUMP_INTR != 0
    }

    /// The end of a list.
    pub(crate) fn is_done(&self) -> bool {
        self.kind() == NLMSG_DONE
    }

    /// The error number that a request is answered with, 0 for none; `None` if this is something else. A list may end
    /// with one as well.
    pub(crate) fn error(&self) -> Option<i32> {
        let number = || i32::from_ne_bytes(part(self.0, HEADER_BYTES)).saturating_neg();
        match self.kind() {
            NLMSG_ERROR => Some(number()),
            NLMSG_DONE if number() != 0 => Some(number()),
            _ => None,
        }
    }

    pub(crate) fn generation(&self) -> Option<u32> {
        let of_kind = self.kind() == NFT_MSG_NEWGEN;
        let value = find(self.attributes(), NFTA_GEN_ID).filter(|_| of_kind)?;
        Some(u32::from_be_bytes(*value.first_chunk()?))
    }

    /// The name of the process whose transaction has made this generation.
    pub(crate) fn process(&self) -> Option<String> {
        let of_kind = self.kind() == NFT_MSG_NEWGEN;
        let name = find(self.attributes(), NFTA_GEN_PROC_NAME).filter(|_| of_kind)?;
        Some(text(name))
    }

    /// Whether it is about the table of that name and family inet, or something in it.
    pub(crate) fn is_about_table(&self, table: &str) -> bool {
        let [family]: [u8; 1] = part(self.0, HEADER_BYTES);
        self.kind() >> 8 == NFNL_SUBSYS_NFTABLES
            && self.kind() != NFT_MSG_NEWGEN
            && i32::from(family) == libc::NFPROTO_INET
            && find(self.attributes(), NFTA_TABLE_NAME).is_some_and(|name| text(name) == table)
    }

    pub(crate) fn counter(&self) -> Option<DropCounter> {
        let attributes = self.attributes();
        let name = find(attributes, NFTA_OBJ_NAME).filter(|_| self.kind() == NFT_MSG_NEWOBJ)?;
        let data = find(attributes, NFTA_OBJ_DATA)?;
        let number = |kind| Some(u64::from_be_bytes(*find(data, kind)?.first_chunk()?));
        Some(DropCounter {
            reason: text(name),
            packets: number(NFTA_COUNTER_PACKETS)?,
            bytes: number(NFTA_COUNTER_BYTES)?,
        })
    }

    /// The open pods of a family in this part of their list.
    pub(crate) fn pods(&self, v6: bool) -> impl Iterator<Item = OpenPod> + use<'a> {
        let of_kind = self.kind() == NFT_MSG_NEWSETELEM;
        let list = find(self.attributes(), NFTA_SET_ELEM_LIST_ELEMENTS).filter(|_| of_kind);
        attributes(list.unwrap_or_default())
            .filter_map(|(_, element)| find(find(element, NFTA_SET_ELEM_KEY)?, NFTA_DATA_VALUE))
            .filter_map(move |key| pod_of(key, v6))
    }

    /// Subsystem and number.
    pub(crate) fn kind(&self) -> u16 {
        u16::from_ne_bytes(part(self.0, 4))
    }

    /// The family, of the header that all of netfilter's messages have.
    pub(crate) fn family(&self) -> u8 {
        let [family] = part(self.0, HEADER_BYTES);
        family
    }

    /// What follows the headers.
    pub(crate) fn attributes(&self) -> &'a [u8] {
        self.0
            .get(HEADER_BYTES + FAMILY_HEADER_BYTES..)
            .unwrap_or_default()
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into_owned()
}
