//! What every turn of the event loop hands to the cores: the time, the way out, the memory.

use std::time::{Duration, Instant};

use broth_ipc::{ConsumerId, Event, Notification, RouterId, Scope, Target, TransportId};
use nix::time::{ClockId, clock_gettime};

use crate::black_box::BlackBox;
use crate::drop_reason::{DropReason, Drops};
use crate::dtls::{Certificate, DtlsContext};
use crate::log::Log;
use crate::net::binder::Binder;
use crate::net::sockets::Sockets;
use crate::srtp::Profile;
use crate::stream::{Hold, PacketPool};
use crate::wire::rtcp::ReportBlock;
use crate::wire::rtp_ext::abs_send_time;

/// What packets kept for retransmission may take, over all streams of a worker.
const POOL_BYTES_MAX: usize = 256 << 20;
/// Longest time a datagram waits in its socket for a worker: its successor, at that.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// What is not urgent leaves at multiples of this: waking costs more than what is then to be done.
const TICK: Duration = Duration::from_millis(50);
/// Seconds between the NTP epoch (1900) and the UNIX epoch.
const NTP_UNIX_SECONDS: u64 = 2_208_988_800;

/// Shared by all routers of a worker.
pub struct Io {
    /// Read once per turn.
    pub now: Instant,
    /// When what is in hand came in: before that, if it had to wait in its socket.
    pub arrived: Instant,
    /// `now` by the wall clock, since the UNIX epoch.
    wall: Duration,
    /// The same instant in NTP format, 32.32 seconds since 1900.
    pub ntp: u64,
    /// Sockets and what waits to leave through them.
    pub sockets: Sockets,
    /// Opens ports for transports that are handed none.
    pub binder: Binder,
    /// What is to be said to people.
    pub log: Log,
    /// Payloads kept for retransmission.
    pub pool: PacketPool,
    /// Notifications for the controller, in order.
    pub notes: Vec<Notification>,
    /// Packets that went no further.
    pub drops: Drops,
    /// Datagrams received.
    pub received: u64,
    /// System calls that received datagrams.
    pub recv_calls: u64,
    /// DTLS settings shared by all transports.
    pub dtls: DtlsContext,
    /// The worker's certificate.
    pub certificate: Certificate,
    /// Reused for what is assembled before it is queued.
    pub scratch: Vec<u8>,
    /// Reused for arrivals on their way into a packet.
    pub fci: Vec<u8>,
    /// Reused for numbers to be asked for.
    pub missing: Vec<u16>,
    /// Reused for what is reported of streams.
    pub blocks: Vec<ReportBlock>,
    /// What is in hand.
    pub black_box: BlackBox,
    /// How long the beginning of a frame may wait for the rest.
    pub hold: Hold,
    /// Whether waiting gains anything now, and ends in time.
    pub may_hold: bool,
    /// When the machine started.
    start: Instant,
    /// From then to now.
    now_ms: u64,
    abs_send_time: [u8; 3],
}

impl Io {
    /// Prepares a worker's shared state.
    ///
    /// # Errors
    /// OpenSSL cannot make a certificate or a context.
    pub fn new(
        sockets: Sockets,
        certificate: Certificate,
    ) -> Result<Self, openssl::error::ErrorStack> {
        let now = Instant::now();
        let start = now.checked_sub(uptime()).unwrap_or(now);
        Ok(Self {
            now,
            arrived: now,
            wall: Duration::ZERO,
            ntp: 0,
            sockets,
            binder: Binder::default(),
            log: Log::default(),
            pool: PacketPool::new(POOL_BYTES_MAX),
            notes: Vec::new(),
            drops: Drops::default(),
            received: 0,
            recv_calls: 0,
            dtls: DtlsContext::new(&certificate, &Profile::ALL)?,
            certificate,
            scratch: Vec::with_capacity(2048),
            fci: Vec::new(),
            missing: Vec::new(),
            blocks: Vec::new(),
            black_box: BlackBox::default(),
            hold: Hold::default(),
            may_hold: true,
            start,
            now_ms: now.duration_since(start).as_millis() as u64,
            abs_send_time: abs_send_time(now.duration_since(start)),
        })
    }

    /// Replaces the certificate for the transports still to come.
    ///
    /// # Errors
    /// OpenSSL does not take it.
    pub fn set_certificate(
        &mut self,
        certificate: Certificate,
    ) -> Result<(), openssl::error::ErrorStack> {
        self.dtls = DtlsContext::new(&certificate, &Profile::ALL)?;
        self.certificate = certificate;
        Ok(())
    }

    /// Sets the time of this turn; `since_unix_epoch` is the wall clock.
    pub fn set_now(&mut self, now: Instant, since_unix_epoch: Duration) {
        self.now = now;
        let since_start = now.duration_since(self.start);
        self.now_ms = since_start.as_millis() as u64;
        self.abs_send_time = abs_send_time(since_start);
        self.arrived = now;
        self.wall = since_unix_epoch;
        let seconds = since_unix_epoch.as_secs() + NTP_UNIX_SECONDS;
        let fraction = (u64::from(since_unix_epoch.subsec_nanos()) << 32) / 1_000_000_000;
        self.ntp = seconds << 32 | fraction;
    }

    /// Takes over when the next datagrams came in, by the wall clock. A time that cannot be, as the
    /// clock was set meanwhile, is none.
    pub fn set_arrived(&mut self, since_unix_epoch: Option<Duration>) {
        let age = since_unix_epoch
            .and_then(|stamp| self.wall.checked_sub(stamp))
            .filter(|age| *age <= WAIT_MAX);
        self.arrived = self.now - age.unwrap_or_default();
    }

    /// Milliseconds since the machine started: a successor goes on with the same clock.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The send time of packets of this turn, as the header extension has it.
    pub fn abs_send_time(&self) -> [u8; 3] {
        self.abs_send_time
    }

    /// When what is in hand came in, since the machine started.
    pub fn arrived_since_start(&self) -> Duration {
        self.arrived.duration_since(self.start)
    }

    /// The first instant from `at` on at which things that are not urgent leave together.
    pub fn next_tick(&self, at: Instant) -> Instant {
        let past = at.duration_since(self.start).as_micros() % TICK.as_micros();
        let past = Duration::from_micros(past as u64);
        if past.is_zero() {
            at
        } else {
            at + (TICK - past)
        }
    }

    /// Counts a packet that went no further.
    pub fn drop(&mut self, reason: DropReason) {
        self.drops.count(reason);
    }

    /// Fills an array with random bytes.
    pub fn random<const N: usize>() -> [u8; N] {
        let mut bytes = [0; N];
        openssl::rand::rand_bytes(&mut bytes).expect("OpenSSL's random generator is seeded");
        bytes
    }

    /// Tells the controller about a transport.
    pub fn note_transport(&mut self, router: RouterId, transport: TransportId, event: Event) {
        self.note(router, Scope::Transport, transport.0, event);
    }

    /// Tells the controller about a consumer.
    pub fn note_consumer(&mut self, router: RouterId, consumer: ConsumerId, event: Event) {
        self.note(router, Scope::Consumer, consumer.0, event);
    }

    /// Tells the controller about an object.
    pub fn note(&mut self, router: RouterId, scope: Scope, target_id: u32, event: Event) {
        self.notes.push(Notification {
            target: Target {
                target_id,
                router_id: Some(router),
                scope: Some(scope),
            },
            event,
        });
    }
}

/// Time since the machine started.
fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use nix::sys::epoll::{Epoll, EpollCreateFlags};

    use super::*;

    #[test]
    fn the_time_of_arrival_lies_a_little_in_the_past_or_is_now() {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let certificate = Certificate::generate().unwrap();
        let mut io = Io::new(Sockets::new(epoll), certificate).unwrap();
        let (wall, ms) = (Duration::from_secs(1_700_000_000), Duration::from_millis);
        io.set_now(io.now + ms(5000), wall);
        let rows = [
            (None, ms(0)),
            (Some(wall), ms(0)),
            (Some(wall - ms(3)), ms(3)),
            (Some(wall - WAIT_MAX), WAIT_MAX),
            // The clock was set.
            (Some(wall - WAIT_MAX - ms(1)), ms(0)),
            (Some(wall + ms(1)), ms(0)),
            (Some(Duration::ZERO), ms(0)),
        ];
        for (stamp, age) in rows {
            io.set_arrived(stamp);
            assert_eq!(io.now - io.arrived, age, "{stamp:?}");
        }
    }
}
