// As much of the npm package `tap` as the original module's own tests use, over node's runner.

"use strict";

const assert = require("node:assert/strict");
const { test } = require("node:test");

/** The tests allow 2 s; two noisy cores that start six workers may need more. */
const PATIENCE = 10;

exports.test = (name, options, body = options) => {
  const limit = options.timeout ? { timeout: PATIENCE * options.timeout } : {};
  test(name, limit, (context, done) => {
    body({
      end: () => done(),
      tearDown: (undo) => context.after(undo),
      pass: () => {},
      fail: (text) => done(new Error(text)),
      equal: assert.equal,
      same: assert.deepEqual,
      type: (value, type) => assert.ok(value instanceof type, `${value} is no ${type.name}`),
      throws: (act, type, text) =>
        typeof type === "function" ? assert.throws(act, type, text) : assert.throws(act, undefined, type),
    });
  });
};
