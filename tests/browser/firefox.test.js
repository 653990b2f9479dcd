// A call of two Firefox pages. Firefox never pairs with a remote candidate on 127.0.0.1, so server
// and browser get a network namespace with an address of its own, which ends with them.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const SCENARIO = fileURLToPath(new URL("firefox-call.js", import.meta.url));
const LIMIT_MS = 150_000;

/** How to get a namespace here: as root directly, else as a user's root. */
function unshare() {
  const ways = [["--net"], ["--user", "--map-root-user", "--net"]];
  const probe = "ip link add broth0 type veth peer name broth1";
  return ways.find((way) => spawnSync("unshare", [...way, "sh", "-c", probe]).status === 0);
}

test("two Firefox participants see and hear each other", { timeout: LIMIT_MS + 10_000 }, async (t) => {
  const way = unshare();
  if (!way) {
    t.skip("no network namespace with an interface of its own can be made here");
    return;
  }
  // With process ids of its own too, nothing in it outlives its first process.
  const own = [...way, "--pid", "--fork", "--kill-child", "--mount-proc"];
  const child = spawn("unshare", [...own, process.execPath, SCENARIO], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, NODE_TEST_CONTEXT: undefined },
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (bytes) => (output += bytes));
  const timer = setTimeout(() => child.kill("SIGKILL"), LIMIT_MS);
  const code = await new Promise((resolve) => child.on("close", resolve));
  clearTimeout(timer);
  assert.equal(code, 0, output);
  t.diagnostic(output.trim());
});
