// @ts-check
/** One written text on the page: its tokens, underlined by how much each looked back, and lines to what one looked at. */
import { make } from "/views/paint.js";
import { groups, lookedBack, visible, weightsOf } from "./writing-text.js";

const MOST_LINES = 12;
const LIT = 0.01; // weight from which a token is marked
const WIDEST = 10; // pixels of a line of weight 1
const THICKEST = 5; // pixels of an underline

/** @typedef {import("./writing-text.js").Run} Run */

/** @param {(place: number) => void} choose called with the place that is pointed at; -1: none
 * @param {(run: Run, from: number[], to: number[]) => void} explain called with the ends of a line that is clicked */
export function textView(choose, explain) {
  const heading = make("h2", { class: "write-title" });
  const lines = make("svg:svg", { class: "write-lines", "aria-hidden": "true" });
  const text = make("div", { class: "write-text", role: "group" });
  const element = make("section", { class: "write-one" }, heading, make("div", { class: "write-paper" }, text, lines));
  /** @type {any[]} the element of each group, and its places */
  let nodes = [];
  let shown = "";
  /** What is pointed at: lines are drawn again where the text takes another width, or scrolls. */
  let pointed = () => {};
  new ResizeObserver(() => pointed()).observe(text);
  text.addEventListener("scroll", () => pointed());

  const placeOf = (event) => Number(/** @type {any} */ (event.target).closest?.("[data-place]")?.dataset.place ?? -1);
  const point = (event) => { const place = placeOf(event); if (place >= 0) choose(place); };
  text.addEventListener("pointerover", (event) => event.pointerType === "mouse" && point(event));
  text.addEventListener("focusin", point);
  text.addEventListener("click", point);
  text.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") choose(-1);
    if (!by) return;
    event.preventDefault();
    nodes[nodes.findIndex((node) => node.element === document.activeElement) + by]?.element.focus();
  });

  /** @param {Run} run @param {number[][]} all @param {string} title @param {any} state */
  function draw(run, all, title, state) {
    heading.textContent = title;
    text.setAttribute("aria-label", title);
    // Only the end of a text changes while it is written: what is before it stays, with its focus.
    const names = all.map((places) => run.text(places));
    const key = (i) => `${all[i][0]}:${names[i]}:${all[i][0] < run.promptSize}`;
    let same = 0;
    const before = shown.split("\u0000");
    while (same < nodes.length && same < all.length && before[same] === key(same)) same++;
    nodes.splice(same).forEach((node) => node.element.remove());
    for (let i = same; i < all.length; i++) {
      const isPrompt = all[i][0] < run.promptSize;
      // A span, for it breaks over lines as text does.
      const node = make("span", {
        role: "button", tabindex: "-1", "data-place": all[i][0],
        class: `write-token${isPrompt ? " write-prompt" : ""}${run.special[all[i][0]] ? " write-special" : ""}`,
        "aria-label": names[i].trim() ? null : visible(names[i]),
      }, names[i]);
      text.append(node);
      nodes.push({ element: node });
    }
    nodes.forEach((node, i) => { node.places = all[i]; });
    shown = all.map((_places, i) => key(i)).join("\u0000");
    nodes.forEach(({ element: node, places }) => {
      const steps = places.filter((place) => place >= run.promptSize);
      const back = steps.length ? steps.reduce((sum, place) => sum + lookedBack(run, place), 0) / steps.length : 0;
      node.style.setProperty("--back", `${(THICKEST * back).toFixed(1)}px`);
    });
    const held = nodes.find((node) => node.places.includes(state.place)) || nodes.find((node) => node.places[0] >= run.promptSize);
    held?.element.setAttribute("tabindex", "0");
  }

  /** @param {Run} run @param {any} state */
  function pointAt(run, state) {
    const here = nodes.find((node) => node.places.includes(state.place));
    const near = here ? weightsOf(run, here.places, groups(run, state.unit), state.first).slice(0, MOST_LINES) : [];
    const lit = new Map(near.filter(({ weight }) => weight > LIT).map(({ to, weight }) => [to[0], weight]));
    text.classList.toggle("write-pointed", near.length > 0);
    for (const node of nodes) {
      node.element.classList.toggle("write-here", node === here);
      node.element.classList.toggle("write-lit", lit.has(node.places[0]));
      if (here) node.element.setAttribute("tabindex", node === here ? "0" : "-1");
    }
    const box = text.getBoundingClientRect();
    lines.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
    lines.setAttribute("width", String(box.width));
    lines.setAttribute("height", String(box.height));
    lines.replaceChildren(...near.filter(({ weight }) => weight > LIT).map(({ to, weight }) => {
      const target = nodes.find((node) => node.places[0] === to[0]);
      const line = curve(middle(here.element, box), middle(target.element, box), weight);
      line.addEventListener("click", () => explain(run, here.places, to));
      return line;
    }));
  }

  return { element, draw, point: (run, state) => (pointed = () => pointAt(run, state))() };
}

/** The middle of the letters of a token on their first line, in the coordinates of a box. The space before a word may be
 * at the end of the line above. @param {Element} node @param {DOMRect} box */
function middle(node, box) {
  const text = /** @type {Text} */ (node.firstChild);
  const range = document.createRange();
  range.setStart(text, Math.max(text.data.search(/\S/), 0));
  range.setEnd(text, text.length);
  const rect = range.getClientRects()[0] || node.getBoundingClientRect();
  return { x: rect.left + rect.width / 2 - box.left, top: rect.top - box.top, bottom: rect.bottom - box.top };
}

/** A line from a token up and back to what it was written from. */
function curve(from, to, weight) {
  const isSameLine = Math.abs(from.top - to.top) < 4;
  const rise = isSameLine ? Math.min(24, 6 + Math.abs(from.x - to.x) / 8) : 0;
  const end = isSameLine || to.top > from.top ? to.top : to.bottom;
  const high = isSameLine ? from.top - rise : (from.top + end) / 2;
  return make("svg:path", {
    d: `M${from.x.toFixed(1)} ${from.top.toFixed(1)}C${from.x.toFixed(1)} ${high.toFixed(1)} ${to.x.toFixed(1)} ${high.toFixed(1)} ${to.x.toFixed(1)} ${end.toFixed(1)}`,
    "stroke-width": Math.max(WIDEST * weight, 0.75).toFixed(2),
  });
}
