// Peers in Chromium pages, on top of the rig of tests/browser.

import { PATIENCE_MS, eventually, openPage } from "../browser/rig.js";

/** Opens a page of its own context in the room and waits until it sends; `prepare` may change the context. */
export async function joinPeer(browser, conference, room, name, more = {}, prepare = undefined) {
  const query = new URLSearchParams({ room, name, ...more });
  const page = await openPage(browser, `${conference.url}/peer.html?${query}`, prepare);
  await page.waitForFunction(() => window.peer?.state === "joined", null, { timeout: PATIENCE_MS }).catch((error) => {
    throw new Error(`${name} has not joined: ${[error.message, ...page.faults].join("\n")}`);
  });
  return page;
}

export const receivedFrom = (page, name) => page.evaluate((name) => window.peer.receivedFrom(name), name);

/** What the page's objects told that has all members of `like`. */
export async function toldOf(page, like) {
  const told = await page.evaluate(() => window.peer.told);
  return told.filter((one) => Object.entries(like).every(([member, value]) => one[member] === value));
}

/** Waits until the page was told so, `times` times; returns the last one's arguments. */
export async function expectTold(page, like, times = 1) {
  const told = await eventually(
    `${JSON.stringify(like)} is told`,
    async () => {
      const told = await toldOf(page, like);
      return told.length >= times && told;
    },
    PATIENCE_MS,
    () => page.evaluate(() => window.peer.told.map(({ what, event }) => `${what} ${event}`)),
  );
  return told.at(-1).args;
}

/** Waits until new frames and new sound of `name` are decoded at `page`. */
export async function expectMedia(page, name, kinds = ["audio", "video"]) {
  const progress = async () => {
    const { audio, video } = await receivedFrom(page, name);
    return { audio: audio.totalAudioEnergy ?? 0, video: video.framesDecoded ?? 0 };
  };
  const first = await progress();
  await eventually(
    `${kinds.join(" and ")} of ${name}`,
    async () => {
      const now = await progress();
      return kinds.every((kind) => now[kind] > first[kind] + (kind === "video" ? 2 : 0));
    },
    PATIENCE_MS,
    () => receivedFrom(page, name),
  );
}
