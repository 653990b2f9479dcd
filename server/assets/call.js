// One person's part in a call: joins, sends, receives, and comes back when the room or the socket
// is lost. Owns the tracks and the client library; touches no page element.

import { Room, getDeviceInfo, isDeviceSupported } from "./mediasoup-client.js";
import { explain, openCamera, openMicrophone, openScreen } from "./media.js";
import { Signal } from "./signal.js";
import { describePair, inboundBySsrc, outboundBySsrc } from "./stats.js";

export const PROFILES = ["low", "medium", "high"];

/** The sources as the statistics call them. */
const STATS_NAMES = { mic: "audio", camera: "video", screen: "screen" };

/** Bits per second of each profile at most. */
const SIMULCAST_BPS_MAX = { low: 120_000, medium: 400_000, high: 1_500_000 };
/** How many times smaller than the camera's picture a profile's is. */
const SIMULCAST_SCALE = { low: 4, medium: 2, high: 1 };

/** A server that noticed no loss yet keeps the name taken for 40 s. */
const REJOIN_TIME_MAX_MS = 90_000;
const REJOIN_DELAYS_MS = [200, 500, 1_000, 2_000, 4_000];
/** A session that held for so long was a good one: losing it is a new loss. */
const SETTLED_MS = 20_000;
/** A path that is down for so long is looked for anew. */
const DISCONNECTED_MS = 3_000;

/**
 * Events: `state`, `change` (of anything shown), `speakers` (detail: Map of name to level),
 * `problem` (detail: text for the person).
 */
export class Call extends EventTarget {
  /** new, joining, joined, rejoining, left or failed. */
  state = "new";
  /** Why it is in that state, for the person. */
  reason = "";
  /** How often the room was entered. */
  joins = 0;

  #options;
  #session = null;
  #isWanted = false;
  #attempt = 0;
  #profiles = new Map();
  #local = {
    mic: { kind: "audio", open: () => openMicrophone(this.#options.micId) },
    camera: { kind: "video", open: () => openCamera(this.#options, this.#options.cameraId) },
    screen: { kind: "video", open: openScreen },
  };

  constructor(options) {
    super();
    this.#options = options;
    for (const local of Object.values(this.#local)) {
      Object.assign(local, { track: null, producer: null, isOn: false });
    }
  }

  get name() {
    return this.#options.name;
  }

  get room() {
    return this.#options.room;
  }

  /** The own tracks and whether they are on: mic, camera, screen. */
  get local() {
    return this.#local;
  }

  /** The others: `{ name, mic, camera, screen }`, each a Consumer or undefined. */
  get peers() {
    const peers = this.#session?.room.peers ?? [];
    return peers.map((peer) => {
      const bySource = { name: peer.name };
      for (const consumer of peer.consumers) bySource[sourceOf(consumer)] = consumer;
      return bySource;
    });
  }

  /** Enters the room with what `tracks` holds of `mic` and `camera`; rejects if that fails. */
  async join(tracks = {}) {
    this.#isWanted = true;
    for (const [source, track] of Object.entries(tracks)) {
      if (track) this.#adopt(source, track);
    }
    this.#enterState("joining");
    try {
      if (!isDeviceSupported()) throw new Error("This browser is not supported.");
      await this.#enter();
    } catch (error) {
      this.#isWanted = false;
      this.#dropSession();
      this.#stopTracks();
      this.#enterState("failed", explainRefusal(error, this.name));
      throw error;
    }
  }

  leave() {
    this.#isWanted = false;
    this.#dropSession();
    this.#stopTracks();
    this.#enterState("left");
  }

  mute() {
    const { mic } = this.#local;
    mic.isOn = false;
    if (mic.track) mic.track.enabled = false;
    mic.producer?.pause();
    this.#changed();
  }

  async unmute() {
    const { mic } = this.#local;
    if (!mic.track && !(await this.#acquire("mic", "microphone"))) return;
    mic.isOn = true;
    mic.track.enabled = true;
    if (mic.producer) mic.producer.resume();
    else await this.#produce("mic");
    this.#changed();
  }

  /** Pauses the picture and lets the device go, so that its light goes out. */
  cameraOff() {
    const { camera } = this.#local;
    camera.isOn = false;
    camera.producer?.pause();
    camera.producer?.track.stop();
    this.#release(camera);
    this.#changed();
  }

  async cameraOn() {
    const { camera } = this.#local;
    if (camera.isOn || !(await this.#acquire("camera", "camera"))) return;
    camera.isOn = true;
    if (camera.producer) {
      await camera.producer.replaceTrack(camera.track);
      camera.producer.resume();
    } else {
      await this.#produce("camera");
    }
    this.#changed();
  }

  async shareScreen() {
    const { screen } = this.#local;
    if (screen.isOn || !(await this.#acquire("screen", "screen"))) return;
    screen.isOn = true;
    await this.#produce("screen");
    this.#changed();
  }

  stopScreen() {
    const { screen } = this.#local;
    screen.isOn = false;
    screen.producer?.close();
    screen.producer = null;
    this.#release(screen);
    this.#changed();
  }

  /** Chooses which profile of a peer's simulcast camera is received. */
  setProfile(peerName, profile) {
    this.#profiles.set(peerName, profile);
    const consumer = this.peers.find((peer) => peer.name === peerName)?.camera;
    consumer?.setPreferredProfile(profile);
    this.#changed();
  }

  /** What flows: `{ peers: { name: { audio, video, screen } }, sent: { audio, … } }`. */
  async stats() {
    const { send, recv } = this.#session ?? {};
    const [sendReport, recvReport] = await Promise.all([reportOf(send), reportOf(recv)]);
    const [inbound, outbound] = [inboundBySsrc(recvReport), outboundBySsrc(sendReport)];
    const pair = describePair(recvReport);
    const peers = {};
    for (const { name, ...consumers } of this.peers) {
      peers[name] = {};
      for (const [source, consumer] of Object.entries(consumers)) {
        const ssrc = consumer.rtpParameters.encodings[0]?.ssrc;
        peers[name][STATS_NAMES[source]] = {
          ...inbound.get(ssrc),
          ...pair,
          paused: consumer.paused,
          profile: consumer.effectiveProfile,
        };
      }
    }
    const sent = {};
    for (const [source, { producer }] of Object.entries(this.#local)) {
      const encodings = producer?.rtpParameters?.encodings ?? [];
      const layers = encodings.map(({ ssrc }) => outbound.get(ssrc)).filter(Boolean);
      if (layers.length) sent[STATS_NAMES[source]] = { layers, ...describePair(sendReport) };
    }
    return { peers, sent };
  }

  async #enter() {
    const { room: roomName, name, codec, udp } = this.#options;
    const signal = await Signal.open({ room: roomName, name, codec });
    const room = new Room({ requestTimeout: 10_000, transportOptions: { udp, tcp: true } });
    const session = { signal, room };
    const lost = (why) => this.#session === session && this.#lost(why);
    room.on("request", (request, ok, fail) => signal.request(request).then(ok, fail));
    room.on("notify", (notification) => signal.notify(notification));
    room.on("close", (originator) => originator === "remote" && lost("The room was closed."));
    signal.addEventListener("close", ({ detail }) => lost(detail.reason || "Connection lost."));
    signal.addEventListener("notification", ({ detail }) => {
      if (detail.target === "app") this.#handleApp(detail);
      // The room would wait for the next producer or consumer to connect anew.
      else if (detail.method === "transportClosed") lost("The media connection was lost.");
      else if (!room.closed) room.receiveNotification(detail);
    });

    try {
      await room.join(name);
    } catch (error) {
      signal.close();
      throw error;
    }
    if (!this.#isWanted) {
      room.leave();
      signal.close();
      return;
    }
    session.send = this.#transport(room, "send", lost);
    session.recv = this.#transport(room, "recv", lost);
    this.#session = session;
    session.since = Date.now();
    this.joins += 1;
    this.#enterState("joined");
    room.on("newpeer", (peer) => this.#addPeer(peer));
    for (const peer of room.peers) this.#addPeer(peer);
    for (const source of ["mic", "camera", "screen"]) await this.#produce(source);
  }

  #transport(room, direction, lost) {
    const transport = room.createTransport(direction);
    let timer;
    transport.on("connectionstatechange", (state) => {
      clearTimeout(timer);
      if (state === "failed") lost("The media connection failed.");
      if (state === "disconnected") {
        timer = setTimeout(() => !transport.closed && transport.restartIce(), DISCONNECTED_MS);
      }
      this.#changed();
    });
    return transport;
  }

  #addPeer(peer) {
    peer.on("close", () => this.#changed());
    peer.on("newconsumer", (consumer) => this.#receive(consumer));
    for (const consumer of peer.consumers) this.#receive(consumer);
    this.#changed();
  }

  async #receive(consumer) {
    const { peer } = consumer;
    if (!consumer.supported) {
      this.#problem(`${peer.name} sends ${consumer.kind} that this browser cannot decode.`);
      return;
    }
    for (const event of ["close", "pause", "resume", "effectiveprofilechange"]) {
      consumer.on(event, () => this.#changed());
    }
    if (sourceOf(consumer) === "camera" && this.#profiles.has(peer.name)) {
      consumer.setPreferredProfile(this.#profiles.get(peer.name));
    }
    try {
      await consumer.receive(this.#session.recv);
    } catch (error) {
      if (!consumer.closed) this.#problem(`No ${consumer.kind} from ${peer.name}: ${error.message}`);
    }
    this.#changed();
  }

  /** Sends a source that is there and, but for a muted microphone, on. */
  async #produce(source) {
    const session = this.#session;
    const local = this.#local[source];
    if (!session || !local.track || local.producer) return;
    if (source !== "mic" && !local.isOn) return;
    if (!session.room.canSend(local.kind)) {
      this.#problem(`This room takes no ${local.kind} that this browser can send.`);
      return;
    }
    // Client 2.4 can announce simulcast to Chromium and Safari of today, not to Firefox.
    const simulcast =
      source === "camera" && this.#options.simulcast && getDeviceInfo().flag !== "firefox";
    const appData = { source, simulcast };
    if (local.kind === "video") reserveAudio(session.send);
    local.producer = session.room.createProducer(local.track, { simulcast }, appData);
    local.producer.on("close", () => this.#changed());
    try {
      await local.producer.send(session.send);
      if (simulcast) await spreadLayers(session.send, local.producer.track);
    } catch (error) {
      local.producer = null;
      if (this.#session === session) this.#problem(`Your ${source} is not sent: ${error.message}`);
    }
    this.#changed();
  }

  #handleApp({ method, levels }) {
    if (method !== "activeSpeaker") return;
    const speakers = new Map(levels.map(({ peerName, level }) => [peerName, level]));
    this.dispatchEvent(new CustomEvent("speakers", { detail: speakers }));
  }

  #lost(why) {
    if (Date.now() - this.#session.since > SETTLED_MS) this.#attempt = 0;
    this.#dropSession();
    this.#enterState("rejoining", why);
    this.#rejoin();
  }

  async #rejoin() {
    const deadline = Date.now() + REJOIN_TIME_MAX_MS;
    while (this.#isWanted && Date.now() < deadline) {
      const delay = REJOIN_DELAYS_MS[Math.min(this.#attempt, REJOIN_DELAYS_MS.length - 1)];
      this.#attempt += 1;
      // Everybody of a room comes back at once: not in the same instant.
      await new Promise((resolve) => setTimeout(resolve, delay * (0.5 + Math.random())));
      if (!this.#isWanted) return;
      try {
        await this.#enter();
        return;
      } catch (error) {
        if (this.#isWanted) this.#enterState("rejoining", explainRefusal(error, this.name));
      }
    }
    if (!this.#isWanted) return;
    this.#isWanted = false;
    this.#stopTracks();
    this.#enterState("failed", this.reason);
  }

  #dropSession() {
    const session = this.#session;
    this.#session = null;
    for (const local of Object.values(this.#local)) local.producer = null;
    if (!session) return;
    session.room.leave();
    session.signal.close();
  }

  async #acquire(source, what) {
    try {
      const track = await this.#local[source].open();
      if (!this.#isWanted) {
        track.stop();
        return false;
      }
      this.#adopt(source, track);
      return true;
    } catch (error) {
      // Closing the browser's own choice of a screen is no problem to speak of.
      const isCancelled = source === "screen" && error.name === "NotAllowedError";
      if (!isCancelled) this.#problem(explain(error, what));
      return false;
    }
  }

  #adopt(source, track) {
    const local = this.#local[source];
    Object.assign(local, { track, isOn: true });
    track.addEventListener("ended", () => {
      if (local.track !== track) return;
      if (source === "screen") this.stopScreen();
      else if (source === "camera") this.cameraOff();
      else this.mute();
      if (source !== "screen") this.#problem(`Your ${source} was unplugged.`);
    });
  }

  #release(local) {
    local.track?.stop();
    local.track = null;
  }

  #stopTracks() {
    for (const local of Object.values(this.#local)) {
      local.isOn = false;
      this.#release(local);
    }
  }

  #enterState(state, reason = "") {
    this.state = state;
    this.reason = reason;
    this.dispatchEvent(new Event("state"));
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  #problem(text) {
    this.dispatchEvent(new CustomEvent("problem", { detail: text }));
  }
}

/** What a consumer shows: mic, camera or screen; other clients may say nothing of it. */
function sourceOf({ kind, appData }) {
  if (kind === "audio") return "mic";
  return appData?.source === "screen" ? "screen" : "camera";
}

function reportOf(transport) {
  // The client has no public way to the connection's statistics.
  return transport && !transport.closed ? transport.handler._pc.getStats() : new Map();
}

/**
 * Makes room for sound before the first picture. The client answers with the extension ids of an
 * offer of audio, then video; Chromium numbers them otherwise when video comes first, and refuses.
 */
function reserveAudio(transport) {
  const connection = transport.handler._pc;
  if (connection.getTransceivers().length > 0) return;
  connection.addTransceiver("audio", { direction: "inactive" });
}

/** Only the first of several declared layers carries media until sizes and bitrates are set. */
export async function spreadLayers(transport, track) {
  const sender = transport.handler._pc.getSenders().find((sender) => sender.track === track);
  const parameters = sender.getParameters();
  parameters.encodings.forEach((encoding, index) => {
    const profile = PROFILES[index];
    encoding.active = true;
    encoding.scaleResolutionDownBy = SIMULCAST_SCALE[profile];
    encoding.maxBitrate = SIMULCAST_BPS_MAX[profile];
  });
  await sender.setParameters(parameters);
}

function explainRefusal(error, name) {
  if (/duplicated Peer/i.test(error.message)) return `Somebody called “${name}” is already in the room.`;
  return error.message;
}
