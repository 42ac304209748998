//! Sending many datagrams with one system call.

#![expect(unsafe_code, reason = "sendmmsg has no safe form")]

use std::io;
use std::mem::zeroed;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use socket2::SockAddr;

use super::Sockets;
use super::control::{Control, Writer};
use crate::endpoint::Endpoint;

/// Datagrams that the kernel cuts one message into at most (`UDP_MAX_SEGMENTS` before Linux 6.9).
const SEGMENTS: usize = 64;

/// Bytes of one message at most: an IPv6 packet's 65,535 less its header and UDP's.
const MESSAGE_LEN: usize = 65_535 - 48;

/// Messages given to the kernel with one system call.
const MESSAGES: usize = 16;

/// What is to be sent: places in memory, and runs of them.
#[derive(Clone, Copy)]
pub(crate) struct Batch<'a> {
    /// Where the datagrams are.
    pub(crate) memory: &'a [u8],
    /// Each one's place in the memory.
    pub(crate) datagrams: &'a [Range<usize>],
    /// To whom they go.
    pub(crate) runs: &'a [Run],
}

/// Datagrams to one peer, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// Where they go.
    pub(crate) endpoint: Endpoint,
    /// Their TOS or traffic class.
    pub(crate) class: u8,
    /// Which of the batch's datagrams they are.
    pub(crate) datagrams: Range<usize>,
}

/// Why a run was not sent as it was meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// So many of its datagrams were not sent.
    Lost(usize),
    /// Our address that the peer last sent to is gone: the datagrams left from another one.
    SourceGone,
}

/// A part of a run that the kernel takes at once.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    /// Number of the run.
    run: usize,
    datagrams: Range<usize>,
}

/// The lists that the kernel reads, kept from one batch to the next.
pub(crate) struct Outbox {
    messages: Vec<Message>,
    iovecs: Vec<libc::iovec>,
    controls: Box<[Control; MESSAGES]>,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            messages: Vec::new(),
            iovecs: Vec::new(),
            controls: Box::new([Control::EMPTY; MESSAGES]),
        }
    }

    /// Sends all runs in their order. What could not be done is told to `trouble` with the number of the run.
    pub(crate) fn send(
        &mut self,
        sockets: &Sockets,
        batch: Batch<'_>,
        mut trouble: impl FnMut(usize, Trouble),
    ) {
        let most = if sockets.segments.load(Ordering::Relaxed) {
            SEGMENTS
        } else {
            1
        };
        let mut messages = std::mem::take(&mut self.messages);
        messages.clear();
        for (run, it) in batch.runs.iter().enumerate() {
            cut(batch.datagrams, it.datagrams.clone(), most, |datagrams| {
                messages.push(Message { run, datagrams });
            });
        }
        let mut rest = messages.as_slice();
        while let Some(first) = rest.first() {
            match self.pass_on(sockets, batch, rest) {
                Ok(sent) => rest = &rest[sent.max(1)..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.try_otherwise(sockets, batch, first, &error, &mut trouble);
                    rest = &rest[1..];
                }
            }
        }
        self.messages = messages;
    }

    /// Sends a message that the kernel has refused in the ways that are left: uncut, from whichever address.
    fn try_otherwise(
        &mut self,
        sockets: &Sockets,
        batch: Batch<'_>,
        refused: &Message,
        error: &io::Error,
        trouble: &mut impl FnMut(usize, Trouble),
    ) {
        let run = &batch.runs[refused.run];
        let code = error.raw_os_error();
        // EINVAL and EMSGSIZE: one of them is longer than the way there allows.
        let about_segments =
            refused.datagrams.len() > 1 && matches!(code, Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE));
        let about_source = run.endpoint.from.is_some() && may_be_about_source(error);
        if !about_segments && !about_source {
            tracing::trace!(to = %run.endpoint.to, %error, "datagrams not sent");
            return trouble(refused.run, Trouble::Lost(refused.datagrams.len()));
        }
        // A device without checksum offload does not take messages to be cut, and never will.
        if about_segments && code == Some(libc::EIO) && sockets.segments.swap(false, Ordering::Relaxed) {
            tracing::info!(
                "the network device does not cut messages (UDP_SEGMENT): sending datagrams one by one"
            );
        }
        let from_anywhere = [Run {
            endpoint: run.endpoint.to.into(),
            ..run.clone()
        }];
        let mut source_gone = false;
        for datagram in refused.datagrams.clone() {
            let one = |run| Message {
                run,
                datagrams: datagram..datagram + 1,
            };
            let anywhere = Batch {
                runs: &from_anywhere,
                ..batch
            };
            let mut sent = match source_gone {
                false => self.pass_on(sockets, batch, &[one(refused.run)]),
                true => self.pass_on(sockets, anywhere, &[one(0)]),
            };
            let in_doubt = run.endpoint.from.is_some() && !source_gone;
            if in_doubt && sent.as_ref().is_err_and(may_be_about_source) {
                sent = self.pass_on(sockets, anywhere, &[one(0)]);
                // Only when that works it was the address that was wrong.
                if sent.is_ok() {
                    source_gone = true;
                    trouble(refused.run, Trouble::SourceGone);
                }
            }
            if let Err(error) = sent {
                tracing::trace!(to = %run.endpoint.to, %error, "datagram not sent");
                trouble(refused.run, Trouble::Lost(1));
            }
        }
    }

    /// Gives messages to the kernel until it refuses one or they are of another IP family, and says how many it took;
    /// the error if it refused the first.
    fn pass_on(&mut self, sockets: &Sockets, batch: Batch<'_>, messages: &[Message]) -> io::Result<usize> {
        let Some(first) = messages.first() else {
            return Ok(0);
        };
        let socket = sockets.towards(batch.runs[first.run].endpoint.to)?;
        let v6 = batch.runs[first.run].endpoint.to.is_ipv6();
        // SAFETY: plain data, and all zero bytes are a value of it.
        let mut headers: [libc::mmsghdr; MESSAGES] = unsafe { zeroed() };
        let mut names: [Option<SockAddr>; MESSAGES] = [const { None }; MESSAGES];
        let alike = messages
            .iter()
            .take(MESSAGES)
            .take_while(|message| batch.runs[message.run].endpoint.to.is_ipv6() == v6);
        let count = alike.clone().count();
        self.iovecs.clear();
        let datagrams = alike.clone().flat_map(|message| message.datagrams.clone());
        self.iovecs.extend(datagrams.map(|datagram| {
            let bytes = &batch.memory[batch.datagrams[datagram].clone()];
            libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            }
        }));
        let mut iovecs = self.iovecs.as_mut_slice();
        for (((message, header), name), control) in alike
            .zip(&mut headers)
            .zip(&mut names)
            .zip(self.controls.iter_mut())
        {
            let run = &batch.runs[message.run];
            let mut details = Writer::new(control);
            if message.datagrams.len() > 1 {
                let len = batch.datagrams[message.datagrams.start].len();
                details.segment(u16::try_from(len).map_err(io::Error::other)?);
            }
            if run.class != 0 {
                details.traffic_class(run.class, v6);
            }
            if let Some(address) = run.endpoint.from {
                details.from(address);
            }
            let details = details.len();
            let (own, later) = iovecs.split_at_mut(message.datagrams.len());
            iovecs = later;
            let name = name.insert(run.endpoint.to.into());
            let header = &mut header.msg_hdr;
            header.msg_name = name.as_ptr().cast_mut().cast();
            header.msg_namelen = name.len();
            header.msg_iov = own.as_mut_ptr();
            header.msg_iovlen = own.len() as _;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = details as _;
        }
        // SAFETY: `count` headers are filled in; each points to its own name, iovecs and control messages with their
        // true lengths, which live in `self`, in the batch or on this stack frame until the call returns. The kernel
        // only reads what the iovecs point to.
        let sent =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as libc::c_uint, 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// What the kernel says of a source address that is no longer ours, among other things.
fn may_be_about_source(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENETUNREACH)
    )
}

/// Cuts a run into messages: datagrams of one length, of which the last may be shorter, at most `most` of them.
fn cut(datagrams: &[Range<usize>], run: Range<usize>, most: usize, mut emit: impl FnMut(Range<usize>)) {
    let mut start = run.start;
    while start < run.end {
        let len = datagrams[start].len();
        let (mut end, mut total) = (start + 1, len);
        while end < run.end && end - start < most && datagrams[end - 1].len() == len {
            let next = datagrams[end].len();
            if next > len || next == 0 || total + next > MESSAGE_LEN {
                break;
            }
            total += next;
            end += 1;
        }
        emit(start..end);
        start = end;
    }
}
