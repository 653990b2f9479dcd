//! A room of three whose worker dies: the way of packets between peers and worker, and the deaths.

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;

use std::time::Duration;

use broth_ipc::body::{Empty, RtpStreamStats};
use broth_ipc::{Call, Ids};
use broth_worker::net::sockets::Path;
use broth_worker::recorder::{Memory, Recorder};
use broth_worker::srtp;
use broth_worker::stream::Hold;
use serde_json::Value;

use super::source::Format;
use super::wishes::{Consuming, Member, Producing};
use crate::stage::{ROUTER, Stage};

pub(super) const MEMBERS: usize = 3;
const TURN: Duration = Duration::from_millis(10);
/// Between two turns in which parts of a frame come in: it waits for the rest.
const PART: Duration = Duration::from_micros(100);
const RECORDER_WORDS: usize = 16 << 10;
/// More writes than a turn has.
const WRITES: u64 = 400;
/// What the worker may not throw away.
const NO_REASONS: [&str; 6] = [
    "srtp",
    "rtp",
    "rtcp",
    "unknownAddress",
    "noKeys",
    "noProducer",
];

/// What became of a room.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) deaths: u64,
    pub(super) got: usize,
    pub(super) nacked: u64,
    pub(super) repairs: u64,
    pub(super) plis: u64,
    pub(super) reports: u64,
    pub(super) feedbacks: u64,
    pub(super) runs: usize,
    pub(super) changes: u64,
    /// Deaths at which nothing was missing.
    pub(super) wholes: u64,
    /// Packets of which it was checked that they arrived after the last death.
    pub(super) arrived: u64,
    /// Deaths while packets waited for the rest of their frame.
    pub(super) deaths_holding: u64,
}

/// Where in a turn the worker dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// While packets come in and are forwarded, after so many writes to the recorder.
    Working(u64),
    /// While packets leave, or right after that.
    Sending,
    /// While what was received is recorded.
    Committing(u64),
    /// While it does what it is asked for, before it can answer.
    Changing(u64),
    /// Between two turns.
    Sleeping,
}

/// The room.
pub(super) struct Room {
    pub(super) stage: Stage,
    random: u64,
    pub(super) memory: Rc<Memory>,
    /// The controller's duplicate of the room's socket.
    socket: UdpSocket,
    key: u32,
    pub(super) profile: srtp::Profile,
    pub(super) last_ssrc: u32,
    pub(super) members: Vec<Member>,
    pub(super) producing: Vec<Producing>,
    pub(super) consuming: Vec<Consuming>,
    /// Datagrams on their way to the worker, or in its socket's buffer.
    pub(super) queue: VecDeque<(SocketAddr, Vec<u8>)>,
    /// The last one that the worker took.
    pub(super) last: Option<(SocketAddr, Vec<u8>)>,
    /// Packets of a source up to here may be lost.
    doomed: HashMap<u32, u64>,
    /// Counts that may only grow.
    counts: HashMap<String, Vec<u64>>,
    pub(super) loses: bool,
    /// What was recorded is damaged on purpose: not everything goes on.
    pub(super) is_damaged: bool,
    /// Peers come, go and change their minds, also while the worker dies.
    pub(super) is_changing: bool,
    /// Receivers ask for packets again, needed or not.
    may_nack: bool,
    turns_since_death: u32,
    pub(super) tally: Tally,
}

impl Room {
    /// Peers that send VP8 and opus, and never change their minds.
    pub(super) fn new(seed: u64) -> Self {
        Self::with_memory(seed, RECORDER_WORDS)
    }

    pub(super) fn with_memory(seed: u64, words: usize) -> Self {
        let mut room = Self::empty(seed, words);
        for sender in 0..MEMBERS {
            let first = room.first_number();
            room.produce(sender, Format::Vp8, &[Default::default()], first);
            room.produce(sender, Format::Opus, &[Default::default()], first);
        }
        room.warm_up();
        room
    }

    /// Nobody sends anything.
    fn empty(seed: u64, words: usize) -> Self {
        let mut room = Self {
            stage: Stage::without_router(),
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            memory: Rc::new(Memory::heap(words)),
            socket: UdpSocket::bind("127.0.0.1:0").unwrap(),
            key: 0,
            profile: srtp::Profile::ALL[seed as usize % srtp::Profile::ALL.len()],
            last_ssrc: 0,
            members: Vec::new(),
            producing: Vec::new(),
            consuming: Vec::new(),
            queue: VecDeque::new(),
            last: None,
            doomed: HashMap::new(),
            counts: HashMap::new(),
            loses: true,
            is_damaged: false,
            is_changing: false,
            may_nack: true,
            turns_since_death: 0,
            tally: Tally::default(),
        };
        room.stage.set_hold(Hold::eager());
        room.stage
            .create_recorded(&room.socket, &room.memory, false);
        room.key = room.stage.sockets()[0];
        for at in 0..MEMBERS {
            let member = room.new_member();
            room.members.push(member);
            room.join(at);
        }
        room
    }

    /// Peers that send whatever there is, and change their minds.
    pub(super) fn changing(seed: u64) -> Self {
        let mut room = Self::empty(seed, RECORDER_WORDS);
        room.is_changing = true;
        for sender in 0..MEMBERS {
            room.produce_everything(sender);
        }
        room.warm_up();
        room
    }

    /// A number below `bound` (xorshift64).
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) % bound
    }

    /// Some streams begin short of a rollover of their numbers.
    pub(super) fn first_number(&mut self) -> u64 {
        match self.below(3) {
            0 => 100,
            1 => 65_300 + self.below(230),
            _ => 65_530 + self.below(5),
        }
    }

    pub(super) fn path(&self, remote: SocketAddr) -> Path {
        Path {
            socket: self.key,
            remote,
        }
    }

    /// Until everybody gets everything.
    fn warm_up(&mut self) {
        self.loses = false;
        for _ in 0..10 {
            self.turn();
        }
        self.loses = true;
    }

    /// Until everything that can be repaired is, `turns` later.
    pub(super) fn calm_down(&mut self, turns: u32) {
        self.loses = false;
        for _ in 0..turns {
            self.turn();
        }
        self.check_arrivals();
        self.check_counts();
        self.loses = true;
    }

    /// Everybody sends a frame, some of which is lost, and asks for something once more.
    fn send(&mut self) {
        for at in 0..self.members.len() {
            let addr = self.members[at].client.addr;
            for source in 0..self.members[at].client.sources.len() {
                let is_audio = self.members[at].client.sources[source].format == Format::Opus;
                let count = if is_audio { 1 } else { 1 + self.below(4) };
                for packet in self.members[at].client.frame(source, count) {
                    if !self.loses || self.below(12) > 0 {
                        self.queue.push_back((addr, packet));
                    }
                }
            }
        }
        for at in 0..self.consuming.len() {
            let (dice, behind) = (self.below(20), self.below(10));
            let consuming = &self.consuming[at];
            let client = &mut self.members[consuming.receiver].client;
            let (ssrc, highest) = (consuming.got.ssrc, consuming.got.highest());
            let feedback = match highest {
                Some(highest) if self.may_nack && dice < 3 => {
                    client.nack(ssrc, highest.wrapping_sub(behind) as u16)
                }
                Some(highest) if dice == 3 => client.report(ssrc, (highest & 0xFFFF) as i32),
                _ => continue,
            };
            self.queue.push_back((client.addr, feedback));
        }
    }

    /// A turn of the worker.
    pub(super) fn turn(&mut self) {
        self.dying_turn(Death::Sleeping);
    }

    /// A turn of the worker, which it may not live to the end of.
    fn dying_turn(&mut self, death: Death) {
        self.turns_since_death += 1;
        // What waited for the rest of its frame has waited long enough.
        let sent = self.end_turn(TURN);
        self.finish_turn(sent);
        self.send();
        let first = self.below(self.queue.len() as u64 + 1) as usize;
        self.receive(first);
        let sent = self.end_turn(PART);
        self.finish_turn(sent);
        if let Death::Working(writes) = death {
            self.memory.die_after(writes);
        }
        // Some comes later: a frame may be waiting for it when the worker dies.
        let later = if self.loses {
            self.below(4) as usize
        } else {
            0
        };
        self.receive(self.queue.len().saturating_sub(later));
        let mut sent = self.end_turn(PART);
        match death {
            Death::Working(_) => sent.clear(),
            Death::Sending => {
                let left = self.below(sent.len() as u64 + 1) as usize;
                sent.truncate(left);
                self.memory.die_after(0);
            }
            Death::Committing(writes) => self.memory.die_after(writes),
            Death::Changing(_) | Death::Sleeping => {}
        }
        self.finish_turn(sent);
    }

    /// The first `count` datagrams on their way come in.
    fn receive(&mut self, count: usize) {
        for _ in 0..count {
            let Some((addr, mut datagram)) = self.queue.pop_front() else {
                return;
            };
            let path = self.path(addr);
            self.last = Some((addr, datagram.clone()));
            self.stage.receive(path, &mut datagram);
        }
    }

    /// Fans out what is not to wait after `time`; returns what is to be sent.
    fn end_turn(&mut self, time: Duration) -> Vec<(SocketAddr, Vec<u8>)> {
        self.stage.advance(time);
        let mut sent = Vec::new();
        self.stage
            .take(|_, addr, datagram| sent.push((addr, datagram.to_vec())));
        sent
    }

    /// What was sent has left.
    fn finish_turn(&mut self, sent: Vec<(SocketAddr, Vec<u8>)>) {
        self.stage.commit();
        for (addr, datagram) in sent {
            self.deliver(addr, &datagram);
        }
    }

    fn deliver(&mut self, addr: SocketAddr, datagram: &[u8]) {
        let at = |member: &Member| member.client.addr == addr;
        let Some(at) = self.members.iter().position(at) else {
            // Somebody left.
            return;
        };
        let (arrived, answers) = self.members[at].client.receive(datagram);
        let answers = answers.into_iter().map(|answer| (addr, answer));
        self.queue.extend(answers);
        let Some(arrived) = arrived else {
            return;
        };
        let mut consuming = self.consuming.iter_mut();
        let consuming = consuming.find(|consuming| {
            consuming.receiver == at && matches!(arrived.ssrc.wrapping_sub(consuming.id.0), 0 | 1)
        });
        let Some(consuming) = consuming else {
            // It was closed, or never made, in the turn this was sent in.
            assert!(self.is_changing);
            return;
        };
        let mut producing = self.producing.iter();
        let producing = producing.find(|producing| producing.id == consuming.producer);
        let sender = producing.unwrap().sender;
        consuming
            .got
            .take(&arrived, &self.members[sender].client.sources);
    }

    /// The worker dies, maybe more than once, and another one goes on.
    pub(super) fn kill(&mut self) {
        self.tally.deaths += 1;
        let death = self.pick_death();
        self.dying_turn(death);
        if let Death::Changing(writes) = death {
            self.memory.die_after(writes);
            self.change();
        }
        self.doom();
        self.check_drops();
        let is_holding = self.stage.router().held_until().is_some();
        self.tally.deaths_holding += u64::from(is_holding);
        self.stage.replace_worker();
        // What waits was not received, as far as anybody knows.
        let is_clean = matches!(death, Death::Sleeping) && !is_holding;
        // What the last worker did not live to record as received may still be asked for again.
        let is_settled = self.turns_since_death > 30 && !self.is_changing;
        let is_whole = is_clean && is_settled && self.is_everything_there();
        self.turns_since_death = 0;
        let repeated = self.last.take_if(|_| is_clean);
        let is_repeated = repeated.is_some();
        self.queue.extend(repeated);
        let plis = |room: &Self| -> u64 {
            let members = room.members.iter();
            members.map(|member| member.client.plis).sum()
        };
        let asked = plis(self);
        // What is sent meanwhile waits in the socket; some of it is lost.
        self.may_nack = false;
        for _ in 0..self.below(5) {
            self.send();
        }
        while self.below(4) == 0 {
            // The next worker dies, too, while it builds everything again.
            self.tally.deaths += 1;
            let writes = self.below(300);
            self.memory.die_after(writes);
            self.restore();
            self.stage.replace_worker();
        }
        self.memory.die_after(u64::MAX);
        self.restore();
        let notes = &self.stage.worker.io.notes;
        assert!(notes.is_empty(), "{notes:?}");
        self.resume();
        if is_clean {
            self.turn();
            let drops = self.stage.worker.io.drops.to_map();
            let replayed = drops.get("replayed").copied();
            assert_eq!(replayed.unwrap_or(0), u64::from(is_repeated), "{drops:?}");
        }
        self.may_nack = true;
        if is_whole {
            assert_eq!(plis(self), asked, "nobody needs a key frame");
            self.tally.wholes += 1;
        }
        self.check_counts();
    }

    pub(super) fn resume(&mut self) {
        let resume = Call::ResumeRouter(Empty {});
        self.stage.call(Ids::router(ROUTER), resume).unwrap();
    }

    fn pick_death(&mut self) -> Death {
        match self.below(10) {
            0..=2 => Death::Working(self.below(WRITES)),
            3 | 4 => Death::Sending,
            5 => Death::Committing(self.below(40)),
            6 | 7 if self.is_changing => Death::Changing(self.below(60)),
            _ => Death::Sleeping,
        }
    }

    /// The worker dies, and what can go on goes on. Returns how many transports did.
    pub(super) fn survive_damage(&mut self) -> usize {
        self.is_damaged = true;
        self.doom();
        // What was lost is counted anew.
        self.counts.clear();
        self.stage.replace_worker();
        let resumed = self.restore();
        for consuming in &mut self.consuming {
            // What was recorded last may be lost, and what was before it come back.
            consuming.got.forget_runs();
        }
        for at in 0..self.consuming.len() {
            self.listen(at);
        }
        self.resume();
        for _ in 0..30 {
            self.turn();
        }
        resumed
    }

    pub(super) fn restore(&mut self) -> usize {
        self.stage.create_recorded(&self.socket, &self.memory, true);
        self.key = self.stage.sockets()[0];
        self.ask_for_everything()
    }

    /// What was sent and did not arrive until now is lost with the worker, if it was on its way.
    fn doom(&mut self) {
        let members = self.members.iter();
        let sources = members.flat_map(|member| &member.client.sources);
        self.doomed
            .extend(sources.map(|source| (source.ssrc, source.seq)));
        for consuming in &mut self.consuming {
            consuming.got.has_died = true;
        }
    }

    /// Nothing is missing anywhere.
    fn is_everything_there(&self) -> bool {
        let mut all = self.consuming.iter();
        all.all(|consuming| {
            let wanted = self.wanted(consuming);
            wanted.is_none_or(|source| {
                !source.format.is_repaired() || consuming.got.has_last(source, 80)
            })
        })
    }

    /// Everybody is fed from what they wish, and got everything of it since the last death.
    fn check_arrivals(&mut self) {
        for at in 0..self.consuming.len() {
            let consuming = &self.consuming[at];
            let Some(source) = self.wanted(consuming) else {
                continue;
            };
            let doomed = self.doomed.get(&source.ssrc).copied().unwrap_or(0);
            // Nobody repairs audio.
            let since = if source.format.is_repaired() {
                doomed
            } else {
                source.seq - 1
            };
            self.tally.arrived += consuming.got.check_arrivals(source, since);
            self.consuming[at].got.is_settled = true;
        }
    }

    /// Counts of living objects never go back.
    pub(super) fn check_counts(&mut self) {
        let mut asked = Vec::new();
        for producing in &self.producing {
            asked.push((producing.ids(), Call::GetProducerStats(Empty {})));
        }
        for consuming in &self.consuming {
            asked.push((consuming.ids(), Call::GetConsumerStats(Empty {})));
        }
        for (ids, call) in asked {
            let is_consumer = matches!(call, Call::GetConsumerStats(_));
            let stats = self.stage.call(ids, call).unwrap();
            let stats: Vec<RtpStreamStats> = serde_json::from_value(stats).unwrap();
            for stats in stats {
                let mut counts = vec![
                    stats.packet_count,
                    stats.byte_count,
                    stats.packets_repaired,
                    stats.packets_discarded,
                    stats.nack_count,
                    stats.pli_count,
                    stats.fir_count,
                ];
                if is_consumer && stats.kind == "outbound-rtp" {
                    counts.push(stats.packets_lost);
                }
                self.check_grown(format!("{ids:?} {}", stats.id), counts);
            }
        }
        for at in 0..self.members.len() {
            let ids = Ids::router(ROUTER).transport(self.members[at].transport);
            let call = Call::GetTransportStats(Empty {});
            let stats = self.stage.call(ids, call).unwrap();
            // Who is not connected has none.
            let count = |name| stats[0][name].as_u64().unwrap_or(0);
            let counts = vec![count("bytesReceived"), count("bytesSent")];
            self.check_grown(format!("{ids:?}"), counts);
        }
    }

    fn check_grown(&mut self, name: String, counts: Vec<u64>) {
        let before = self.counts.insert(name.clone(), counts.clone());
        let before = before.unwrap_or_default();
        let has_shrunk = before.iter().zip(&counts).any(|(before, now)| now < before);
        assert!(!has_shrunk, "{name}: {before:?} {counts:?}");
    }

    /// Nothing that a peer sends is without its use.
    fn check_drops(&self) {
        let drops = self.stage.worker.io.drops.to_map();
        let found = NO_REASONS
            .iter()
            .find(|reason| drops.contains_key(**reason));
        assert_eq!(found, None, "{drops:?}");
    }

    pub(super) fn end(mut self) -> Tally {
        self.check_drops();
        let mut tally = std::mem::take(&mut self.tally);
        for consuming in &self.consuming {
            tally.add(consuming);
        }
        for member in &self.members {
            tally.add_member(member);
        }
        self.stage
            .call(Ids::router(ROUTER), Call::CloseRouter(Empty {}))
            .unwrap();
        // Nothing is left in the recorder, least of all a key.
        let (_, left) = Recorder::restore(self.memory);
        assert!(left.transports.is_empty() && left.inbound.is_empty());
        assert!(left.streams.is_empty() && left.consumers.is_empty());
        tally
    }

    /// Asks the worker for something that it must not refuse.
    pub(super) fn call(&mut self, ids: Ids, call: Call) -> Value {
        self.stage.call(ids, call).unwrap()
    }
}

impl Tally {
    /// What came of a consumer.
    pub(super) fn add(&mut self, consuming: &Consuming) {
        self.got += consuming.got.count();
        self.repairs += consuming.got.repairs;
        self.runs += consuming.got.runs.len();
    }

    /// What a member was asked for.
    pub(super) fn add_member(&mut self, member: &Member) {
        self.nacked += member.client.nacked;
        self.plis += member.client.plis;
        self.reports += member.client.reports;
        self.feedbacks += member.client.feedbacks;
    }

    pub(super) fn sum(mut self, other: Self) -> Self {
        self.deaths += other.deaths;
        self.got += other.got;
        self.nacked += other.nacked;
        self.repairs += other.repairs;
        self.plis += other.plis;
        self.reports += other.reports;
        self.feedbacks += other.feedbacks;
        self.runs += other.runs;
        self.changes += other.changes;
        self.wholes += other.wholes;
        self.arrived += other.arrived;
        self.deaths_holding += other.deaths_holding;
        self
    }
}
