//! The process that does nothing but open, seal and send.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result};
use broth_client::client::{Client, PlainPeer};
use broth_client::peer::Peer;
use broth_ipc::{ALLOCATOR_ENV, TransportId};
use broth_worker::srtp::Profile;

use crate::limit::{Counters, Keys, LIMIT_ARG, Order};

/// The process, and the way to give it orders.
pub(crate) struct Limit {
    child: Child,
    channel: Mutex<Channel>,
    address: SocketAddr,
    profile: Option<Profile>,
}

struct Channel {
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Clients so far: what tells their keys apart.
    clients: u32,
}

impl Limit {
    pub(crate) fn start(profile: Option<Profile>) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .arg(LIMIT_ARG)
            .envs([ALLOCATOR_ENV])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().context("its output")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        Ok(Self {
            child,
            channel: Mutex::new(Channel {
                orders,
                answers,
                clients: 0,
            }),
            address: line.trim().parse().context("the address it listens at")?,
            profile,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn counters(&self) -> Result<Counters> {
        self.channel().give(&Order::Count)
    }

    pub(crate) fn connect_sender(&self) -> Result<Client> {
        let (client, remote, keys) = self.connect()?;
        self.channel().give(&Order::Sender { remote, keys })?;
        Ok(client)
    }

    pub(crate) fn connect_viewer(&self, senders: Vec<u32>) -> Result<Client> {
        let (client, remote, keys) = self.connect()?;
        self.channel().give(&Order::Viewer {
            remote,
            keys,
            senders,
        })?;
        Ok(client)
    }

    pub(crate) fn disconnect(&self, viewer: &Client) -> Result<()> {
        let remote = viewer.socket().local_addr()?;
        self.channel().give(&Order::Gone { remote })?;
        Ok(())
    }

    fn channel(&self) -> std::sync::MutexGuard<'_, Channel> {
        self.channel.lock().expect("no panic holds the lock")
    }

    fn connect(&self) -> Result<(Client, SocketAddr, Option<Keys>)> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(self.address)?;
        let remote = socket.local_addr()?;
        let number = {
            let mut channel = self.channel();
            channel.clients += 1;
            channel.clients
        };
        let transport = TransportId(number);
        Ok(match self.profile {
            Some(profile) => {
                let (theirs, ours) = Keys::pair(profile, number);
                let peer = Peer::with_keys(socket, &theirs, transport)?;
                (Client::WebRtc(Box::new(peer)), remote, Some(ours))
            }
            None => (Client::Plain(PlainPeer { socket, transport }), remote, None),
        })
    }
}

impl Channel {
    fn give(&mut self, order: &Order) -> Result<Counters> {
        let mut line = serde_json::to_string(order)?;
        line.push('\n');
        let orders = self.orders.as_mut().context("it has ended")?;
        orders.write_all(line.as_bytes())?;
        line.clear();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).context("its answer")
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // It ends when nobody gives orders any more.
        self.channel().orders = None;
        let _ = self.child.wait();
    }
}
