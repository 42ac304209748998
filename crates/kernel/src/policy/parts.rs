//! Pieces of rules that all parts of the table share.

use warren_model::Family;
use warren_model::fnv::fnv1a;
use warren_policy::Decision;

use super::table::{DENIED, Table};
use crate::packet_log::GROUP;

/// How many packets of one denial are logged in a second, and at once after a while without any. A few a second tell what there is
/// to tell; more would cost the node what a flood is meant to cost it.
const LOGGED: (u32, u32) = (10, 20);

/// What ends a rule that denies: it is counted under its name, and goes where all that is denied goes.
pub(super) fn deny(table: &mut Table, policy: String, rule: String) -> String {
    let name = format!("deny-{:016x}", fnv1a(&format!("{policy} / {rule}")));
    let comment = comment(&format!("{rule}, {policy}"));
    format!("{}{comment}", denied(table, &name, policy, rule))
}

/// What ends a rule that allows: it is counted under its name. Of a connection only the first packet comes here.
pub(super) fn allow(table: &mut Table, policy: String, rule: String) -> String {
    let name = format!("allow-{:016x}", fnv1a(&format!("{policy} / {rule}")));
    let text = format!("counter name \"{name}\" accept");
    table.count(name, Decision::Allow, policy, rule);
    text
}

/// Counts what is denied under a name and leads it to its end.
///
/// Where denials are logged they have a chain each, because a rule whose limit is exceeded does not match: what it should have
/// denied would pass. The name tells who reads the log what denied the packet.
pub(super) fn denied(table: &mut Table, name: &str, policy: String, rule: String) -> String {
    table.count(name.to_owned(), Decision::Deny, policy, rule);
    if !table.logs {
        return format!("counter name \"{name}\" goto {DENIED}");
    }
    let (rate, burst) = LOGGED;
    let log = format!("limit rate {rate}/second burst {burst} packets log prefix \"{name}\" group {GROUP}");
    table.chain(name.to_owned(), vec![log, "drop".to_owned()]);
    format!("counter name \"{name}\" goto {name}")
}

/// A comment, of what may stand in one: the names in it are whatever somebody chose.
pub(super) fn comment(text: &str) -> String {
    // NFTNL_UDATA_COMMENT_MAXLEN is 128, with the end of the text.
    format!(" comment \"{}\"", plain(text, 120))
}

/// As much of a text as fits, of characters that nft takes in a quoted text.
pub(super) fn plain(text: &str, longest: usize) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || " -_./:,[]".contains(c);
    let text = text.chars().take(longest);
    text.map(|c| if allowed(c) { c } else { '?' }).collect()
}

/// What the names of sets of a family end in.
pub(super) fn version(family: Family) -> &'static str {
    match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    }
}

pub(super) fn address_type(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    }
}
