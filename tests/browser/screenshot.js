// Makes the README's picture, docs/call.png: four participants, one of them speaking.

import { mkdir } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { drawDevices } from "./devices.js";
import { PATIENCE_MS, callUrl, eventually, expectMedia, launchChromium, removeScratch, startServer } from "./rig.js";

const PICTURE = path.join(path.dirname(fileURLToPath(import.meta.url)), "../../docs/call.png");
const NAMES = ["Ada Winter", "Ben Okafor", "Carla Ruiz", "Dmitri Popov"];

const server = await startServer();
const browser = await launchChromium();
try {
  const pages = [];
  for (const [index, name] of NAMES.entries()) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, deviceScaleFactor: index ? 1 : 1.5 });
    await drawDevices(context, index, index === 2);
    const page = await context.newPage();
    await page.goto(callUrl(server, "amber-ramen", name, { width: 640, height: 360 }));
    await page.waitForFunction(() => window.broth?.state === "joined", null, { timeout: PATIENCE_MS });
    pages.push(page);
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
  await mkdir(path.dirname(PICTURE), { recursive: true });
  await own.screenshot({ path: PICTURE });
  console.log(`wrote ${PICTURE}`);
} finally {
  await browser.close();
  await server.stop();
  await removeScratch();
}
