// What the scenarios stand on: a server of their own, a browser, pages in a call, and waiting with
// a deadline. Everything started here is stopped by its own pid.

import { spawn } from "node:child_process";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const HERE = path.dirname(fileURLToPath(import.meta.url));
export const ARTIFACTS = path.join(HERE, "artifacts");

/** How long anything may take on two noisy cores. */
export const PATIENCE_MS = 30_000;
const POLL_MS = 100;

/** The server under test: `BROTH_BIN`, else what cargo built. */
export function serverBinary() {
  const target = process.env.CARGO_TARGET_DIR ?? path.join(HERE, "../../target");
  const candidates = process.env.BROTH_BIN
    ? [process.env.BROTH_BIN]
    : [path.join(target, "release/broth"), path.join(target, "debug/broth")];
  const found = candidates.find(existsSync);
  if (!found) throw new Error(`no server at ${candidates.join(" or ")}: build it or set BROTH_BIN`);
  return found;
}

/** Starts a server and waits until it is healthy. */
export async function startServer({ rtcIp = "127.0.0.1", workers = 1, chaos = false } = {}) {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const args = ["serve", "--listen", `127.0.0.1:${port}`, "--rtc-ip", rtcIp, "--workers", `${workers}`];
  if (chaos) args.push("--chaos");
  const child = spawn(serverBinary(), args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (bytes) => (output = (output + bytes).slice(-20_000)));
  }
  let exited = null;
  child.on("error", (error) => (exited = error.message));
  child.on("exit", (code, signal) => (exited ??= `exit ${code ?? signal}`));
  const stop = () => stopChild(child);
  try {
    await eventually("the server is healthy", async () => {
      if (exited !== null) throw new Fatal(`the server stopped: ${exited}\n${output}`);
      return (await fetch(`${url}/healthz`)).ok;
    });
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    url,
    stop,
    pid: child.pid,
    output: () => output,
    stats: async () => (await fetch(`${url}/stats`)).json(),
  };
}

const CHROMIUM_ARGS = [
  "--headless=new",
  "--no-sandbox",
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
  "--auto-select-desktop-capture-source=Entire screen",
  "--autoplay-policy=no-user-gesture-required",
  "--disable-features=WebRtcHideLocalIpsWithMdns,OptimizationHints,MediaRouter,Translate",
  "--disable-background-networking",
  "--disable-background-timer-throttling",
  "--disable-backgrounding-occluded-windows",
  "--disable-renderer-backgrounding",
  "--disable-component-update",
  "--disable-default-apps",
  "--disable-domain-reliability",
  "--disable-extensions",
  "--disable-gpu",
  "--disable-quic",
  "--disable-sync",
  "--metrics-recording-only",
  "--mute-audio",
  "--no-default-browser-check",
  "--no-first-run",
  "--no-pings",
];

/** Launches a fresh headless Chromium with fake devices. */
export async function launchChromium() {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM_BIN ?? "/usr/bin/chromium",
    // Playwright's own defaults turn features on and off that a person's browser has.
    ignoreDefaultArgs: true,
    args: [...CHROMIUM_ARGS, "--remote-debugging-pipe", `--user-data-dir=${await scratchDir()}`],
  });
  return browser;
}

const scratchDirs = [];

async function scratchDir() {
  const dir = await mkdtemp(path.join(tmpdir(), "broth-browser-"));
  scratchDirs.push(dir);
  return dir;
}

/** Removes what browsers left behind. */
export async function removeScratch() {
  for (const dir of scratchDirs.splice(0)) await rm(dir, { recursive: true, force: true, maxRetries: 5 });
}

/** The page's address for somebody who joins without a click. */
export function callUrl(server, room, name, more = {}) {
  const query = new URLSearchParams({ room, name, join: 1, width: 640, height: 480, fps: 15, ...more });
  return `${server.url}/?${query}`;
}

/** Opens a page of its own context in the call and waits until it has joined; `prepare` may change the context. */
export async function joinCall(browser, server, room, name, more = {}, prepare = undefined) {
  const page = await openPage(browser, callUrl(server, room, name, more), prepare);
  await page.waitForFunction(() => window.broth?.state === "joined", null, { timeout: PATIENCE_MS });
  return page;
}

/** Opens a page of a context that `prepare` may change, and collects what goes wrong into `page.faults`. */
export async function openPage(browser, url, prepare = async () => {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  await prepare(context);
  const page = await context.newPage();
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(String(error.stack ?? error)));
  page.on("console", (message) => {
    if (message.type() === "error") page.faults.push(message.text());
  });
  await page.goto(url);
  return page;
}

/** What a page receives and sends. */
export const statsOf = (page) => page.evaluate(() => window.broth.stats());

/** What a page receives from a peer, as one flat record. */
export async function receivedFrom(page, peer) {
  const { audio = {}, video = {}, screen = {} } = (await statsOf(page)).peers[peer] ?? {};
  return { audio, video, screen };
}

/** Waits until new frames and new sound of `peer` come in at `page`. */
export async function expectMedia(page, peer, { video = true, audio = true } = {}, patience = PATIENCE_MS) {
  let first;
  return eventually(
    `media from ${peer}`,
    async () => {
      const now = await receivedFrom(page, peer);
      const isFlowing =
        (!video || now.video.framesDecoded > 0) && (!audio || now.audio.totalAudioEnergy > 0);
      if (!first) {
        if (isFlowing) first = now;
        return null;
      }
      const isGrowing =
        (!video || now.video.framesDecoded > first.video.framesDecoded + 2) &&
        (!audio || now.audio.totalAudioEnergy > first.audio.totalAudioEnergy);
      return isGrowing ? now : null;
    },
    patience,
    () => receivedFrom(page, peer),
  );
}

/** Keeps in the page's `seen` whatever its banner says of trouble. */
export const watchBanner = (page) => page.evaluate(() => {
  window.seen = [];
  new MutationObserver(() => {
    const banner = document.getElementById("banner");
    if (!banner.hidden) window.seen.push(document.getElementById("banner-text").textContent);
  }).observe(document.getElementById("banner"), { attributes: true, childList: true, subtree: true });
});

/** Waits until `read()` gives the same number for `quietMs`. */
export async function expectStill(what, read, quietMs = 1_500) {
  let last = await read();
  let since = Date.now();
  await eventually(`${what} stands still`, async () => {
    const now = await read();
    if (now !== last) {
      last = now;
      since = Date.now();
    }
    return Date.now() - since >= quietMs;
  });
  return last;
}

class Fatal extends Error {}

/** Polls until `check` gives something true; throws when the deadline has passed. */
export async function eventually(what, check, patience = PATIENCE_MS, explain = null) {
  const deadline = Date.now() + patience;
  let last = "";
  for (;;) {
    try {
      const result = await check();
      if (result) return result;
    } catch (error) {
      if (error instanceof Fatal) throw error;
      last = ` (${error.message})`;
    }
    if (Date.now() > deadline) {
      const state = explain ? `: ${JSON.stringify(await explain())}` : "";
      throw new Error(`not within ${patience} ms: ${what}${last}${state}`);
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Keeps a picture of the page. */
export async function keepScreenshot(page, name) {
  await mkdir(ARTIFACTS, { recursive: true });
  await page.screenshot({ path: path.join(ARTIFACTS, `${name}.png`) });
}

async function stopChild(child) {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), 5_000);
  await exited;
  clearTimeout(timer);
}

function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.on("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}
