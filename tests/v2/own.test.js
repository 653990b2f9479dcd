// The original module's own tests, as far as they fit its last version, on the worker under test.

import { createRequire } from "node:module";
import { after } from "node:test";
import { originalModule } from "./conference.js";

await originalModule();
const require = createRequire(import.meta.url);
require("mediasoup/test/test-mediasoup.js");
require("mediasoup/test/test-Server.js");

// A test that fails leaves its server open; the module closes it when the process ends.
after(() => setTimeout(() => process.exit(), 1_000).unref());
