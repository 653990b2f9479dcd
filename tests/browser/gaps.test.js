// The arithmetic of the strip, without a browser.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

// A page's script: to node its name says nothing of what kind of module it is.
const source = await readFile(new URL("../../server/assets/gaps.js", import.meta.url), "utf8");
const { Frames, KEPT_MS, WINDOW_MS } = await import(`data:text/javascript,${encodeURIComponent(source)}`);

function framesAt(...times) {
  const frames = new Frames();
  for (const time of times) frames.add(time);
  return frames;
}

test("the longest gaps before and after a fault do not see each other", () => {
  const rows = [
    // Times, fault, now; longest before and after.
    [[0, 40, 80, 120, 300, 340], 130, 400, 40, 180],
    [[0, 100, 140, 180, 220, 260], 150, 300, 100, 40],
    // Nothing comes any more.
    [[0, 40, 80], 90, 500, 40, 420],
    // What begins outside the windows.
    [[0, 600, 640, 2700, 2740], 2720, 2750, 0, 40],
    [[0, 40, 80, 2000, 3000], 10, 3100, 0, 1920],
    [[0, 40, 2100, 2140], 90, 2200, 40, 2060],
    [[0, 40, 1990, 2030, 9000], 10, 9000, 0, 1950],
    [[], 100, 200, 0, 0],
    [[50], 100, 200, 0, 150],
  ];
  for (const [times, fault, now, before, after] of rows) {
    const frames = framesAt(...times);
    assert.deepEqual([frames.longestBefore(fault), frames.longestAfter(fault, now)], [before, after], `${times}`);
  }
});

test("old times are forgotten", () => {
  const frames = framesAt(0, 10, 20, KEPT_MS + 15);
  assert.deepEqual(frames.intervals(-1, KEPT_MS + 20), [[20, KEPT_MS + 15], [KEPT_MS + 15, KEPT_MS + 20]]);
  frames.clear();
  assert.deepEqual(frames.intervals(-1, KEPT_MS), []);
  assert.ok(WINDOW_MS < KEPT_MS);
});
