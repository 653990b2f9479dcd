// Plain RTP with ffmpeg at the other end: files as participants, participants as files.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, afterEach, before, test } from "node:test";
import {
  PATIENCE_MS, eventually, expectMedia, joinCall, keepScreenshot, launchChromium, openPage, receivedFrom,
  removeScratch, serverBinary, startServer,
} from "./rig.js";

const LIMIT = { timeout: 120_000 };
/** Unlike what a page asks its camera for. */
const SIZE = "480x270";

let server;
let browser;
let dir;
let sample;
const running = new Set();

before(async () => {
  dir = await mkdtemp(path.join(tmpdir(), "broth-plain-"));
  sample = await makeSample("sample.webm", 15);
  server = await startServer();
  browser = await launchChromium();
}, LIMIT);

after(async () => {
  await browser?.close();
  await server?.stop();
  await removeScratch();
  await rm(dir, { recursive: true, force: true });
});

afterEach(async () => {
  await Promise.all([...running].map((program) => program.stop("SIGTERM")));
  for (const context of browser.contexts()) await context.close();
});

const file = (name) => path.join(dir, name);

/** A film of VP8 with a key frame each second, and opus; or of other codecs. */
async function makeSample(name, seconds, codecs = ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"]) {
  const inputs = [`testsrc2=size=${SIZE}:rate=25`, "sine=frequency=440:sample_rate=48000"];
  const { code, output } = await run("ffmpeg", [
    "-v", "error", "-y", ...inputs.flatMap((input) => ["-f", "lavfi", "-i", input]), "-t", `${seconds}`,
    ...codecs, "-b:v", "500k", "-g", "25", "-keyint_min", "25", "-pix_fmt", "yuv420p", "-ac", "2", file(name),
  ]).ended;
  assert.equal(code, 0, output);
  return file(name);
}

/** Starts a program. */
function run(command, args) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
  const program = { output: "", ended: null };
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (bytes) => (program.output = (program.output + bytes).slice(-20_000)));
  }
  running.add(program);
  program.ended = once(child, "close").then(([code, signal]) => {
    running.delete(program);
    return { code: code ?? signal, output: program.output };
  });
  program.stop = (signal) => {
    child.kill(signal);
    return program.ended;
  };
  return program;
}

/** Starts a command of broth against the server. */
const broth = (command, ...args) =>
  run(serverBinary(), [command, ...args, "--server", server.url.replace("http", "ws")]);

/** Waits until a program has said something. */
const says = (program, text) =>
  eventually(text, () => {
    assert.ok(running.has(program), program.output);
    return program.output.includes(text);
  }, PATIENCE_MS, () => program.output);

/** What is in a file, after all of it has been decoded. */
async function inspect(name) {
  const decoded = await run("ffmpeg", ["-v", "error", "-xerror", "-i", file(name), "-f", "null", "-"]).ended;
  // ffmpeg follows every sender report at once: two packets may get the same timestamp.
  const faults = decoded.output.split("\n").filter((line) =>
    line && !/non monotonically increasing dts|Last message repeated/.test(line));
  assert.deepEqual([decoded.code, faults], [0, []]);
  const entries = "format=duration:stream=codec_name,width,height,nb_read_packets";
  const probed = await run("ffprobe", [
    "-v", "error", "-count_packets", "-show_entries", entries, "-of", "json", file(name),
  ]).ended;
  assert.equal(probed.code, 0, probed.output);
  const { format, streams } = JSON.parse(probed.output);
  const tracks = {};
  for (const { codec_name: codec, nb_read_packets: packets, ...more } of streams) {
    tracks[codec] = { ...more, packets: Number(packets) };
  }
  return { seconds: Number(format.duration), tracks };
}

function assertBetween(value, min, max, what) {
  assert.ok(value >= min && value <= max, `${what}: ${value} is not from ${min} to ${max}`);
}

test("a published file is seen and heard, and recorded again", LIMIT, async (t) => {
  const publish = broth("publish", sample, "--room", "film", "--name", "film", "--loop");
  await says(publish, "publishing");
  const ann = await joinCall(browser, server, "film", "ann");
  const { video, audio } = await expectMedia(ann, "film");
  assert.equal(video.frameWidth, 480);
  assert.equal(video.mimeType, "video/VP8");
  assert.equal(audio.mimeType, "audio/opus");
  await keepScreenshot(ann, "published");

  const record = broth("record", "--room", "film", "--peer", "film", file("film.webm"), "--seconds", "5");
  const { code, output } = await record.ended;
  assert.equal(code, 0, output);
  const { seconds, tracks } = await inspect("film.webm");
  t.diagnostic(`recorded ${seconds} s: ${JSON.stringify(tracks)}`);
  assertBetween(seconds, 4, 6, "duration");
  assert.deepEqual(Object.keys(tracks).sort(), ["opus", "vp8"]);
  assert.deepEqual([tracks.vp8.width, tracks.vp8.height], [480, 270]);
  // Up to a second passes until the first key frame.
  assertBetween(tracks.vp8.packets, 85, 150, "frames");
  assertBetween(tracks.opus.packets, 200, 300, "packets of sound");

  const left = await publish.stop("SIGINT");
  assert.equal(left.code, 0, left.output);
  await ann.waitForSelector('[data-tile="peer/film"]', { state: "detached" });
  assert.deepEqual(ann.faults, []);
});

test("a browser's camera and microphone are recorded until it leaves", LIMIT, async (t) => {
  const ann = await joinCall(browser, server, "camera", "ann");
  const ben = await joinCall(browser, server, "camera", "ben", { audio: 0, video: 0 });
  await expectMedia(ben, "ann");
  const record = broth("record", "--room", "camera", "--peer", "ann", file("ann.mkv"));
  await says(record, "recording");
  await eventually("the file has begun", () => existsSync(file("ann.mkv")), PATIENCE_MS, () => record.output);
  const frames = async () => (await receivedFrom(ben, "ann")).video.framesDecoded;
  const moreFrames = async () => {
    const last = await frames();
    await eventually("25 more frames", async () => (await frames()) > last + 25);
  };
  await moreFrames();
  await ann.click("#mic");
  await moreFrames();
  await ann.click("#mic");
  await moreFrames();
  await ann.click("#leave");
  const { code, output } = await record.ended;
  assert.equal(code, 0, output);
  assert.match(output, /the participant sends no more/);
  const { seconds, tracks } = await inspect("ann.mkv");
  t.diagnostic(`recorded ${seconds} s: ${JSON.stringify(tracks)}`);
  assertBetween(seconds, 2, 20, "duration");
  assert.deepEqual(Object.keys(tracks).sort(), ["opus", "vp8"]);
  assert.ok(tracks.vp8.packets > 30, `frames: ${tracks.vp8.packets}`);
  await eventually("the streams are gone", async () => (await server.stats()).producers === 0);
});

test("a camera that is off is left out of a recording, and Ctrl-C ends it", LIMIT, async () => {
  const ann = await joinCall(browser, server, "off", "ann");
  const ben = await joinCall(browser, server, "off", "ben", { audio: 0, video: 0 });
  await expectMedia(ben, "ann");
  await ann.click("#camera");
  await ben.waitForSelector('[data-tile="peer/ann"]:not(.has-picture)');
  const record = broth("record", "--room", "off", "--peer", "ann", file("sound.mkv"));
  await says(record, "recording");
  const { audio } = await receivedFrom(ben, "ann");
  await eventually("more sound", async () =>
    (await receivedFrom(ben, "ann")).audio.packetsReceived > audio.packetsReceived + 150);
  const { code, output } = await record.stop("SIGINT");
  assert.equal(code, 0, output);
  const { seconds, tracks } = await inspect("sound.mkv");
  assertBetween(seconds, 2, 20, "duration");
  assert.deepEqual(Object.keys(tracks), ["opus"]);

  const silent = await broth("record", "--room", "off", "--peer", "ben", file("no.mkv")).ended;
  assert.equal(silent.code, 1);
  assert.match(silent.output, /"ben" sends nothing now/);
});

test("other codecs are encoded when asked, and the end of the file is the end", LIMIT, async () => {
  const other = await makeSample("other.mp4", 6, ["-c:v", "mpeg4", "-c:a", "aac"]);
  const refused = await broth("publish", other, "--room", "encode").ended;
  assert.equal(refused.code, 1);
  assert.match(refused.output, /audio is aac: add --transcode/);

  const ann = await joinCall(browser, server, "encode", "ann");
  const publish = broth("publish", other, "--room", "encode", "--transcode");
  const { video } = await expectMedia(ann, "other");
  assert.equal(video.frameWidth, 480);
  const { code, output } = await publish.ended;
  assert.equal(code, 0, output);
  assert.match(output, /the file ended/);
  await ann.waitForSelector('[data-tile="peer/other"]', { state: "detached" });
});

test("a publisher ends when its room does, and not with its worker", LIMIT, async () => {
  const own = await startServer();
  const address = own.url.replace("http", "ws");
  const publish = run(serverBinary(), ["publish", sample, "--room", "doomed", "--loop", "--server", address]);
  await says(publish, "publishing");
  const { workers: [{ pid }] } = await own.stats();
  process.kill(pid, "SIGKILL");
  await eventually("another worker", async () => {
    const { workers: [worker] } = await own.stats();
    return worker && worker.pid !== pid;
  });
  assert.ok(running.has(publish), publish.output);
  await own.stop();
  const { code, output } = await publish.ended;
  assert.equal(code, 1);
  assert.match(output, /the server closed the connection: /);
});

test("what cannot be is told clearly", LIMIT, async () => {
  const ann = await joinCall(browser, server, "errors", "ann", { audio: 0, video: 0 });
  const room = ["--room", "errors"];
  const rows = [
    [["publish", file("nothing.webm"), ...room], /cannot read .*nothing\.webm: No such file/],
    [["publish", import.meta.filename ?? "/etc/passwd", ...room], /is no media file/],
    [["publish", sample, ...room, "--name", "ann"], /join is refused: duplicated Peer/],
    [["publish", sample, "--room", ""], /room: give 1 to 64 printable characters/],
    [["record", ...room, "--peer", "zoe", file("x.mkv")], /nobody in the room "errors" is called "zoe"/],
    [["record", "--room", "nowhere", "--peer", "ann", file("x.mkv")], /there is no room "nowhere"/],
    [["record", ...room, "--peer", "ann", file("x.mkv")], /"ann" sends nothing now/],
    [["record", ...room, "--peer", "ann", file("x.mp4")], /give a name that ends in \.mkv or \.webm/],
    [["record", ...room, "--peer", "ann", sample], /sample\.webm is there already/],
  ];
  for (const [args, expected] of rows) {
    const { code, output } = await broth(...args).ended;
    assert.match(output, expected, args.join(" "));
    assert.equal(code, 1, args.join(" "));
  }
  assert.equal(existsSync(file("x.mkv")), false);
  const dead = await run(serverBinary(), ["publish", sample, ...room, "--server", "ws://127.0.0.1:9"]).ended;
  assert.equal(dead.code, 1);
  assert.match(dead.output, /ws:\/\/127\.0\.0\.1:9 is not reachable/);
  assert.deepEqual(ann.faults, []);
});

test("no page gets a stream", LIMIT, async () => {
  const page = await openPage(browser, `${server.url}/healthz`);
  const opened = await page.evaluate(() => new Promise((resolve) => {
    const socket = new WebSocket(`${location.origin.replace("http", "ws")}/ws/stream?room=any&peer=any`);
    socket.onopen = () => resolve(true);
    socket.onerror = () => resolve(false);
  }));
  assert.equal(opened, false);
});
