//! What goes with a message beside its bytes (`cmsg(3)`): how it is to be cut, its addresses, its ECN field.

#![expect(unsafe_code, reason = "socket options have no safe form for all of them")]

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Room for all control messages that either side makes of one message.
pub(crate) const CONTROL_LEN: usize = 128;

/// A control buffer, aligned as the headers in it must be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Control(pub(crate) [u8; CONTROL_LEN]);

impl Control {
    pub(crate) const EMPTY: Self = Self([0; CONTROL_LEN]);
}

/// Asks for what [`read`] looks for. What the kernel does not know is done without.
pub(crate) fn ask_for_details(socket: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    if v6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)?;
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO)?;
        set(socket, libc::IPPROTO_IP, libc::IP_RECVTOS)?;
    }
    if let Err(error) = set(socket, libc::SOL_UDP, libc::UDP_GRO) {
        tracing::info!(%error, "the kernel does not gather datagrams (UDP_GRO): receiving them one by one");
    }
    Ok(())
}

fn set(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option is an int, and the pointer and the length are those of one.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What came with a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Details {
    /// The address that it was sent to.
    pub(crate) local: Option<IpAddr>,
    /// The lower two bits of its TOS or traffic class.
    pub(crate) ecn: u8,
    /// Length of all datagrams in it but the last; 0: it is one datagram.
    pub(crate) segment: usize,
}

/// Reads the control messages of a received message.
pub(crate) fn read(control: &[u8]) -> Details {
    let mut details = Details::default();
    let mut rest = control;
    while let Some((level, kind, data, next)) = split_first(rest) {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_TOS) => details.ecn = data.first().copied().unwrap_or(0) & 3,
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                details.ecn = int_at(data)
                    .and_then(|class| u8::try_from(class & 3).ok())
                    .unwrap_or(0);
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                details.segment = int_at(data)
                    .and_then(|len| usize::try_from(len).ok())
                    .unwrap_or(0);
            }
            // in_pktinfo: interface index, local address, destination of the header.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                details.local = data
                    .get(4..8)
                    .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
                    .map(|bytes| Ipv4Addr::from(bytes).into());
            }
            // in6_pktinfo: address, interface index.
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                details.local = data
                    .get(..16)
                    .and_then(|bytes| <[u8; 16]>::try_from(bytes).ok())
                    .map(|bytes| Ipv6Addr::from(bytes).into());
            }
            _ => {}
        }
        rest = next;
    }
    details
}

fn int_at(data: &[u8]) -> Option<libc::c_int> {
    let bytes = data.get(..size_of::<libc::c_int>())?;
    bytes.try_into().ok().map(libc::c_int::from_ne_bytes)
}

/// Bytes of a `cmsghdr`: a length as wide as a pointer, then level and type. What follows is aligned as the length.
const HEADER: usize = size_of::<libc::cmsghdr>();

/// The first control message, level, type and data, and what comes after it.
fn split_first(control: &[u8]) -> Option<(libc::c_int, libc::c_int, &[u8], &[u8])> {
    let header = control.get(..HEADER)?;
    let len = usize::from_ne_bytes(header[..size_of::<usize>()].try_into().ok()?);
    let level = int_at(&header[size_of::<usize>()..])?;
    let kind = int_at(&header[size_of::<usize>() + size_of::<libc::c_int>()..])?;
    let data = control.get(HEADER..len)?;
    let next = control.get(aligned(len)..).unwrap_or(&[]);
    Some((level, kind, data, next))
}

/// Writes control messages one after the other.
pub(crate) struct Writer<'c> {
    control: &'c mut Control,
    len: usize,
}

impl<'c> Writer<'c> {
    pub(crate) fn new(control: &'c mut Control) -> Self {
        Self { control, len: 0 }
    }

    /// The kernel is to cut the message into datagrams of this length, the last one may be shorter.
    pub(crate) fn segment(&mut self, len: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &len.to_ne_bytes());
    }

    /// The datagrams carry this TOS or traffic class.
    pub(crate) fn traffic_class(&mut self, class: u8, v6: bool) {
        let value = libc::c_int::from(class).to_ne_bytes();
        if v6 {
            self.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &value);
        } else {
            self.push(libc::IPPROTO_IP, libc::IP_TOS, &value);
        }
    }

    /// The datagrams come from this address of ours, by whichever interface the routes say.
    pub(crate) fn from(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => {
                let mut info = [0; size_of::<libc::in_pktinfo>()];
                info[4..8].copy_from_slice(&v4.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            IpAddr::V6(v6) => {
                let mut info = [0; size_of::<libc::in6_pktinfo>()];
                info[..16].copy_from_slice(&v6.octets());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    /// Bytes written.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn push(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let at = self.len;
        let out = &mut self.control.0;
        out[at..at + size_of::<usize>()].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        out[at + size_of::<usize>()..at + HEADER - size_of::<libc::c_int>()]
            .copy_from_slice(&level.to_ne_bytes());
        out[at + HEADER - size_of::<libc::c_int>()..at + HEADER].copy_from_slice(&kind.to_ne_bytes());
        out[at + HEADER..at + HEADER + data.len()].copy_from_slice(data);
        self.len = at + aligned(HEADER + data.len());
    }
}

/// `CMSG_ALIGN`.
fn aligned(len: usize) -> usize {
    len.next_multiple_of(size_of::<usize>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for address in ["192.0.2.7", "2001:db8::7"] {
            let address: IpAddr = address.parse().expect("an address");
            let mut control = Control::EMPTY;
            let mut writer = Writer::new(&mut control);
            writer.segment(1452);
            writer.traffic_class(3, address.is_ipv6());
            writer.from(address);
            let len = writer.len();
            assert!(len <= CONTROL_LEN);
            let details = read(&control.0[..len]);
            assert_eq!(details.local, Some(address));
            assert_eq!(details.ecn, 3);
        }
    }

    #[test]
    fn lengths_that_lie_end_the_list() {
        let mut control = Control::EMPTY;
        for len in [0, 1, HEADER - 1, CONTROL_LEN + 1, usize::MAX] {
            control.0[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(read(&control.0), Details::default(), "{len}");
        }
    }
}
