// A strip along a tile: one bar for each interval between two frames, as high as the interval is
// long, a line where a fault was made, and the longest interval after it in red.

import { Frames, WINDOW_MS } from "./gaps.js";

/** The time the strip shows. */
const SHOWN_MS = 8_000;
/** The interval whose bar fills the strip. */
const FULL_MS = 400;
const DRAW_INTERVAL_MS = 100;

export class Strip {
  #frames = new Frames();
  #video;
  #canvas;
  #words;
  #marks = [];
  #timer;
  #callback;
  #forget = () => this.#frames.clear();

  /** Watches the picture of `tile` until it is removed. */
  constructor(tile) {
    this.#video = tile.querySelector("video");
    this.element = document.createElement("div");
    this.element.className = "strip";
    this.element.innerHTML = '<canvas role="img"></canvas><span class="strip-words"></span>';
    this.#canvas = this.element.querySelector("canvas");
    this.#words = this.element.querySelector("span");
    this.#say("time between frames");
    tile.append(this.element);
    // Hidden pages show no frames, and that is nobody's fault.
    document.addEventListener("visibilitychange", this.#forget);
    this.#timer = setInterval(() => this.#draw(), DRAW_INTERVAL_MS);
    this.#watch();
  }

  /** Draws a line at `at`, and says after a while what the fault cost: resolves to `{ before, after }`. */
  async mark(at) {
    this.#marks = [...this.#marks.filter((mark) => mark > at - SHOWN_MS), at];
    await new Promise((resolve) => setTimeout(resolve, at + WINDOW_MS - performance.now()));
    const cost = {
      before: Math.round(this.#frames.longestBefore(at)),
      after: Math.round(this.#frames.longestAfter(at, performance.now())),
    };
    Object.assign(this.element.dataset, cost);
    this.#say(`longest gap ${cost.after} ms, before ${cost.before} ms`);
    return cost;
  }

  remove() {
    clearInterval(this.#timer);
    document.removeEventListener("visibilitychange", this.#forget);
    this.#video.cancelVideoFrameCallback?.(this.#callback);
    this.element.remove();
  }

  #watch() {
    this.#callback = this.#video.requestVideoFrameCallback?.((now, { presentationTime }) => {
      this.#frames.add(presentationTime);
      this.#watch();
    });
  }

  #say(text) {
    this.#words.textContent = text;
    this.#canvas.setAttribute("aria-label", text);
  }

  #draw() {
    const scale = window.devicePixelRatio;
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    this.#canvas.width = width * scale;
    this.#canvas.height = height * scale;
    const pen = this.#canvas.getContext("2d");
    pen.scale(scale, scale);
    const now = performance.now();
    const x = (time) => width - ((now - time) * width) / SHOWN_MS;
    const style = getComputedStyle(this.#canvas);
    const [plain, struck, line] = ["--bar", "--bar-struck", "--mark"].map((name) => style.getPropertyValue(name));
    const costs = this.#marks.map((mark) => this.#frames.longestAfter(mark, now));
    const isStruck = ([begin, end]) =>
      this.#marks.some((mark, index) => end > mark && begin < mark + WINDOW_MS && end - begin >= costs[index]);
    for (const interval of this.#frames.intervals(now - SHOWN_MS, now)) {
      const [begin, end] = interval;
      const bar = Math.max(2, Math.min(1, (end - begin) / FULL_MS) * height);
      pen.fillStyle = isStruck(interval) ? struck : plain;
      pen.fillRect(x(begin) + 0.5, height - bar, Math.max(1, x(end) - x(begin) - 1), bar);
    }
    pen.fillStyle = line;
    for (const mark of this.#marks) pen.fillRect(x(mark) - 0.75, 0, 1.5, height);
  }
}
