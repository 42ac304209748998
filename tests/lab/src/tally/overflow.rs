//! What sockets had no room for: packets that have come through, to a process that had no processor to read them with.

use std::fs;

use anyhow::Context;

/// How many datagrams the sockets of this network namespace have had no room for so far, of both families.
pub(super) fn overflowed() -> anyhow::Result<u64> {
    let read = |file: &str| fs::read_to_string(file).with_context(|| format!("read {file}"));
    let of_v6 = read("/proc/thread-self/net/snmp6")?;
    let of_v6 = of_v6
        .lines()
        .find_map(|line| line.strip_prefix("Udp6RcvbufErrors"));
    let of_v6 = of_v6.and_then(|count| count.trim().parse::<u64>().ok());
    let of_v4 = of_v4(&read("/proc/thread-self/net/snmp")?);
    Ok(of_v4.context("no RcvbufErrors among the counters of UDP")? + of_v6.unwrap_or_default())
}

/// The same of IPv4: a line of names and a line of numbers.
fn of_v4(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, numbers) = (lines.next()?.split(' '), lines.next()?.split(' '));
    let mut named = names.zip(numbers);
    named.find_map(|(name, number)| (name == "RcvbufErrors").then(|| number.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_socket_had_no_room_for_is_read_by_its_name() {
        let snmp = "Icmp: RcvbufErrors\nIcmp: 9\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors\n\
                    Udp: 1 2 3 4 5 6\nUdpLite: RcvbufErrors\nUdpLite: 7\n";
        assert_eq!(of_v4(snmp), Some(5));
        assert_eq!(of_v4("Udp: InDatagrams\nUdp: 1\n"), None);
    }
}
