// Walk: recompute every step when a number is edited, explain the number under the pointer, and light up the numbers it
// was made from. walk.py computes the same on the server, and a test compares the two.

import { _ } from "./words.js";

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
 * Multi-head attention: split, logits, weights, output, concatenate, project.
 * @param {{q: number[][], k: number[][], v: number[][], o: number[][], causal: boolean, heads: number}} given
 */
export function compute({ q, k, v, o, causal, heads }) {
  const narrow = q[0].length / heads;
  const each = Array.from({ length: heads }, (unused, h) => {
    const part = (row) => row.slice(h * narrow, (h + 1) * narrow);
    const logits = q.map((row, i) =>
      k.map((other, j) => (causal && j > i ? null : dot(part(row), part(other)) / Math.sqrt(narrow))),
    );
    const weights = logits.map(softmax);
    return { logits, weights, output: weights.map((row) => mix(row, v.map(part))) };
  });
  const joined = q.map((row, i) => each.flatMap((head) => head.output[i]));
  return { heads: each, joined, result: joined.map((row) => mix(row, o)) };
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
  const narrow = given.q[0].length / given.heads;
  const [step, h] = name.split("-");
  const part = (row) => row.slice(h * narrow, (Number(h) + 1) * narrow);
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
  if (step === "joined") return _("Column %(column)s of head %(head)s, set beside the other heads’.", { column: (j % narrow) + 1, head: Math.floor(j / narrow) + 1 });
  return `${sum(steps.joined[i], given.o.map((row) => row[j]))} = ${shown(steps.result[i][j])}`;
}

/**
 * The cells a number was made of: [matrix, row, column], row or column null for all of them.
 * @returns {[string, number | null, number | null][]}
 */
export function sources(name, i, j, heads, width) {
  const narrow = width / heads;
  const [step, h] = name.split("-");
  const columns = Array.from({ length: narrow }, (unused, n) => Number(h) * narrow + n);
  if (step === "logits") return columns.flatMap((n) => [["q", i, n], ["k", j, n]]);
  if (step === "weights") return [[`logits-${h}`, i, null]];
  if (step === "output") return [[`weights-${h}`, i, null], ["v", null, Number(h) * narrow + j]];
  if (step === "joined") return [[`output-${Math.floor(j / narrow)}`, i, j % narrow]];
  return [["joined", i, null], ["o", null, j]];
}

/**
 * The typed number, with a point or a comma; null if it is not a number, or too large. walk.py does the same.
 * @param {string} text
 */
export function number(text) {
  const plain = text.trim().replaceAll("−", "-").replaceAll(",", ".");
  const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain) ? Number(plain) : Infinity;
  return Math.abs(value) <= LARGEST ? value : null;
}

/** What the buttons set W to, for so many heads over so many columns. */
export const PRESETS = {
  same: (r, c) => Number(r === c),
  mean: (r, c, heads, width) => (r % (width / heads) === c % (width / heads) ? 1 / heads : 0),
  first: (r, c, heads, width) => Number(r === c && r < width / heads),
};

/** @param {HTMLElement} page */
function start(page) {
  const form = page.querySelector("form");
  const says = page.querySelector(".walk-says");
  const fields = [...form.querySelectorAll("input[inputmode=decimal]")];
  const last = new Map(fields.map((input) => [input.name, number(input.defaultValue) ?? 0])); // what each counted as last
  const greeting = [...says.childNodes];
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let given, steps;

  function read(name) {
    const rows = [];
    for (const input of form.querySelectorAll(`input[name^="${name}-"]`)) {
      const [, i, j] = input.name.split("-").map(Number);
      const value = number(input.value);
      if (value !== null) last.set(input.name, value);
      if (value === null) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
      (rows[i] ??= [])[j] = last.get(input.name);
    }
    return rows;
  }

  /** Say of a field that holds no number which one counts in its place. */
  function sayMisread() {
    const wrong = fields.find((input) => input.hasAttribute("aria-invalid"));
    if (!wrong) return false;
    says.textContent = _("“%(text)s” is not a number between −1000 and 1000, so %(counts)s counts.", { text: wrong.value, counts: last.get(wrong.name) });
    return true;
  }

  /** What a smaller figure leaves out passes everything on. */
  function unchanged() {
    const width = read("q")[0].length;
    const missing = ["v", "o"].filter((name) => !form.querySelector(`input[name^="${name}-"]`));
    return Object.fromEntries(missing.map((name) => [name, Array.from({ length: width }, (unused, r) => Array.from({ length: width }, (also, c) => Number(r === c)))]));
  }

  function put(name, matrix, weigh) {
    for (const cell of page.querySelectorAll(`[data-matrix="${name}"] td[data-i]`)) {
      const x = matrix[cell.dataset.i][cell.dataset.j];
      const text = cell.querySelector(".value");
      const changed = text.textContent !== shown(x);
      text.textContent = shown(x);
      cell.classList.toggle("masked", x === null);
      if (weigh) cell.className = cell.className.replace(/\bs\d\b/, `s${Math.round(x * 8)}`);
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
    const now = {
      ...Object.fromEntries(["q", "k", "v", "o"].map((name) => [name, read(name)])),
      ...unchanged(),
      causal: form.elements.causal.checked,
      heads: Number(form.elements.heads.value),
    };
    if (now.heads !== Number(form.dataset.drawn)) return void split(); // a browser may restore what nobody drew
    given = now;
    steps = compute(given);
    steps.heads.forEach((head, h) => {
      put(`logits-${h}`, head.logits);
      put(`weights-${h}`, head.weights, true);
      put(`output-${h}`, head.output);
    });
    put("joined", steps.joined);
    put("result", steps.result);
    retell();
  }

  /** The sentence and the marks are of the numbers as they are now. */
  function retell() {
    const cell = page.querySelector("td.pointed");
    if (cell) point(cell);
    else if (!says.contains(greeting[0])) {
      says.replaceChildren(...greeting);
      light([]);
    }
    sayMisread();
  }

  /** Another number of heads: other tables, which the server draws; the line moves in those one edits. */
  async function split() {
    const heads = form.elements.heads.value;
    const reply = await fetch(`?${new URLSearchParams(new FormData(form))}`);
    if (heads !== form.elements.heads.value) return; // another number was chosen meanwhile
    const other = new DOMParser().parseFromString(await reply.text(), "text/html");
    for (const place of [".heads", ".joined"]) page.querySelector(place).replaceWith(other.querySelector(place));
    form.dataset.drawn = heads;
    const narrow = read("q")[0].length / Number(heads);
    for (const table of page.querySelectorAll(".given:not([data-given=o])")) {
      table.querySelector(".brackets").replaceWith(other.querySelector(`[data-given="${table.dataset.given}"] .brackets`));
      for (const cell of table.querySelectorAll("td[data-j]")) cell.classList.toggle("cut", cell.dataset.j > 0 && cell.dataset.j % narrow === 0);
    }
    reachable();
    draw();
  }

  function light(cells) {
    page.querySelectorAll("td.source").forEach((cell) => cell.classList.remove("source"));
    for (const [name, i, j] of cells) {
      const at = `td[data-i${i === null ? "" : `="${i}"`}][data-j${j === null ? "" : `="${j}"`}]`;
      page.querySelectorAll(`[data-matrix="${name}"] ${at}, [data-given="${name}"] ${at}`).forEach((cell) => cell.classList.add("source"));
    }
  }

  function point(cell) {
    if (!steps) return; // the tables are on their way
    page.querySelector("td.pointed")?.classList.remove("pointed");
    cell.classList.add("pointed");
    const name = cell.closest("[data-matrix]").dataset.matrix;
    const [i, j] = [Number(cell.dataset.i), Number(cell.dataset.j)];
    says.textContent = told(name, i, j, given, steps);
    light(sources(name, i, j, given.heads, given.q[0].length));
  }

  function walkCells(event) {
    const cell = event.target.closest("[data-matrix] td[data-i]");
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

  /** Tab stops at the first number of each matrix; arrows go on from there. */
  function reachable() {
    for (const table of page.querySelectorAll("[data-matrix]")) {
      for (const cell of table.querySelectorAll("td[data-i]")) cell.tabIndex = cell.dataset.i === "0" && cell.dataset.j === "0" ? 0 : -1;
    }
  }

  /** Each head's output flies to its columns. */
  async function join() {
    const target = page.querySelector('[data-matrix="joined"]');
    target.scrollIntoView({ block: "center", behavior: "instant" });
    if (calm.matches) return light([["joined", null, null]]);
    const narrow = given.q[0].length / given.heads;
    const flights = [...target.querySelectorAll("td[data-i]")].map((cell) => {
      const h = Math.floor(cell.dataset.j / narrow);
      const from = page.querySelector(`[data-matrix="output-${h}"] td[data-i="${cell.dataset.i}"][data-j="${cell.dataset.j % narrow}"]`).getBoundingClientRect();
      const to = cell.getBoundingClientRect();
      const flying = Object.assign(document.createElement("span"), { className: "flying", textContent: cell.textContent });
      flying.ariaHidden = "true";
      document.body.append(flying);
      const frame = (box) => ({ left: `${box.left}px`, top: `${box.top}px`, width: `${box.width}px`, height: `${box.height}px` });
      cell.style.visibility = "hidden";
      const flight = flying.animate([frame(from), frame(to)], { duration: 900, delay: 250 * h, easing: "ease-in-out", fill: "both" });
      return flight.finished.then(() => {
        flying.remove();
        cell.style.visibility = "";
      });
    });
    await Promise.all(flights);
  }

  /** Arrow up and down change a number by one, as in any field of numbers. */
  function nudge(event) {
    const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!by || !fields.includes(event.target)) return;
    event.preventDefault();
    event.target.value = String(Math.max(-LARGEST, Math.min(LARGEST, last.get(event.target.name) + by)));
    event.target.dispatchEvent(new Event("input", { bubbles: true }));
  }

  form.addEventListener("input", draw);
  form.addEventListener("keydown", nudge);
  addEventListener("pageshow", draw); // after Back, what the browser restored
  form.addEventListener("submit", (event) => event.preventDefault());
  page.addEventListener("keydown", walkCells);
  for (const kind of ["pointerover", "focusin"]) {
    page.addEventListener(kind, (event) => {
      const cell = event.target.closest("[data-matrix] td[data-i]");
      if (cell) point(cell);
    });
  }
  page.addEventListener("click", (event) => {
    const preset = PRESETS[event.target.closest("[data-preset]")?.dataset.preset];
    if (preset) {
      for (const input of form.querySelectorAll('input[name^="o-"]')) {
        const [, r, c] = input.name.split("-").map(Number);
        input.value = String(preset(r, c, given.heads, given.o.length));
      }
      form.dispatchEvent(new Event("input", { bubbles: true }));
    }
    if (event.target.closest(".walk-join")) join();
  });
  page.querySelector(".walk-reset").addEventListener("click", () => {
    for (const input of fields) input.value = input.defaultValue;
    form.elements.causal.checked = form.elements.causal.defaultChecked;
    form.dispatchEvent(new Event("input", { bubbles: true }));
  });
  reachable();
  draw();
}

if (typeof document !== "undefined") {
  const page = document.querySelector(".walk");
  if (page) start(page);
}
