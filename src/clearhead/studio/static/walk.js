// Walk: recompute every step as a number is edited, and say how the number under the pointer came about.
// walk.py computes the same on the server; a test holds the two to each other.

import { _ } from "./words.js";

const HEADS = 2;
const LARGEST = 1000;

const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const mix = (weights, rows) => rows[0].map((first, j) => dot(weights, rows.map((row) => row[j])));

/** @param {(number | null)[]} row null where the mask forbids the pair */
export function softmax(row) {
  const top = Math.max(...row.filter((x) => x !== null));
  const parts = row.map((x) => (x === null ? 0 : Math.exp(x - top)));
  const sum = parts.reduce((a, b) => a + b, 0);
  return parts.map((part) => part / sum);
}

/**
 * Two-head attention: split, logits, weights, output, concatenate, project.
 * @param {{q: number[][], k: number[][], v: number[][], o: number[][], causal: boolean}} given
 */
export function compute({ q, k, v, o, causal }) {
  const narrow = q[0].length / HEADS;
  const heads = Array.from({ length: HEADS }, (_, h) => {
    const part = (row) => row.slice(h * narrow, (h + 1) * narrow);
    const logits = q.map((row, i) =>
      k.map((other, j) => (causal && j > i ? null : dot(part(row), part(other)) / Math.sqrt(narrow))),
    );
    const weights = logits.map(softmax);
    return { logits, weights, output: weights.map((row) => mix(row, v.map(part))) };
  });
  const joined = q.map((_, i) => heads.flatMap((head) => head.output[i]));
  return { heads, joined, result: joined.map((row) => mix(row, o)) };
}

/** A number as the page shows it. */
export function shown(x) {
  return x === null ? "−∞" : Math.abs(x) >= 1000 ? x.toExponential(1).replace("-", "−") : x.toFixed(2).replace("-", "−");
}

/**
 * How one number came about, in words and numbers.
 * @param {string} name "logits-0", "weights-1", "output-0", "joined" or "result"
 */
export function told(name, i, j, given, steps) {
  const narrow = given.q[0].length / HEADS;
  const [step, h] = name.split("-");
  const part = (row) => row.slice(h * narrow, (h + 1) * narrow);
  const sum = (a, b) => a.map((x, n) => `${shown(x)}·${shown(b[n])}`).join(" + ");
  const head = steps.heads[h];
  if (step === "logits") {
    if (head.logits[i][j] === null) return _("Masked: a query may not look at a later key, so this logit is −∞.");
    return `(${sum(part(given.q[i]), part(given.k[j]))}) / √${narrow} = ${shown(head.logits[i][j])}`;
  }
  if (step === "weights") {
    const all = head.logits[i].map((x) => `e^${shown(x)}`).join(" + ");
    return `e^${shown(head.logits[i][j])} / (${all}) = ${shown(head.weights[i][j])}`;
  }
  if (step === "output") return `${sum(head.weights[i], given.v.map((row) => part(row)[j]))} = ${shown(head.output[i][j])}`;
  if (step === "joined") return _("Column %(column)s of head %(head)s, set beside the other head’s.", { column: (j % narrow) + 1, head: Math.floor(j / narrow) + 1 });
  return `${sum(steps.joined[i], given.o.map((row) => row[j]))} = ${shown(steps.result[i][j])}`;
}

/** @param {HTMLElement} page */
function start(page) {
  const form = page.querySelector("form");
  const says = page.querySelector(".walk-says");
  const first = new Map([...form.querySelectorAll("input[type=number]")].map((input) => [input, input.defaultValue]));
  let given, steps;

  function read(name) {
    const rows = [];
    for (const input of form.querySelectorAll(`input[name^="${name}-"]`)) {
      const [, i, j] = input.name.split("-").map(Number);
      const value = input.value === "" || !Number.isFinite(input.valueAsNumber) ? 0 : input.valueAsNumber;
      (rows[i] ??= [])[j] = Math.max(-LARGEST, Math.min(LARGEST, value));
    }
    return rows;
  }

  function put(name, matrix, weigh) {
    for (const cell of page.querySelectorAll(`[data-matrix="${name}"] td`)) {
      const x = matrix[cell.dataset.i][cell.dataset.j];
      const text = cell.querySelector(".value");
      const changed = text.textContent !== shown(x);
      text.textContent = shown(x);
      cell.classList.toggle("masked", x === null);
      if (weigh) cell.querySelector(".swatch").className = `swatch s${Math.round(x * 8)}`;
      if (changed) mark(cell);
    }
  }

  /** A number that changed is in bold for a moment: it says where an edit reached. */
  function mark(cell) {
    cell.classList.add("changed");
    clearTimeout(cell.fade);
    cell.fade = setTimeout(() => cell.classList.remove("changed"), 1200);
  }

  function draw() {
    given = { ...Object.fromEntries(["q", "k", "v", "o"].map((name) => [name, read(name)])), causal: form.elements.causal.checked };
    steps = compute(given);
    steps.heads.forEach((head, h) => {
      put(`logits-${h}`, head.logits);
      put(`weights-${h}`, head.weights, true);
      put(`output-${h}`, head.output);
    });
    put("joined", steps.joined);
    put("result", steps.result);
  }

  function point(cell) {
    page.querySelector("td.pointed")?.classList.remove("pointed");
    cell.classList.add("pointed");
    const name = cell.closest("[data-matrix]").dataset.matrix;
    says.textContent = told(name, cell.dataset.i, cell.dataset.j, given, steps);
  }

  function walkCells(event) {
    const cell = event.target.closest("[data-matrix] td");
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!cell || !step) return;
    const [i, j] = [Number(cell.dataset.i) + step[0], Number(cell.dataset.j) + step[1]];
    const next = cell.closest("table").querySelector(`td[data-i="${i}"][data-j="${j}"]`);
    if (!next) return;
    event.preventDefault();
    cell.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  for (const table of page.querySelectorAll("[data-matrix]")) {
    for (const cell of table.querySelectorAll("td")) cell.tabIndex = cell.dataset.i === "0" && cell.dataset.j === "0" ? 0 : -1;
  }
  form.addEventListener("input", draw);
  form.addEventListener("submit", (event) => event.preventDefault());
  page.addEventListener("keydown", walkCells);
  for (const kind of ["pointerover", "focusin"]) {
    page.addEventListener(kind, (event) => {
      const cell = event.target.closest("[data-matrix] td");
      if (cell) point(cell);
    });
  }
  page.querySelector(".walk-reset").addEventListener("click", () => {
    for (const [input, value] of first) input.value = value;
    form.elements.causal.checked = false;
    draw();
  });
  draw();
}

if (typeof document !== "undefined") {
  const page = document.querySelector(".walk");
  if (page) start(page);
}
