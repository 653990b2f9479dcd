// The worker under test follows the settings that the original module gives it.

import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { test } from "node:test";
import { originalModule } from "./conference.js";

const LIMIT = { timeout: 30_000 };
const OPUS = { kind: "audio", name: "opus", clockRate: 48_000, channels: 2 };

const mediasoup = await originalModule();

/** Starts a server that the test's end closes. */
function serve(t, settings) {
  const server = mediasoup.Server({ numWorkers: 1, rtcIPv4: "127.0.0.1", rtcIPv6: false, ...settings });
  t.after(() => server.close());
  return server;
}

/** A peer that speaks for itself, in a room of its own. */
async function joinAlone(server, workerIdx) {
  const room = server.Room([OPUS], { workerIdx });
  const { rtpCapabilities } = room;
  await room.receiveRequest({ method: "join", target: "room", peerName: "solo", rtpCapabilities });
  return room.getPeerByName("solo");
}

const createTransport = (peer, id, options = {}) =>
  peer.receiveRequest({ method: "createTransport", target: "peer", id, direction: "send", options });

test("candidates have the announced address and a port of the worker's share", LIMIT, async (t) => {
  const server = serve(t, { numWorkers: 2, rtcAnnouncedIPv4: "198.51.100.7", rtcMinPort: 20_000, rtcMaxPort: 20_100 });
  for (const workerIdx of [0, 1]) {
    const peer = await joinAlone(server, workerIdx);
    const [min, max] = [20_000 + 50 * workerIdx, 20_050 + 50 * workerIdx];
    const seen = new Set();
    for (const id of [1, 2, 3]) {
      const { iceCandidates, iceParameters } = await createTransport(peer, id);
      assert.equal(iceParameters.iceLite, true);
      assert.deepEqual(iceCandidates.map(({ protocol }) => protocol), ["udp", "tcp"]);
      assert.equal(iceCandidates[1].tcpType, "passive");
      for (const { ip, port, type, family, protocol } of iceCandidates) {
        assert.deepEqual({ ip, type, family }, { ip: "198.51.100.7", type: "host", family: "ipv4" });
        assert.ok(port >= min && port <= max, `${port} is not within ${min} to ${max}`);
        seen.add(`${protocol} ${port}`);
      }
    }
    assert.equal(seen.size, 6, "every transport has ports of its own");
  }
});

test("a transport has the protocols it is asked to have", LIMIT, async (t) => {
  const peer = await joinAlone(serve(t));
  const protocols = async (id, options) => (await createTransport(peer, id, options)).iceCandidates.map(({ protocol }) => protocol);
  assert.deepEqual(await protocols(1, { tcp: false }), ["udp"]);
  assert.deepEqual(await protocols(2, { udp: false }), ["tcp"]);
  await assert.rejects(protocols(3, { udp: false, tcp: false }), /could not open any IP:port/);
});

test("a closed transport gives its ports and its id back", LIMIT, async (t) => {
  // One port that is even or two at most.
  const peer = await joinAlone(serve(t, { rtcMinPort: 20_200, rtcMaxPort: 20_202 }));
  for (let round = 0; round < 5; round += 1) {
    await createTransport(peer, 1);
    peer.transports[0].close();
  }
});

test("the certificate is the one that is given", LIMIT, async (t) => {
  const require = createRequire(import.meta.url);
  const data = path.join(path.dirname(require.resolve("mediasoup/package.json")), "test/data");
  const dtlsCertificateFile = path.join(data, "dtls-cert.pem");
  const server = serve(t, { dtlsCertificateFile, dtlsPrivateKeyFile: path.join(data, "dtls-key.pem") });
  const { dtlsParameters } = await createTransport(await joinAlone(server), 1);
  const { fingerprint, fingerprint256, fingerprint512 } = new X509Certificate(await readFile(dtlsCertificateFile));
  const told = Object.fromEntries(dtlsParameters.fingerprints.map(({ algorithm, value }) => [algorithm, value]));
  assert.equal(told["sha-1"], fingerprint);
  assert.equal(told["sha-256"], fingerprint256);
  assert.equal(told["sha-512"], fingerprint512);
  assert.equal(dtlsParameters.role, "auto");
});
