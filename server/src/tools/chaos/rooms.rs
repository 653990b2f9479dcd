//! Makes the rooms of the load, by the messages that clients of the server's library send, and
//! connects those clients.

use anyhow::{Context, Result};
use broth::{Consumer, MediaKind, Peer, Room, RoomMediaCodec, RoomOptions, Server};
use broth_client::peer::Endpoint;
use broth_client::rtp::{opus_parameters, vp8_parameters};
use broth_client::send_track::SendTrack;
use broth_ipc::body::DtlsRole;
use broth_worker::srtp::Profile;
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::member::{Member, Received};
use super::options::Load;
use super::traffic::Traffic;

const PROFILE: Profile = Profile::AeadAes128Gcm;
/// The SSRCs of a sender; those of the next one are so much higher.
const VIDEO_SSRC: u32 = 1000;
const AUDIO_SSRC: u32 = 1002;
const SSRCS: u32 = 10;
/// Ids a client uses: its transport's, and its producers' behind it.
const IDS: u32 = 3;

/// Makes all rooms, spread over the workers; the clients take part when this is done.
pub(super) async fn make(server: &Server, load: Load, traffic: &Traffic) -> Result<Vec<Room>> {
    let codecs = [
        RoomMediaCodec::audio("opus", 48_000, 2),
        RoomMediaCodec::video("VP8"),
    ];
    let mut rooms = Vec::new();
    for at in 0..load.rooms {
        let options = RoomOptions {
            worker_idx: Some(at % server.num_workers().max(1)),
        };
        let room = server.room(&codecs, options).await?;
        let senders = (0..load.producers).map(|sender| join_sender(&room, at, sender, load));
        for member in try_join_all(senders).await? {
            traffic.join(member);
        }
        let receivers =
            (0..load.consumers).map(|receiver| join_receiver(&room, at, receiver, load));
        for member in try_join_all(receivers).await? {
            traffic.join(member);
        }
        rooms.push(room);
    }
    Ok(rooms)
}

async fn join_sender(room: &Room, at: usize, sender: usize, load: Load) -> Result<Member> {
    let peer = join(room, &format!("sender {sender}"))?;
    let transport = 1 + sender as u32 * IDS;
    let mut member = connect(&peer, transport, "send", at).await?;
    let ssrc = sender as u32 * SSRCS;
    let (video, audio) = (VIDEO_SSRC + ssrc, AUDIO_SSRC + ssrc);
    for (id, kind, parameters) in [
        (transport + 1, "video", vp8_parameters(video)),
        (transport + 2, "audio", opus_parameters(audio)),
    ] {
        let members = json!({ "id": id, "kind": kind, "transportId": transport,
            "rtpParameters": parameters });
        request(&peer, "createProducer", members).await?;
    }
    member.sends = vec![
        SendTrack::new(load.video, video),
        SendTrack::new(load.audio, audio),
    ];
    Ok(member)
}

async fn join_receiver(room: &Room, at: usize, receiver: usize, load: Load) -> Result<Member> {
    let peer = join(room, &format!("receiver {receiver}"))?;
    let id = 1 + (load.producers + receiver) as u32 * IDS;
    let mut member = connect(&peer, id, "recv", at).await?;
    let first = load.streams_of(at).start + receiver * 2 * load.producers;
    for (stream, consumer) in (first..).zip(peer.consumers()) {
        let members = json!({ "id": consumer.id(), "transportId": id });
        request(&peer, "enableConsumer", members).await?;
        member.receives.push(received(stream, &consumer)?);
    }
    Ok(member)
}

fn received(stream: usize, consumer: &Consumer) -> Result<Received> {
    let encoding = consumer.rtp_parameters().encodings.first();
    let encoding = encoding.context("a consumer without an encoding")?;
    let ssrc = encoding.ssrc.context("a consumer without an SSRC")?;
    let rtx_ssrc = encoding.rtx.as_ref().and_then(|rtx| rtx.ssrc);
    let is_audio = consumer.kind() == MediaKind::Audio;
    Ok(Received::new(stream, is_audio, ssrc, rtx_ssrc))
}

fn join(room: &Room, name: &str) -> Result<Peer> {
    let request = json!({ "method": "join", "target": "room", "peerName": name,
        "rtpCapabilities": room.rtp_capabilities() });
    Ok(room.join(request)?.0)
}

/// Makes a transport of the peer and connects to it, away from the runtime's threads.
async fn connect(peer: &Peer, id: u32, direction: &str, room: usize) -> Result<Member> {
    let endpoint = Endpoint::new(DtlsRole::Client)?;
    let members = json!({ "id": id, "direction": direction,
        "dtlsParameters": endpoint.dtls_parameters() });
    let answer = request(peer, "createTransport", members).await?;
    let connecting = move || endpoint.connect_to(&answer, id, PROFILE);
    let connected = tokio::task::spawn_blocking(connecting).await??;
    Ok(Member::new(Box::new(connected), room))
}

async fn request(peer: &Peer, method: &str, members: Value) -> Result<Value> {
    let mut request = members;
    request["method"] = method.into();
    request["target"] = "peer".into();
    let answered = peer.receive_request(request).await;
    answered.with_context(|| format!("{method} is refused"))
}
