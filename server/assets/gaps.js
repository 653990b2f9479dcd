// When frames were shown, and how long nothing was. Pure: times in milliseconds in, numbers out.

/** How long a time is kept. */
export const KEPT_MS = 12_000;
/** How much before and after a fault is looked at. */
export const WINDOW_MS = 2_000;

/** The times of one picture's frames. */
export class Frames {
  #times = [];

  /** A frame was shown. */
  add(at) {
    this.#times.push(at);
    const kept = this.#times.findIndex((time) => time > at - KEPT_MS);
    if (kept > 0) this.#times.splice(0, kept);
  }

  /** Forgets everything: what follows has nothing to do with it. */
  clear() {
    this.#times = [];
  }

  /** The intervals `[begin, end]` that end after `from`; the one under way at `now` ends there. */
  intervals(from, now) {
    const ends = [...this.#times.filter((time) => time < now), now];
    const intervals = ends.slice(1).map((end, index) => [ends[index], end]);
    return intervals.filter(([begin, end]) => end > from && end > begin);
  }

  /** The longest interval between two frames in the window before `fault`; 0 if there is none. */
  longestBefore(fault) {
    const before = this.intervals(fault - WINDOW_MS, fault).slice(0, -1);
    return longest(before.filter(([begin]) => begin >= fault - WINDOW_MS));
  }

  /** The longest interval that begins in the window after `fault`, or is under way then. */
  longestAfter(fault, now) {
    return longest(this.intervals(fault, now).filter(([begin]) => begin < fault + WINDOW_MS));
  }
}

function longest(intervals) {
  return intervals.reduce((most, [begin, end]) => Math.max(most, end - begin), 0);
}
