// @ts-check
/** Why a head attends: one logit as bars, a bar a part of the residual stream. */
import { label, say } from "./numbers.js";
import { make } from "./paint.js";
import { _ } from "./words.js";

const SHOWN = 8; // parts that have a bar of their own; the others are one bar

/** @typedef {{logit: number, weight: number, names: string[], query: number[], key: number[], pairs: [string, string, number][]}} Why */

/** The strongest parts, largest first, and what the others give together.
 * @param {string[]} names @param {number[]} values @returns {{name: string, value: number}[]} */
export function partBars(names, values) {
  const all = names.map((name, i) => ({ name: partName(name), value: values[i] })).sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  if (all.length <= SHOWN + 1) return all;
  const rest = all.slice(SHOWN);
  return [...all.slice(0, SHOWN), { name: _("%(count)s others together", { count: rest.length }), value: rest.reduce((sum, { value }) => sum + value, 0) }];
}

/** What a part of the residual stream is called. @param {string} name as Python has it */
export function partName(name) {
  const known = { token: _("token embedding"), position: _("position"), token_type: _("token type"), bias: _("biases") };
  if (name.startsWith("mlp ")) return _("MLP %(layer)s", { layer: name.slice(4) });
  return known[name.replace(" ", "_")] ?? _("head %(head)s", { head: name.replace(".", "·") });
}

/** @param {Why} why @param {{from: string, to: string, head: string}} link the two tokens, and which head */
export function whyChart(why, { from, to, head }) {
  const sides = [
    { name: _("What the key “%(token)s” is made of", { token: label(to, 24) }), kind: "ch-k", parts: partBars(why.names, why.key) },
    { name: _("What the query “%(token)s” is made of", { token: label(from, 24) }), kind: "ch-q", parts: partBars(why.names, why.query) },
  ];
  const every = [0, ...sides.flatMap(({ parts }) => parts.map(({ value }) => value))];
  const [low, high] = [Math.min(...every), Math.max(...every)];
  const pairs = why.pairs.map(([query, key, value]) => _("%(query)s of the query with %(key)s of the key: %(value)s", { query: partName(query), key: partName(key), value: signedLogit(value) }));
  return make("div", { class: "ch-whybox" },
    make("h3", {}, _("Why “%(from)s” looks at “%(to)s”", { from: label(from, 24), to: label(to, 24) })),
    make("p", { class: "ch-note" }, _("%(head)s: the logit is %(logit)s, the weight %(weight)s. A logit is a query times a key, and each is the sum of what earlier parts of the model wrote. On both sides the bars sum to the logit.", { head, logit: signedLogit(why.logit), weight: say(why.weight) })),
    make("div", { class: "ch-sides" }, ...sides.map((side) => sideTable(side, low, high - low || 1))),
    make("p", { class: "ch-note" }, _("Strongest together: %(pairs)s.", { pairs: pairs.join("; ") }),
      why.names.includes("position") ? null : ` ${_("Positions turn queries and keys in this model, and have no bar of their own.")}`));
}

/** One side as a table whose rows have a bar. */
function sideTable({ name, kind, parts }, low, width) {
  const percent = (value) => `${((100 * value) / width).toFixed(2)}%`;
  const bar = (value) => make("span", { class: "ch-bars", "aria-hidden": "true", style: { "--zero": percent(-low) } },
    make("span", { class: value < 0 ? "ch-less-bar" : "", style: { left: percent(Math.min(value, 0) - low), width: percent(Math.abs(value)) } }));
  return make("table", { class: "ch-parts" }, make("caption", { class: kind }, name),
    make("thead", { class: "ch-away" }, make("tr", {}, make("th", { scope: "col" }, _("part")), make("td", {}), make("th", { scope: "col" }, _("logit")))),
    make("tbody", {}, ...parts.map((part) => make("tr", {}, make("th", { scope: "row" }, part.name), make("td", {}, bar(part.value)), make("td", { class: "ch-value" }, signedLogit(part.value))))));
}

/** @param {number} value */
const signedLogit = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
