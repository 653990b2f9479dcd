// Makes the README's pictures: docs/call.png, four participants, one of them speaking, and
// docs/chaos.png, two participants whose worker was killed two seconds ago.

import { mkdir } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { drawDevices } from "./devices.js";
import { PATIENCE_MS, callUrl, eventually, expectMedia, launchChromium, removeScratch, startServer } from "./rig.js";

const DOCS = path.join(path.dirname(fileURLToPath(import.meta.url)), "../../docs");
const NAMES = ["Ada Winter", "Ben Okafor", "Carla Ruiz", "Dmitri Popov"];

/** Opens a drawn participant's page; the first one's pixels are those of the picture. */
async function join(browser, server, index, speaks, size) {
  const context = await browser.newContext({ viewport: size, deviceScaleFactor: index ? 1 : 1.5 });
  await drawDevices(context, index, speaks);
  const page = await context.newPage();
  await page.goto(callUrl(server, "amber-ramen", NAMES[index], { width: 640, height: 360 }));
  await page.waitForFunction(() => window.broth?.state === "joined", null, { timeout: PATIENCE_MS });
  return page;
}

async function call(browser, server) {
  const pages = [];
  for (const index of NAMES.keys()) {
    pages.push(await join(browser, server, index, index === 2, { width: 1280, height: 800 }));
  }
  const [own] = pages;
  for (const name of NAMES.slice(1)) await expectMedia(own, name, { audio: false }, 60_000);
  await pages[1].click("#mic");
  await own.waitForSelector(".mic-off:not([hidden])");
  await eventually("figures and somebody speaking", () =>
    own.evaluate(() => {
      const figures = [...document.querySelectorAll(".tile-stats")].every((line) => /b\/s/.test(line.textContent));
      return figures && document.querySelectorAll(".tile.is-speaking").length === 1;
    }));
  return own;
}

async function kill(browser, server) {
  const size = { width: 1280, height: 620 };
  const own = await join(browser, server, 0, false, size);
  await join(browser, server, 1, true, size);
  await expectMedia(own, NAMES[1], { audio: false }, 60_000);
  // A strip full of bars first.
  await own.waitForTimeout(8_000);
  await own.click('[data-fault="kill"]');
  await own.waitForSelector(".strip[data-after]");
  return own;
}

for (const [name, chaos, play] of [["call", false, call], ["chaos", true, kill]]) {
  const server = await startServer({ chaos });
  const browser = await launchChromium();
  try {
    const page = await play(browser, server);
    await mkdir(DOCS, { recursive: true });
    await page.screenshot({ path: path.join(DOCS, `${name}.png`) });
    console.log(`wrote docs/${name}.png`);
  } finally {
    await browser.close();
    await server.stop();
  }
}
await removeScratch();
