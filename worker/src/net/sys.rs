//! `recvmmsg` and `sendmmsg` with UDP generic segmentation offload, and other calls without a safe
//! wrapper.
//!
//! The one place of the packet path with `unsafe`: these two system calls take arrays of headers
//! that point at each other. All pointers are set right before the call, from slices that
//! outlive it.

#![allow(
    unsafe_code,
    reason = "recvmmsg and sendmmsg with control messages have no safe wrapper"
)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollEvent};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::SockType;
use nix::sys::time::TimeSpec;

/// Messages received per call; each is a datagram, or several of equal length that the kernel
/// coalesced (`UDP_GRO`).
pub const RECV_BATCH: usize = 32;
/// Room for one received message: the most the kernel coalesces.
const RECV_BYTES: usize = 65_536;
/// Messages sent per call.
pub const SEND_BATCH: usize = 64;
/// Slices sent per call.
pub const SLICES_MAX: usize = 1024;
/// Segments one GSO message may have (`UDP_MAX_SEGMENTS` of older kernels).
pub const SEGMENTS_MAX: usize = 64;

/// Control data for one `u16` or `i32`: the segment size.
const CONTROL_BYTES: usize = 24;
/// Control data of a received message: that, and a `timespec`.
const RECV_CONTROL_BYTES: usize = CONTROL_BYTES + 32;

type Control = [u64; CONTROL_BYTES / 8];
type RecvControl = [u64; RECV_CONTROL_BYTES / 8];

/// Buffers for a batch of received datagrams.
pub struct RecvBatch {
    buffers: Box<[u8]>,
    names: Box<[libc::sockaddr_storage]>,
    received: [Received; RECV_BATCH],
}

/// What the kernel says of a received message.
#[derive(Clone, Copy, Default)]
struct Received {
    len: usize,
    /// Length of each datagram in it but the last.
    segment_len: usize,
    /// When it came in, since the UNIX epoch.
    stamp: Option<Duration>,
}

impl Default for RecvBatch {
    fn default() -> Self {
        // SAFETY: `sockaddr_storage` is plain data for which all zeroes is a valid value.
        let name: libc::sockaddr_storage = unsafe { mem::zeroed() };
        Self {
            buffers: vec![0; RECV_BATCH * RECV_BYTES].into(),
            names: vec![name; RECV_BATCH].into(),
            received: [Received::default(); RECV_BATCH],
        }
    }
}

impl RecvBatch {
    /// Receives what is there, at most [`RECV_BATCH`] messages, without blocking.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, or the socket's error.
    pub fn recv(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: `mmsghdr` and `iovec` are plain data for which all zeroes is a valid value.
        let mut headers: [libc::mmsghdr; RECV_BATCH] = unsafe { mem::zeroed() };
        // SAFETY: as above.
        let mut iovecs: [libc::iovec; RECV_BATCH] = unsafe { mem::zeroed() };
        let mut controls = [RecvControl::default(); RECV_BATCH];
        let parts = self.buffers.chunks_exact_mut(RECV_BYTES);
        let slots = headers.iter_mut().zip(&mut iovecs).zip(&mut controls);
        for ((((header, iovec), control), buffer), name) in slots.zip(parts).zip(&mut self.names) {
            iovec.iov_base = buffer.as_mut_ptr().cast();
            iovec.iov_len = buffer.len();
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = RECV_CONTROL_BYTES;
        }
        // SAFETY: every header points at an iovec, a name, a control block and a buffer that
        // live until the end of this function and are not aliased while the kernel writes.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                RECV_BATCH as u32,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (received, header) in self.received.iter_mut().zip(&headers[..count]) {
            *received = Received::read(&header.msg_hdr, header.msg_len as usize);
        }
        Ok(count)
    }

    /// When a received message came in by the wall clock, since the UNIX epoch: known of sockets
    /// with `SO_TIMESTAMPNS`.
    pub fn stamp(&self, index: usize) -> Option<Duration> {
        self.received[index].stamp
    }

    /// Hands over every datagram of a received message and who sent it. Messages of an address
    /// family that is not IP have none.
    pub fn datagrams(&mut self, index: usize, mut take: impl FnMut(&mut [u8], SocketAddr)) {
        let Some(remote) = from_sockaddr(&self.names[index]) else {
            return;
        };
        let Received {
            len, segment_len, ..
        } = self.received[index];
        let start = index * RECV_BYTES;
        let message = &mut self.buffers[start..start + len];
        for datagram in message.chunks_mut(segment_len.max(1)) {
            take(datagram, remote);
        }
    }
}

impl Received {
    /// Reads the control data of a message of `len` bytes.
    fn read(header: &libc::msghdr, len: usize) -> Self {
        let (mut segment_len, mut stamp) = (len, None);
        // SAFETY: the kernel filled `msg_control` and set `msg_controllen` to what it used; the
        // macro stays within it.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
        // SAFETY: a header that the macros return is null or lies within the control data.
        while let Some(cmsg) = unsafe { next.as_ref() } {
            // SAFETY: it is followed by the data of its type.
            let data = unsafe { libc::CMSG_DATA(cmsg) };
            match (cmsg.cmsg_level, cmsg.cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    // SAFETY: the kernel writes an `int`.
                    let len: i32 = unsafe { ptr::read_unaligned(data.cast()) };
                    if let Ok(len @ 1..) = usize::try_from(len) {
                        segment_len = len;
                    }
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    // SAFETY: the kernel writes a `timespec`.
                    let at: libc::timespec = unsafe { ptr::read_unaligned(data.cast()) };
                    stamp = u64::try_from(at.tv_sec)
                        .ok()
                        .map(|seconds| Duration::new(seconds, at.tv_nsec as u32));
                }
                _ => {}
            }
            // SAFETY: as for the first one.
            next = unsafe { libc::CMSG_NXTHDR(header, cmsg) };
        }
        Self {
            len,
            segment_len,
            stamp,
        }
    }
}

/// Waits for events as `epoll_wait`, but by nanoseconds (`epoll_pwait2`).
///
/// # Errors
/// `ENOSYS` before Linux 5.11, or as there.
pub fn wait(epoll: &Epoll, events: &mut [EpollEvent], timeout: Duration) -> nix::Result<usize> {
    let timeout = TimeSpec::from_duration(timeout);
    // SAFETY: an `EpollEvent` is an `epoll_event` (`repr(transparent)`), the kernel writes as many
    // as there is room for and only reads the timeout.
    let ready = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.0.as_raw_fd(),
            events.as_mut_ptr(),
            events.len() as libc::c_int,
            ptr::from_ref(timeout.as_ref()),
            ptr::null::<libc::sigset_t>(),
            0_usize,
        )
    };
    Errno::result(ready).map(|ready| ready as usize)
}

/// Takes over an inherited stream socket; `None` if the descriptor is not one.
pub fn adopt_stream(fd: RawFd) -> Option<UnixStream> {
    // SAFETY: only looked at; the call fails for a descriptor that is not open.
    let borrowed = unsafe { (fd > 2).then(|| BorrowedFd::borrow_raw(fd))? };
    getsockopt(&borrowed, SockType)
        .is_ok_and(|kind| kind == nix::sys::socket::SockType::Stream)
        // SAFETY: the descriptor is open, and whoever started us gave it to us alone.
        .then(|| unsafe { UnixStream::from_raw_fd(fd) })
}

/// How much of what was sent through a stream socket of this host the other end has not read.
///
/// # Errors
/// The socket is none.
pub fn unread_bytes(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the kernel writes one `int` to where it is told to.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Bytes ever written to a TCP connection, by whichever process.
///
/// # Errors
/// The socket is none.
pub fn tcp_bytes_written(socket: BorrowedFd<'_>) -> io::Result<u64> {
    loop {
        // What is acknowledged in between would be missing in the sum.
        let acknowledged = tcp_bytes_acknowledged(socket)?;
        let waiting = unread_bytes(socket)? as u64;
        if tcp_bytes_acknowledged(socket)? == acknowledged {
            return Ok(acknowledged + waiting);
        }
    }
}

fn tcp_bytes_acknowledged(socket: BorrowedFd<'_>) -> io::Result<u64> {
    /// Of `tcpi_bytes_acked` in `struct tcp_info`, in words.
    const BYTES_ACKED: usize = 15;
    let mut info = [0_u64; BYTES_ACKED + 1];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes `len` bytes at most.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(info[BYTES_ACKED])
}

/// One message to send: adjacent slices to one destination.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Where to.
    pub remote: SocketAddr,
    /// How many slices belong to it.
    pub slices: usize,
    /// Bytes of each slice but the last, when there is more than one.
    pub segment_len: u16,
}

/// Sends at most [`SEND_BATCH`] messages made of at most [`SLICES_MAX`] slices of `arena`, in
/// order, and returns how many the kernel took.
///
/// # Errors
/// The error of the first message that was not sent, if none was.
pub fn send(
    socket: BorrowedFd<'_>,
    arena: &[u8],
    slices: &[(u32, u32)],
    messages: &[Message],
) -> io::Result<usize> {
    // Most calls send a packet or two: only what they need is written.
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; SEND_BATCH];
    let mut names = [const { MaybeUninit::<libc::sockaddr_storage>::uninit() }; SEND_BATCH];
    let mut iovecs = [const { MaybeUninit::<libc::iovec>::uninit() }; SLICES_MAX];
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; SEND_BATCH];

    let mut slices = slices.iter();
    let mut iovecs = iovecs.as_mut_slice();
    let parts = headers.iter_mut().zip(&mut names).zip(&mut controls);
    for (((header, name), control), message) in parts.zip(messages) {
        // SAFETY: this is plain data for which all zeroes is a valid value.
        let header = &mut header.write(unsafe { mem::zeroed() }).msg_hdr;
        let count = fill_iovecs(iovecs, arena, slices.by_ref().take(message.slices));
        let (own, rest) = iovecs.split_at_mut(count);
        iovecs = rest;
        header.msg_iov = own.as_mut_ptr().cast();
        header.msg_iovlen = own.len();
        header.msg_namelen = to_sockaddr(message.remote, name);
        header.msg_name = name.as_mut_ptr().cast();
        if message.slices > 1 {
            header.msg_control = control.write(Control::default()).as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES;
            // SAFETY: `control` is 8-byte aligned and large enough for a header and a u16.
            unsafe {
                let cmsg = libc::CMSG_FIRSTHDR(header);
                (*cmsg).cmsg_level = libc::SOL_UDP;
                (*cmsg).cmsg_type = libc::UDP_SEGMENT;
                (*cmsg).cmsg_len = libc::CMSG_LEN(2) as usize;
                ptr::write_unaligned(libc::CMSG_DATA(cmsg).cast(), message.segment_len);
            }
        }
    }
    let count = messages.len().min(SEND_BATCH) as u32;
    // SAFETY: `count` headers are written. They point at names, controls and iovecs of this frame
    // that are written, too, the iovecs into `arena`, which the kernel only reads.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr().cast(),
            count,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Points `iovecs` at the slices of one message and returns how many it took: slices that lie
/// next to each other in the arena share one, which spares the kernel a piece of bookkeeping
/// per packet.
fn fill_iovecs<'s>(
    iovecs: &mut [MaybeUninit<libc::iovec>],
    arena: &[u8],
    slices: impl Iterator<Item = &'s (u32, u32)>,
) -> usize {
    let mut slices = slices.map(|&(start, len)| start as usize..(start + len) as usize);
    let mut next = slices.next();
    let mut count = 0;
    while let Some(mut piece) = next.take() {
        for slice in slices.by_ref() {
            if slice.start != piece.end {
                next = Some(slice);
                break;
            }
            piece.end = slice.end;
        }
        let bytes = &arena[piece];
        iovecs[count].write(libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        });
        count += 1;
    }
    count
}

fn to_sockaddr(addr: SocketAddr, storage: &mut MaybeUninit<libc::sockaddr_storage>) -> u32 {
    match addr {
        SocketAddr::V4(v4) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: `sockaddr_storage` is large and aligned enough for every address.
            unsafe { ptr::write(storage.as_mut_ptr().cast(), name) };
            size_of::<libc::sockaddr_in>() as u32
        }
        SocketAddr::V6(v6) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { ptr::write(storage.as_mut_ptr().cast(), name) };
            size_of::<libc::sockaddr_in6>() as u32
        }
    }
}

fn from_sockaddr(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which address is stored.
            let name: &libc::sockaddr_in = unsafe { &*ptr::from_ref(storage).cast() };
            let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says which address is stored.
            let name: &libc::sockaddr_in6 = unsafe { &*ptr::from_ref(storage).cast() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            Some(SocketAddrV6::new(ip, port, 0, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::setsockopt;
    use nix::sys::socket::sockopt::{ReceiveTimestampns, UdpGroSegment};
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::SystemTime;

    #[test]
    fn what_the_other_end_has_not_read_is_counted_until_it_has() {
        use std::io::{Read, Write};
        let (mut a, mut b) = UnixStream::pair().unwrap();
        assert_eq!(unread_bytes(a.as_fd()).unwrap(), 0);
        a.write_all(&[7; 100]).unwrap();
        assert!(unread_bytes(a.as_fd()).unwrap() >= 100);
        b.read_exact(&mut [0; 60]).unwrap();
        assert!(unread_bytes(a.as_fd()).unwrap() >= 40);
        b.read_exact(&mut [0; 40]).unwrap();
        assert_eq!(unread_bytes(a.as_fd()).unwrap(), 0);
    }

    #[test]
    fn the_kernel_tells_when_a_message_came_in() {
        let [a, b] = [0; 2].map(|port| UdpSocket::bind(("127.0.0.1", port)).unwrap());
        let wall = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let mut batch = RecvBatch::default();
        for is_stamped in [false, true] {
            setsockopt(&b, ReceiveTimestampns, &is_stamped).unwrap();
            setsockopt(&b, UdpGroSegment, &is_stamped).unwrap();
            let before = wall().unwrap();
            let message = Message {
                remote: b.local_addr().unwrap(),
                slices: 2,
                segment_len: 5,
            };
            send(a.as_fd(), &[7; 10], &[(0, 5), (5, 5)], &[message]).unwrap();
            let mut datagrams = 0;
            while datagrams < 2 {
                let count = batch.recv(b.as_fd()).unwrap();
                // Until the kernel has got used to stamping it does so when a message is taken.
                let taken = wall().unwrap();
                for index in 0..count {
                    let stamp = batch.stamp(index);
                    assert_eq!(stamp.is_some(), is_stamped);
                    assert!(stamp.is_none_or(|stamp| (before..=taken).contains(&stamp)));
                    batch.datagrams(index, |_, _| datagrams += 1);
                }
            }
        }
    }

    #[test]
    fn a_segmented_message_arrives_as_its_slices() {
        for (ip, is_coalescing) in [("127.0.0.1", false), ("127.0.0.1", true), ("::1", true)] {
            let a = UdpSocket::bind((ip, 0)).unwrap();
            let b = UdpSocket::bind((ip, 0)).unwrap();
            setsockopt(&b, UdpGroSegment, &is_coalescing).unwrap();
            let remote = b.local_addr().unwrap();
            let arena: Vec<u8> = (0..250).collect();
            let slices = [(0, 100), (100, 100), (200, 50), (10, 5)];
            let message = |slices, segment_len| Message {
                remote,
                slices,
                segment_len,
            };
            let messages = [message(3, 100), message(1, 0)];
            assert_eq!(send(a.as_fd(), &arena, &slices, &messages).unwrap(), 2);
            let mut batch = RecvBatch::default();
            let mut received = Vec::new();
            let from = a.local_addr().unwrap();
            while received.len() < 4 {
                let count = batch.recv(b.as_fd()).unwrap();
                for index in 0..count {
                    batch.datagrams(index, |datagram, remote| {
                        assert_eq!(remote, from);
                        received.push(datagram.to_vec());
                    });
                }
            }
            let expected: Vec<Vec<u8>> = slices
                .iter()
                .map(|&(start, len)| arena[start as usize..(start + len) as usize].to_vec())
                .collect();
            assert_eq!(received, expected);
            let error = batch.recv(b.as_fd()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
    }
}
