// Faults on purpose, on servers that allow it: a panel whose buttons end the worker of the room,
// and on each tile a strip that shows what that costs.

import { Strip } from "./strip.js";

/** A death so soon after a fault is its effect. */
const EFFECT_MS = 3_000;

const DEEDS = { kill: "was killed", stop: "was stopped", abort: "aborted" };

export class Chaos {
  #strips = new Map();
  #room = null;
  #life = null;
  #pid = null;
  #survived = 0;
  #markedAt = -Infinity;
  #panel = document.getElementById("chaos");
  #words = document.getElementById("chaos-words");

  constructor() {
    document.body.classList.add("has-chaos");
    for (const button of this.#panel.querySelectorAll("[data-fault]")) {
      button.addEventListener("click", () => this.#order(button.dataset.fault));
    }
  }

  /** Follows the worker of a room. */
  enter(room) {
    this.leave();
    this.#room = room;
    this.#life = new EventSource(`api/chaos?${new URLSearchParams({ room })}`);
    this.#life.onmessage = ({ data }) => this.#handle(JSON.parse(data));
    this.#panel.hidden = false;
  }

  leave() {
    this.#life?.close();
    this.#panel.hidden = true;
    this.#pid = null;
    this.#survived = 0;
  }

  /** A tile has come. */
  add(tile) {
    const isOthers = tile.dataset.tile.startsWith("peer/") && !tile.classList.contains("is-screen");
    if (isOthers) this.#strips.set(tile, new Strip(tile));
  }

  /** A tile has gone. */
  remove(tile) {
    this.#strips.get(tile)?.remove();
    this.#strips.delete(tile);
  }

  async #order(fault) {
    const body = JSON.stringify({ room: this.#room, fault });
    try {
      const response = await fetch("api/chaos", { method: "POST", body });
      if (!response.ok) this.#say((await response.json()).error);
    } catch {
      this.#say("The server cannot be reached.");
    }
  }

  #handle({ state, pid, fault, gapMs }) {
    if (state === "fault") this.#mark(`Worker ${pid} ${DEEDS[fault] ?? `got ${fault}`}.`);
    // Killed by somebody else.
    if (state === "dead" && performance.now() - this.#markedAt > EFFECT_MS) {
      this.#mark(`Worker ${this.#pid} died.`);
    }
    if (state !== "alive") return;
    const before = this.#pid;
    this.#pid = pid;
    if (gapMs === undefined) {
      this.#show(`worker ${pid}`);
      return;
    }
    this.#survived += 1;
    this.#show(before === null ? `worker ${pid}` : `worker ${before} → ${pid}`);
  }

  #show(worker) {
    document.getElementById("chaos-worker").textContent = worker;
    const deaths = this.#survived === 1 ? "death" : "deaths";
    document.getElementById("chaos-survived").textContent = this.#survived ? `${this.#survived} ${deaths} survived` : "";
    Object.assign(this.#panel.dataset, { pid: this.#pid, survived: this.#survived });
  }

  async #mark(what) {
    const at = performance.now();
    this.#markedAt = at;
    this.#say(what);
    const costs = await Promise.all([...this.#strips.values()].map((strip) => strip.mark(at)));
    if (this.#markedAt !== at || !costs.length) return;
    const most = (member) => Math.max(...costs.map((cost) => cost[member]));
    this.#say(`${what} Longest gap between frames ${most("after")} ms, before ${most("before")} ms.`);
  }

  #say(text) {
    this.#words.textContent = text;
  }
}
