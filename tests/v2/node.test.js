// The original Node module drives the worker under test: calls of Chromium pages on the stock
// client library, watched and steered from the module's own objects.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { drawDevices, keepResolution } from "../browser/devices.js";
import { eventually, expectStill, launchChromium, openPage, removeScratch } from "../browser/rig.js";
import { startConference, workerBinary } from "./conference.js";
import { expectMedia, expectTold, joinPeer, receivedFrom, toldOf } from "./rig.js";
import { isVp8KeyFrame, openPort } from "./rtp.js";

const LIMIT = { timeout: 120_000 };
const LOOPBACK = "127.0.0.1";

let conference;
let browser;

before(async () => {
  conference = await startConference();
  browser = await launchChromium();
}, LIMIT);

after(async () => {
  await browser?.close();
  await conference?.stop();
  await removeScratch();
});

afterEach(async () => {
  for (const context of browser.contexts()) await context.close();
});

/** Two pages of a room that see and hear each other, and what the module has of them. */
async function call(name, { ann: annQuery, prepareAnn, host = conference } = {}) {
  const ann = await joinPeer(browser, host, name, "ann", annQuery, prepareAnn);
  const ben = await joinPeer(browser, host, name, "ben");
  await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
  const room = host.room(name);
  return { ann, ben, room, peers: { ann: room.getPeerByName("ann"), ben: room.getPeerByName("ben") } };
}

const transportOf = (peer, direction) => peer.transports.find((transport) => transport.direction === direction);
const producerOf = (peer, kind) => peer.producers.find((producer) => producer.kind === kind);
const consumerOf = (peer, from, kind) =>
  peer.consumers.find((consumer) => consumer.kind === kind && consumer.peer === from);

/** Collects the arguments of an object's events. */
function listen(object, event) {
  const events = [];
  object.on(event, (...args) => events.push(args));
  return events;
}

const framesAt = (page, name) => async () => (await receivedFrom(page, name)).video.framesDecoded;

function assertNoFaults(...pages) {
  for (const page of pages) assert.deepEqual(page.faults, []);
}

// These two come first: for 20 s after the end of a server with consumers the module keeps the
// process from ending.

test("a server is closed, and its worker ends by itself", LIMIT, async () => {
  const host = await startConference();
  try {
    const { ann, ben, room } = await call("server", { host });
    const exited = new Promise((resolve) => {
      const child = workerProcess(host);
      assert.equal(child.spawnfile, workerBinary());
      host.server.close();
      child.once("exit", (...how) => resolve(how));
    });
    assert.equal(room.closed, true);
    for (const page of [ann, ben]) await expectTold(page, { what: "room", event: "close" });
    assert.deepEqual(await exited, [0, null]);
  } finally {
    await host.stop();
  }
});

test("a worker that dies takes its rooms and the server with it", LIMIT, async () => {
  const host = await startConference();
  try {
    const { ann, ben, room } = await call("death", { host });
    const closed = listen(host.server, "close");
    workerProcess(host).kill("SIGKILL");
    for (const page of [ann, ben]) await expectTold(page, { what: "room", event: "close" });
    assert.equal(room.closed, true);
    assert.equal(closed.length, 1);
  } finally {
    await host.stop();
  }
});

test("two participants see and hear each other", LIMIT, async () => {
  const { ann, ben, peers } = await call("two");
  for (const peer of Object.values(peers)) {
    assert.equal(peer.appData.seat, peer.name);
    assert.deepEqual(peer.producers.map(({ kind, appData }) => [kind, appData.source]), [["audio", "audio"], ["video", "video"]]);
    for (const direction of ["send", "recv"]) {
      const transport = transportOf(peer, direction);
      assert.equal(transport.dtlsState, "connected");
      assert.match(transport.dtlsRemoteCert, /^-----BEGIN CERTIFICATE-----/);
      await eventually("ICE is completed", () => transport.iceState === "completed");
      assert.equal(transport.iceSelectedTuple.protocol, "udp");
    }
    for (const consumer of peer.consumers) assert.equal(consumer.effectiveProfile, "default");
  }
  assertNoFaults(ann, ben);
});

test("media flows over ICE-TCP alone", LIMIT, async () => {
  const ann = await joinPeer(browser, conference, "tcp", "ann", { udp: 0 });
  const ben = await joinPeer(browser, conference, "tcp", "ben", { udp: 0 });
  await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
  for (const peer of conference.room("tcp").peers) {
    for (const { iceSelectedTuple } of peer.transports) assert.equal(iceSelectedTuple.protocol, "tcp");
  }
  assertNoFaults(ann, ben);
});

for (const [name, parameters] of [["H264", { "packetization-mode": 1, "profile-level-id": "42e01f" }], ["VP9", {}]]) {
  test(`a room of ${name}`, LIMIT, async (t) => {
    const page = await openPage(browser, `${conference.url}/signal.js`);
    const mimeTypes = await page.evaluate(() => RTCRtpSender.getCapabilities("video").codecs.map(({ mimeType }) => mimeType));
    if (!mimeTypes.includes(`video/${name}`)) {
      t.skip(`this Chromium has no ${name} encoder`);
      return;
    }
    conference.openRoom(name, { name, parameters });
    const { ann, ben, peers } = await call(name);
    for (const peer of Object.values(peers)) {
      const [{ mimeType }] = await producerOf(peer, "video").getStats();
      assert.equal(mimeType, `video/${name}`);
    }
    assertNoFaults(ann, ben);
  });
}

test("a producer is paused and resumed by its client", LIMIT, async () => {
  const { ann, ben, peers } = await call("producer-client");
  const pauses = listen(producerOf(peers.ann, "video"), "pause");
  const sourcePauses = listen(consumerOf(peers.ben, peers.ann, "video"), "pause");

  await ann.evaluate(() => window.peer.producers.video.pause({ why: "tea" }));
  await expectTold(ben, { what: "consumer", kind: "video", event: "pause" });
  await expectStill("decoded frames", framesAt(ben, "ann"));
  assert.deepEqual(pauses, [["remote", { why: "tea" }]]);
  assert.deepEqual(sourcePauses, [["source"]]);
  await expectMedia(ben, "ann", ["audio"]);

  await ann.evaluate(() => window.peer.producers.video.resume());
  await expectTold(ben, { what: "consumer", kind: "video", event: "resume" });
  await expectMedia(ben, "ann");
  assertNoFaults(ann, ben);
});

test("a producer is paused and resumed by the server", LIMIT, async () => {
  const { ann, ben, peers } = await call("producer-server");
  const producer = producerOf(peers.ann, "video");

  assert.equal(producer.pause({ why: "order" }), true);
  assert.deepEqual(await expectTold(ann, { what: "producer", kind: "video", event: "pause" }), ["remote", { why: "order" }]);
  await expectTold(ben, { what: "consumer", kind: "video", event: "pause" });
  await expectStill("decoded frames", framesAt(ben, "ann"));

  assert.equal(producer.resume(), true);
  await expectTold(ann, { what: "producer", kind: "video", event: "resume" });
  await expectTold(ben, { what: "consumer", kind: "video", event: "resume" });
  await expectMedia(ben, "ann");
  assertNoFaults(ann, ben);
});

test("a consumer is paused and resumed by its client and by the server", LIMIT, async () => {
  const { ann, ben, peers } = await call("consumer");
  const consumer = consumerOf(peers.ben, peers.ann, "video");
  const pauses = listen(consumer, "pause");

  await ben.evaluate(() => window.peer.consumer("ann", "video").pause("busy"));
  await expectStill("decoded frames", framesAt(ben, "ann"));
  assert.deepEqual(pauses, [["remote", "busy"]]);
  await ben.evaluate(() => window.peer.consumer("ann", "video").resume());
  await expectMedia(ben, "ann");

  assert.equal(consumer.pause("quiet"), true);
  assert.deepEqual((await toldOf(ben, { what: "consumer", event: "pause" }))[0].args, ["local", "busy"]);
  assert.deepEqual(await expectTold(ben, { what: "consumer", event: "pause" }, 2), ["remote", "quiet"]);
  await expectStill("decoded frames", framesAt(ben, "ann"));
  assert.equal(consumer.resume(), true);
  await expectMedia(ben, "ann");
  await expectMedia(ann, "ben");
  assertNoFaults(ann, ben);
});

test("both sides choose among the profiles of a simulcast producer", LIMIT, async () => {
  // Left to itself, the original's estimate of so still a picture may never allow a third layer. All
  // three have 2 Mb/s at most; Chromium takes what it sends twice off that, up to the half.
  conference.openRoom("simulcast", { parameters: { "x-google-min-bitrate": 4_000 } });
  const { ann, ben, peers } = await call("simulcast", {
    ann: { simulcast: 1, width: 1280, fps: 10 },
    prepareAnn: keepResolution,
  });
  const producer = producerOf(peers.ann, "video");
  const consumer = consumerOf(peers.ben, peers.ann, "video");
  const changes = listen(consumer, "effectiveprofilechange");
  assert.deepEqual(producer.rtpParameters.encodings.map(({ profile }) => profile), ["low", "medium", "high"]);
  const layers = () => ann.evaluate(() => window.peer.sent("video"));
  await eventually("three layers are sent", async () => (await layers()).every(({ framesEncoded }) => framesEncoded > 0), 30_000, layers);

  const expectProfile = async (profile, widthMin, widthMax) => {
    const state = async () => {
      const { frameWidth } = (await receivedFrom(ben, "ann")).video;
      const told = await toldOf(ben, { what: "consumer", kind: "video", event: "effectiveprofilechange" });
      return { frameWidth, told: told.at(-1)?.args[0], effective: consumer.effectiveProfile };
    };
    await eventually(
      `the ${profile} picture`,
      async () => {
        const { frameWidth, told, effective } = await state();
        return frameWidth > widthMin && frameWidth <= widthMax && told === profile && effective === profile;
      },
      30_000,
      async () => ({ ...(await state()), layers: await layers() }),
    );
  };
  consumer.setPreferredProfile("low");
  await expectProfile("low", 0, 320);
  await ben.evaluate(() => window.peer.consumer("ann", "video").setPreferredProfile("medium"));
  await expectProfile("medium", 320, 640);
  assert.equal(consumer.preferredProfile, "medium");
  consumer.setPreferredProfile("high");
  await expectProfile("high", 640, 1280);
  const told = changes.map(([profile]) => profile);
  assert.ok(told.includes("medium") && told.at(-1) === "high", `${told}`);
  await expectMedia(ben, "ann");
  assert.equal((await producer.getStats()).length, 3);
  assertNoFaults(ann, ben);
});

test("statistics are given when asked and told periodically", LIMIT, async () => {
  const { ann, ben, peers } = await call("stats");
  const transport = transportOf(peers.ann, "send");
  const producer = producerOf(peers.ann, "video");
  const consumer = consumerOf(peers.ben, peers.ann, "video");
  const annSsrc = producer.rtpParameters.encodings[0].ssrc;

  const checkTransport = ([stats, ...others]) => {
    assert.equal(others.length, 0);
    assert.equal(stats.type, "transport");
    assert.equal(stats.id, transport.id);
    assert.equal(stats.dtlsState, "connected");
    assert.equal(stats.iceConnectionState, "completed");
    assert.equal(stats.iceSelectedTuple.protocol, "udp");
    assert.ok(stats.bytesReceived > 0 && stats.bytesSent > 0);
  };
  const checkProducer = ([stats, ...others]) => {
    assert.equal(others.length, 0);
    assert.equal(stats.type, "inbound-rtp");
    assert.equal(stats.ssrc, annSsrc);
    assert.equal(stats.mimeType, "video/VP8");
    assert.equal(stats.transportId, transport.id);
    assert.ok(stats.packetCount > 0 && stats.byteCount > 0 && stats.bitrate > 0);
  };
  const checkConsumer = ([inbound, outbound, ...others]) => {
    assert.equal(others.length, 0);
    assert.equal(inbound.type, "inbound-rtp");
    assert.equal(inbound.ssrc, annSsrc);
    assert.equal(outbound.type, "outbound-rtp");
    assert.equal(outbound.ssrc, consumer.rtpParameters.encodings[0].ssrc);
    assert.equal(outbound.inboundRtpId, inbound.id);
    assert.equal(outbound.transportId, transportOf(peers.ben, "recv").id);
    assert.ok(outbound.packetCount > 0 && outbound.byteCount > 0 && outbound.bitrate > 0);
  };
  await eventually("ICE is completed", () => transport.iceState === "completed");
  checkTransport(await transport.getStats());
  checkProducer(await producer.getStats());
  checkConsumer(await consumer.getStats());

  await ann.evaluate(() => {
    window.peer.send.enableStats(1_000);
    window.peer.producers.video.enableStats(1_000);
  });
  await ben.evaluate(() => window.peer.consumer("ann", "video").enableStats(1_000));
  checkTransport((await expectTold(ann, { what: "transport", event: "stats", direction: "send" }, 3))[0]);
  checkProducer((await expectTold(ann, { what: "producer", event: "stats", kind: "video" }, 3))[0]);
  checkConsumer((await expectTold(ben, { what: "consumer", event: "stats", kind: "video" }, 3))[0]);

  await ann.evaluate(() => window.peer.send.disableStats());
  await expectStill("told statistics", async () => (await toldOf(ann, { what: "transport", event: "stats" })).length, 2_500);
  assertNoFaults(ann, ben);
});

test("the bitrate of a sender is limited", LIMIT, async () => {
  const { ann, ben, peers } = await call("bitrate");
  const transport = transportOf(peers.ann, "send");
  await transport.setMaxBitrate(150_000);
  const sent = async () => (await ann.evaluate(() => window.peer.sent("video")))[0];
  await eventually("the encoder's aim is below the limit", async () => (await sent()).targetBitrate <= 150_000, 30_000, sent);
  assert.equal((await transport.getStats())[0].localAvailableSendBw.maxBitrate, 150_000);
  await expectMedia(ben, "ann");
  assertNoFaults(ann, ben);
});

test("media goes on when ICE is restarted", LIMIT, async () => {
  const { ann, ben, peers } = await call("restart");
  for (const direction of ["send", "recv"]) {
    const transport = transportOf(peers.ann, direction);
    const before = transport.iceLocalParameters.usernameFragment;
    assert.equal(await ann.evaluate((direction) => window.peer.pathOf(direction), direction), before);
    await ann.evaluate((direction) => window.peer[direction].restartIce(), direction);
    await eventually("the path has the new name", async () => {
      const path = await ann.evaluate((direction) => window.peer.pathOf(direction), direction);
      return path !== before && path === transport.iceLocalParameters.usernameFragment;
    });
  }
  await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
  for (const { dtlsState } of peers.ann.transports) assert.equal(dtlsState, "connected");
  assertNoFaults(ann, ben);
});

test("key frames are sent when asked for", LIMIT, async () => {
  const { ann, ben, peers } = await call("key-frames");
  const keyFrames = async () => (await receivedFrom(ben, "ann")).video.keyFramesDecoded;
  const count = await keyFrames();
  consumerOf(peers.ben, peers.ann, "video").requestKeyFrame();
  await eventually("a key frame is decoded", async () => (await keyFrames()) > count);
  assertNoFaults(ann, ben);
});

test("RTP is streamed to a UDP port", LIMIT, async () => {
  const { ann, ben, room, peers } = await call("streamer");
  const sentKeyFrames = async () => (await ann.evaluate(() => window.peer.sent("video")))[0].keyFramesEncoded;
  const keyFrames = await sentKeyFrames();
  for (const kind of ["audio", "video"]) {
    const port = await openPort();
    try {
      const streamer = await room.createRtpStreamer(producerOf(peers.ann, kind), { remoteIP: LOOPBACK, remotePort: port.port });
      const { codecs, encodings } = streamer.consumer.rtpParameters;
      await eventually("packets and reports come", () => port.packets.length >= 50 && port.rtcpCount() > 0);
      for (const packet of port.packets) {
        assert.equal(packet.version, 2);
        assert.equal(packet.ssrc, encodings[0].ssrc);
        assert.equal(packet.pt, codecs[0].payloadType);
      }
      const { seq } = port.packets[0];
      assert.deepEqual(port.packets.map((packet) => (packet.seq - seq) & 0xffff), [...port.packets.keys()]);
      if (kind === "video") {
        assert.ok(await sentKeyFrames() > keyFrames, "a key frame was requested");
        assert.ok(isVp8KeyFrame(port.packets[0].payload), "the stream begins with a key frame");
      }
      const closed = listen(streamer, "close");
      streamer.close();
      assert.equal(closed.length, 1);
      await expectStill("streamed packets", () => port.packets.length);
    } finally {
      await port.close();
    }
  }
  await expectMedia(ben, "ann");
  assertNoFaults(ann, ben);
});

test("a stream over plain RTP takes part in another room", LIMIT, async () => {
  const ann = await joinPeer(browser, conference, "near", "ann");
  const near = conference.room("near");
  const far = conference.openRoom("far");
  await far.receiveRequest({ method: "join", target: "room", peerName: "relay", rtpCapabilities: far.rtpCapabilities });
  const relay = far.getPeerByName("relay");

  for (const [index, producer] of near.getPeerByName("ann").producers.entries()) {
    const id = 1 + index;
    const { kind } = producer;
    const created = await relay.receiveRequest({
      method: "createTransport", target: "peer", id, direction: "send", options: {}, plainRtpParameters: {},
    });
    const { ip, port } = created.plainRtpParameters;
    const streamer = await near.createRtpStreamer(producer, { remoteIP: ip, remotePort: port });
    // The way back, for key frame requests.
    const { localIP, localPort } = streamer.transport;
    await relay.receiveNotification({
      method: "updateTransport", target: "peer", notification: true, id, plainRtpParameters: { ip: localIP, port: localPort },
    });
    const { rtpParameters } = streamer.consumer;
    await relay.receiveRequest({
      method: "createProducer", target: "peer", id: 10 + id, kind, transportId: id, rtpParameters, appData: null,
    });
  }
  const ben = await joinPeer(browser, conference, "far", "ben");
  await expectMedia(ben, "relay");
  assertNoFaults(ann, ben);
});

test("what a transport receives and sends is mirrored in the clear", LIMIT, async () => {
  const { ann, ben, peers } = await call("mirror");
  const consumer = consumerOf(peers.ben, peers.ann, "video");
  const directions = [
    { transport: transportOf(peers.ann, "send"), flow: "recvRtp", parameters: producerOf(peers.ann, "video").rtpParameters },
    { transport: transportOf(peers.ben, "recv"), flow: "sendRtp", parameters: consumer.rtpParameters },
  ];
  for (const { transport, flow, parameters } of directions) {
    const port = await openPort();
    try {
      const none = { sendRtp: false, sendRtcp: false, recvRtp: false, recvRtcp: false };
      const options = { ...none, [flow]: true, remoteIP: LOOPBACK, remotePort: port.port };
      await transport.startMirroring(options);
      await assert.rejects(transport.startMirroring(options), /already mirroring/);
      const { ssrc } = parameters.encodings[0];
      const pt = parameters.codecs[0].payloadType;
      const isClear = (packet) => packet.ssrc === ssrc && packet.pt === pt && isVp8KeyFrame(packet.payload);
      consumer.requestKeyFrame();
      await eventually("a readable key frame is mirrored", () => port.packets.some(isClear));
      assert.equal(port.rtcpCount(), 0);
      await transport.stopMirroring();
      await expectStill("mirrored packets", () => port.packets.length);
    } finally {
      await port.close();
    }
  }
  assertNoFaults(ann, ben);
});

test("levels are told and the speaker is detected", LIMIT, async () => {
  const speaking = { ann: true, ben: false };
  const pages = {};
  for (const [name, speaks] of Object.entries(speaking)) {
    const draw = (context) => drawDevices(context, speaks ? 0 : 1, speaks);
    pages[name] = await joinPeer(browser, conference, "levels", name, {}, draw);
  }
  const room = conference.room("levels");
  const levels = listen(room, "audiolevels");
  const changes = listen(room.createActiveSpeakerDetector(), "activespeakerchange");

  await eventually("ann is the loudest", () => levels.at(-1)?.[0][0]?.producer.peer.name === "ann");
  const [loudest] = levels.at(-1)[0];
  assert.equal(loudest.producer.kind, "audio");
  assert.ok(loudest.audioLevel < 0 && loudest.audioLevel > -60, `${loudest.audioLevel} dBov`);
  await eventually("ann is the speaker", () => changes.at(-1)?.[0]?.name === "ann");
  assert.equal(changes.at(-1)[1], producerOf(room.getPeerByName("ann"), "audio"));

  await pages.ann.evaluate(() => window.peer.producers.audio.pause());
  await eventually("ann is no speaker any more", () => changes.at(-1)[0]?.name !== "ann");
  assertNoFaults(...Object.values(pages));
});

test("somebody leaves and comes back", LIMIT, async () => {
  const { ann, ben, room, peers } = await call("leave");
  const closed = listen(peers.ben, "close");
  const lost = listen(consumerOf(peers.ann, peers.ben, "video"), "close");

  await ben.evaluate(() => window.peer.room.leave({ why: "bye" }));
  assert.deepEqual(await expectTold(ann, { what: "peer", event: "close", name: "ben" }), ["remote", { why: "bye" }]);
  assert.deepEqual(closed, [["remote", { why: "bye" }]]);
  assert.equal(lost.length, 1);
  assert.deepEqual(room.peers, [peers.ann]);
  assert.deepEqual(peers.ann.consumers, []);

  const again = await joinPeer(browser, conference, "leave", "ben");
  await Promise.all([expectMedia(ann, "ben"), expectMedia(again, "ann")]);
  assertNoFaults(ann, ben, again);
});

test("transports and producers are closed by the server", LIMIT, async () => {
  const { ann, ben, peers } = await call("close");
  producerOf(peers.ann, "video").close({ why: "dark" });
  assert.deepEqual(await expectTold(ann, { what: "producer", event: "close", kind: "video" }), ["remote", { why: "dark" }]);
  await expectTold(ben, { what: "consumer", event: "close", kind: "video" });
  await expectMedia(ben, "ann", ["audio"]);

  transportOf(peers.ann, "send").close();
  await expectTold(ben, { what: "consumer", event: "close", kind: "audio" });
  assert.deepEqual(peers.ann.producers, []);
  assert.deepEqual(peers.ben.consumers, []);
  await expectMedia(ann, "ben");
});

test("a room is closed", LIMIT, async () => {
  const { ann, ben, room } = await call("end");
  const other = await call("go-on");
  const closed = listen(room, "close");
  room.close({ why: "late" });
  assert.deepEqual(closed, [[{ why: "late" }]]);
  for (const page of [ann, ben]) assert.equal((await expectTold(page, { what: "room", event: "close" }))[0], "remote");
  await expectMedia(other.ann, "ben");
  const { workers } = await conference.server.dump();
  assert.equal(workers.length, 1);
});

/** The one process of a conference; the module keeps it to itself. */
function workerProcess({ server }) {
  const [worker] = server._workers;
  return worker._child;
}
