// The panel that ends workers in the middle of a call.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  eventually, expectMedia, joinCall, keepScreenshot, launchChromium, removeScratch, startServer, watchBanner,
} from "./rig.js";

const LIMIT = { timeout: 120_000, skip: process.env.BROTH_WORKER && "the original worker takes its rooms along" };

let server;
let browser;

before(async () => {
  server = await startServer({ workers: 2, chaos: true });
  browser = await launchChromium();
}, LIMIT);

after(async () => {
  await browser?.close();
  await server?.stop();
  await removeScratch();
});

const panelOf = (page) => page.evaluate(() => ({ ...document.getElementById("chaos").dataset }));
const stripOf = (page, peer) =>
  page.evaluate((peer) => ({ ...document.querySelector(`[data-tile="peer/${peer}"] .strip`).dataset }), peer);

/** Columns of the strip's picture in which something is drawn in a colour like `[red, green, blue]`. */
const columnsLike = (page, peer, color) =>
  page.evaluate(([peer, color]) => {
    const canvas = document.querySelector(`[data-tile="peer/${peer}"] .strip canvas`);
    const { width, height } = canvas;
    const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    const isLike = (column, row) => {
      const at = (row * width + column) * 4;
      return data[at + 3] > 200 && color.every((value, index) => Math.abs(data[at + index] - value) < 40);
    };
    const rows = [...Array(height).keys()];
    return [...Array(width).keys()].filter((column) => rows.some((row) => isLike(column, row))).length;
  }, [peer, color]);

const RED = [240, 82, 79];
const AMBER = [255, 176, 87];

test("a button ends the worker and the pictures go on", LIMIT, async () => {
  const size = { width: 320, height: 240 };
  const [ann, ben] = [await joinCall(browser, server, "wild", "ann", size), await joinCall(browser, server, "wild", "ben", size)];
  await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
  await Promise.all([ann, ben].map(watchBanner));
  const bars = () => columnsLike(ben, "ann", RED);
  assert.equal(await bars(), 0);

  const rounds = [["kill", "killed"], ["stop", "stopped"], ["kill", "killed"]];
  for (const [round, [fault, deed]] of rounds.entries()) {
    const { pid } = await eventually("the worker is known", async () => {
      const panel = await panelOf(ann);
      return panel.pid && panel;
    });
    const { workers } = await server.stats();
    assert.ok(workers.some((worker) => worker.pid === Number(pid)), `${pid} in ${JSON.stringify(workers)}`);

    await ann.click(`[data-fault="${fault}"]`);
    for (const [page, peer] of [[ann, "ben"], [ben, "ann"]]) {
      const panel = await eventually("another worker goes on", async () => {
        const panel = await panelOf(page);
        return panel.survived === `${round + 1}` && panel;
      }, undefined, () => panelOf(page));
      assert.notEqual(panel.pid, pid);
      await eventually("the words for it", async () =>
        /Longest gap between frames \d+ ms, before \d+ ms\.$/.test(await page.textContent("#chaos-words")));
      assert.match(await page.textContent("#chaos-words"), new RegExp(`^Worker ${pid} was ${deed}\\. `));
      const { before, after } = await stripOf(page, peer);
      assert.ok(before > 0 && after > 0, `${before} ${after}`);
    }
    assert.ok((await bars()) > 0, "the gap is drawn");
    assert.ok((await columnsLike(ben, "ann", AMBER)) > 0, "the moment is drawn");
    await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
  }
  await keepScreenshot(ann, "chaos");
  await ann.setViewportSize({ width: 390, height: 844 });
  await eventually("everything within the phone's width", () =>
    ann.evaluate(() => [...document.querySelectorAll("#chaos > *, .tile")]
      .every((element) => element.getBoundingClientRect().right <= 390)));
  await keepScreenshot(ann, "chaos-phone");
  for (const page of [ann, ben]) {
    assert.deepEqual(await page.evaluate(() => [window.broth.joins, window.seen]), [1, []]);
    assert.deepEqual(page.faults, []);
  }

  await ann.click("#leave");
  await ann.waitForSelector("#lobby", { state: "visible" });
  await ben.waitForSelector('[data-tile="peer/ann"]', { state: "detached" });
  assert.equal(await ben.locator(".strip").count(), 0);
});

test("a worker that dies without a button is marked, too", LIMIT, async () => {
  const [ann, ben] = [await joinCall(browser, server, "natural", "ann"), await joinCall(browser, server, "natural", "ben")];
  await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
  const { pid } = await eventually("the worker is known", async () => {
    const panel = await panelOf(ann);
    return panel.pid && panel;
  });
  process.kill(Number(pid), "SIGKILL");
  await eventually("it is said", async () => /^Worker \d+ died\. Longest/.test(await ann.textContent("#chaos-words")));
  assert.notEqual((await panelOf(ann)).pid, pid);
  await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
});

test("without chaos there is no panel", LIMIT, async () => {
  const tame = await startServer();
  try {
    const ann = await joinCall(browser, tame, "tame", "ann");
    const ben = await joinCall(browser, tame, "tame", "ben");
    await expectMedia(ann, "ben");
    assert.equal(await ann.locator("#chaos").isVisible(), false);
    assert.equal(await ann.locator(".strip").count(), 0);
    for (const page of [ann, ben]) assert.deepEqual(page.faults, []);
  } finally {
    await tame.stop();
  }
});
