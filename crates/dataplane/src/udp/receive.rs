//! Receiving many datagrams with one system call.

#![expect(unsafe_code, reason = "recvmmsg has no safe form")]

use std::io;
use std::mem::zeroed;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;

use super::control::{self, Control, Details};

/// Messages taken with one system call.
pub(crate) const MESSAGES: usize = 16;

/// Bytes of one message: the kernel gathers the datagrams of a flow in at most so many.
const MESSAGE_LEN: usize = 1 << 16;

/// Buffers for messages, and what came in them last.
pub(crate) struct Inbox {
    memory: Vec<u8>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    lengths: Vec<usize>,
    controls_len: Vec<usize>,
}

/// One message: the datagrams of one sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Who sent it.
    pub(crate) source: SocketAddr,
    /// Where it is in the memory.
    pub(crate) bytes: Range<usize>,
    /// What came with it.
    pub(crate) details: Details,
}

impl Message {
    /// Where its datagrams are in the memory.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let end = self.bytes.end;
        let step = match self.details.segment {
            0 => self.bytes.len().max(1),
            segment => segment,
        };
        self.bytes
            .clone()
            .step_by(step)
            .map(move |start| start..end.min(start + step))
    }
}

impl Inbox {
    pub(crate) fn new() -> Self {
        // SAFETY: sockaddr_storage is plain data, and all zero bytes are a value of it.
        let name = unsafe { zeroed() };
        Self {
            memory: vec![0; MESSAGES * MESSAGE_LEN],
            names: vec![name; MESSAGES],
            controls: vec![Control::EMPTY; MESSAGES],
            lengths: Vec::with_capacity(MESSAGES),
            controls_len: Vec::with_capacity(MESSAGES),
        }
    }

    /// Takes the messages that have come, at most [`MESSAGES`].
    ///
    /// # Errors
    /// WouldBlock when there are none. Otherwise what the kernel says. It may be about a datagram sent earlier (ICMP): then
    /// the next call receives again.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        self.lengths.clear();
        self.controls_len.clear();
        // SAFETY: both are plain data, and all zero bytes are a value of each.
        let (mut iovecs, mut headers): ([libc::iovec; MESSAGES], [libc::mmsghdr; MESSAGES]) =
            unsafe { (zeroed(), zeroed()) };
        for ((((iovec, header), buffer), name), control) in iovecs
            .iter_mut()
            .zip(&mut headers)
            .zip(self.memory.chunks_exact_mut(MESSAGE_LEN))
            .zip(&mut self.names)
            .zip(&mut self.controls)
        {
            iovec.iov_base = buffer.as_mut_ptr().cast();
            iovec.iov_len = buffer.len();
            let header = &mut header.msg_hdr;
            header.msg_name = std::ptr::from_mut(name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = iovec;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = control.0.len() as _;
        }
        // SAFETY: each header points to one iovec, one address and one control buffer with their true lengths; all of
        // them live in `self` or on this stack frame and are touched by nobody else during the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                MESSAGES as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for header in headers.iter().take(received) {
            self.lengths.push(header.msg_len as usize);
            self.controls_len.push(header.msg_hdr.msg_controllen);
        }
        Ok(())
    }

    /// How many messages the last call received.
    pub(crate) fn len(&self) -> usize {
        self.lengths.len()
    }

    /// A message that the last call received; `None` for one whose sender's address is of no known family.
    pub(crate) fn message(&self, at: usize) -> Option<Message> {
        let start = at * MESSAGE_LEN;
        let control = &self.controls[at].0;
        Some(Message {
            source: address(&self.names[at])?,
            bytes: start..start + self.lengths[at],
            details: control::read(&control[..self.controls_len[at].min(control.len())]),
        })
    }

    /// The memory that messages are in.
    pub(crate) fn memory(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

/// An address without flow label: what is not part of an endpoint must not make two of it.
fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is what the kernel has written there, and the storage is as large.
            let v4 = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = u32::from_be(v4.sin_addr.s_addr).into();
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = v6.sin6_addr.s6_addr.into();
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}
