// What a page sees of a worker's death, taken down in the page: when frames were rendered, what
// sound was made up, and whether anything of ICE, DTLS or signalling moved.
//
// Frames: `presentationTime` of requestVideoFrameCallback, when a frame was handed to the
// compositor. That is what a person sees, and finer than any counter that is polled.
//
// Sound: Chromium counts samples it made up (`concealedSamples`) and how often it began to
// (`concealmentEvents`). Reports are at most 50 ms old, so both are read every 50 ms; a run is
// what grows from one reading to the next without a pause. A run of one event is exact to the
// sample. One of several events is taken as if they were one: too long, never too short.

const POLL_MS = 50;
const KEPT_MS = 20_000;

/** Prepares `context`'s pages; before their own scripts. */
export async function prepare(context) {
  await context.addInitScript(collectConnections);
}

/** Begins to watch a page that is in a call. */
export async function watch(page) {
  await page.evaluate(watchInPage, [POLL_MS, KEPT_MS]);
  page.clock = await clockOf(page);
}

/** Keeps what a page's sockets carry in `page.messages`; must be called before they open. */
export function watchSocket(page) {
  page.messages = [];
  page.on("websocket", (socket) => {
    page.messages.push("a socket opened");
    const take = ({ payload }) => {
      // Who speaks is told every half a second, whatever becomes of workers.
      if (!payload.includes('"activeSpeaker"')) page.messages.push(payload);
    };
    socket.on("framereceived", take);
    socket.on("framesent", take);
    socket.on("close", () => page.messages.push("a socket closed"));
  });
}

/** What a page's clock says more than ours, in milliseconds. */
async function clockOf(page) {
  let best = { roundTrip: Infinity };
  for (let trial = 0; trial < 20; trial += 1) {
    const begin = performance.now();
    const theirs = await page.evaluate(() => performance.now());
    const end = performance.now();
    if (end - begin < best.roundTrip) best = { roundTrip: end - begin, ahead: theirs - (begin + end) / 2 };
  }
  return best.ahead;
}

/** What happened between two moments of our clock, for each picture and each sound. */
export const lookAt = (page, from, to) =>
  page.evaluate(([from, to]) => window.observed.window(from, to), [from + page.clock, to + page.clock]);

/** Counters and states as they are now. */
export const stateOf = (page) => page.evaluate(() => window.observed.state());

function collectConnections() {
  const connections = [];
  const Native = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Native {
    constructor(...args) {
      super(...args);
      connections.push(this);
    }
  };
  window.observed = { connections };
}

function watchInPage([pollMs, keptMs]) {
  const { connections } = window.observed;
  const pictures = new Map();
  const sounds = new Map();
  const moved = [];

  for (const tile of document.querySelectorAll('[data-tile^="peer/"]')) {
    const video = tile.querySelector("video");
    const times = [];
    pictures.set(tile.dataset.tile, times);
    const watch = () => video.requestVideoFrameCallback((now, { presentationTime }) => {
      times.push(presentationTime);
      watch();
    });
    watch();
  }
  for (const connection of connections) {
    for (const event of ["iceconnectionstatechange", "connectionstatechange", "signalingstatechange", "negotiationneeded"]) {
      connection.addEventListener(event, () =>
        moved.push(`${event} ${connection.iceConnectionState} ${connection.connectionState}`));
    }
  }

  const reports = async () => {
    const open = connections.filter((connection) => connection.connectionState !== "closed");
    return (await Promise.all(open.map((connection) => connection.getStats()))).map((report) => [...report.values()]);
  };
  const poll = async () => {
    const begin = performance.now();
    for (const stat of (await reports()).flat()) {
      if (stat.type !== "inbound-rtp" || stat.kind !== "audio") continue;
      if (!sounds.has(stat.ssrc)) sounds.set(stat.ssrc, []);
      const at = stat.timestamp - performance.timeOrigin;
      const readings = sounds.get(stat.ssrc);
      if (readings.at(-1)?.at === at) continue;
      readings.push({ at, concealed: stat.concealedSamples, events: stat.concealmentEvents });
    }
    for (const times of pictures.values()) {
      while (times[0] < begin - keptMs) times.shift();
    }
    for (const readings of sounds.values()) {
      while (readings[0].at < begin - keptMs) readings.shift();
    }
    setTimeout(poll, Math.max(0, pollMs - (performance.now() - begin)));
  };
  poll();

  /** Pairs of neighbours that end after `from` and begin before `to`. */
  const pairs = (list, from, to, at = (item) => item) =>
    list.slice(1).map((next, index) => [list[index], next]).filter(([a, b]) => at(b) > from && at(a) < to);

  window.observed.window = (from, to) => ({
    pictures: [...pictures].map(([name, times]) => ({
      name,
      frames: times.filter((time) => time > from && time < to).length,
      isFlowing: times.some((time) => time > to - 1_000),
      gapMs: Math.max(0, ...pairs([...times, performance.now()], from, to).map(([a, b]) => b - a)),
    })),
    sounds: [...sounds].map(([ssrc, readings]) => {
      let run = { samples: 0, events: 0 };
      let longest = run;
      for (const [a, b] of pairs(readings, from, to, ({ at }) => at)) {
        const samples = b.concealed - a.concealed;
        if (samples === 0) run = { samples: 0, events: 0 };
        else run = { samples: run.samples + samples, events: run.events + b.events - a.events };
        if (run.samples > longest.samples) longest = run;
      }
      // Opus runs at 48 kHz.
      return { ssrc, concealedMs: longest.samples / 48, isExact: longest.events <= 1 };
    }),
  });

  const sum = (stats, member) => stats.reduce((sum, stat) => sum + (stat[member] ?? 0), 0);
  window.observed.state = async () => {
    const stats = (await reports()).flat();
    const inbound = stats.filter(({ type }) => type === "inbound-rtp");
    const video = inbound.filter(({ kind }) => kind === "video");
    const outbound = stats.filter(({ type, kind }) => type === "outbound-rtp" && kind === "video");
    const transports = stats.filter(({ type }) => type === "transport");
    return {
      moved: [...moved],
      joins: window.broth.joins,
      /** Must stay as they are. */
      paths: transports.map((transport) => ({
        pair: transport.selectedCandidatePairId,
        changes: transport.selectedCandidatePairChanges,
        dtls: transport.dtlsState,
        certificate: transport.remoteCertificateId,
        cipher: transport.srtpCipher,
      })),
      counts: {
        framesDecoded: sum(video, "framesDecoded"),
        keyFramesDecoded: sum(video, "keyFramesDecoded"),
        framesDropped: sum(video, "framesDropped"),
        freezes: sum(video, "freezeCount"),
        keyFramesAskedByReceivers: sum(video, "pliCount") + sum(video, "firCount"),
        keyFramesAskedOfSenders: sum(outbound, "pliCount") + sum(outbound, "firCount"),
        packetsAskedByReceivers: sum(video, "nackCount"),
        packetsAskedOfSenders: sum(outbound, "nackCount"),
        packetsLost: sum(inbound, "packetsLost"),
      },
    };
  };
}
