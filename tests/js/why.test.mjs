// What the chart of a logit shows, without a page: run with `node --test tests/js/*.test.mjs`.
import assert from "node:assert/strict";
import test from "node:test";

import { partBars, partName } from "../../src/clearhead/views/static/why.js";

test("the strongest parts have a bar each, and the others one together, so that all sum to the logit", () => {
  const names = ["token", "position", ...Array.from({ length: 12 }, (_none, i) => `${Math.floor(i / 4)}.${i % 4}`), "mlp 0", "bias"];
  const values = names.map((_name, i) => (i % 3 ? -1 : 1) * (i + 1) / 8);
  const bars = partBars(names, values);
  assert.equal(bars.length, 9);
  assert.equal(bars[0].name, "biases");
  assert.equal(bars[1].name, "MLP 0");
  assert.equal(bars[8].name, "8 others together");
  const sum = (numbers) => numbers.reduce((all, value) => all + value, 0);
  assert.ok(Math.abs(sum(bars.map(({ value }) => value)) - sum(values)) < 1e-12);
});

test("few parts are all shown", () => {
  const names = ["token", "bias", "token type"];
  assert.deepEqual(partBars(names, [1, -2, 0.5]), [{ name: "biases", value: -2 }, { name: "token embedding", value: 1 }, { name: "token type", value: 0.5 }]);
  assert.equal(partName("3.11"), "head 3·11");
});
