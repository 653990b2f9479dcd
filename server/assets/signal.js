// The socket to the server: pairs responses with requests. Knows nothing of what is inside.

/** Messages of one socket. Events: `notification` (detail: the data), `close` (detail: why). */
export class Signal extends EventTarget {
  #socket;
  #pending = new Map();
  #lastId = 0;

  /** Opens a socket for `name` in `room`; rejects when that takes longer than `timeoutMs`. */
  static open({ room, name, codec }, timeoutMs = 10_000) {
    const url = new URL("ws", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.search = new URLSearchParams({ room, name, ...(codec && { codec }) });
    const socket = new WebSocket(url);
    return new Promise((resolve, reject) => {
      const fail = (text) => {
        clearTimeout(timer);
        socket.onopen = socket.onclose = null;
        socket.close();
        reject(new Error(text));
      };
      const timer = setTimeout(fail, timeoutMs, "The server does not answer.");
      socket.onclose = ({ reason }) => fail(reason || "The server cannot be reached.");
      socket.onopen = () => {
        clearTimeout(timer);
        resolve(new Signal(socket));
      };
    });
  }

  constructor(socket) {
    super();
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#handle(JSON.parse(data));
    socket.onclose = ({ code, reason }) => this.#end({ code, reason });
  }

  /** Sends a request; the response's data, or an Error with the server's words. */
  request(data) {
    return new Promise((resolve, reject) => {
      if (this.#socket.readyState !== WebSocket.OPEN) {
        reject(new Error("The connection is closed."));
        return;
      }
      const id = ++this.#lastId;
      this.#pending.set(id, { resolve, reject });
      this.#socket.send(JSON.stringify({ request: true, id, data }));
    });
  }

  /** Sends what is not answered. */
  notify(data) {
    if (this.#socket.readyState === WebSocket.OPEN) {
      this.#socket.send(JSON.stringify({ notification: true, data }));
    }
  }

  /** Closes without a `close` event. */
  close() {
    this.#socket.onclose = null;
    this.#socket.close();
    this.#rejectPending("The connection was closed.");
  }

  #handle(message) {
    if (message.response) {
      const pending = this.#pending.get(message.id);
      this.#pending.delete(message.id);
      if (message.ok) pending?.resolve(message.data);
      else pending?.reject(new Error(message.error));
    } else if (message.notification) {
      this.dispatchEvent(new CustomEvent("notification", { detail: message.data }));
    }
  }

  #end(why) {
    this.#rejectPending(why.reason || "The connection was lost.");
    this.dispatchEvent(new CustomEvent("close", { detail: why }));
  }

  #rejectPending(text) {
    for (const { reject } of this.#pending.values()) reject(new Error(text));
    this.#pending.clear();
  }
}
