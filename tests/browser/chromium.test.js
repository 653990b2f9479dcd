// Calls of Chromium pages through a server of their own, or, should BROTH_WORKER name it, through
// the original worker of mediasoup v2.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { drawDevices, keepResolution } from "./devices.js";
import {
  PATIENCE_MS, eventually, expectMedia, expectStill, joinCall, keepScreenshot, launchChromium, openPage, callUrl,
  receivedFrom, removeScratch, startServer, statsOf, watchBanner,
} from "./rig.js";

const LIMIT = { timeout: 120_000 };

let server;
let browser;

before(async () => {
  server = await startServer({ workers: 2 });
  browser = await launchChromium();
}, LIMIT);

after(async () => {
  await browser?.close();
  await server?.stop();
  await removeScratch();
});

afterEach(async () => {
  for (const context of browser.contexts()) await context.close();
});

const join = (room, name, more, prepare) => joinCall(browser, server, room, name, more, prepare);

function assertNoFaults(...pages) {
  for (const page of pages) assert.deepEqual(page.faults, []);
}

test("two participants see and hear each other", LIMIT, async () => {
  const [ann, ben] = [await join("two", "ann"), await join("two", "ben")];
  const [atAnn, atBen] = await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
  for (const got of [atAnn, atBen]) {
    assert.equal(got.video.mimeType, "video/VP8");
    assert.equal(got.audio.mimeType, "audio/opus");
    assert.equal(got.video.protocol, "udp");
  }
  await keepScreenshot(ann, "two");
  assertNoFaults(ann, ben);
});

test("four participants see and hear one another", { timeout: 180_000 }, async () => {
  const names = ["Ann Lee", "Ben Okafor", "Carla", "Dmitri P"];
  const small = { width: 320, height: 240, fps: 10 };
  const pages = [];
  for (const name of names) pages.push(await join("four", name, small));
  const pairs = pages.flatMap((page, at) => names.filter((_, from) => from !== at).map((peer) => [page, peer]));
  assert.equal(pairs.length, 12);
  await Promise.all(pairs.map(([page, peer]) => expectMedia(page, peer, {}, 60_000)));
  await eventually("figures on every tile", () =>
    pages[0].evaluate(() => document.querySelectorAll(".tile .tile-stats:not([hidden])").length === 4));
  await keepScreenshot(pages[0], "four");
  await pages[0].setViewportSize({ width: 390, height: 844 });
  await eventually("tiles within the phone's width", () =>
    pages[0].evaluate(() =>
      [...document.querySelectorAll(".tile")].every((tile) => tile.getBoundingClientRect().right <= 390)));
  await keepScreenshot(pages[0], "four-phone");
  assertNoFaults(...pages);
});

test("a muted microphone is silent until it is on again", LIMIT, async () => {
  const [ann, ben] = [await join("mute", "ann"), await join("mute", "ben")];
  await expectMedia(ben, "ann");
  const energy = async () => (await receivedFrom(ben, "ann")).audio.totalAudioEnergy;
  const packets = async () => (await receivedFrom(ben, "ann")).audio.packetsReceived;

  await ann.click("#mic");
  await ben.waitForSelector('[data-tile="peer/ann"] .mic-off:not([hidden])');
  await expectStill("received audio", packets);
  const [quiet, frames] = [await energy(), (await receivedFrom(ben, "ann")).video.framesDecoded];
  await eventually("video goes on", async () => (await receivedFrom(ben, "ann")).video.framesDecoded > frames + 5);
  assert.equal(await energy(), quiet);

  await ann.click("#mic");
  await ben.waitForSelector('[data-tile="peer/ann"] .mic-off', { state: "hidden" });
  await eventually("sound is back", async () => (await energy()) > quiet);
  assertNoFaults(ann, ben);
});

test("a camera goes off and on", LIMIT, async () => {
  const [ann, ben] = [await join("camera", "ann"), await join("camera", "ben")];
  await expectMedia(ben, "ann");
  const frames = async () => (await receivedFrom(ben, "ann")).video.framesDecoded;

  await ann.click("#camera");
  await eventually("the avatar shows", () =>
    ben.evaluate(() => !document.querySelector('[data-tile="peer/ann"]').classList.contains("has-picture")));
  const still = await expectStill("decoded frames", frames);
  await keepScreenshot(ben, "camera-off");

  await ann.click("#camera");
  await eventually("frames are back", async () => (await frames()) > still + 5);
  await ben.waitForSelector('[data-tile="peer/ann"].has-picture');
  assertNoFaults(ann, ben);
});

test("a shared screen comes and goes", LIMIT, async () => {
  const [ann, ben] = [await join("screen", "ann"), await join("screen", "ben")];
  await expectMedia(ben, "ann");
  // Headless there is no screen to choose: a drawn one stands in for it.
  await ann.evaluate(() => {
    navigator.mediaDevices.getDisplayMedia = async () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 800, height: 450 });
      const pen = canvas.getContext("2d");
      let step = 0;
      setInterval(() => {
        pen.fillStyle = "#f4f1ea";
        pen.fillRect(0, 0, 800, 450);
        pen.fillStyle = "#333";
        pen.font = "bold 48px sans-serif";
        pen.fillText(`Quarterly soup report ${(step += 1)}`, 90, 220);
      }, 100);
      return canvas.captureStream(10);
    };
  });
  await ann.click("#screen");
  await eventually("screen frames", async () => (await receivedFrom(ben, "ann")).screen.framesDecoded > 3);
  await ben.waitForSelector('[data-tile="peer/ann/screen"].has-picture');
  await keepScreenshot(ben, "screen");

  await ann.click("#screen");
  await ben.waitForSelector('[data-tile="peer/ann/screen"]', { state: "detached" });
  await expectMedia(ben, "ann");
  assertNoFaults(ann, ben);
});

test("somebody leaves by the button and comes back by the form", LIMIT, async () => {
  const [ann, ben] = [await join("leave", "ann"), await join("leave", "ben")];
  await expectMedia(ann, "ben");

  await ben.click("#leave");
  await ben.waitForSelector("#lobby", { state: "visible" });
  await ann.waitForSelector('[data-tile="peer/ben"]', { state: "detached" });

  await ben.click("#join");
  await ben.waitForFunction(() => window.broth.state === "joined");
  await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
  assertNoFaults(ann, ben);
});

test("a name that is taken is refused in the lobby", LIMIT, async () => {
  const ann = await join("taken", "ann");
  const other = await openPage(browser, `${server.url}/?room=taken&name=ann`);
  await other.click("#join");
  await other.waitForSelector("#join-error:not([hidden])");
  assert.match(await other.textContent("#join-error"), /already in the room/);
  await keepScreenshot(other, "taken");
  assert.equal(await ann.evaluate(() => window.broth.state), "joined");
});

test("a page without devices still joins and receives", LIMIT, async () => {
  const ann = await join("watch", "ann");
  const ben = await join("watch", "ben", { audio: 0, video: 0 });
  await expectMedia(ben, "ann");
  assert.deepEqual((await statsOf(ben)).sent, {});
  await ben.click("#camera");
  await expectMedia(ann, "ben", { audio: false });
  assertNoFaults(ann, ben);
});

test("whoever speaks is ringed", LIMIT, async () => {
  const names = ["ann", "ben"];
  const pages = [];
  for (const [index, name] of names.entries()) {
    const context = await browser.newContext();
    await drawDevices(context, index, name === "ann");
    const page = await context.newPage();
    await page.goto(callUrl(server, "speaking", name));
    await page.waitForFunction(() => window.broth?.state === "joined", null, { timeout: PATIENCE_MS });
    pages.push(page);
  }
  const [ann, ben] = pages;
  await ben.waitForSelector('[data-tile="peer/ann"].is-speaking', { timeout: PATIENCE_MS });
  await ann.waitForSelector('[data-tile="self"].is-speaking', { timeout: PATIENCE_MS });
  assert.equal(await ann.locator('[data-tile="peer/ben"].is-speaking').count(), 0);
  await ann.click("#mic");
  await ben.waitForSelector('[data-tile="peer/ann"]:not(.is-speaking)', { timeout: PATIENCE_MS });
});

test("a late joiner has video within two seconds", LIMIT, async () => {
  const [ann, ben] = [await join("late", "ann"), await join("late", "ben")];
  await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
  const cat = await join("late", "cat", { audio: 0, video: 0 });
  const joined = Date.now();
  await eventually("first frames", async () => {
    const { peers } = await statsOf(cat);
    return ["ann", "ben"].every((name) => peers[name]?.video?.framesDecoded > 0);
  }, 2_000, () => statsOf(cat));
  assert.ok(Date.now() - joined <= 2_500);
  assertNoFaults(ann, ben, cat);
});

test("media flows over ICE-TCP alone", LIMIT, async () => {
  const [ann, ben] = [await join("tcp", "ann", { udp: 0 }), await join("tcp", "ben", { udp: 0 })];
  const [atAnn, atBen] = await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
  for (const got of [atAnn, atBen]) assert.equal(got.video.protocol, "tcp");
  assertNoFaults(ann, ben);
});

for (const codec of ["H264", "VP9"]) {
  test(`a room of ${codec}`, LIMIT, async (t) => {
    const ann = await join(codec, "ann", { codec, width: 320, height: 240 });
    const canSend = await ann.evaluate((mimeType) =>
      RTCRtpSender.getCapabilities("video").codecs.some((codec) => codec.mimeType === mimeType), `video/${codec}`);
    if (!canSend) {
      t.skip(`this Chromium has no ${codec} encoder`);
      return;
    }
    const ben = await join(codec, "ben", { codec, width: 320, height: 240 });
    const [atAnn, atBen] = await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
    for (const got of [atAnn, atBen]) assert.equal(got.video.mimeType, `video/${codec}`);
    assertNoFaults(ann, ben);
  });
}

test("a receiver switches between the profiles of a simulcast camera", LIMIT, async (t) => {
  if (process.env.BROTH_WORKER) {
    t.skip("the original worker's estimate of so still a picture may never allow a third layer");
    return;
  }
  const size = { width: 1280, height: 720, fps: 10 };
  const ann = await join("simulcast", "ann", { simulcast: 1, ...size }, keepResolution);
  const ben = await join("simulcast", "ben", { audio: 0, video: 0 });
  await eventually("three layers are sent", async () => {
    const layers = (await statsOf(ann)).sent.video?.layers ?? [];
    return layers.length === 3 && layers.every((layer) => layer.framesEncoded > 0);
  }, 30_000, () => statsOf(ann));
  const width = async () => (await receivedFrom(ben, "ann")).video.frameWidth;
  const explain = () => receivedFrom(ben, "ann");
  const choose = (profile) => ben.click(`[data-tile="peer/ann"] [data-profile="${profile}"]`);

  await choose("low");
  await eventually("the low picture", async () => (await width()) <= 320, 30_000, explain);
  await choose("medium");
  await eventually("the medium picture", async () => (await width()) > 320 && (await width()) <= 640, 30_000, explain);
  await choose("high");
  await eventually("the high picture", async () => (await width()) > 640, 30_000, explain);
  await keepScreenshot(ben, "simulcast");
  await choose("low");
  await eventually("the low picture again", async () => (await width()) <= 320, 30_000, explain);
  await expectMedia(ben, "ann", { audio: false });
  assertNoFaults(ann, ben);
});

/** The longest time between two frames shown, in the two seconds after something is done. */
const longestGap = (page, peer) => page.evaluate((peer) => {
  const video = document.querySelector(`[data-tile="peer/${peer}"] video`);
  return new Promise((resolve) => {
    const begin = performance.now();
    let [last, longest] = [begin, 0];
    const shown = () => {
      const now = performance.now();
      longest = Math.max(longest, now - last);
      last = now;
      if (now < begin + 2000) video.requestVideoFrameCallback(shown);
    };
    video.requestVideoFrameCallback(shown);
    setTimeout(() => resolve(Math.max(longest, performance.now() - last)), 2000);
  });
}, peer);

test("a worker's death is not an event for the people in the call", LIMIT, async (t) => {
  if (process.env.BROTH_WORKER) {
    t.skip("the original worker takes its rooms along");
    return;
  }
  const own = await startServer({ workers: 1 });
  try {
    const ann = await joinCall(browser, own, "immortal", "ann");
    const ben = await joinCall(browser, own, "immortal", "ben");
    await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
    await Promise.all([watchBanner(ann), watchBanner(ben)]);
    const pids = new Set();
    for (let round = 0; round < 5; round += 1) {
      const quiet = await longestGap(ben, "ann");
      const { workers: [{ pid }] } = await own.stats();
      assert.ok(!pids.has(pid), "another worker");
      pids.add(pid);
      const gap = longestGap(ben, "ann");
      process.kill(pid, "SIGKILL");
      t.diagnostic(`longest gap ${Math.round(await gap)} ms, without a death ${Math.round(quiet)} ms`);
      await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
    }
    for (const page of [ann, ben]) {
      assert.deepEqual(await page.evaluate(() => [window.broth.joins, window.seen]), [1, []]);
    }
    assertNoFaults(ann, ben);
  } finally {
    await own.stop();
  }
});

test("a participant over ICE-TCP stays when the worker dies, as the others do", LIMIT, async (t) => {
  if (process.env.BROTH_WORKER) {
    t.skip("the original worker takes its rooms along");
    return;
  }
  const own = await startServer({ workers: 1 });
  try {
    const ann = await joinCall(browser, own, "mixed", "ann", { udp: 0 });
    const ben = await joinCall(browser, own, "mixed", "ben");
    const [before] = await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
    assert.equal(before.video.protocol, "tcp");
    for (let kills = 0; kills < 3; kills++) {
      const { workers: [{ pid }] } = await own.stats();
      process.kill(pid, "SIGKILL");
      await eventually("another worker", async () => {
        const { workers } = await own.stats();
        return workers.length === 1 && workers[0].pid !== pid;
      });
      const [atAnn] = await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
      assert.equal(atAnn.video.protocol, "tcp");
    }
    for (const page of [ann, ben]) assert.equal(await page.evaluate(() => window.broth.joins), 1);
  } finally {
    await own.stop();
  }
});

test("a call whose worker cannot be continued joins again", LIMIT, async (t) => {
  if (!process.env.BROTH_WORKER) {
    t.skip("only the original worker takes its rooms along");
    return;
  }
  const own = await startServer({ workers: 1 });
  try {
    const pages = [
      await joinCall(browser, own, "phoenix", "ann"),
      await joinCall(browser, own, "phoenix", "ben"),
    ];
    const [ann, ben] = pages;
    await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
    const { workers: [{ pid }] } = await own.stats();
    await Promise.all(pages.map(watchBanner));
    process.kill(pid, "SIGKILL");
    for (const page of pages) {
      await eventually("it joined again", () =>
        page.evaluate(() => window.broth.joins === 2 && window.broth.state === "joined"));
      const seen = await page.evaluate(() => window.seen);
      assert.ok(seen.some((text) => /room .*closed/i.test(text)), `banner: ${seen}`);
    }
    await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
    const { workers } = await own.stats();
    assert.equal(workers.length, 1);
    assert.notEqual(workers[0].pid, pid);
  } finally {
    await own.stop();
  }
});

test("the lobby names what is wrong", LIMIT, async () => {
  const page = await openPage(browser, `${server.url}/?room=&name=`);
  await page.fill("#name", "");
  await page.fill("#room", "");
  await page.click("#join");
  assert.match(await page.textContent("#join-error"), /Your name is missing/);
  await page.fill("#name", "x".repeat(64));
  await page.click("#join");
  assert.match(await page.textContent("#join-error"), /room’s name is missing/);
  await page.fill("#name", "Ann Lee");
  await page.fill("#room", "kitchen");
  await keepScreenshot(page, "lobby");

  const denied = await openPage(browser, "about:blank");
  await denied.addInitScript(() => {
    navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", "NotFoundError"));
  });
  await denied.goto(callUrl(server, "denied", "ann"));
  await denied.waitForFunction(() => window.broth?.state === "joined");
  await denied.click("#camera");
  await denied.waitForSelector(".toast");
  assert.match(await denied.textContent("#toasts"), /No microphone was found\. No camera was found/);
  await keepScreenshot(denied, "no-camera");
});
