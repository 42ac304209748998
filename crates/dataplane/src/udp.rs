//! The UDP sockets of a device: one for each IP family, on one port.
//!
//! | module | what it is about |
//! |---|---|
//! | [`receive`] | many datagrams with one system call, those of one flow in one buffer (`UDP_GRO`) |
//! | [`send`] | many datagrams with one system call, those of one peer in one message (`UDP_SEGMENT`) |
//! | `control` | what goes with a message beside its bytes: segment length, addresses, ECN |

mod control;
pub(crate) mod receive;
pub(crate) mod send;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// What is asked of the kernel to hold between two reads. It gives what it may.
const SOCKET_BUFFER: usize = 7 << 20;

/// How often a port that was free for IPv4 may turn out to be taken for IPv6.
const PORT_ATTEMPTS: usize = 16;

/// How long a full send buffer is waited for before the datagram is dropped: it is the network that is slow, and the
/// interface's queue is where packets should wait or be dropped.
const SEND_PATIENCE: Duration = Duration::from_millis(100);

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Both sockets. Where the machine has no IPv6 (or no IPv4) there is only the other one.
#[derive(Debug)]
pub(crate) struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    port: u16,
    /// Whether the kernel cuts long messages into datagrams; it says so with the first one that it cannot.
    segments: AtomicBool,
}

impl Sockets {
    /// Listens on a port, 0 for any that is free in both families. No other socket may listen there: sharing the port
    /// would let the other one take our datagrams.
    pub(crate) fn bind(port: u16, fwmark: u32) -> io::Result<Self> {
        let mut attempts = if port == 0 { PORT_ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            match Self::try_bind(port, fwmark) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
                result => return result,
            }
        }
    }

    fn try_bind(port: u16, fwmark: u32) -> io::Result<Self> {
        let v4 = family_present(open((Ipv4Addr::UNSPECIFIED, port).into(), fwmark))?;
        let port = match &v4 {
            Some(socket) => socket.local_addr()?.port(),
            None => port,
        };
        let v6 = family_present(open((Ipv6Addr::UNSPECIFIED, port).into(), fwmark))?;
        let port = match (&v4, &v6) {
            (_, Some(socket)) => socket.local_addr()?.port(),
            (Some(_), None) => port,
            (None, None) => return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
        };
        Ok(Self {
            v4,
            v6,
            port,
            segments: AtomicBool::new(true),
        })
    }

    /// The port in use.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Marks all datagrams sent from now on (`SO_MARK`); 0 takes the mark away.
    pub(crate) fn set_fwmark(&self, fwmark: u32) -> io::Result<()> {
        self.each().try_for_each(|socket| set_mark(socket, fwmark))
    }

    /// Both sockets, or the one there is.
    pub(crate) fn each(&self) -> impl Iterator<Item = &UdpSocket> {
        self.v4.iter().chain(&self.v6)
    }

    /// The socket of a family, if the machine has that.
    pub(crate) fn of(&self, family: Family) -> Option<&UdpSocket> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    /// Ends the wait of whoever receives from these sockets, now and from now on.
    pub(crate) fn retire(&self) {
        for socket in self.each() {
            // A socket without a peer says that it is not connected, and wakes its readers nevertheless.
            let _ = SockRef::from(socket).shutdown(Shutdown::Read);
        }
    }

    /// The socket for datagrams to an address.
    fn towards(&self, to: SocketAddr) -> io::Result<&UdpSocket> {
        let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
        self.of(family)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
    }
}

fn open(address: SocketAddr, fwmark: u32) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM.cloexec(),
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Force needs CAP_NET_ADMIN in the machine's own user namespace; without it the sysctl limit holds.
    if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER).is_err() {
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER).is_err() {
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
    }
    socket.set_write_timeout(Some(SEND_PATIENCE))?;
    control::ask_for_details(socket.as_fd(), address.is_ipv6())?;
    let socket = UdpSocket::from(socket);
    if fwmark != 0 {
        set_mark(&socket, fwmark)?;
    }
    SockRef::from(&socket).bind(&address.into())?;
    Ok(socket)
}

fn set_mark(socket: &UdpSocket, fwmark: u32) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::Mark, &fwmark)?)
}

/// `None` for a family that the kernel lacks or that is turned off.
fn family_present(socket: io::Result<UdpSocket>) -> io::Result<Option<UdpSocket>> {
    match socket {
        Ok(socket) => Ok(Some(socket)),
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
