//! A packet socket on one interface, packet(7).

#![expect(
    unsafe_code,
    reason = "neither the standard library nor nix binds a packet socket"
)]

use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{c_int, socklen_t};

/// Receive buffer asked for, bytes: a burst of some thousand frames.
const BUFFER: c_int = 16 << 20;

/// Receives what comes in at one interface.
pub(super) struct PortSocket {
    fd: OwnedFd,
    index: u32,
}

impl PortSocket {
    /// Opens it; from now on nothing that comes in is unseen.
    pub(super) fn open(interface: &str) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(interface)?;
        // Protocol 0: receives nothing before it is bound to the interface.
        // SAFETY: socket reads no memory.
        let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nothing else owns it.
        let socket = Self {
            fd: unsafe { OwnedFd::from_raw_fd(raw) },
            index,
        };
        // Root may have more than the machine's limit for everybody.
        if socket
            .set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER)
            .is_err()
        {
            socket.set(libc::SOL_SOCKET, libc::SO_RCVBUF, BUFFER)?;
        }
        socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        socket.bind()?;
        Ok(socket)
    }

    /// The interface's number.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// Waits for a frame and returns its length, which is more than the buffer's if it did not fit.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the kernel writes at most `len` bytes into `buffer`; MSG_TRUNC only changes what is returned.
        let n = unsafe {
            libc::recv(
                self.fd.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_TRUNC,
            )
        };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// How many frames were queued here and how many were lost for want of buffer, since this was last asked.
    pub(super) fn statistics(&self) -> (u64, u64) {
        // SAFETY: all-zero is a value of this struct of two integers.
        let mut stats: libc::tpacket_stats = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&stats) as socklen_t;
        // SAFETY: the kernel writes at most `length` bytes into `stats`.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        };
        // The kernel counts the lost ones among the others.
        if result == 0 {
            ((stats.tp_packets - stats.tp_drops).into(), stats.tp_drops.into())
        } else {
            (0, 0)
        }
    }

    fn set(&self, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
        // SAFETY: the kernel reads one integer from `value`, which outlives the call.
        check(unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<c_int>() as socklen_t,
            )
        })
    }

    fn bind(&self) -> io::Result<()> {
        // SAFETY: all-zero is a value of this struct of integers.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = self.index.cast_signed();
        // SAFETY: the kernel reads one sockaddr_ll from `address`, which outlives the call.
        check(unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as socklen_t,
            )
        })
    }
}

fn check(result: c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
