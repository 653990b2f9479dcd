// One participant on the stock client library, everything of it in reach of the tests as
// `window.peer`. What its objects tell is kept in `peer.told`.

import { spreadLayers } from "./call.js";
import { Room } from "./mediasoup-client.js";
import { Signal } from "./signal.js";

const query = Object.fromEntries(new URLSearchParams(location.search));
const EVENTS = {
  room: ["close"],
  peer: ["close"],
  transport: ["close", "stats", "connectionstatechange"],
  producer: ["close", "pause", "resume", "stats"],
  consumer: ["close", "pause", "resume", "stats", "effectiveprofilechange"],
};

const room = new Room({ requestTimeout: 30_000, transportOptions: { udp: query.udp !== "0", tcp: true } });
const told = [];
const received = [];
const producers = {};

function listen(what, object, more = {}) {
  for (const event of EVENTS[what]) {
    object.on(event, (...args) => told.push({ what, event, ...more, args }));
  }
}

function addPeer(peer) {
  listen("peer", peer, { name: peer.name });
  peer.on("newconsumer", (consumer) => receive(consumer));
  for (const consumer of peer.consumers) receive(consumer);
}

async function receive(consumer) {
  const { kind, peer } = consumer;
  listen("consumer", consumer, { kind, name: peer.name });
  received.push(consumer);
  const track = await consumer.receive(window.peer.recv);
  // What nobody plays is not decoded.
  const element = document.body.appendChild(document.createElement(kind));
  element.srcObject = new MediaStream([track]);
  element.muted = kind === "video";
  await element.play();
}

async function send(kind, constraints, options) {
  const stream = await navigator.mediaDevices.getUserMedia({ [kind]: constraints });
  const producer = room.createProducer(stream.getTracks()[0], options, { source: kind });
  producers[kind] = producer;
  listen("producer", producer, { kind });
  await producer.send(window.peer.send);
}

/** The browser's own statistics; the client library has no public way to them. */
const reportOf = async (direction) => [...(await window.peer[direction].handler._pc.getStats()).values()];

const streamIn = (report, type, { ssrc }) => ({ ...report.find((stat) => stat.type === type && stat.ssrc === ssrc) });

window.peer = {
  room,
  told,
  producers,
  state: "joining",
  consumer: (name, kind) => received.findLast((one) => one.peer.name === name && one.kind === kind && !one.closed),

  /** What comes from the peer `name`. */
  receivedFrom: async (name) => {
    const report = await reportOf("recv");
    const of = (kind) => {
      const consumer = window.peer.consumer(name, kind);
      return consumer ? streamIn(report, "inbound-rtp", consumer.rtpParameters.encodings[0]) : {};
    };
    return { audio: of("audio"), video: of("video") };
  },

  /** What is sent, one record per encoding. */
  sent: async (kind) => {
    const report = await reportOf("send");
    return producers[kind].rtpParameters.encodings.map((encoding) => streamIn(report, "outbound-rtp", encoding));
  },

  /** The server's ICE user name on the path in use. */
  pathOf: async (direction) => {
    const report = await reportOf(direction);
    const find = (id) => report.find((stat) => stat.id === id);
    const transport = report.find((stat) => stat.type === "transport");
    return find(find(transport.selectedCandidatePairId).remoteCandidateId).usernameFragment;
  },
};

const signal = await Signal.open({ room: query.room, name: query.name });
room.on("request", (request, ok, fail) => signal.request(request).then(ok, fail));
room.on("notify", (notification) => signal.notify(notification));
signal.addEventListener("notification", ({ detail }) => !room.closed && room.receiveNotification(detail));
listen("room", room);
await room.join(query.name, { seat: query.name });
for (const direction of ["send", "recv"]) {
  window.peer[direction] = room.createTransport(direction);
  listen("transport", window.peer[direction], { direction });
}
room.on("newpeer", addPeer);
for (const peer of room.peers) addPeer(peer);

const width = Number(query.width ?? 640);
const simulcast = query.simulcast === "1";
await send("audio", true);
const camera = { width: { ideal: width }, height: { ideal: (width * 9) / 16 }, frameRate: { ideal: Number(query.fps ?? 15) } };
await send("video", camera, { simulcast });
if (simulcast) await spreadLayers(window.peer.send, producers.video.track);
window.peer.state = "joined";
