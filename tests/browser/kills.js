// Kills the worker of a call of Chromium pages again and again, at random instants, and says what
// the participants saw and heard of it. observe.js tells how that is measured.
//
//   npm run kills --prefix tests/browser -- --parties 2 --kills 200 --json kills.json
//
// `--fault stop` makes it stand still instead: also how to see that this sees anything. The server
// sends the signal itself (`--chaos`): a worker that others kill every few seconds it would take for
// one that cannot run, and start the next one later and later.
//
// VP8 and opus from Chromium's fake devices. 320×240 at 20 frames a second is what two cores carry
// with four participants, twelve pictures that is, beside server and browser; larger ones measure
// the machine. For each kill there is a window of two seconds without one, just before, from an
// instant as random. Of all pictures and sounds of a window the worst counts.

import { writeFile } from "node:fs/promises";
import { cpus, loadavg } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { lookAt, prepare, stateOf, watch, watchSocket } from "./observe.js";
import {
  PATIENCE_MS, callUrl, eventually, expectMedia, launchChromium, removeScratch, serverBinary, startServer,
} from "./rig.js";

const WINDOW_MS = 2_000;
/** Before each window, at most: what makes its instant random. */
const SPREAD_MS = 600;
/** How long a call runs before it is measured: bit rates and jitter buffers find their level. */
const SETTLE_MS = 8_000;
const ROOM = "kills";

const options = readOptions();
const server = await startServer({ chaos: true });
const browser = await launchChromium();
function readOptions() {
  const { values } = parseArgs({
    options: {
      parties: { type: "string", default: "2" },
      kills: { type: "string", default: "200" },
      size: { type: "string", default: "320x240" },
      fps: { type: "string", default: "20" },
      fault: { type: "string", default: "kill" },
      json: { type: "string" },
    },
  });
  const number = (name, text, most) => {
    const number = Number(text);
    if (Number.isInteger(number) && number >= 1 && number <= most) return number;
    console.error(`kills: --${name} ${text}: give a number from 1 to ${most}`);
    return process.exit(2);
  };
  const [width, height] = values.size.split("x");
  return {
    parties: Math.max(2, number("parties", values.parties, 8)),
    kills: number("kills", values.kills, 100_000),
    width: number("size", width, 1920),
    height: number("size", height, 1080),
    fps: number("fps", values.fps, 30),
    fault: values.fault,
    json: values.json,
  };
}

async function openCall() {
  const { parties, width, height, fps } = options;
  const names = Array.from({ length: parties }, (_, index) => `p${index + 1}`);
  const pages = [];
  for (const name of names) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
    await prepare(context);
    const page = await context.newPage();
    page.participant = name;
    watchSocket(page);
    // Its panel and strips would cost more than they show.
    await page.route("**/api/config", (route) => route.fulfill({ json: { chaos: false } }));
    await page.goto(callUrl(server, ROOM, name, { width, height, fps }));
    await page.waitForFunction(() => window.broth?.state === "joined", null, { timeout: PATIENCE_MS });
    pages.push(page);
  }
  const pairs = pages.flatMap((page) => names.filter((name) => name !== page.participant).map((name) => [page, name]));
  await Promise.all(pairs.map(([page, name]) => expectMedia(page, name, {}, 60_000)));
  await Promise.all(pages.map(watch));
  await sleep(SETTLE_MS);
  for (const page of pages) page.messages = [];
  return pages;
}

async function kill(pages) {
  const gaps = await serverGaps();
  const first = await states(pages);
  let before = first;
  const rounds = [];
  while (rounds.length < options.kills) {
    await sleep(Math.random() * SPREAD_MS);
    const quiet = await measure(pages, performance.now());

    await workerAfter(rounds.at(-1)?.pid);
    const between = await states(pages);
    await sleep(Math.random() * SPREAD_MS);
    const at = performance.now();
    const pid = await inject();
    const killed = await measure(pages, at);

    await workerAfter(pid);
    const after = await states(pages);
    const round = {
      pid,
      serverMs: gaps.at(-1),
      quiet: { ...quiet, counts: difference(before, between) },
      killed: { ...killed, counts: difference(between, after) },
      isRecovered: killed.isFlowing && after.every(({ joins }) => joins === 1),
      isUntouched: JSON.stringify(after.map(pathOf)) === JSON.stringify(first.map(pathOf)),
      messages: pages.flatMap((page) => page.messages.splice(0)),
    };
    rounds.push(round);
    before = after;
    say(rounds.length, round);
    if (after.some(({ joins }) => joins !== 1)) {
      console.log(`THE CALL IS LOST. What the server said last:\n${server.output()}`);
      break;
    }
  }
  return rounds;
}

/** How long the room was without a worker, as the server says it: grows with each death. */
async function serverGaps() {
  const { body } = await fetch(`${server.url}/api/chaos?${new URLSearchParams({ room: ROOM })}`);
  const gaps = [];
  const read = async () => {
    let text = "";
    for await (const bytes of body.pipeThrough(new TextDecoderStream())) {
      const events = (text + bytes).split("\n\n");
      text = events.pop();
      for (const event of events.filter((event) => event.startsWith("data:"))) {
        const { gapMs } = JSON.parse(event.slice("data:".length));
        if (gapMs !== undefined) gaps.push(gapMs);
      }
    }
  };
  // It ends with the room or the server.
  read().catch(() => {});
  return gaps;
}

/** Makes the fault; returns the process id of the worker that has it. */
async function inject() {
  const body = JSON.stringify({ worker: 0, fault: options.fault });
  const response = await fetch(`${server.url}/api/chaos`, { method: "POST", body });
  const { pid, error } = await response.json();
  if (error) throw new Error(error);
  return pid;
}

/** What must not change: states of ICE and DTLS, the path in use. */
const pathOf = ({ moved, paths }) => ({ moved, paths });

const states = (pages) => Promise.all(pages.map(stateOf));

/** The worst of all pictures and sounds in the window that begins at `from`. */
async function measure(pages, from) {
  await sleep(from + WINDOW_MS - performance.now());
  // What was under way at the end of the window has a little time to end.
  await sleep(200);
  const seen = await Promise.all(pages.map((page) => lookAt(page, from, from + WINDOW_MS)));
  const pictures = seen.flatMap(({ pictures }) => pictures);
  const sounds = seen.flatMap(({ sounds }) => sounds);
  const worst = sounds.reduce((a, b) => (b.concealedMs > a.concealedMs ? b : a));
  return {
    gapMs: Math.max(...pictures.map(({ gapMs }) => gapMs)),
    concealedMs: worst.concealedMs,
    isExact: worst.isExact,
    isFlowing: pictures.every(({ isFlowing }) => isFlowing),
  };
}

/** The worker that is there, once it is not the one of that process id. */
const workerAfter = (pid) =>
  eventually(`a worker after ${pid}`, async () => {
    const { workers: [worker] } = await server.stats();
    return worker && worker.pid !== pid && worker;
  });

/** What was counted on all pages from one look to the next. */
function difference(before, after) {
  const members = Object.keys(after[0].counts);
  const total = (states, member) => states.reduce((sum, { counts }) => sum + counts[member], 0);
  return Object.fromEntries(members.map((member) => [member, total(after, member) - total(before, member)]));
}

function describe() {
  return { ...options, binary: serverBinary(), chromium: browser.version(), cores: cpus().length, load: loadavg()[0] };
}

function summarize(rounds) {
  const spread = (member) => {
    const killed = percentiles(rounds.map(({ killed }) => killed[member]));
    const quiet = percentiles(rounds.map(({ quiet }) => quiet[member]));
    const above = Object.fromEntries(Object.keys(killed).map((name) => [name, killed[name] - quiet[name]]));
    const paired = percentiles(rounds.map(({ killed, quiet }) => killed[member] - quiet[member]));
    return { killed, quiet, above, paired };
  };
  const count = (test) => rounds.filter(test).length;
  const total = (kind) => {
    const members = Object.keys(rounds[0][kind].counts);
    const sum = (member) => rounds.reduce((sum, round) => sum + round[kind].counts[member], 0);
    return Object.fromEntries(members.map((member) => [member, sum(member)]));
  };
  return {
    recovered: count(({ isRecovered }) => isRecovered),
    untouched: count(({ isUntouched }) => isUntouched),
    silent: count(({ messages }) => messages.length === 0),
    withoutKeyFrame: count(({ killed }) => killed.counts.keyFramesDecoded === 0),
    server: percentiles(rounds.map(({ serverMs }) => serverMs)),
    inexactSounds: count(({ killed, quiet }) => !killed.isExact || !quiet.isExact),
    picture: spread("gapMs"),
    sound: spread("concealedMs"),
    counts: { killed: total("killed"), quiet: total("quiet") },
  };
}

function percentiles(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
  return { p50: at(0.5), p95: at(0.95), max: sorted.at(-1) };
}

function say(number, { serverMs, killed, quiet, isRecovered, isUntouched, messages }) {
  const figures = ({ gapMs, concealedMs }) => `picture ${gapMs.toFixed(0)} ms, sound ${concealedMs.toFixed(0)} ms`;
  const { keyFramesDecoded, packetsAskedOfSenders } = killed.counts;
  const faults = [!isRecovered && "NOT RECOVERED", !isUntouched && "ICE OR DTLS MOVED", messages.length && "SIGNALLED"];
  console.log(
    [
      `kill ${number}: ${figures(killed)} (without: ${figures(quiet)})`,
      `server ${serverMs?.toFixed(0)} ms`,
      `${keyFramesDecoded} key frames, ${packetsAskedOfSenders} packets asked for`,
      ...faults.filter(Boolean),
    ].join("; "),
  );
}

function print(result) {
  const { parties, kills, width, height, fps, fault, binary, chromium, cores, load, rounds } = result;
  console.log(`\n${parties} participants, VP8 ${width}×${height} at ${fps} frames/s, opus; Chromium ${chromium}; ${binary}`);
  console.log(`${fault}, ${rounds.length} of ${kills} times; ${cores} cores, load ${load.toFixed(1)}\n`);
  console.log("longest in 2 s, ms                  p50     p95     max");
  const row = (what, { p50, p95, max }) =>
    console.log(what.padEnd(32) + [p50, p95, max].map((value) => String(Math.round(value)).padStart(7)).join(" "));
  for (const [what, { killed, quiet, above, paired }] of [
    ["picture", result.picture],
    ["sound", result.sound],
  ]) {
    row(`${what} stands still: with a kill`.replace("sound stands still", "sound made up"), killed);
    row("  without", quiet);
    row("  above", above);
    row("  each above the one before it", paired);
  }
  row("server without a worker", result.server);
  console.log(`\nrecovered ${result.recovered} of ${kills}`);
  console.log(`ICE and DTLS untouched in ${result.untouched}, nothing signalled in ${result.silent}`);
  console.log(`no key frame decoded in ${result.withoutKeyFrame}`);
  console.log("on all pages, in windows with and without a kill:");
  for (const [name, killed] of Object.entries(result.counts.killed)) {
    console.log(`  ${name.padEnd(28)} ${String(killed).padStart(7)} ${String(result.counts.quiet[name]).padStart(7)}`);
  }
}

try {
  const pages = await openCall();
  const rounds = await kill(pages);
  const result = { ...describe(), ...summarize(rounds), rounds };
  print(result);
  if (options.json) await writeFile(options.json, `${JSON.stringify(result, null, 2)}\n`);
  if (result.recovered < options.kills) process.exitCode = 1;
} finally {
  await browser.close();
  await server.stop();
  await removeScratch();
}
