// What attention.js computes, without a page: run with `node --test tests/js/*.test.mjs`.
import assert from "node:assert/strict";
import test from "node:test";

import { arrange, at, crop, decode, isDense, isMasked, label, links, linksOf, move, resting, roundUp, say, saySigned, shade, step, subtract, topOf, whole, zoom } from "../../src/clearhead/views/static/numbers.js";
import { plainModel } from "../../src/clearhead/views/static/attention.js";

const close = (a, b, by = 1e-9) => assert.ok(Math.abs(a - b) <= by, `${a} is not ${b}`);

/** A block as payload.py packs one: values in [0, 1] as 16 bits. */
function packed(values, shape) {
  const whole = Uint16Array.from(values, (value) => Math.round(value * 65535));
  return { type: "u16", shape, scale: 1 / 65535, data: Buffer.from(whole.buffer).toString("base64") };
}

function layer(weights, { keys = weights[0].length, masked = null, kept = null } = {}) {
  const flat = weights.flat();
  const order = weights.map((row) => row.map((weight, key) => [weight, key]).sort((a, b) => b[0] - a[0]).slice(0, kept ?? keys));
  const count = order[0].length;
  return {
    name: "layer", heads: 1, shape: [weights.length, keys], masked,
    map: decode(packed(flat, [1, weights.length, keys])),
    links: {
      stride: 1,
      weights: decode(packed(order.flat().map(([weight]) => weight), [1, weights.length, count])),
      keys: decode({ type: "u16", shape: [1, weights.length, count], scale: 1, data: Buffer.from(Uint16Array.from(order.flat().map(([, key]) => key)).buffer).toString("base64") }),
    },
  };
}

test("a packed block comes back, at the right place", () => {
  const block = decode(packed([0, 0.25, 0.5, 0.75, 1, 0.1], [1, 2, 3]));
  close(at(block, 0, 0, 1), 0.25, 1e-5);
  close(at(block, 0, 1, 2), 0.1, 1e-5);
});

test("the colour scale starts at the paper and ends at the top", () => {
  assert.equal(shade(0, 1), 0);
  assert.equal(shade(1, 1), 1);
  assert.equal(shade(5, 1), 1);
  assert.equal(shade(0.3, 0), 0);
  assert.ok(shade(0.04, 1) > shade(0.01, 1));
});

test("the end of the scale bar is a round number at or above the largest weight", () => {
  assert.equal(roundUp(1), 1);
  assert.equal(roundUp(0.9), 1);
  assert.equal(roundUp(0.43), 0.5);
  assert.equal(roundUp(0.0031), 0.005);
  assert.equal(roundUp(0), 1);
});

test("arrow keys walk heads and stop at the edges, whatever each layer's number of heads", () => {
  const rows = arrange([5, 3, 7], null);
  assert.deepEqual(step(rows, 0, 0, "ArrowUp"), [0, 0]);
  assert.deepEqual(step(rows, 0, 4, "ArrowDown"), [1, 2]);
  assert.deepEqual(step(rows, 2, 6, "ArrowRight"), [2, 6]);
  assert.deepEqual(step(rows, 2, 6, "ArrowLeft"), [2, 5]);
  assert.deepEqual(step(rows, 2, 3, "End"), [2, 6]);
  assert.deepEqual(step(rows, 2, 3, "Home"), [2, 0]);
  assert.equal(step(rows, 0, 0, "x"), null);
});

test("ordered by a score, heads run from the largest value to the smallest and keep their rows full", () => {
  const rows = arrange([2, 3], [[0.1, 0.9], [0.5, 0.2, 0.7]]);
  assert.deepEqual(rows, [[[0, 1], [1, 2], [1, 0]], [[1, 1], [0, 0]]]);
  assert.deepEqual(step(rows, 1, 0, "ArrowDown"), [0, 0]);
});

test("the largest value of a head is that head's own", () => {
  close(topOf(decode(packed([0.1, 0.2, 0.9, 0.3], [2, 1, 2])), 0), 0.2, 1e-4);
});

test("at rest a long text draws only links whose ends can be seen together", () => {
  const far = { from: 0, to: 90, weight: 1 }, near = { from: 3, to: 5, weight: 0.5 };
  assert.deepEqual(resting([far, near], 100), [near]);
  assert.deepEqual(resting([far, near], 48), [far, near]);
});

test("the links of a query are its row, those of a key its column, strongest first", () => {
  const one = layer([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]]);
  assert.deepEqual(linksOf(one, 0, 0, "query").map((link) => link.to), [1, 2, 0]);
  assert.deepEqual(linksOf(one, 0, 1, "key").map((link) => link.from), [0, 1]);
});

test("where maps are pooled, the links kept are all there is, and they are the strongest", () => {
  const one = layer([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]], { kept: 1 });
  one.map = decode(packed([0.3], [1, 1, 1]));
  assert.equal(isDense(one), false);
  assert.deepEqual(linksOf(one, 0, 1, "query").map((link) => [link.from, link.to]), [[1, 0]]);
  assert.deepEqual(linksOf(one, 0, 2, "key"), []);
  assert.deepEqual(links(one, 0).map((link) => link.to), [1, 0]);
});

test("bits are unpacked, the first in the highest place", () => {
  assert.deepEqual([...decode({ type: "bits", shape: [1, 10], scale: 1, data: btoa(String.fromCharCode(0xa0, 0x40)) }).values], [1, 0, 1, 0, 0, 0, 0, 0, 0, 1]);
});

test("masked cells: none, causal, or as listed", () => {
  const shape = [3, 2, 2];
  const cells = (masked) => [[0, 0], [0, 1], [1, 0], [1, 1]].map(([row, col]) => isMasked(masked, shape, row, col));
  assert.deepEqual(cells(null), [false, false, false, false]);
  assert.deepEqual(cells("causal"), [false, true, false, false]);
  assert.deepEqual(cells({ shape: [2, 2], scale: 1, top: 1, values: Uint8Array.from([0, 1, 0, 1]) }), [false, true, false, true]);
  const own = { shape: [2, 1, 2], scale: 1, top: 1, values: Uint8Array.from([0, 1, 1, 0]) };
  assert.deepEqual([0, 1].map((head) => isMasked(own, [2, 1, 2], 0, 0, head)), [false, true]);
});

test("numbers and tokens are shown short and plain", () => {
  assert.equal(say(1), "1.000");
  assert.equal(say(0.64712), "0.647");
  assert.equal(say(0.00042), "0.00042");
  assert.equal(say(0), "0.000");
  assert.equal(label("Ġword"), "␣word");
  assert.equal(label("a".repeat(99)).length, 14);
  assert.equal(label(""), "∅");
});

test("a plain model tells of a change once, and only of a change", () => {
  const model = plainModel({ layer: 2 });
  const heard = [];
  model.on("change:layer", () => heard.push("layer"));
  model.on("change", () => heard.push("any"));
  model.set("layer", 2);
  model.save_changes();
  model.set("layer", 3);
  model.set("head", 4);
  model.save_changes();
  assert.deepEqual(heard, ["layer", "any"]);
});

test("zooming keeps the point under the pointer and stops at eight tokens and at the whole", () => {
  const one = { shape: [100, 100] };
  assert.deepEqual(zoom(one, whole(one), 0.5, 0.5, 0), { rows: [25, 75], cols: [0, 50] });
  assert.deepEqual(zoom(one, { rows: [25, 75], cols: [0, 50] }, 9, 0.5, 0.5), whole(one));
  assert.deepEqual(zoom(one, { rows: [0, 8], cols: [92, 100] }, 0.1, 0.5, 0.5).rows, [0, 8].map((end) => end + 4));
  assert.deepEqual(zoom({ shape: [5, 5] }, { rows: [0, 5], cols: [0, 5] }, 0.5, 0, 0), { rows: [0, 5], cols: [0, 5] });
});

test("moving a view stops at the edges", () => {
  const one = { shape: [100, 60] };
  assert.deepEqual(move(one, { rows: [40, 60], cols: [0, 20] }, 0.25, -0.25), { rows: [45, 65], cols: [0, 20] });
  assert.deepEqual(move(one, { rows: [40, 60], cols: [30, 50] }, 9, 9), { rows: [80, 100], cols: [40, 60] });
});

test("a crop takes the cells that cover a view, of its own head, masked cells with them", () => {
  const one = layer([[1, 0], [0.5, 0.5]], { masked: "causal" });
  one.map = decode(packed([1, 0, 0.5, 0.25, 0.2, 0, 0.4, 0.6], [2, 2, 2]));
  const { block, masked, view } = crop(one, 1, { rows: [1, 2], cols: [0, 2] });
  assert.deepEqual([block.shape, view], [[1, 1, 2], { rows: [1, 2], cols: [0, 2] }]);
  close(at(block, 0, 0, 1), 0.6, 1e-4);
  assert.deepEqual([0, 1].map((col) => isMasked(crop(one, 0, { rows: [0, 1], cols: [0, 2] }).masked, [1, 1, 2], 0, col)), [false, true]);
  assert.equal(isMasked(masked, block.shape, 0, 1), false);
});

test("a crop of a pooled map widens the view to whole cells", () => {
  const one = { shape: [10, 10], masked: null, map: decode(packed([0.1, 0.2, 0.3, 0.4], [1, 2, 2])) };
  assert.deepEqual(crop(one, 0, { rows: [6, 8], cols: [3, 6] }).view, { rows: [5, 10], cols: [0, 10] });
});

test("a live model answers a question under its own number", async () => {
  const model = plainModel({}, async (question) => ({ twice: 2 * question.value }));
  const heard = [];
  model.on("msg:custom", (message) => heard.push(message));
  await model.send({ id: 7, value: 21 });
  assert.deepEqual(heard, [{ id: 7, answer: { twice: 42 } }]);
  assert.equal(model.get("live"), true);
  assert.equal(plainModel({}).get("live"), false);
});

test("one head less another keeps the sign", () => {
  const less = subtract(decode(packed([0.75, 0.25], [1, 1, 2])), decode(packed([0.5, 1], [1, 1, 2])));
  close(at(less, 0, 0, 0), 0.25, 1e-4);
  close(at(less, 0, 0, 1), -0.75, 1e-4);
  close(topOf(less, 0), 0.75, 1e-4);
  assert.deepEqual([saySigned(0.25), saySigned(-0.75)], ["+0.250", "−0.750"]);
});
