// The inside of firefox.test.js: makes the namespace's interface, then calls. Exits 0 if all went
// well. Must run in a network namespace of its own.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import puppeteer from "puppeteer-core";
import { ARTIFACTS, PATIENCE_MS, callUrl, eventually, startServer } from "./rig.js";

/** Exists in this namespace only. */
const ADDRESS = "10.99.0.1";

const PREFS = {
  "media.navigator.permission.disabled": true,
  "media.navigator.streams.fake": true,
  "media.autoplay.default": 0,
  "media.peerconnection.ice.obfuscate_host_addresses": false,
  "media.gmp-manager.updateEnabled": false,
  "media.gmp-provider.enabled": false,
  "app.update.enabled": false,
  "app.normandy.enabled": false,
  "browser.safebrowsing.malware.enabled": false,
  "browser.safebrowsing.phishing.enabled": false,
  "datareporting.policy.dataSubmissionEnabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "services.settings.server": "",
  "toolkit.telemetry.enabled": false,
};

const ip = (...args) => execFileSync("ip", args, { stdio: ["ignore", "inherit", "inherit"] });

assert.doesNotMatch(execFileSync("ip", ["-o", "addr"]).toString(), / (eth|en|wl)/, "this is no namespace of its own");
ip("link", "set", "lo", "up");
// A pair of which both ends stay here; unlike the dummy type, every kernel seems to have it.
ip("link", "add", "broth0", "type", "veth", "peer", "name", "broth1");
ip("addr", "add", `${ADDRESS}/24`, "dev", "broth0");
for (const end of ["broth0", "broth1"]) ip("link", "set", end, "up");
// Firefox asks the routes which of its addresses to offer.
ip("route", "add", "default", "dev", "broth0");

const server = await startServer({ rtcIp: ADDRESS });
let browser;
try {
  browser = await puppeteer.launch({
    browser: "firefox",
    executablePath: process.env.FIREFOX_BIN ?? "/usr/bin/firefox-esr",
    headless: true,
    extraPrefsFirefox: PREFS,
    defaultViewport: { width: 1280, height: 800 },
    timeout: 60_000,
  });
  console.log(await browser.version());
  const ann = await join("ann");
  const ben = await join("ben");
  const [atAnn, atBen] = await Promise.all([expectMedia(ann, "ben"), expectMedia(ben, "ann")]);
  for (const got of [atAnn, atBen]) {
    console.log(JSON.stringify(got));
    assert.equal(got.audio.mimeType, "audio/opus");
    assert.equal(got.video.mimeType, "video/VP8");
  }
  await ann.bringToFront();
  await eventually("both tiles side by side", () => ann.evaluate(() => {
    const rects = [...document.querySelectorAll(".tile")].map((tile) => tile.getBoundingClientRect());
    const [left, right] = rects.sort((a, b) => a.left - b.left);
    return left.right <= right.left;
  }));
  await mkdir(ARTIFACTS, { recursive: true });
  await ann.screenshot({ path: path.join(ARTIFACTS, "firefox.png") });
} finally {
  await browser?.close();
  await server.stop();
}

async function join(name) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  page.on("console", (message) => message.type() === "error" && console.log(`${name}: ${message.text()}`));
  page.on("pageerror", (error) => console.log(`${name}: ${error}`));
  await page.goto(callUrl(server, "fox", name, { width: 320, height: 240 }));
  await eventually(`${name} joined`, () => page.evaluate(() => window.broth?.state === "joined"), 2 * PATIENCE_MS);
  return page;
}

/** Waits until new frames and new sound of `peer` come in at `page`. */
async function expectMedia(page, peer) {
  const read = () => page.evaluate(() => window.broth.stats());
  const toasts = () => page.evaluate(() => document.getElementById("toasts").textContent);
  let first;
  return eventually(`media from ${peer}`, async () => {
    const { audio, video } = (await read()).peers[peer] ?? {};
    if (!(video?.framesDecoded > 0 && audio?.totalAudioEnergy > 0)) return null;
    first ??= { frames: video.framesDecoded, energy: audio.totalAudioEnergy };
    const isGrowing = video.framesDecoded > first.frames + 2 && audio.totalAudioEnergy > first.energy;
    return isGrowing ? { audio, video } : null;
  }, 2 * PATIENCE_MS, async () => [await read(), await toasts()]);
}
