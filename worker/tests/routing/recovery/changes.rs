//! What peers and applications do between two deaths, and while a worker dies.

use broth_ipc::body::{Empty, EncodingPreferences, SetPreferredProfile};
use broth_ipc::rtp::Profile;
use broth_ipc::{Call, Ids};
use broth_worker::wire::rtp::is_rtcp;

use super::room::Room;
use super::source::Format;
use crate::stage::ROUTER;

const LAYERS: [Profile; 3] = [Profile::Low, Profile::Medium, Profile::High];
const VIDEO: [Format; 3] = [Format::Vp8, Format::Vp9, Format::H264];

impl Room {
    /// A member sends audio, simulcast and video of another codec.
    pub(super) fn produce_everything(&mut self, sender: usize) {
        let first = self.first_number();
        self.produce(sender, Format::Opus, &[Profile::Default], first);
        let first = self.first_number();
        let format = VIDEO[sender % VIDEO.len()];
        self.produce(sender, format, &[Profile::Default], first);
        if sender == 0 {
            let first = self.first_number();
            self.produce(sender, Format::Vp8, &LAYERS, first);
        }
    }

    /// Somebody does something.
    pub(super) fn change(&mut self) {
        self.tally.changes += 1;
        let producing = self.below(self.producing.len() as u64) as usize;
        let consuming = self.below(self.consuming.len() as u64) as usize;
        match self.below(12) {
            0 | 1 => self.turn_consumer(consuming),
            2 => self.turn_producer(producing),
            3..=5 => self.prefer(consuming),
            6 => self.prefer_for_all(producing),
            7 => self.filter(consuming),
            8 => self.consume_anew(consuming),
            9 => self.produce_anew(producing),
            10 => self.turn_layer(),
            // Connecting takes more than one request.
            _ if self.memory.is_mortal() => self.turn_consumer(consuming),
            _ => self.rejoin(),
        }
    }

    fn turn_consumer(&mut self, at: usize) {
        let consuming = &mut self.consuming[at];
        consuming.is_paused = !consuming.is_paused;
        consuming.got.may_begin = true;
        consuming.got.is_settled = false;
        let call = if consuming.is_paused {
            Call::PauseConsumer(Empty {})
        } else {
            Call::ResumeConsumer(Empty {})
        };
        let ids = consuming.ids();
        self.call(ids, call);
        self.listen(at);
    }

    fn turn_producer(&mut self, at: usize) {
        let producing = &mut self.producing[at];
        producing.is_paused = !producing.is_paused;
        let call = if producing.is_paused {
            Call::PauseProducer(Empty {})
        } else {
            Call::ResumeProducer(Empty {})
        };
        let (id, ids) = (producing.id, producing.ids());
        for consuming in self.consuming.iter_mut().filter(|one| one.producer == id) {
            consuming.got.may_begin = true;
            consuming.got.is_settled = false;
        }
        self.call(ids, call);
        let of_it = |at: &usize| self.consuming[*at].producer == id;
        for at in (0..self.consuming.len()).filter(of_it).collect::<Vec<_>>() {
            self.listen(at);
        }
    }

    fn prefer(&mut self, at: usize) {
        let profile = self.any_profile();
        let consuming = &mut self.consuming[at];
        consuming.preferred = profile;
        consuming.got.is_settled = false;
        let ids = consuming.ids();
        self.call(
            ids,
            Call::SetConsumerProfile(SetPreferredProfile { profile }),
        );
    }

    fn prefer_for_all(&mut self, at: usize) {
        let profile = self.any_profile();
        let producing = &mut self.producing[at];
        producing.preferred = profile;
        let (id, ids) = (producing.id, producing.ids());
        for consuming in self.consuming.iter_mut().filter(|one| one.producer == id) {
            consuming.got.is_settled = false;
        }
        self.call(
            ids,
            Call::SetProducerProfile(SetPreferredProfile { profile }),
        );
    }

    fn any_profile(&mut self) -> Profile {
        let layers = LAYERS.into_iter().chain([Profile::Default]);
        let at = self.below(4) as usize;
        layers.into_iter().nth(at).unwrap()
    }

    /// Lets upper temporal layers out, or in again.
    fn filter(&mut self, at: usize) {
        let consuming = &mut self.consuming[at];
        let temporal_layer = consuming.temporal.is_none().then_some(0);
        consuming.temporal = temporal_layer;
        // What was left out is left out of this run for ever.
        consuming.got.is_filtered |= temporal_layer.is_some();
        let preferences = EncodingPreferences { temporal_layer };
        let ids = consuming.ids();
        self.call(ids, Call::SetEncodingPreferences(preferences));
    }

    pub(super) fn close_consumer(&mut self, at: usize) {
        let closed = self.consuming.swap_remove(at);
        self.tally.add(&closed);
        self.call(closed.ids(), Call::CloseConsumer(Empty {}));
    }

    fn consume_anew(&mut self, at: usize) {
        let (receiver, producer) = (self.consuming[at].receiver, self.consuming[at].producer);
        self.close_consumer(at);
        self.consume(receiver, producer);
    }

    fn produce_anew(&mut self, at: usize) {
        let sender = self.producing[at].sender;
        let (format, first) = (self.producing[at].format, self.first_number());
        let streams = self.producing[at].streams.iter();
        let profiles: Vec<Profile> = streams.map(|(_, profile)| *profile).collect();
        self.close_producer(at);
        self.produce(sender, format, &profiles, first);
    }

    /// Its consumers are closed with it.
    fn close_producer(&mut self, at: usize) {
        let closed = self.producing.swap_remove(at);
        for consuming in self
            .consuming
            .extract_if(.., |one| one.producer == closed.id)
        {
            self.tally.add(&consuming);
        }
        let is_its = |ssrc: u32| {
            let mut streams = closed.streams.iter();
            streams.any(|(own, _)| matches!(ssrc.wrapping_sub(*own), 0 | 1))
        };
        let sources = &mut self.members[closed.sender].client.sources;
        sources.retain(|source| !is_its(source.ssrc));
        // What is on its way finds nobody.
        let is_of = |packet: &[u8]| {
            let ssrc = packet.get(8..).and_then(<[u8]>::first_chunk);
            !is_rtcp(packet) && ssrc.is_some_and(|ssrc| is_its(u32::from_be_bytes(*ssrc)))
        };
        self.queue.retain(|(_, packet)| !is_of(packet));
        self.last.take_if(|(_, packet)| is_of(packet));
        self.call(closed.ids(), Call::CloseProducer(Empty {}));
    }

    /// A layer of simulcast falls silent, or is sent again; the smallest one always is.
    fn turn_layer(&mut self) {
        let profile = [Profile::Medium, Profile::High][self.below(2) as usize];
        for member in &mut self.members {
            for source in &mut member.client.sources {
                source.is_silent ^= source.profile == profile;
            }
        }
        for consuming in &mut self.consuming {
            consuming.got.may_begin = true;
            consuming.got.is_settled = false;
        }
    }

    /// A member leaves with all it sends and gets, and somebody else comes.
    pub(super) fn rejoin(&mut self) {
        let at = self.below(self.members.len() as u64) as usize;
        let producers: Vec<_> = self
            .producing
            .iter()
            .map(|one| (one.id, one.sender))
            .collect();
        for (id, _) in producers.iter().filter(|(_, sender)| *sender == at) {
            let position = self.producing.iter().position(|one| one.id == *id);
            self.close_producer(position.unwrap());
        }
        while let Some(consuming) = self.consuming.iter().position(|one| one.receiver == at) {
            self.close_consumer(consuming);
        }
        let addr = self.members[at].client.addr;
        self.queue.retain(|(from, _)| *from != addr);
        self.last.take_if(|(from, _)| *from == addr);
        let ids = Ids::router(ROUTER).transport(self.members[at].transport);
        self.call(ids, Call::CloseTransport(Empty {}));
        let next = self.new_member();
        let left = std::mem::replace(&mut self.members[at], next);
        self.tally.add_member(&left);
        self.join(at);
        self.produce_everything(at);
        for (producer, _) in producers.into_iter().filter(|(_, sender)| *sender != at) {
            self.consume(at, producer);
        }
    }
}
