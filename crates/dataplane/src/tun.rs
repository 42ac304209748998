//! The TUN interface that IP packets come from and go to.
//!
//! Every frame has a `virtio_net_hdr` before it (`IFF_VNET_HDR`), so that the kernel may leave the cutting of long frames
//! and checksums to us, and takes long frames from us. How much of that it can is asked when the interface is opened.

#![expect(unsafe_code, reason = "interface requests and preadv2 have no safe form")]

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use thiserror::Error;

/// MTU of an interface we make: an Ethernet's 1500 less outer IPv6, UDP and WireGuard headers.
const DEFAULT_MTU: libc::c_int = 1420;

/// Packets that wait in the interface of ours until we take them: as many as the kernel's WireGuard lets wait. With the
/// driver's 500, a stream of datagrams loses some whenever the reader is off the processor for a few milliseconds.
const QUEUE_LEN: libc::c_int = 1024;

/// An open TUN interface. It goes away with the last descriptor of it, unless somebody made it persistent.
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: String,
    /// Whether frames have a `virtio_net_hdr`. Only an interface that somebody else opened may be without.
    headers: bool,
    /// Whether the kernel takes long frames of datagrams.
    datagrams: bool,
    /// Whether a read can be told not to wait.
    impatient: AtomicBool,
    /// Any socket: the kernel takes interface requests on it.
    control: OwnedFd,
}

/// Flags of `TUNSETOFFLOAD`: we take frames without checksum, long ones of TCP, and long ones of UDP.
mod offload {
    pub(super) const CHECKSUM: libc::c_ulong = 0x01;
    pub(super) const TCP4: libc::c_ulong = 0x02;
    pub(super) const TCP6: libc::c_ulong = 0x04;
    pub(super) const UDP4: libc::c_ulong = 0x20;
    pub(super) const UDP6: libc::c_ulong = 0x40;
}

/// Why there is no TUN interface.
#[derive(Debug, Error)]
pub enum TunError {
    /// The name cannot be an interface's.
    #[error("{name:?} is no interface name: it takes 1 to 15 bytes without '/' or white space")]
    Name {
        /// What was given.
        name: String,
    },
    /// The TUN driver is not there or not for us.
    #[error(
        "cannot open /dev/net/tun: load the tun module, and run with CAP_NET_ADMIN and the device in reach"
    )]
    Open(#[source] io::Error),
    /// The kernel refused the interface.
    #[error(
        "cannot make TUN interface {name}: it takes CAP_NET_ADMIN, and no other program may use the name"
    )]
    Create {
        /// Its name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The descriptor handed over is no TUN interface.
    #[error("descriptor {fd} (WG_TUN_FD) is no TUN interface without packet information")]
    NotATun {
        /// The descriptor.
        fd: RawFd,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Tun {
    /// Makes the interface, or attaches to a persistent one of that name that nobody uses.
    pub fn create(name: &str) -> Result<Self, TunError> {
        let mut request = request_for(name)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(TunError::Open)?;
        let refused = |source| TunError::Create {
            name: name.to_owned(),
            source,
        };
        request.ifr_ifru.ifru_flags = flags(libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR);
        interface_request(file.as_fd(), libc::TUNSETIFF, &mut request).map_err(refused)?;
        let tun = Self::from_file(file).map_err(refused)?;
        let mut request = request_for(&tun.name)?;
        request.ifr_ifru.ifru_mtu = DEFAULT_MTU;
        interface_request(tun.control.as_fd(), libc::SIOCSIFMTU, &mut request).map_err(refused)?;
        // The queue's length has no name of its own in the union: like the MTU it is an int.
        request.ifr_ifru.ifru_mtu = QUEUE_LEN;
        // It takes the right to it in the machine's own user namespace. Without it the driver's length stays.
        if let Err(error) = interface_request(tun.control.as_fd(), libc::SIOCSIFTXQLEN, &mut request) {
            tracing::debug!(%error, length = QUEUE_LEN, "the interface's queue stays as short as it is");
        }
        Ok(tun)
    }

    /// Takes over a TUN interface that the program that started us has opened.
    pub fn from_inherited(fd: OwnedFd) -> Result<Self, TunError> {
        let number = fd.as_raw_fd();
        let not_a_tun = |source| TunError::NotATun { fd: number, source };
        let file = File::from(fd);
        set_blocking(&file).map_err(not_a_tun)?;
        Self::from_file(file).map_err(not_a_tun)
    }

    fn from_file(file: File) -> io::Result<Self> {
        let mut request = empty_request();
        interface_request(file.as_fd(), libc::TUNGETIFF, &mut request)?;
        // SAFETY: TUNGETIFF has filled in the flags, and any bit pattern is one.
        let got = unsafe { request.ifr_ifru.ifru_flags };
        if got & flags(libc::IFF_TUN) == 0 || got & flags(libc::IFF_NO_PI) == 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let name: Vec<u8> = request
            .ifr_name
            .iter()
            .map(|byte| byte.cast_unsigned())
            .take_while(|b| *b != 0)
            .collect();
        let headers = got & flags(libc::IFF_VNET_HDR) != 0;
        let datagrams = headers && take_long_frames(file.as_fd());
        Ok(Self {
            file,
            headers,
            datagrams,
            impatient: AtomicBool::new(true),
            name: String::from_utf8_lossy(&name).into_owned(),
            control: socket(
                AddressFamily::Unix,
                SockType::Datagram,
                SockFlag::SOCK_CLOEXEC,
                None,
            )?,
        })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's MTU as it is now.
    pub fn mtu(&self) -> io::Result<usize> {
        let mut request = request_for(&self.name).map_err(io::Error::other)?;
        interface_request(self.control.as_fd(), libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: SIOCGIFMTU has filled in the MTU, and any bit pattern is one.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        usize::try_from(mtu).map_err(io::Error::other)
    }

    /// Whether frames have a `virtio_net_hdr` before them.
    pub(crate) fn has_headers(&self) -> bool {
        self.headers
    }

    /// Whether the kernel takes long frames of datagrams.
    pub(crate) fn takes_datagrams(&self) -> bool {
        self.datagrams
    }

    /// Waits for the next frame that the kernel sends into the interface, or for the interface's end.
    pub(crate) fn wait(&self) -> io::Result<()> {
        let mut waiting = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        poll(&mut waiting, PollTimeout::NONE)?;
        Ok(())
    }

    /// Puts the next frame that the kernel has sent into the interface to `parts`, one after the other. Gives its length. One
    /// caller at a time.
    ///
    /// # Errors
    /// WouldBlock when there is no frame; EBADFD once the interface has been deleted.
    pub(crate) fn read_at_once(&self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if self.impatient.load(Ordering::Relaxed) {
            match read_without_waiting(self.as_fd(), parts) {
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    self.impatient.store(false, Ordering::Relaxed);
                }
                result => return result,
            }
        }
        let mut waiting = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::ZERO)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => io::Read::read_vectored(&mut &self.file, parts),
        }
    }

    /// Hands a frame to the kernel as one that has arrived on the interface.
    pub(crate) fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        io::Write::write_vectored(&mut &self.file, parts).map(drop)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether an error of [`Tun::read`] means that the interface is no more.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADFD | libc::ENODEV))
}

fn request_for(name: &str) -> Result<libc::ifreq, TunError> {
    let unfit = name.is_empty()
        || name.len() >= libc::IFNAMSIZ
        || name == "."
        || name == ".."
        || name
            .bytes()
            .any(|byte| byte == b'/' || byte == b':' || byte == 0 || byte.is_ascii_whitespace());
    if unfit {
        return Err(TunError::Name {
            name: name.chars().take(64).collect(),
        });
    }
    let mut request = empty_request();
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn empty_request() -> libc::ifreq {
    // SAFETY: ifreq is plain data, and all zero bytes are a value of each of its members.
    unsafe { std::mem::zeroed() }
}

fn flags(flags: libc::c_int) -> libc::c_short {
    // The kernel's field is 16 bits wide and takes the flags' bits as they are.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "all IFF_* flags of TUN fit 16 bits"
    )]
    {
        flags as libc::c_short
    }
}

fn interface_request(fd: BorrowedFd<'_>, request: libc::Ioctl, argument: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the requests used here (TUNSETIFF, TUNGETIFF, SIOCSIFMTU, SIOCGIFMTU, SIOCSIFTXQLEN) read and write one ifreq.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn set_blocking(file: &File) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_truncate(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Tells the kernel which work it may leave to us. Says whether it takes long frames of datagrams too (Linux 6.2).
fn take_long_frames(tun: BorrowedFd<'_>) -> bool {
    let streams = offload::CHECKSUM | offload::TCP4 | offload::TCP6;
    let mut refusal = None;
    for offloads in [
        streams | offload::UDP4 | offload::UDP6,
        streams,
        offload::CHECKSUM,
    ] {
        // SAFETY: the request takes its flags by value.
        if unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD as libc::Ioctl, offloads) } >= 0 {
            if let Some(error) = refusal {
                tracing::info!(%error, offloads, "the kernel cannot hand over all kinds of long frames");
            }
            return offloads & offload::UDP4 != 0;
        }
        refusal.get_or_insert(io::Error::last_os_error());
    }
    tracing::info!(error = ?refusal, "the kernel hands over no long frames");
    false
}

/// `preadv2` of what is there now. The interface has no positions; -1 stands for the one that it does not have.
fn read_without_waiting(file: BorrowedFd<'_>, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    let count = libc::c_int::try_from(parts.len()).map_err(io::Error::other)?;
    // SAFETY: IoSliceMut has the layout of iovec, and the borrow of `parts` lasts for the call.
    let read = unsafe {
        libc::preadv2(
            file.as_raw_fd(),
            parts.as_mut_ptr().cast(),
            count,
            -1,
            libc::RWF_NOWAIT,
        )
    };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_can_have_are_refused_before_the_kernel_is_asked() {
        for bad in [
            "",
            "a/b",
            "sixteen-letters-",
            "two words",
            ".",
            "..",
            "a:b",
            "nul\0",
        ] {
            assert!(
                matches!(request_for(bad), Err(TunError::Name { .. })),
                "{bad:?} was taken"
            );
        }
        assert!(request_for("warren0").is_ok());
    }
}
