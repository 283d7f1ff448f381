// What the studio's modules compute, without a page: run with `node --test tests/js/*.test.mjs`.
import assert from "node:assert/strict";
import test from "node:test";

import { weights } from "../../src/clearhead/studio/static/welcome-figure.js";
import { belongsTo } from "../../src/clearhead/studio/static/studio.js";
import { jsonLines } from "../../src/clearhead/studio/static/lines.js";
import { compute, number, shown, softmax, told } from "../../src/clearhead/studio/static/walk.js";

const close = (a, b, by = 1e-12) => assert.ok(Math.abs(a - b) <= by, `${a} is not ${b}`);
const given = {
  q: [[1, 0, 0, 1], [2, 0, 1, 0], [0, 1, 1, 1]],
  k: [[1, 0, 0, 1], [0, 1, 2, 0], [1, 1, 0, 1]],
  v: [[1, 0, 2, 0], [0, 2, 0, 1], [3, 1, 1, 0]],
  o: [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
  causal: false,
  heads: 2,
};

test("the welcome figure gives weights that add up to one and favour the key it points at", () => {
  const row = weights(85, 4);
  close(row.reduce((a, b) => a + b), 1);
  assert.equal(row.indexOf(Math.max(...row)), 1);
});

test("a query of no length attends to all keys alike", () => {
  for (const weight of weights(40, 0)) close(weight, 0.2);
});

test("softmax takes large logits and masked ones", () => {
  assert.deepEqual(softmax([1000, null, 1000]), [0.5, 0, 0.5]);
});

test("with the identity projection the output is the heads side by side", () => {
  for (const heads of [1, 2, 4]) {
    const steps = compute({ ...given, heads });
    assert.equal(steps.heads.length, heads);
    assert.deepEqual(steps.result, steps.joined);
  }
});

test("a causal query never looks at a later key, and its weights still add up to one", () => {
  const { heads } = compute({ ...given, causal: true });
  assert.equal(heads.length, 2);
  for (const head of heads) {
    head.weights.forEach((row, i) => {
      close(row.reduce((a, b) => a + b), 1);
      row.forEach((weight, j) => j > i && assert.equal(weight, 0));
    });
  }
});

test("how a number came about ends in that number", () => {
  const steps = compute(given);
  assert.ok(told("logits-0", 1, 0, given, steps).endsWith(`= ${shown(steps.heads[0].logits[1][0])}`));
  assert.ok(told("weights-1", 2, 1, given, steps).endsWith(`= ${shown(steps.heads[1].weights[2][1])}`));
  assert.ok(told("result", 0, 3, given, steps).endsWith(`= ${shown(steps.result[0][3])}`));
  const masked = { ...given, causal: true };
  assert.match(told("logits-0", 0, 2, masked, compute(masked)), /Masked/);
});

test("a letter typed into a field is the field's, not the page's", () => {
  const control = (...kinds) => ({ matches: (query) => kinds.some((kind) => query.includes(kind)) });
  assert.ok(belongsTo(control("textarea"), "a"));
  assert.ok(!belongsTo(control(":none"), "a"));
  assert.ok(belongsTo(control("summary"), "Enter"));
  assert.ok(!belongsTo(null, "a"));
});

test("a number is read with a point, a comma or a minus sign, and nothing else is one", () => {
  const cases = { " -2,5 ": -2.5, "−1e2": -100, "3.": 3, ".5": 0.5, "+4": 4, 1000: 1000, "3.5x": null, "1,2,3": null, "": null, 1001: null, "1_0": null, NaN: null, Infinity: null, "0x10": null };
  for (const [text, value] of Object.entries(cases)) assert.equal(number(text), value, text);
});

test("lines of JSON are read however a stream is cut, by a reader and not by iteration", async () => {
  const parts = ['{"a": "', 'ü"}\n{"b"', ": 2}\n\n", '{"c": 3}'].map((part) => new TextEncoder().encode(part));
  const bytes = [parts[0], parts[1].slice(0, 1), parts[1].slice(1), ...parts.slice(2)];
  const reader = { read: async () => (bytes.length ? { done: false, value: bytes.shift() } : { done: true }) };
  const lines = [];
  for await (const line of jsonLines({ getReader: () => reader })) lines.push(line);
  assert.deepEqual(lines, [{ a: "ü" }, { b: 2 }, { c: 3 }]);
});
