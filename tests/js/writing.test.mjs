// What the writing Lens computes, without a page: run with `node --test tests/js/*.test.mjs`.
import assert from "node:assert/strict";
import test from "node:test";

import { groups, lookedBack, Run, visible, weightsOf } from "../../src/clearhead/studio/static/writing-text.js";

const close = (a, b, by = 1e-9) => assert.ok(Math.abs(a - b) <= by, `${a} is not ${b}`);

/** A prompt of three tokens and an answer of four; each step's weights are in hundredths. */
function written() {
  const run = new Run("a cat", "m", false, []);
  run.begin({ layers: 2, heads: 3, prompt: 3, model: "m", note: null, tokens: ["<s>", "a", " cat"], ids: [0, 1, 2], special: [true, false, false] });
  const steps = [[3, " s", [50, 20, 30]], [4, "at", [10, 20, 30, 40]], [5, ".\n", [40, 10, 10, 20, 20]], [6, "It", [60, 10, 10, 10, 5, 5]]];
  for (const [place, name, weights] of steps) {
    run.add({ place, id: place, names: { [place]: name }, special: false, p: 0.5, candidates: [], row: { values: weights, scale: 0.01 } });
  }
  return run;
}

test("tokens are put together into words and lines, and the prompt is never put to the answer", () => {
  const run = written();
  assert.deepEqual(groups(run, "tokens"), [[0], [1], [2], [3], [4], [5], [6]]);
  assert.deepEqual(groups(run, "words").map((places) => run.text(places)), ["<s>", "a", " cat", " sat.\n", "It"]);
  assert.deepEqual(groups(run, "lines").map((places) => run.text(places)), ["<s>", "a cat", " sat.\n", "It"]);
});

test("a word looks at a word with the mean of its tokens' weights, summed over the other's", () => {
  const run = written();
  const words = groups(run, "words");
  const near = weightsOf(run, [3, 4, 5], words, true);
  const by = Object.fromEntries(near.map(({ to, weight }) => [run.text(to), weight]));
  close(by["<s>"], (0.5 + 0.1 + 0.4) / 3);
  close(by[" sat.\n"], (0 + 0.4 + 0.4) / 3); // to its own earlier tokens
  close(near.reduce((sum, { weight }) => sum + weight, 0), 1);
  assert.equal(weightsOf(run, [3, 4, 5], words, false).some(({ to }) => to[0] === 0), false);
  assert.deepEqual(weightsOf(run, [1], words, true), []); // of the prompt nothing is known
});

test("the rows of a head take the place of the mean over all", () => {
  const run = written();
  run.rows = { shape: [4, 6], scale: 1, values: [0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0] };
  assert.deepEqual(weightsOf(run, [3], groups(run, "tokens"), true), [{ to: [1], weight: 1 }]);
  assert.equal(run.weight(6, 4), 1);
});

test("what is cut is forgotten, and what is put there is not yet explained", () => {
  const run = written();
  run.cut(4);
  assert.deepEqual([run.tokens.length, run.made.length, run.written()], [4, 1, [3]]);
  run.put(9, " x");
  assert.deepEqual(run.written(), [3, 9]);
  run.cut(0);
  assert.deepEqual(run.written(), []);
  assert.equal(run.tokens.length, 3); // the prompt stays
});

test("how much a step looked back leaves out the first token and the one before", () => {
  const run = written();
  close(lookedBack(run, 3), 0.2);
  close(lookedBack(run, 6), 0.35);
  assert.equal(lookedBack(run, 1), 0);
});

test("the parts of a character are that character once they are together", () => {
  const run = written();
  ["x", "日[1/3]", "日[2/3]", "日[3/3]", "本[1/2]"].forEach((name, i) => run.put(10 + i, name));
  assert.equal(run.text([7, 8, 9, 10, 11]), "x日本[1/2]");
  assert.equal(run.text([9]), "日[2/3]");
});

test("spaces and line ends are shown", () => {
  assert.deepEqual(["a", " a ", "\n\n", ""].map(visible), ["a", "␣a␣", "⏎⏎", "∅"]);
});
