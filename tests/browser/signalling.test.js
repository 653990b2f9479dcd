// The socket as a program sees it: what strangers may send, and what they get for it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventually, launchChromium, openPage, removeScratch, startServer } from "./rig.js";

const LIMIT = { timeout: 60_000 };

let server;
let browser;
let page;

before(async () => {
  server = await startServer();
  browser = await launchChromium();
  page = await openPage(browser, `${server.url}/healthz`);
}, LIMIT);

after(async () => {
  await browser?.close();
  await server?.stop();
  await removeScratch();
});

/** Sends texts one by one; returns what comes until an answer to each, or the end. */
function talk(query, texts, from = page) {
  const url = `${server.url.replace("http", "ws")}/ws?${new URLSearchParams(query)}`;
  return from.evaluate(
    ([url, texts]) =>
      new Promise((resolve) => {
        const answers = [];
        const socket = new WebSocket(url);
        socket.onopen = () => socket.send(texts[0]);
        socket.onmessage = ({ data }) => {
          const message = JSON.parse(data);
          if (!message.response) return;
          answers.push(message);
          if (answers.length < texts.length) socket.send(texts[answers.length]);
          else socket.close();
        };
        socket.onclose = ({ code, reason }) => resolve({ answers, code, reason });
      }),
    [url, texts],
  );
}

const request = (id, data) => JSON.stringify({ request: true, id, data });
const queryRoom = { method: "queryRoom", target: "room" };

/** A join with what the room offers. */
async function join(query, more) {
  const { answers } = await talk(query, [request(1, queryRoom)]);
  const { rtpCapabilities } = answers[0].data;
  return request(2, { method: "join", target: "room", peerName: query.name, rtpCapabilities, ...more });
}

test("a program joins in two messages", LIMIT, async () => {
  const query = { room: "program", name: "bot" };
  const { answers } = await talk(query, [await join(query)]);
  assert.deepEqual(answers, [{ response: true, id: 2, ok: true, data: { peers: [] } }]);
});

test("requests that cannot be are answered and the socket stays", LIMIT, async () => {
  const query = { room: "odd", name: "odd" };
  const rows = [
    [request(1, { method: "createTransport", target: "peer" }), "join the room first"],
    [request(2, { method: "nonsense", target: "room" }), 'unknown request method "nonsense"'],
    [request(3, { method: "queryRoom", target: "moon" }), "wrong/missing request target"],
    [await join(query, { peerName: "else" }), "peerName is not the name this socket was opened with"],
    [await join(query, { spy: true }), "spies are not admitted"],
    [await join(query, { rtpCapabilities: {} }), /rtpCapabilities/],
  ];
  const { answers } = await talk(query, rows.map(([text]) => text));
  for (const [at, [text, expected]] of rows.entries()) {
    assert.equal(answers[at].ok, false, text);
    if (expected instanceof RegExp) assert.match(answers[at].error, expected);
    else assert.equal(answers[at].error, expected);
  }
});

test("what is no envelope closes the socket with the reason", LIMIT, async () => {
  const rows = [
    ["{", "the message is no JSON"],
    ["[]", "the message is no envelope"],
    [request(1, { ...queryRoom, appData: "x".repeat(5000) }), "appData is larger than 4096 bytes"],
  ];
  for (const [at, [text, reason]] of rows.entries()) {
    // The last one's name is free only once the server has seen its socket close.
    const end = await talk({ room: "broken", name: `broken${at}` }, [text]);
    assert.deepEqual([end.code, end.reason], [1008, reason]);
  }
});

test("pages of other sites are refused", LIMIT, async () => {
  // The same server under another name: another origin.
  const other = await openPage(browser, `${server.url.replace("127.0.0.1", "localhost")}/healthz`);
  const end = await talk({ room: "other", name: "other" }, [request(1, queryRoom)], other);
  assert.deepEqual(end.answers, []);
  await other.context().close();
});

/** Asks for a fault from a page; returns the status and the answer. */
const order = (body, at, from) =>
  from.evaluate(
    async ([url, body]) => {
      const response = await fetch(url, { method: "POST", body });
      return [response.status, await response.json()];
    },
    [`${at.url}/api/chaos`, body],
  );

test("faults are refused where nobody asked for chaos", LIMIT, async () => {
  const error = "chaos is not enabled: start the server with --chaos";
  const { workers: [{ pid }] } = await server.stats();
  assert.deepEqual(await order('{"worker":0,"fault":"kill"}', server, page), [403, { error }]);
  const watch = await fetch(`${server.url}/api/chaos?room=any`);
  assert.deepEqual([watch.status, await watch.json()], [403, { error }]);
  assert.deepEqual(await (await fetch(`${server.url}/api/config`)).json(), { chaos: false });
  assert.equal((await server.stats()).workers[0].pid, pid);
});

test("faults that cannot be are refused with the reason", LIMIT, async () => {
  const wild = await startServer({ chaos: true });
  try {
    const own = await openPage(browser, `${wild.url}/healthz`);
    const { workers: [{ pid }] } = await wild.stats();
    const rows = [
      ["{", 400, /EOF/],
      ['{"worker":0}', 400, /missing field `fault`/],
      ['{"worker":0,"fault":"tickle"}', 400, /"tickle" is none of kill, stop, abort/],
      ['{"fault":"kill"}', 400, /either a room or a worker/],
      ['{"worker":7,"fault":"kill"}', 404, /no worker 7/],
      ['{"room":"nowhere","fault":"kill"}', 404, /no room "nowhere"/],
    ];
    for (const [body, status, text] of rows) {
      const [gotStatus, { error }] = await order(body, wild, own);
      assert.equal(gotStatus, status, body);
      assert.match(error, text);
    }
    const stranger = await fetch(`${wild.url}/api/chaos`, {
      method: "POST",
      headers: { origin: "http://elsewhere.example" },
      body: '{"worker":0,"fault":"kill"}',
    });
    assert.equal(stranger.status, 403);
    assert.match((await stranger.json()).error, /another site's/);
    for (const [query, status] of [["", 400], ["?room=nowhere", 404]]) {
      assert.equal((await fetch(`${wild.url}/api/chaos${query}`)).status, status);
    }
    assert.equal((await wild.stats()).workers[0].pid, pid);

    assert.deepEqual(await order('{"worker":0,"fault":"kill"}', wild, own), [200, { worker: 0, pid, fault: "kill" }]);
    await eventually("another worker is there", async () => {
      const { workers: [worker] } = await wild.stats();
      return worker && worker.pid !== pid;
    });
    await own.context().close();
  } finally {
    await wild.stop();
  }
});

test("no room and no peer is left behind", LIMIT, async () => {
  const stats = await server.stats();
  assert.deepEqual([stats.peers, stats.transports], [0, 0]);
  assert.equal(JSON.stringify(stats).includes("program"), false);
});
