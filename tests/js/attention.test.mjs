// What attention.js computes, without a page: run with `node --test tests/js/*.test.mjs`.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

// A data URL, so that node reads the file as the module it is, whatever its extension.
const source = readFileSync(new URL("../../src/clearhead/views/static/attention.js", import.meta.url));
const view = await import(`data:text/javascript;base64,${source.toString("base64")}`);

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
    map: view.decode(packed(flat, [1, weights.length, keys])),
    links: {
      stride: 1,
      weights: view.decode(packed(order.flat().map(([weight]) => weight), [1, weights.length, count])),
      keys: view.decode({ type: "u16", shape: [1, weights.length, count], scale: 1, data: Buffer.from(Uint16Array.from(order.flat().map(([, key]) => key)).buffer).toString("base64") }),
    },
  };
}

test("a packed block comes back, at the right place", () => {
  const block = view.decode(packed([0, 0.25, 0.5, 0.75, 1, 0.1], [1, 2, 3]));
  close(view.at(block, 0, 0, 1), 0.25, 1e-5);
  close(view.at(block, 0, 1, 2), 0.1, 1e-5);
});

test("the colour scale starts at the paper and ends at the top", () => {
  assert.equal(view.shade(0, 1), 0);
  assert.equal(view.shade(1, 1), 1);
  assert.equal(view.shade(5, 1), 1);
  assert.equal(view.shade(0.3, 0), 0);
  assert.ok(view.shade(0.04, 1) > view.shade(0.01, 1));
});

test("the end of the scale bar is a round number at or above the largest weight", () => {
  assert.equal(view.roundUp(1), 1);
  assert.equal(view.roundUp(0.9), 1);
  assert.equal(view.roundUp(0.43), 0.5);
  assert.equal(view.roundUp(0.0031), 0.005);
  assert.equal(view.roundUp(0), 1);
});

test("arrow keys walk heads and stop at the edges, whatever each layer's number of heads", () => {
  const heads = [5, 3, 7];
  assert.deepEqual(view.step(heads, 0, 0, "ArrowUp"), [0, 0]);
  assert.deepEqual(view.step(heads, 0, 4, "ArrowDown"), [1, 2]);
  assert.deepEqual(view.step(heads, 2, 6, "ArrowRight"), [2, 6]);
  assert.deepEqual(view.step(heads, 2, 6, "ArrowLeft"), [2, 5]);
  assert.deepEqual(view.step(heads, 2, 3, "End"), [2, 6]);
  assert.deepEqual(view.step(heads, 2, 3, "Home"), [2, 0]);
  assert.equal(view.step(heads, 0, 0, "x"), null);
});

test("the links of a query are its row, those of a key its column, strongest first", () => {
  const one = layer([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]]);
  assert.deepEqual(view.linksOf(one, 0, 0, "query").map((link) => link.to), [1, 2, 0]);
  assert.deepEqual(view.linksOf(one, 0, 1, "key").map((link) => link.from), [0, 1]);
});

test("where maps are pooled, the links kept are all there is, and they are the strongest", () => {
  const one = layer([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]], { kept: 1 });
  one.map = view.decode(packed([0.3], [1, 1, 1]));
  assert.equal(view.isDense(one), false);
  assert.deepEqual(view.linksOf(one, 0, 1, "query").map((link) => [link.from, link.to]), [[1, 0]]);
  assert.deepEqual(view.linksOf(one, 0, 2, "key"), []);
  assert.deepEqual(view.links(one, 0).map((link) => link.to), [1, 0]);
});

test("masked cells: none, causal, or as listed", () => {
  const none = layer([[0.5, 0.5], [0.5, 0.5]]);
  assert.equal(view.isMasked(none, 0, 1), false);
  const causal = layer([[1, 0], [0.5, 0.5]], { masked: "causal" });
  assert.deepEqual([[0, 0], [0, 1], [1, 0], [1, 1]].map(([i, j]) => view.isMasked(causal, i, j)), [false, true, false, false]);
  const listed = layer([[1, 0], [1, 0]], { masked: { shape: [2, 2], scale: 1, values: Uint8Array.from([0, 1, 0, 1]) } });
  assert.equal(view.isMasked(listed, 1, 1), true);
  assert.equal(view.isMasked(listed, 1, 0), false);
});

test("numbers and tokens are shown short and plain", () => {
  assert.equal(view.say(1), "1.000");
  assert.equal(view.say(0.64712), "0.647");
  assert.equal(view.say(0.00042), "0.00042");
  assert.equal(view.say(0), "0.000");
  assert.equal(view.label("Ġword"), "␣word");
  assert.equal(view.label("a".repeat(99)).length, 14);
  assert.equal(view.label(""), "∅");
});

test("a plain model tells of a change once, and only of a change", () => {
  const model = view.plainModel({ layer: 2 });
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
