// A conference server on the original Node module, driving the worker under test: the signalling
// of `broth serve` (docs/signalling.md) and the page of page/. What happens is left to the tests,
// which hold the module's own objects.

import { readFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { WebSocketServer } from "ws";

const HERE = path.dirname(fileURLToPath(import.meta.url));
const PAGES = [path.join(HERE, "page"), path.join(HERE, "../../server/assets")];
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8" };

const OPUS = { kind: "audio", name: "opus", clockRate: 48_000, channels: 2 };
const VP8 = { kind: "video", name: "VP8", clockRate: 90_000 };

/** The worker under test: `V2_WORKER`, else what cargo built. */
export function workerBinary() {
  const target = process.env.CARGO_TARGET_DIR ?? path.join(HERE, "../../target");
  const candidates = process.env.V2_WORKER
    ? [process.env.V2_WORKER]
    : [path.join(target, "release/broth-worker"), path.join(target, "debug/broth-worker")];
  const found = candidates.find(existsSync);
  if (!found) throw new Error(`no worker at ${candidates.join(" or ")}: build it or set V2_WORKER`);
  return path.resolve(found);
}

/** The original module, which reads where its worker is when it is loaded. */
export async function originalModule() {
  process.env.MEDIASOUP_WORKER_PATH = workerBinary();
  return (await import("mediasoup")).default;
}

/** Starts a conference on an ephemeral port, with one worker. */
export async function startConference() {
  const mediasoup = await originalModule();
  const server = mediasoup.Server({
    numWorkers: 1,
    logLevel: "warn",
    rtcIPv4: "127.0.0.1",
    rtcIPv6: false,
  });
  const rooms = new Map();
  const openRoom = (name, video = {}) => {
    const room = server.Room([OPUS, { ...VP8, ...video }]);
    rooms.set(name, room);
    room.on("close", () => rooms.delete(name));
    return room;
  };
  const http = createServer((request, response) => serveFile(request, response));
  const sockets = new WebSocketServer({ server: http, path: "/ws" });
  sockets.on("connection", (socket, request) => {
    const { searchParams } = new URL(request.url, "http://localhost");
    const name = searchParams.get("room");
    serveSocket(socket, rooms.get(name) ?? openRoom(name));
  });
  await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));

  return {
    url: `http://127.0.0.1:${http.address().port}`,
    server,
    /** Makes a room before somebody enters it, with another video codec. */
    openRoom,
    room: (name) => rooms.get(name),
    stop: async () => {
      for (const socket of sockets.clients) socket.terminate();
      http.closeAllConnections();
      await new Promise((resolve) => http.close(resolve));
      server.close();
    },
  };
}

async function serveFile(request, response) {
  const name = path.basename(new URL(request.url, "http://localhost").pathname);
  const file = PAGES.map((dir) => path.join(dir, name)).find((file) => name && existsSync(file));
  if (!file) {
    response.writeHead(404).end();
    return;
  }
  const type = TYPES[path.extname(file)] ?? "application/octet-stream";
  response.writeHead(200, { "content-type": type }).end(await readFile(file));
}

/** Hands the messages of one client to the room and its peer, and the peer's to the client. */
function serveSocket(socket, room) {
  let peer = null;
  const send = (message) => socket.send(JSON.stringify(message));

  const request = async (data) => {
    if (data.target === "peer") return peer.receiveRequest(data);
    const response = await room.receiveRequest(data);
    if (data.method === "join") {
      peer = room.getPeerByName(data.peerName);
      peer.on("notify", (notification) => send({ notification: true, data: notification }));
    }
    return response;
  };

  socket.on("message", async (text) => {
    const { id, data, request: isRequest } = JSON.parse(text);
    if (!isRequest) {
      peer.receiveNotification(data);
      return;
    }
    try {
      send({ response: true, id, ok: true, data: await request(data) });
    } catch (error) {
      send({ response: true, id, ok: false, error: error.message });
    }
  });
  socket.on("close", () => peer?.close());
}
