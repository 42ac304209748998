//! The connections that the kernel tracks (`nfnetlink_conntrack.h`), and cutting those that policy forbids since they were
//! opened.
//!
//! One that is cut is marked, by one bit of its mark, and the rules drop what belongs to a marked one. To delete it would not
//! cut it: the kernel takes up a connection in the middle, in whichever direction the next packet happens to go, and that
//! direction may well be allowed.

use std::io;
use std::net::IpAddr;

use nix::errno::Errno;
use warren_policy::flow::{Detail, Flow};
use warren_policy::protocol::Protocol;

use crate::guard::message::Message;
use crate::guard::message::attributes::{Attributes, find};
use crate::guard::message::socket::NetfilterSocket;
use crate::netlink::DUMP_ATTEMPTS;
use crate::policy::CUT_MARK;

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_NEW: u16 = NFNL_SUBSYS_CTNETLINK << 8;
const IPCTNL_MSG_CT_GET: u16 = NFNL_SUBSYS_CTNETLINK << 8 | 1;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_MARK: u16 = 8;
const CTA_ZONE: u16 = 18;
const CTA_MARK_MASK: u16 = 21;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTO_ICMP_CODE: u16 = 6;
const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
const CTA_PROTO_ICMPV6_CODE: u16 = 9;

/// A connection that the kernel tracks.
#[derive(Debug)]
struct Connection {
    /// As its first packet was after DNAT.
    flow: Flow,
    is_cut: bool,
    family: u8,
    /// By these the kernel finds it again.
    tuple: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// Cuts the forbidden ones and lets those go on that are forbidden no longer; says how many were cut.
pub(crate) fn cut(forbidden: &dyn Fn(&Flow) -> Option<bool>) -> io::Result<usize> {
    let mut socket = Socket::open()?;
    let mut cut = 0;
    for connection in socket.list()? {
        let Some(is_forbidden) = forbidden(&connection.flow) else {
            continue;
        };
        if is_forbidden == connection.is_cut {
            continue;
        }
        match socket.mark(&connection, is_forbidden) {
            Ok(()) => cut += usize::from(is_forbidden),
            // It has ended meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(cut)
}

struct Socket {
    netfilter: NetfilterSocket,
    sequence: u32,
}

impl Socket {
    fn open() -> io::Result<Self> {
        Ok(Self {
            netfilter: NetfilterSocket::open()?,
            sequence: 0,
        })
    }

    fn list(&mut self) -> io::Result<Vec<Connection>> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut all = Vec::new();
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
            let asked = self.ask(IPCTNL_MSG_CT_GET, flags, 0, &Attributes::default(), |message| {
                all.extend(read(message));
            });
            match asked {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                other => return other.map(|()| all),
            }
        }
        Err(Errno::EAGAIN.into())
    }

    fn mark(&mut self, connection: &Connection, cut: bool) -> io::Result<()> {
        let mut attributes = Attributes::default();
        attributes.nest(CTA_TUPLE_ORIG, |tuple| tuple.0.extend(&connection.tuple));
        if let Some(zone) = &connection.zone {
            attributes.bytes(CTA_ZONE, zone);
        }
        attributes.number(CTA_MARK, if cut { CUT_MARK } else { 0 });
        attributes.number(CTA_MARK_MASK, CUT_MARK);
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        self.ask(IPCTNL_MSG_CT_NEW, flags, connection.family, &attributes, |_| {})
    }

    /// Sends a request and takes its answers, to the last.
    fn ask(
        &mut self,
        kind: u16,
        flags: i32,
        family: u8,
        attributes: &Attributes,
        mut each: impl FnMut(&Message<'_>),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = vec![0; 16];
        // struct nfgenmsg: family, version, resource.
        bytes.extend([family, 0, 0, 0]);
        bytes.extend(&attributes.0);
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&u16::try_from(flags).unwrap_or_default().to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        self.netfilter.send(&bytes)?;
        self.netfilter.receive(|message| {
            if message.sequence() != self.sequence {
                return Ok(false);
            }
            match message.error() {
                Some(0) => Ok(true),
                Some(errno) => Err(io::Error::from_raw_os_error(errno)),
                None if message.is_done() => Ok(true),
                None if message.is_interrupted() => Err(Errno::EAGAIN.into()),
                None => {
                    each(message);
                    Ok(false)
                }
            }
        })
    }
}

/// What one message of a list says; `None`: nothing that can be read.
fn read(message: &Message<'_>) -> Option<Connection> {
    if message.kind() != IPCTNL_MSG_CT_NEW {
        return None;
    }
    let attributes = message.attributes();
    let tuple = find(attributes, CTA_TUPLE_ORIG)?;
    let reply = find(attributes, CTA_TUPLE_REPLY)?;
    let mark = find(attributes, CTA_MARK).and_then(|value| Some(u32::from_be_bytes(*value.first_chunk()?)));
    let flow = Flow {
        source: source(tuple)?,
        // Replies come from where the first packet went in the end.
        destination: source(reply)?,
        protocol: Protocol(*find(find(tuple, CTA_TUPLE_PROTO)?, CTA_PROTO_NUM)?.first()?),
        detail: detail(find(tuple, CTA_TUPLE_PROTO)?, find(reply, CTA_TUPLE_PROTO)?),
    };
    Some(Connection {
        flow,
        is_cut: mark.unwrap_or_default() & CUT_MARK != 0,
        family: message.family(),
        tuple: tuple.to_vec(),
        zone: find(attributes, CTA_ZONE).map(<[u8]>::to_vec),
    })
}

fn source(tuple: &[u8]) -> Option<IpAddr> {
    let addresses = find(tuple, CTA_TUPLE_IP)?;
    let v4 = || Some(IpAddr::from(*find(addresses, CTA_IP_V4_SRC)?.first_chunk::<4>()?));
    let v6 = || {
        Some(IpAddr::from(
            *find(addresses, CTA_IP_V6_SRC)?.first_chunk::<16>()?,
        ))
    };
    v4().or_else(v6)
}

fn detail(tuple: &[u8], reply: &[u8]) -> Detail {
    let port = |tuple| {
        Some(u16::from_be_bytes(
            *find(tuple, CTA_PROTO_SRC_PORT)?.first_chunk()?,
        ))
    };
    if let (Some(source), Some(destination)) = (port(tuple), port(reply)) {
        return Detail::Ports { source, destination };
    }
    let byte = |v4, v6| {
        let value = find(tuple, v4).or_else(|| find(tuple, v6))?;
        value.first().copied()
    };
    match (
        byte(CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMPV6_TYPE),
        byte(CTA_PROTO_ICMP_CODE, CTA_PROTO_ICMPV6_CODE),
    ) {
        (Some(kind), Some(code)) => Detail::Icmp { kind, code },
        _ => Detail::Nothing,
    }
}
