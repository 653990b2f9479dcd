// The tiles of a call: one for every camera, the own included, and one for every shared screen.

import { PROFILES } from "./call.js";
import { place } from "./layout.js";

/**
 * Shows a call's people in `stage`; `on` has `profile(name, profile)`, `soundBlocked(play)`, and
 * `added` and `removed`, which are given a tile's element.
 */
export class Tiles {
  #stage;
  #on;
  #tiles = new Map();
  #audio = new Map();
  #speakers = new Map();

  constructor(stage, on) {
    this.#stage = stage;
    this.#on = on;
    new ResizeObserver(() => this.#layOut()).observe(stage);
  }

  /** Brings the tiles in line with the call. */
  render(call) {
    const wanted = describe(call);
    for (const [key, tile] of this.#tiles) {
      if (wanted.some((view) => view.key === key)) continue;
      this.#on.removed(tile.element);
      tile.remove();
      this.#tiles.delete(key);
    }
    for (const view of wanted) {
      if (!this.#tiles.has(view.key)) {
        const tile = new Tile(view, (profile) => this.#on.profile(view.name, profile));
        this.#tiles.set(view.key, tile);
        this.#stage.append(tile.element);
        this.#on.added(tile.element);
      }
      this.#tiles.get(view.key).update(view);
    }
    this.#playSound(call);
    this.showSpeakers(this.#speakers);
    this.#layOut(wanted);
  }

  /** Rings whoever is in `speakers`, a Map of name to level. */
  showSpeakers(speakers) {
    this.#speakers = speakers;
    for (const tile of this.#tiles.values()) {
      tile.element.classList.toggle("is-speaking", tile.isHeard && speakers.has(tile.name));
    }
  }

  /** Writes sizes and bitrates from a call's statistics. */
  showStats({ peers, sent }) {
    for (const tile of this.#tiles.values()) {
      const kind = tile.isScreen ? "screen" : "video";
      if (tile.isSelf) tile.showSent(sent[kind]?.layers);
      else tile.showReceived(peers[tile.name]?.[kind]);
    }
  }

  #playSound(call) {
    const heard = new Map(call.peers.map((peer) => [peer.name, peer.mic?.track]));
    for (const [name, element] of this.#audio) {
      if (heard.get(name)) continue;
      element.srcObject = null;
      element.remove();
      this.#audio.delete(name);
    }
    for (const [name, track] of heard) {
      if (!track) continue;
      let element = this.#audio.get(name);
      if (!element) {
        element = document.createElement("audio");
        this.#audio.set(name, element);
        document.body.append(element);
      }
      if (element.srcObject?.getTracks()[0] === track) continue;
      element.srcObject = new MediaStream([track]);
      const play = () => element.play();
      play().catch((error) => error.name === "NotAllowedError" && this.#on.soundBlocked(play));
    }
  }

  #layOut(wanted) {
    const order = wanted ? wanted.map(({ key }) => this.#tiles.get(key)) : [...this.#tiles.values()];
    if (wanted) this.#tiles = new Map(order.map((tile) => [tile.key, tile]));
    const style = getComputedStyle(this.#stage);
    const area = {
      width: this.#stage.clientWidth - parseFloat(style.paddingLeft) * 2,
      height: this.#stage.clientHeight - parseFloat(style.paddingTop) * 2,
    };
    const rects = place(order.length, area, Boolean(order[0]?.isScreen));
    order.forEach((tile, index) => tile.moveTo(rects[index]));
  }
}

/** What is to be seen, shared screens first, the own tile last. */
function describe(call) {
  if (call.state === "new" || call.state === "left") return [];
  const { mic, camera, screen } = call.local;
  const views = [];
  for (const peer of call.peers) {
    if (peer.screen?.track) views.push({ ...remote(peer, peer.screen), isScreen: true });
  }
  if (screen.isOn) {
    views.push({ key: "self/screen", name: call.name, track: screen.track, isSelf: true, isScreen: true });
  }
  for (const peer of call.peers) {
    views.push({ ...remote(peer, peer.camera), isMuted: !peer.mic || peer.mic.paused });
  }
  views.push({
    key: "self",
    name: call.name,
    track: camera.isOn ? camera.track : null,
    isMuted: !mic.isOn,
    isSelf: true,
  });
  return views;
}

function remote(peer, consumer) {
  const isScreen = consumer !== undefined && consumer === peer.screen;
  return {
    key: `peer/${peer.name}${isScreen ? "/screen" : ""}`,
    name: peer.name,
    track: consumer && !consumer.paused ? consumer.track : null,
    isSimulcast: Boolean(consumer?.appData?.simulcast),
    effective: consumer?.effectiveProfile,
    preferred: consumer?.preferredProfile,
  };
}

class Tile {
  #video;
  #avatar;
  #label;
  #mic;
  #stats;
  #profiles;
  #rate = null;

  constructor({ key, name, isSelf = false, isScreen = false }, chooseProfile) {
    Object.assign(this, { key, name, isSelf, isScreen, isHeard: false });
    this.element = document.getElementById("tile").content.firstElementChild.cloneNode(true);
    this.element.dataset.tile = key;
    this.element.classList.toggle("is-self", isSelf);
    this.element.classList.toggle("is-screen", isScreen);
    this.element.style.setProperty("--hue", hueOf(name));
    this.#video = this.element.querySelector("video");
    this.#avatar = this.element.querySelector(".avatar");
    this.#label = this.element.querySelector(".name");
    this.#mic = this.element.querySelector(".mic-off");
    this.#stats = this.element.querySelector(".tile-stats");
    this.#profiles = this.element.querySelector(".profiles");
    this.#avatar.textContent = initialsOf(name);
    const owner = isSelf ? `${name} (you)` : name;
    this.#label.textContent = isScreen ? `${owner} · screen` : owner;
    // A picture that has not come yet is no black hole: the avatar stays until it is there.
    this.#video.addEventListener("playing", () => this.#showPicture());
    for (const button of this.#profiles.children) {
      button.addEventListener("click", () => chooseProfile(button.dataset.profile));
    }
  }

  update({ track, isMuted = false, isSimulcast = false, effective, preferred }) {
    const shown = this.#video.srcObject?.getTracks()[0] ?? null;
    if (shown !== track) {
      this.#video.srcObject = track ? new MediaStream([track]) : null;
      if (track) this.#video.play().catch(() => {});
    }
    this.#showPicture();
    this.isHeard = !this.isScreen && !isMuted;
    this.#mic.hidden = this.isScreen || !isMuted;
    this.#profiles.hidden = this.isSelf || !isSimulcast;
    const chosen = preferred === "default" ? "high" : preferred;
    for (const button of this.#profiles.children) {
      const { profile } = button.dataset;
      button.setAttribute("aria-pressed", String(profile === chosen));
      button.classList.toggle("is-effective", profile === effective && PROFILES.includes(effective));
    }
  }

  moveTo({ x, y, width, height }) {
    const { style } = this.element;
    style.width = `${width}px`;
    style.height = `${height}px`;
    style.transform = `translate(${x}px, ${y}px)`;
    this.element.classList.toggle("is-small", width < 260);
    this.element.classList.toggle("is-tiny", width < 170);
  }

  showReceived(stat) {
    if (!stat || stat.paused) this.#write(null);
    else this.#write(stat, stat.bytesReceived);
  }

  showSent(layers) {
    if (!layers?.length || !this.#video.srcObject) {
      this.#write(null);
      return;
    }
    const largest = layers.reduce((a, b) => ((b.frameWidth ?? 0) > (a.frameWidth ?? 0) ? b : a));
    this.#write(largest, layers.reduce((sum, layer) => sum + (layer.bytesSent ?? 0), 0));
  }

  remove() {
    this.#video.srcObject = null;
    this.element.remove();
  }

  #showPicture() {
    const isThere = this.#video.srcObject !== null && this.#video.readyState >= 2;
    this.element.classList.toggle("has-picture", isThere);
  }

  #write(stat, bytes) {
    const now = performance.now();
    const before = this.#rate;
    this.#rate = stat ? { bytes, at: now } : null;
    const parts = [];
    if (stat?.frameWidth) parts.push(`${stat.frameWidth}×${stat.frameHeight}`);
    if (stat?.framesPerSecond) parts.push(`${Math.round(stat.framesPerSecond)} fps`);
    if (before && stat && bytes >= before.bytes) {
      parts.push(bitrate(((bytes - before.bytes) * 8000) / (now - before.at)));
    }
    if (stat?.mimeType) parts.push(stat.mimeType.replace(/^.*\//, ""));
    this.#stats.replaceChildren(
      ...parts.map((text) => {
        const part = document.createElement("span");
        part.textContent = text;
        return part;
      }),
    );
    this.#stats.hidden = !parts.length;
  }
}

function bitrate(bps) {
  return bps >= 1e6 ? `${(bps / 1e6).toFixed(1)} Mb/s` : `${Math.round(bps / 1000)} kb/s`;
}

function initialsOf(name) {
  const words = name.trim().split(/[\s._-]+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : words;
  return letters.map((word) => [...word][0]).join("").toUpperCase() || "?";
}

function hueOf(name) {
  let hash = 7;
  for (const character of name) hash = (hash * 31 + character.codePointAt(0)) % 3600;
  return hash % 360;
}
