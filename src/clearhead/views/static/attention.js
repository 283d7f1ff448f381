// @ts-check
/**
 * Attention, drawn: a grid of all heads, one head large, and the same numbers as a table. No dependency; the same
 * module in a notebook (anywidget), in a saved page and in the studio.
 *
 * The model holds `payload` (see payload.py), `layer` and `head` (-1: none open), `token` (-1: none), `side` ("query"
 * or "key": which line of tokens is pointed at), `order` ("layer", or a score's name), `pin` (the head others are
 * compared with: "layer.head", "other" for the same place in the payload's other model, or "") and `live`: whether
 * Python answers custom messages (see questions.py), for tiles while zooming and for exact links of long texts.
 */
import { openHead } from "./head.js";
import { arrange, axisOf, decodeLayer, maskOf, oneHead, roundUp, step, subtract, topOf } from "./numbers.js";
import { brightness, make, paint, palette, scaleBar } from "./paint.js";
import { _ } from "./words.js";

/** @typedef {{get(name: string): any, set(name: string, value: any): void, save_changes(): void,
 *   on(event: string, call: () => void): void, off(event: string, call: () => void): void}} Model */

const WATCHED = ["layer", "head", "token", "side"];
/** Where the studio, marimo, Jupyter, VS Code and Colab say which theme a page has: attributes of html or body. */
const THEMES = ["class", "data-theme", "data-jp-theme-light", "data-vscode-theme-kind", "theme"];

/** Draw one payload into `el`; returns a function that removes it. @param {Model} model @param {HTMLElement} el */
function draw(model, el) {
  const raw = model.get("payload");
  if (!raw || !raw.layers || !raw.layers.length) {
    const missed = raw?.missed?.map((entry) => `${entry.name}: ${entry.reason}`).join("; ");
    el.replaceChildren(make("p", { class: "ch ch-note" }, missed ? _("No attention was captured. %(missed)s", { missed }) : _("There is no attention to show yet.")));
    return () => el.replaceChildren();
  }
  const layers = raw.layers.map((layer) => ({ ...decodeLayer(layer), rows: axisOf(raw, layer, "queries"), cols: axisOf(raw, layer, "keys") }));
  const others = raw.other ? raw.other.layers.map(decodeLayer) : null;
  const heads = layers.map((layer) => layer.heads);
  const across = Math.max(...heads);
  const scores = { ...raw.scores, ...(raw.other?.kl ? { "KL divergence": apart(raw.other) } : {}) };
  const [large, list, more] = ["ch-one", "ch-list", "ch-more"].map((name) => make("section", { class: name }));
  list.setAttribute("aria-live", "polite");
  const root = make("div", { class: across === 1 && heads.length === 1 ? "ch ch-alone" : "ch", onkeydown: escape });
  el.replaceChildren(root);

  let colours = { w: palette(el), d: palette(el, "d") };
  const state = () => ({ layer: model.get("layer"), head: model.get("head"), token: model.get("token"), side: model.get("side") || "query" });
  const change = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  /** What others are compared with: "layer.head", "other" or "". */
  const pinned = () => {
    const said = String(model.get("pin") || "");
    const [l, h] = said.split(".").map(Number);
    return (said === "other" && others) || (h >= 0 && l < layers.length && h < heads[l]) ? said : "";
  };
  /** The head to take away from an open one: null where there is none, or not of its size. */
  function compared(l, h) {
    const said = pinned();
    if (!said || said === `${l}.${h}`) return null;
    const place = /** @type {[number, number]} */ (said === "other" ? [l, h] : said.split(".").map(Number));
    const layer = (said === "other" ? others : layers)[place[0]];
    if (!layer || place[1] >= layer.heads || String(layer.map.shape.slice(1)) !== String(layers[l].map.shape.slice(1))) return null;
    if (said !== "other") return { layer, head: place[1], place, model: 0, said: _("The map shows this head minus the pinned one, layer %(layer)s, head %(head)s.", { layer: place[0], head: place[1] }) };
    return { layer, head: h, place, model: 1, said: _("The map shows this head minus the same head of %(model)s.", { model: raw.other.model }), kl: raw.other.kl?.[l]?.[h] };
  }
  const pin = (said) => {
    change({ pin: said });
    large.querySelector(".ch-acts button").focus();
  };
  const close = () => {
    const { layer, head } = state();
    change({ token: -1, layer: -1, head: -1 });
    cells[layer][head].focus();
  };
  const questions = asker(model);
  const scene = { raw, layers, ask: questions.ask, tokens: raw.tokens, scores, root, large, list, more, state, change, close, colours: (ramp = "w") => colours[ramp], pinned, compared, pin };

  // -- the grid of heads
  /** @type {any[][]} */
  const cells = layers.map((layer, l) => Array.from({ length: layer.heads }, (_, h) => make("button", {
    type: "button", role: "gridcell", class: "ch-cell", tabindex: "-1", title: placeOf(l, h), "aria-label": placeOf(l, h),
    onclick: () => change({ layer: l, head: h }), onkeydown: (event) => walk(event, l, h),
  })));
  const grid = make("div", { role: "grid", class: "ch-grid", "aria-label": _("Heads") });
  const axis = make("p", { class: "ch-axis" });
  const scale = make("div");
  /** @type {[number, number][][]} */
  let rows = [];

  function arrangeGrid() {
    const score = scores[model.get("order")];
    rows = arrange(heads, score ? score.values : null);
    axis.textContent = score ? _("%(about)s: most first, as layer·head", { about: _(score.about) }) : _("layers down, heads across");
    cells.forEach((row, l) => row.forEach((cell, h) => {
      const value = score?.values[l]?.[h];
      cell.title = value === undefined || value === null ? placeOf(l, h) : `${placeOf(l, h)}: ${saidShort(value)}`;
      cell.setAttribute("aria-label", cell.title);
    }));
    const row = (name, parts) => make("div", { role: "row", class: "ch-row" }, name, ...parts);
    const names = Array.from({ length: across }, (_, h) => make("span", { role: "columnheader", class: "ch-col" }, String(h)));
    const cell = ([l, h]) => (score ? make("div", { role: "presentation", class: "ch-scored" }, cells[l][h], make("small", { "aria-hidden": "true" }, `${l}·${h}`)) : cells[l][h]);
    grid.replaceChildren(
      ...(score ? [] : [row(make("span", { role: "columnheader", "aria-label": _("layer") }), names)]),
      ...rows.map((some, i) => row(make("span", { role: "rowheader", title: score ? "" : layers[i].name }, score ? "" : String(i)), some.map(cell))));
  }

  const order = make("select", { onchange: () => change({ order: order.value }) },
    make("option", { value: "layer" }, _("layer")), ...Object.keys(scores).map((name) => make("option", { value: name }, _(name))));
  const count = raw.units === "words" ? _("%(count)s words", { count: raw.tokens.length }) : raw.units === "lines" ? _("%(count)s lines", { count: raw.tokens.length })
    : raw.tokens.length === 1 ? _("1 token") : _("%(count)s tokens", { count: raw.tokens.length });
  const heading = make("header", { class: "ch-bar" },
    make("p", { class: "ch-note" }, _("%(model)s · %(tokens)s · %(layers)s × %(across)s heads", { model: raw.other ? _("%(one)s and %(other)s", { one: raw.model, other: raw.other.model }) : raw.model, tokens: count, layers: layers.length, across })),
    make("label", { class: "ch-order" }, _("Order by"), " ", order));
  const said = [
    ...(raw.note ? [raw.note] : []),
    ...((raw.units ?? "tokens") === "tokens" ? [] : [_("Tokens are put together: from a word or line, the mean over its tokens; to one, the sum.")]),
    ...(layers[0].few ? [_("Drawn in outline: %(few)s of every %(stride)s queries. An open head is computed in full while you look at it.", { few: layers[0].few, stride: layers[0].links.stride })] : []),
    ...(raw.left_out ? [_("Left out to keep this small: %(what)s.", { what: raw.left_out })] : []),
    ...raw.missed.map((missed) => _("Not captured: %(name)s: %(reason)s", missed)),
  ];
  root.append(heading,
    make("div", { class: "ch-body" },
      make("section", { class: "ch-heads", "aria-label": _("All heads"), style: { "--heads": String(across) } },
        axis, grid, scale),
      large, list, more),
    make("footer", { class: "ch-foot" }, make("p", { class: "ch-note ch-grid-keys" }, _("Arrow keys walk heads, Enter opens one, Escape closes.")),
      ...said.map((line) => make("p", { class: "ch-note" }, line))));

  function walk(event, layer, head) {
    const to = step(rows, layer, head, event.key);
    if (!to) return;
    event.preventDefault();
    if (state().layer >= 0) change({ layer: to[0], head: to[1] });
    else rove(to[0], to[1]);
    cells[to[0]][to[1]].focus();
  }

  /** One cell of the grid is in the order of Tab; arrow keys move which. */
  function rove(layer, head) {
    cells.flat().forEach((cell) => cell.setAttribute("tabindex", "-1"));
    cells[layer][head].setAttribute("tabindex", "0");
  }

  function escape(event) {
    if (event.key !== "Escape" || state().layer < 0) return;
    event.stopPropagation();
    if (state().token >= 0) change({ token: -1 });
    else if (!root.classList.contains("ch-alone")) close();
  }

  // -- what is shown follows the model
  let shown = "";
  let show = (_token, _side) => {};

  function update() {
    const { layer, head, token, side } = state();
    const isOpen = layer >= 0 && layer < layers.length && head >= 0 && head < heads[layer];
    root.classList.toggle("ch-open", isOpen);
    cells.forEach((row, l) => row.forEach((cell, h) => cell.setAttribute("aria-selected", String(isOpen && l === layer && h === head))));
    if (isOpen) rove(layer, head);
    else if (!cells.flat().some((cell) => cell.tabIndex === 0)) rove(...rows[0][0]);
    const name = isOpen ? `${layer}.${head}` : "";
    if (name !== shown) {
      shown = name;
      for (const part of [large, list, more]) part.replaceChildren();
      if (isOpen) show = openHead(scene, layer, head);
    }
    if (isOpen) show(token >= 0 && token < layers[layer].shape[side === "key" ? 1 : 0] ? token : -1, side);
  }

  function reorder() {
    order.value = scores[model.get("order")] ? model.get("order") : "layer";
    arrangeGrid();
  }

  function repaint() {
    colours = { w: palette(el), d: palette(el, "d") };
    const less = pinned() === "other";
    const small = layers.map((layer, l) => cells[l].map((_cell, h) => {
      const mine = oneHead(layer.thumb, h), other = less && compared(l, h);
      return other ? subtract(mine, oneHead(other.layer.thumb, h)) : mine;
    }));
    const top = roundUp(Math.max(...small.flat().map((block) => topOf(block, 0))));
    layers.forEach((layer, l) => cells[l].forEach((cell, h) => cell.replaceChildren(paint(small[l][h], maskOf(layer.thumbMasked, h), 0, top, colours.w, less ? colours.d : colours.w))));
    const means = layers.some((layer) => layer.shape[0] > layer.thumb.shape[1]);
    scale.replaceChildren(scaleBar(top, less ? (means ? _("mean difference") : _("difference")) : means ? _("mean weight") : _("weight"), less));
    cells.forEach((row, l) => row.forEach((cell, h) => cell.classList.toggle("ch-pinned", pinned() === `${l}.${h}`)));
    shown = "";
    update();
  }

  for (const [kind, keys] of [["keydown", true], ["pointerdown", false]]) {
    root.addEventListener(kind, () => root.classList.toggle("ch-keys", keys), { capture: true });
  }
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const paper = window.matchMedia("print"); // a canvas keeps its colours, and paper is light
  paper.addEventListener("change", repaint);
  // Other classes change too, at any key: painting again then would take the focus away from what the key was for.
  const theme = new MutationObserver(() => {
    dress(el);
    if (String(palette(el)) !== String(colours.w)) repaint();
  });
  for (const page of [document.documentElement, document.body]) theme.observe(page, { attributes: true, attributeFilter: THEMES });
  dark.addEventListener("change", repaint);
  WATCHED.forEach((name) => model.on(`change:${name}`, update));
  model.on("change:order", reorder);
  model.on("change:pin", repaint);
  dress(el);
  reorder();
  repaint();
  return () => {
    questions.stop();
    theme.disconnect();
    dark.removeEventListener("change", repaint);
    paper.removeEventListener("change", repaint);
    WATCHED.forEach((name) => model.off(`change:${name}`, update));
    model.off("change:order", reorder);
    model.off("change:pin", repaint);
    el.replaceChildren();
  };
}

/** @param {number} layer @param {number} head */
const placeOf = (layer, head) => _("Layer %(layer)s, head %(head)s", { layer, head });

/** A number in three digits. @param {number} value */
const saidShort = (value) => (value === Infinity ? "∞" : String(Number(value.toPrecision(3))));

/** How far each head is from the other model's in the same place, as a score to order by. */
const apart = (other) => ({
  about: _("how far from the same head of %(model)s, nats per query", { model: other.model }),
  values: other.kl.map((row) => row.map((value) => value ?? Infinity)),
});

/** A notebook's theme may differ from the system's. The ink that the notebook hands down tells: light ink is for a dark
 * page. Only a notebook's style sheet heeds these classes. @param {HTMLElement} el */
function dress(el) {
  const light = brightness(getComputedStyle(el.isConnected ? el : document.body).color) > 0.5;
  el.classList.toggle("ch-on-dark", light);
  el.classList.toggle("ch-on-light", !light);
}

/** Ask the Python side of the model; `ask` is null where there is none. @param {any} model */
function asker(model) {
  if (!model.get("live")) return { ask: null, stop() {} };
  /** @type {Map<number, (found: any) => void>} */
  const open = new Map();
  let count = 0;
  const hear = (message) => {
    open.get(message?.id)?.(message.answer);
    open.delete(message?.id);
  };
  model.on("msg:custom", hear);
  return {
    ask: (question) => new Promise((resolve) => {
      open.set(++count, resolve);
      model.send({ ...question, id: count });
    }),
    stop: () => model.off("msg:custom", hear),
  };
}

/** A model of plain values, for pages that have no notebook behind them.
 * @param {Record<string, any>} values @param {(question: any) => Promise<any>} [answer] makes the pictures live */
export function plainModel(values, answer) {
  const held = { layer: -1, head: -1, token: -1, side: "query", order: "layer", pin: "", live: Boolean(answer), ...values };
  /** @type {Map<string, Set<(message?: any) => void>>} */
  const calls = new Map();
  const changed = new Set();
  return {
    get: (name) => held[name],
    set(name, value) {
      if (held[name] === value) return;
      held[name] = value;
      changed.add(name);
    },
    /** Tell each listener once, however many of its values changed. */
    save_changes() {
      const events = changed.size ? [...[...changed].map((name) => `change:${name}`), "change"] : [];
      changed.clear();
      for (const call of new Set(events.flatMap((event) => [...(calls.get(event) || [])]))) call();
    },
    async send(question) {
      const message = { id: question.id, answer: await answer(question) };
      for (const call of calls.get("msg:custom") || []) call(message);
    },
    on: (event, call) => void calls.set(event, (calls.get(event) || new Set()).add(call)),
    off: (event, call) => void calls.get(event)?.delete(call),
  };
}

export default {
  /** @param {{model: Model, el: HTMLElement}} given @returns {() => void} */
  render({ model, el }) {
    let clear = draw(model, el);
    const again = () => {
      clear();
      clear = draw(model, el);
    };
    model.on("change:payload", again);
    return () => {
      model.off("change:payload", again);
      clear();
    };
  },
};
