//! The UDP sockets of a device: one for each IP family, on one port.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// What is asked of the kernel to hold between two reads. It gives what it may.
const SOCKET_BUFFER: usize = 7 << 20;

/// How often a port that was free for IPv4 may turn out to be taken for IPv6.
const PORT_ATTEMPTS: usize = 16;

/// How long a full send buffer is waited for before the datagram is dropped, in milliseconds.
const SEND_PATIENCE: u16 = 100;

/// Both sockets. Where the machine has no IPv6 (or no IPv4) there is only the other one.
#[derive(Debug)]
pub(crate) struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    port: u16,
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
        Ok(Self { v4, v6, port })
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

    /// Sends one datagram from the socket of the receiver's family. A full send buffer is waited for a moment: it is
    /// the network that is slow, and the interface's queue is where packets should wait or be dropped.
    pub(crate) fn send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        let socket = match to {
            SocketAddr::V4(_) => &self.v4,
            SocketAddr::V6(_) => &self.v6,
        };
        let socket = socket
            .as_ref()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
        match socket.send_to(datagram, to) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_writable(socket.as_fd())?;
                socket.send_to(datagram, to).map(drop)
            }
            result => result.map(drop),
        }
    }
}

fn open(address: SocketAddr, fwmark: u32) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM.nonblocking().cloexec(),
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
    let socket = UdpSocket::from(socket);
    if fwmark != 0 {
        set_mark(&socket, fwmark)?;
    }
    socket2::SockRef::from(&socket).bind(&address.into())?;
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

fn wait_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    poll(
        &mut [PollFd::new(fd, PollFlags::POLLOUT)],
        PollTimeout::from(SEND_PATIENCE),
    )?;
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn any_port_is_the_same_port_in_both_families() {
        let sockets = Sockets::bind(0, 0).unwrap();
        assert_ne!(sockets.port(), 0);
        for socket in sockets.each() {
            assert_eq!(socket.local_addr().unwrap().port(), sockets.port());
        }
    }

    #[test]
    fn a_port_in_use_is_refused() {
        let first = Sockets::bind(0, 0).unwrap();
        let error = Sockets::bind(first.port(), 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
    }
}
