//! The sockets of a worker: UDP sockets, TCP listeners and accepted ICE-TCP connections.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use broth_ipc::body::Protocol;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{ReceiveTimestampns, UdpGroSegment};
use slab::Slab;

use super::connection::Connection;
use super::send_queue::SendQueue;
use super::sys;
use crate::recorder::{Counters, Scribe};

/// Connections the listener of a router may have open.
const CONNECTIONS_MAX: usize = 512;
/// Connections the listener of one transport may have open (`spec: media.md` §1).
const TRANSPORT_CONNECTIONS_MAX: usize = 10;
/// A peer has so long for the first connectivity check on its connection.
const STRANGER_TIME: Duration = Duration::from_secs(10);

/// Where a packet came from and its answer goes: a UDP socket and a remote address, or an
/// accepted TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Key of the socket or connection.
    pub socket: u32,
    /// The peer's address.
    pub remote: SocketAddr,
}

/// Whose a socket is, by keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The router.
    pub router: usize,
    /// The transport of the router, if it does not share the socket with others.
    pub transport: Option<usize>,
}

/// A socket with what it needs.
pub enum Socket {
    /// A UDP socket.
    Udp(UdpSocket),
    /// A TCP listener, with the number of its open connections.
    Listener(TcpListener, usize),
    /// An accepted connection.
    Connection(Box<Connection>),
}

/// A socket and whose it is.
struct Entry {
    socket: Socket,
    owner: Owner,
    local: SocketAddr,
    /// Not read before its router is released.
    is_held: bool,
    /// What arrives on it is never read.
    is_send_only: bool,
    /// What it is watched for.
    watched: EpollFlags,
}

/// All sockets, and the epoll instance they are registered with.
pub struct Sockets {
    entries: Slab<Entry>,
    epoll: Epoll,
    /// Routers whose sockets are not read yet.
    held: Vec<usize>,
    /// Connections by which no connectivity check has come, and since when; the oldest first.
    strangers: VecDeque<(Instant, u32)>,
    /// How many connections there are.
    connections: usize,
    /// How many there may be: descriptors are left for what the controller sends.
    connections_max: usize,
    /// Datagrams waiting to leave.
    pub queue: SendQueue,
    /// Packets dropped because a TCP peer does not read.
    pub tcp_blocked: u64,
}

impl Sockets {
    /// No sockets yet; they will be registered with `epoll` under their keys.
    pub fn new(epoll: Epoll) -> Self {
        let descriptors_max = getrlimit(Resource::RLIMIT_NOFILE);
        let descriptors_max = descriptors_max.map_or(usize::MAX, |(soft, _)| soft as usize);
        Self {
            entries: Slab::new(),
            epoll,
            held: Vec::new(),
            strangers: VecDeque::new(),
            connections: 0,
            connections_max: descriptors_max / 2,
            queue: SendQueue::default(),
            tcp_blocked: 0,
        }
    }

    /// The epoll instance.
    pub fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    /// Takes over a bound socket.
    ///
    /// # Errors
    /// The descriptor is not what it is said to be, or cannot be registered.
    pub fn add(&mut self, protocol: Protocol, fd: OwnedFd, owner: Owner) -> io::Result<u32> {
        let (socket, local) = match protocol {
            Protocol::Udp => {
                let socket = UdpSocket::from(fd);
                socket.set_nonblocking(true)?;
                // Only saves work; an old kernel delivers datagrams one by one.
                let _ = setsockopt(&socket, UdpGroSegment, &true);
                // Without it everything that waited for a turn came in then.
                let _ = setsockopt(&socket, ReceiveTimestampns, &true);
                let local = socket.local_addr()?;
                (Socket::Udp(socket), local)
            }
            Protocol::Tcp => {
                let listener = TcpListener::from(fd);
                listener.set_nonblocking(true)?;
                let local = listener.local_addr()?;
                (Socket::Listener(listener, 0), local)
            }
        };
        self.insert(socket, owner, local)
    }

    /// Takes over a bound UDP socket that only sends: what arrives on it is never read.
    ///
    /// # Errors
    /// The descriptor is no such socket.
    pub fn add_send_only(&mut self, fd: OwnedFd, owner: Owner) -> io::Result<u32> {
        let socket = UdpSocket::from(fd);
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let key = self.entries.insert(Entry {
            socket: Socket::Udp(socket),
            owner,
            local,
            is_held: false,
            is_send_only: true,
            watched: EpollFlags::empty(),
        });
        Ok(key as u32)
    }

    /// Reads no socket of a router until it is released.
    pub fn hold(&mut self, router: usize) {
        self.held.push(router);
    }

    /// Begins to read what a router was given since it was held.
    pub fn release(&mut self, router: usize) {
        self.held.retain(|held| *held != router);
        for (key, entry) in &mut self.entries {
            if entry.owner.router == router && std::mem::take(&mut entry.is_held) {
                let is_blocked = self.queue.is_blocked(key as u32);
                let watched = entry.watch(&self.epoll, key, is_blocked);
                debug_assert!(watched.is_ok(), "registering takes memory only");
            }
        }
    }

    /// The UDP socket of a router that is bound to an address.
    pub fn find(&self, router: usize, local: SocketAddr) -> Option<u32> {
        let mut entries = self.entries.iter();
        let is_it = |entry: &Entry| {
            entry.owner.router == router
                && entry.local == local
                && matches!(entry.socket, Socket::Udp(_))
        };
        let found = entries.find(|(_, entry)| is_it(entry));
        found.map(|(key, _)| key as u32)
    }

    fn insert(&mut self, socket: Socket, owner: Owner, local: SocketAddr) -> io::Result<u32> {
        let is_held = self.held.contains(&owner.router);
        let key = self.entries.insert(Entry {
            socket,
            owner,
            local,
            is_held,
            is_send_only: false,
            watched: EpollFlags::empty(),
        });
        if let Err(error) = self.entries[key].watch(&self.epoll, key, false) {
            self.entries.remove(key);
            return Err(error.into());
        }
        Ok(key as u32)
    }

    /// Closes a socket or connection. A socket's address is returned.
    pub fn remove(&mut self, key: u32) -> Option<(Protocol, SocketAddr)> {
        if let Some((Socket::Connection(connection), _)) = self.get_mut(key) {
            connection.shut_down();
        }
        self.let_go(key)
    }

    /// Leaves a socket or connection to whoever else holds it.
    fn let_go(&mut self, key: u32) -> Option<(Protocol, SocketAddr)> {
        let entry = self.entries.try_remove(key as usize)?;
        self.queue.forget(key);
        self.recognise(key);
        // Closing the last descriptor would do, but the controller holds another one.
        let _ = self.epoll.delete(entry.socket.as_fd());
        if let Socket::Connection(connection) = &entry.socket {
            self.connections -= 1;
            if let Some(Entry {
                socket: Socket::Listener(_, open),
                ..
            }) = self.entries.get_mut(connection.listener as usize)
            {
                *open -= 1;
            }
        }
        match entry.socket {
            Socket::Udp(_) => Some((Protocol::Udp, entry.local)),
            Socket::Listener(..) => Some((Protocol::Tcp, entry.local)),
            Socket::Connection(_) => None,
        }
    }

    /// The keys of everything whose owner is among the wanted.
    pub fn keys_of(&self, is_wanted: impl Fn(Owner) -> bool) -> Vec<u32> {
        let entries = self.entries.iter();
        entries
            .filter_map(|(key, entry)| is_wanted(entry.owner).then_some(key as u32))
            .collect()
    }

    /// Closes everything a router has.
    pub fn remove_router(&mut self, router: usize) {
        self.held.retain(|held| *held != router);
        for key in self.keys_of(|owner| owner.router == router) {
            self.remove(key);
        }
    }

    /// Leaves everything a router has to its successor.
    pub fn let_go_router(&mut self, router: usize) {
        self.held.retain(|held| *held != router);
        for key in self.keys_of(|owner| owner.router == router) {
            // What finds no room now is lost: the successor does not know of it.
            self.handle_writable(key);
            self.let_go(key);
        }
    }

    /// The socket of a key, and the router it belongs to.
    pub fn get_mut(&mut self, key: u32) -> Option<(&mut Socket, usize)> {
        let entry = self.entries.get_mut(key as usize)?;
        Some((&mut entry.socket, entry.owner.router))
    }

    /// Whether what arrives on a socket is to be read now.
    pub fn is_read(&self, key: u32) -> bool {
        let entry = self.entries.get(key as usize);
        entry.is_some_and(Entry::is_read)
    }

    /// The transport that has a socket or connection for itself.
    pub fn transport_of(&self, key: u32) -> Option<usize> {
        self.entries.get(key as usize)?.owner.transport
    }

    /// The local address and protocol of a socket.
    pub fn local(&self, key: u32) -> Option<(IpAddr, u16, Protocol)> {
        let entry = self.entries.get(key as usize)?;
        let protocol = match entry.socket {
            Socket::Udp(_) => Protocol::Udp,
            Socket::Listener(..) | Socket::Connection(_) => Protocol::Tcp,
        };
        Some((entry.local.ip(), entry.local.port(), protocol))
    }

    /// Accepts one connection; returns whether there may be another one.
    ///
    /// If too many are open, the oldest is closed by which no connectivity check has come; if all
    /// are in use, this one is.
    pub fn accept(&mut self, now: Instant, listener: u32) -> bool {
        let Some(entry) = self.entries.get_mut(listener as usize) else {
            return false;
        };
        let (owner, local) = (entry.owner, entry.local);
        let connections_max = match owner.transport {
            Some(_) => TRANSPORT_CONNECTIONS_MAX,
            None => CONNECTIONS_MAX,
        };
        let Socket::Listener(socket, open) = &mut entry.socket else {
            return false;
        };
        let is_full = *open == connections_max;
        let stream = match socket.accept() {
            Ok((stream, _)) => stream,
            // The peer has gone already.
            Err(error) => return error.kind() == io::ErrorKind::ConnectionAborted,
        };
        if is_full || self.connections == self.connections_max {
            let mut strangers = self.strangers.iter().map(|(_, key)| *key);
            let stranger = match is_full {
                true => strangers.find(|key| self.listener_of_connection(*key) == Some(listener)),
                false => strangers.next(),
            };
            let Some(stranger) = stranger else {
                return true;
            };
            self.remove(stranger);
        }
        let connection = Connection::new(stream, listener);
        if let Ok(key) = connection.and_then(|new| self.insert_connection(new, owner, local)) {
            self.strangers.push_back((now, key));
        }
        true
    }

    /// Closes connections by which no connectivity check has come in time.
    pub fn drop_strangers(&mut self, now: Instant) {
        while let Some(&(since, key)) = self.strangers.front()
            && now.saturating_duration_since(since) >= STRANGER_TIME
        {
            self.remove(key);
        }
    }

    /// A connectivity check has come by a connection, if it is one: it is not closed for want of
    /// room.
    pub fn recognise(&mut self, key: u32) {
        self.strangers.retain(|(_, stranger)| *stranger != key);
    }

    fn listener_of_connection(&self, key: u32) -> Option<u32> {
        match &self.entries.get(key as usize)?.socket {
            Socket::Connection(connection) => Some(connection.listener),
            Socket::Udp(_) | Socket::Listener(..) => None,
        }
    }

    /// Goes on with a connection of an earlier worker, which noted the frame it had in hand.
    ///
    /// # Errors
    /// The descriptor is not the connection between these addresses, there is no listener for it,
    /// or it is broken.
    pub fn resume_connection(
        &mut self,
        router: usize,
        fd: OwnedFd,
        (local, remote): (SocketAddr, SocketAddr),
        noted: &Counters,
    ) -> io::Result<u32> {
        let stream = TcpStream::from(fd);
        if (stream.local_addr()?, stream.peer_addr()?) != (local, remote) {
            return Err(io::Error::other("another connection"));
        }
        let listener = self.listener_of(router, local);
        let (listener, owner) = listener.ok_or_else(|| io::Error::other("no listener"))?;
        let connection = Connection::resumed(stream, listener, noted)?;
        self.insert_connection(connection, owner, local)
    }

    fn listener_of(&self, router: usize, local: SocketAddr) -> Option<(u32, Owner)> {
        let mut entries = self.entries.iter();
        entries.find_map(|(key, entry)| {
            let is_it = matches!(entry.socket, Socket::Listener(..))
                && entry.owner.router == router
                && entry.local == local;
            is_it.then_some((key as u32, entry.owner))
        })
    }

    fn insert_connection(
        &mut self,
        connection: Connection,
        owner: Owner,
        local: SocketAddr,
    ) -> io::Result<u32> {
        let listener = connection.listener as usize;
        let key = self.insert(Socket::Connection(Box::new(connection)), owner, local)?;
        self.connections += 1;
        if let Some(Entry {
            socket: Socket::Listener(_, open),
            ..
        }) = self.entries.get_mut(listener)
        {
            *open += 1;
        }
        Ok(key)
    }

    /// Lets a connection, if it is one, note the frames it writes.
    pub fn set_scribe(&mut self, key: u32, scribe: Scribe) {
        if let Some((Socket::Connection(connection), _)) = self.get_mut(key) {
            connection.set_scribe(scribe);
        }
    }

    /// Another descriptor of a connection; `None` if it is none, or there are too many.
    pub fn clone_connection(&self, key: u32) -> Option<OwnedFd> {
        match &self.entries.get(key as usize)?.socket {
            Socket::Connection(connection) => Some(connection.try_clone().ok()?.into()),
            Socket::Udp(_) | Socket::Listener(..) => None,
        }
    }

    /// Queues a packet on a path. Nothing is queued for a socket that is gone.
    pub fn send(&mut self, path: Path, packet: &[u8]) {
        if packet.len() > super::send_queue::PACKET_BYTES_MAX {
            return;
        }
        let slot = self.slot();
        slot[..packet.len()].copy_from_slice(packet);
        self.commit(path, packet.len());
    }

    /// Room for the next packet.
    pub fn slot(&mut self) -> &mut [u8] {
        if self.queue.is_full() {
            self.flush();
        }
        self.queue.slot()
    }

    /// Queues the first `len` bytes of the slot taken last.
    pub fn commit(&mut self, path: Path, len: usize) {
        let Some(entry) = self.entries.get_mut(path.socket as usize) else {
            return;
        };
        let Socket::Connection(connection) = &mut entry.socket else {
            self.queue.commit(path.socket, path.remote, len);
            return;
        };
        if !connection.send(&self.queue.slot()[..len]) {
            self.tcp_blocked += 1;
        }
    }

    /// Sends what a socket, or a TCP peer, had no room for.
    pub fn handle_writable(&mut self, key: u32) {
        let Some(entry) = self.entries.get_mut(key as usize) else {
            return;
        };
        match &mut entry.socket {
            // A broken connection shows itself when it is read.
            Socket::Connection(connection) => drop(connection.flush()),
            Socket::Listener(..) => {}
            Socket::Udp(socket) => {
                let socket = socket.as_fd();
                self.queue
                    .resume(key, Instant::now(), |arena, slices, messages| {
                        sys::send(socket, arena, slices, messages)
                    });
                let is_blocked = self.queue.is_blocked(key);
                let watched = entry.watch(&self.epoll, key as usize, is_blocked);
                debug_assert!(watched.is_ok(), "it was watched before");
            }
        }
    }

    /// Reports once more what a connection has to read, or a listener to accept.
    pub fn wake(&mut self, key: u32) {
        if let Some(entry) = self.entries.get(key as usize) {
            let mut event = EpollEvent::new(entry.socket.interest(), u64::from(key));
            let _ = self.epoll.modify(entry.socket.as_fd(), &mut event);
        }
    }

    /// Sends all queued datagrams that the kernel has room for; the others leave when it does.
    pub fn flush(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let entries = &self.entries;
        self.queue.flush(|key, arena, slices, messages| {
            let entry = entries.get(key as usize);
            let entry = entry.ok_or(io::ErrorKind::NotConnected)?;
            sys::send(entry.socket.as_fd(), arena, slices, messages)
        });
        for key in self.queue.blocked() {
            if let Some(entry) = self.entries.get_mut(key as usize) {
                // A socket that cannot be watched drops what is too old when more is to wait.
                let _ = entry.watch(&self.epoll, key as usize, true);
            }
        }
    }
}

impl Entry {
    /// Whether what arrives is to be read now.
    fn is_read(&self) -> bool {
        !self.is_held && !self.is_send_only
    }

    /// Watches a socket for what it is to be watched for now.
    fn watch(&mut self, epoll: &Epoll, key: usize, is_blocked: bool) -> nix::Result<()> {
        let mut wanted = EpollFlags::empty();
        if self.is_read() {
            wanted |= self.socket.interest();
        }
        if is_blocked {
            wanted |= EpollFlags::EPOLLOUT;
        }
        if wanted == self.watched {
            return Ok(());
        }
        let mut event = EpollEvent::new(wanted, key as u64);
        let socket = self.socket.as_fd();
        match (self.watched.is_empty(), wanted.is_empty()) {
            (true, _) => epoll.add(socket, event)?,
            (false, true) => epoll.delete(socket)?,
            (false, false) => epoll.modify(socket, &mut event)?,
        }
        self.watched = wanted;
        Ok(())
    }
}

impl Socket {
    /// What it is watched for. Of a connection only changes are reported, as the beginning of a
    /// frame stays in the kernel until the rest of it is there; of a listener, too, as there may be
    /// no descriptor for what waits there.
    fn interest(&self) -> EpollFlags {
        match self {
            Self::Udp(_) => EpollFlags::EPOLLIN,
            Self::Listener(..) => EpollFlags::EPOLLIN | EpollFlags::EPOLLET,
            Self::Connection(_) => {
                EpollFlags::EPOLLIN
                    | EpollFlags::EPOLLOUT
                    | EpollFlags::EPOLLRDHUP
                    | EpollFlags::EPOLLET
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Listener(listener, _) => listener.as_fd(),
            Self::Connection(connection) => connection.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests;
