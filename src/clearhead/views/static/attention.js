// @ts-check
/**
 * Attention, drawn: a grid of all heads, one head as a map and as links between tokens, and the same numbers as a
 * table. One file, no dependency; the same in a notebook (anywidget), in a saved page and in the studio.
 *
 * The model holds: `payload` (see payload.py), `layer` and `head` (-1: none open), `token` (-1: none) and `side`
 * ("query" or "key": which line of tokens is pointed at).
 */

/** @typedef {{type: "u8" | "u16" | "u32", shape: number[], scale: number, data: string}} Packed */
/** @typedef {{shape: number[], scale: number, top: number, values: Uint8Array | Uint16Array | Uint32Array}} Block */
/** @typedef {{name: string, heads: number, shape: number[], top: number, spread: number[], thumb: Block, map: Block,
 *   links: {stride: number, weights: Block, keys: Block}, masked: null | "causal" | Block}} Layer */
/** @typedef {{from: number, to: number, weight: number}} Link */
/** @typedef {{get(name: string): any, set(name: string, value: any): void, save_changes(): void,
 *   on(event: string, call: () => void): void, off(event: string, call: () => void): void}} Model */

const SHADES = 9; // --w0 … --w8
const LINK_WIDTH = 12; // pixels for weight 1
const RESTING_LINKS = 400; // drawn while no token is pointed at
const LIST = 8;

// ---- numbers: nothing here touches the page ------------------------------------------------------------------

/** @param {Packed} packed @returns {Block} */
export function decode(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
  const Kind = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array }[packed.type];
  return { shape: packed.shape, scale: packed.scale, top: packed.scale * (256 ** Kind.BYTES_PER_ELEMENT - 1), values: new Kind(bytes.buffer) };
}

/** Where a weight lies on the colour scale, 0 to 1: the square root, so that small weights can be told apart.
 * @param {number} weight @param {number} top */
export function shade(weight, top) {
  return top > 0 ? Math.sqrt(Math.min(Math.max(weight / top, 0), 1)) : 0;
}

/** The value in a (head, row, column) block. @param {Block} block */
export function at(block, head, row, col) {
  const [, rows, cols] = block.shape;
  return block.values[(head * rows + row) * cols + col] * block.scale;
}

/** A round number at or above the largest weight, for the end of the scale bar. @param {number} top */
export function roundUp(top) {
  if (!(top > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(top));
  return Number((unit * [1, 2, 5, 10].find((step) => step * unit >= top * 0.999)).toPrecision(1));
}

/** The head an arrow key leads to. @param {number[]} heads heads in each layer */
export function step(heads, layer, head, key) {
  const rows = heads.length;
  const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key];
  if (key === "Home") return [layer, 0];
  if (key === "End") return [layer, heads[layer] - 1];
  if (!move) return null;
  const to = Math.min(Math.max(layer + move[0], 0), rows - 1);
  return [to, Math.min(Math.max(head + move[1], 0), heads[to] - 1)];
}

/** Whether the map holds every weight, not means over tiles. @param {Layer} layer */
export const isDense = (layer) => layer.map.shape[1] === layer.shape[0] && layer.map.shape[2] === layer.shape[1];

/** The links kept for one head, strongest first. @param {Layer} layer @returns {Link[]} */
export function links(layer, head) {
  const { stride, weights, keys } = layer.links;
  const [, rows, count] = weights.shape;
  const found = [];
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < count; i++) {
      const weight = at(weights, head, row, i);
      if (weight > 0) found.push({ from: row * stride, to: at(keys, head, row, i), weight });
    }
  }
  return found.sort((a, b) => b.weight - a.weight);
}

/** The links of one token, strongest first: exact where every weight is at hand, else among those kept.
 * @param {Layer} layer @param {"query" | "key"} side @returns {Link[]} */
export function linksOf(layer, head, token, side) {
  if (!isDense(layer)) return links(layer, head).filter((link) => (side === "query" ? link.from : link.to) === token);
  const [queries, keys] = layer.shape;
  const all = side === "query"
    ? Array.from({ length: keys }, (_, to) => ({ from: token, to, weight: at(layer.map, head, token, to) }))
    : Array.from({ length: queries }, (_, from) => ({ from, to: token, weight: at(layer.map, head, from, token) }));
  return all.filter((link) => link.weight > 0).sort((a, b) => b.weight - a.weight);
}

/** Whether no query of this map cell may attend to any of its keys. @param {Layer} layer */
export function isMasked(layer, row, col) {
  const { masked, map, shape } = layer;
  if (!masked) return false;
  if (masked !== "causal") return masked.values[row * masked.shape[1] + col] > 0;
  const lastQuery = Math.ceil(((row + 1) * shape[0]) / map.shape[1]) - 1;
  return Math.floor((col * shape[1]) / map.shape[2]) > lastQuery;
}

/** @param {number} weight */
export const say = (weight) => (weight >= 0.9995 ? "1.000" : weight.toFixed(weight < 0.001 && weight > 0 ? 5 : 3));

/** A token as shown: spaces and newlines made visible, long ones cut. @param {string} token */
export function label(token, most = 14) {
  const shown = token.replace(/^[Ġ▁]/, "␣").replace(/\n|Ċ/g, "⏎").replace(/ /g, "␣") || "∅";
  return shown.length > most ? `${shown.slice(0, most - 1)}…` : shown;
}

// ---- the page ------------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

/** Make an element. @param {string} tag @param {Record<string, any>} [props] @param {...(Node | string | null)} children
 * @returns {any} */
function make(tag, props = {}, ...children) {
  const element = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, to] of Object.entries(value)) element.style.setProperty(key, to);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** 256 colours from --w0 … --w8, as the page's theme has them now. @param {Element} el */
function palette(el) {
  const style = getComputedStyle(el);
  const context = make("canvas", { width: SHADES, height: 1 }).getContext("2d", { willReadFrequently: true });
  for (let i = 0; i < SHADES; i++) {
    context.fillStyle = style.getPropertyValue(`--w${i}`).trim() || `rgb(${255 - i * 28} ${255 - i * 25} ${255 - i * 18})`;
    context.fillRect(i, 0, 1, 1);
  }
  const stops = context.getImageData(0, 0, SHADES, 1).data;
  const colours = new Uint8ClampedArray(256 * 4);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (SHADES - 1);
    const low = Math.min(Math.floor(place), SHADES - 2);
    for (let c = 0; c < 4; c++) {
      colours[i * 4 + c] = stops[low * 4 + c] + (place - low) * (stops[low * 4 + 4 + c] - stops[low * 4 + c]);
    }
  }
  return colours;
}

/** Paint a head's block, one pixel a cell. @param {Block} block */
function paint(block, head, top, colours) {
  const [, rows, cols] = block.shape;
  const canvas = make("canvas", { width: cols, height: rows });
  const context = canvas.getContext("2d");
  const image = context.createImageData(cols, rows);
  for (let i = 0; i < rows * cols; i++) {
    const shadeOf = Math.round(255 * shade(block.values[head * rows * cols + i] * block.scale, top));
    image.data.set(colours.subarray(shadeOf * 4, shadeOf * 4 + 4), i * 4);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Draw everything of one payload into `el`; returns how to take it away. @param {Model} model @param {HTMLElement} el */
function draw(model, el) {
  const raw = model.get("payload");
  if (!raw || !raw.layers || !raw.layers.length) {
    el.replaceChildren(make("p", { class: "ch-note" }, "There is no attention to show yet."));
    return () => el.replaceChildren();
  }
  /** @type {Layer[]} */
  const layers = raw.layers.map((layer) => ({
    ...layer,
    thumb: decode(layer.thumb),
    map: decode(layer.map),
    masked: layer.masked && layer.masked.data ? decode(layer.masked) : layer.masked,
    links: { ...layer.links, weights: decode(layer.links.weights), keys: decode(layer.links.keys) },
  }));
  /** @type {string[]} */
  const tokens = raw.tokens;
  const heads = layers.map((layer) => layer.heads);
  const top = roundUp(Math.max(...layers.map((layer) => layer.map.top)));
  let colours = palette(el);
  const cells = []; // cells[layer][head]: the grid's buttons
  const state = () => ({
    layer: model.get("layer"), head: model.get("head"), token: model.get("token"), side: model.get("side") || "query",
  });
  const change = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const open = (layer, head) => change({ layer, head });

  const root = make("div", { class: "ch", onkeydown: escape });
  const one = make("section", { class: "ch-one", "aria-label": "One head" });
  const list = make("section", { class: "ch-list", "aria-live": "polite", "aria-label": "Strongest links" });
  const more = make("section", { class: "ch-more", "aria-label": "Numbers and words" });
  root.append(bar(), make("div", { class: "ch-body" }, grid(), one, list, more), foot());
  el.replaceChildren(root);

  // -- what is above and below the pictures
  function bar() {
    const ticks = [0, 0.05, 0.2, 0.5, 1].map((part) =>
      make("span", { style: { left: `${100 * Math.sqrt(part)}%` } }, String(Number((part * top).toPrecision(2)))));
    return make("header", { class: "ch-bar" },
      make("p", { class: "ch-what" },
        `${raw.model} · ${tokens.length} ${tokens.length === 1 ? "token" : "tokens"} · ${layers.length} × ${Math.max(...heads)} heads`),
      make("div", { class: "ch-scale", role: "img", "aria-label": `Colour scale: weight 0 to ${top}, square-root spacing` },
        make("span", { class: "ch-scale-name" }, "weight"),
        make("div", { class: "ch-scale-bar" }, make("div", { class: "ch-scale-ramp" }), make("div", { class: "ch-ticks" }, ...ticks))));
  }

  function foot() {
    const said = [];
    if (raw.left_out) said.push(`Left out to keep this small: ${raw.left_out}.`);
    for (const missed of raw.missed) said.push(`Not captured: ${missed.name}: ${missed.reason}`);
    return make("footer", { class: "ch-foot" },
      make("p", { class: "ch-keys" }, "Arrow keys walk heads, Enter opens one, Escape closes."),
      ...said.map((line) => make("p", { class: "ch-note" }, line)));
  }

  // -- the grid of heads
  function grid() {
    const rows = layers.map((layer, l) => {
      cells[l] = Array.from({ length: layer.heads }, (_, h) =>
        make("button", {
          type: "button", role: "gridcell", class: "ch-cell", tabindex: "-1", "aria-label": `Layer ${l}, head ${h}`,
          title: `Layer ${l}, head ${h}`, onclick: () => open(l, h), onkeydown: (event) => walk(event, l, h),
        }));
      return make("div", { role: "row", class: "ch-row" },
        make("span", { role: "rowheader", class: "ch-rowname", title: layer.name }, String(l)), ...cells[l]);
    });
    const names = Array.from({ length: Math.max(...heads) }, (_, h) => make("span", { role: "columnheader" }, String(h)));
    return make("section", { class: "ch-heads", "aria-label": "All heads", style: { "--heads": String(Math.max(...heads)) } },
      make("p", { class: "ch-axis" }, "layers down, heads across"),
      make("div", { role: "grid", class: "ch-grid", "aria-label": "Heads: layers down, heads across" },
        make("div", { role: "row", class: "ch-row ch-names" }, make("span", { role: "columnheader", "aria-label": "layer" }, ""), ...names), ...rows));
  }

  function paintGrid() {
    layers.forEach((layer, l) => cells[l].forEach((cell, h) => cell.replaceChildren(paint(layer.thumb, h, top, colours))));
  }

  function walk(event, layer, head) {
    const to = step(heads, layer, head, event.key);
    if (!to) return;
    event.preventDefault();
    cells[to[0]][to[1]].focus();
    if (state().layer >= 0) open(to[0], to[1]);
    else rove(to[0], to[1]);
  }

  function rove(layer, head) {
    cells.flat().forEach((cell) => cell.setAttribute("tabindex", "-1"));
    cells[Math.max(layer, 0)][Math.max(head, 0)].setAttribute("tabindex", "0");
  }

  function escape(event) {
    if (event.key !== "Escape") return;
    const { layer, head, token } = state();
    if (layer < 0) return;
    event.stopPropagation();
    if (token >= 0) return change({ token: -1 });
    change({ layer: -1, head: -1 });
    cells[layer][head].focus();
  }

  // -- one head
  let shown = ""; // the head that `one` holds now
  let show = (_token, _side) => {};

  function update() {
    const { layer, head, token, side } = state();
    const isOpen = layer >= 0 && layer < layers.length && head >= 0 && head < heads[layer];
    root.classList.toggle("ch-open", isOpen);
    cells.forEach((row, l) => row.forEach((cell, h) => cell.setAttribute("aria-selected", String(isOpen && l === layer && h === head))));
    rove(isOpen ? layer : 0, isOpen ? head : 0);
    const name = isOpen ? `${layer}.${head}` : "";
    if (name !== shown) {
      shown = name;
      for (const part of [one, list, more]) part.replaceChildren();
      if (isOpen) show = openHead(layer, head);
    }
    if (isOpen) show(token >= 0 ? token : -1, side);
  }

  function openHead(l, h) {
    const layer = layers[l];
    const all = links(layer, h);
    const readout = make("p", { class: "ch-readout" }, "");
    const picture = make("canvas", { class: "ch-map", role: "img", "aria-label": `Layer ${l}, head ${h}: rows are queries, columns are keys. The table below holds the numbers.` });
    const lines = tokenLines(layer, h, all);
    const table = make("details", { class: "ch-table", ontoggle: () => table.open && table.childElementCount === 1 && table.append(numbersTable(layer, h)) },
      make("summary", {}, "The same numbers as a table"));
    one.append(
      make("header", { class: "ch-head" },
        make("h2", {}, `Layer ${l}, head ${h}`),
        make("p", { class: "ch-note" }, `${layer.name} · `, "spread ", define("spread", layer.spread[h].toFixed(2))),
        make("button", { type: "button", class: "ch-close", onclick: () => { change({ token: -1, layer: -1, head: -1 }); cells[l][h].focus(); } }, "Close")),
      make("div", { class: "ch-pictures" },
        make("figure", { class: "ch-mapbox" }, picture, make("figcaption", {}, make("span", { class: "ch-q" }, "rows: queries"), " · ", make("span", { class: "ch-k" }, "columns: keys"), readout)),
        make("figure", { class: "ch-linebox" }, lines.element, make("figcaption", {}, "A link's width is its weight. Point at a token, or walk with the arrow keys."))));
    more.append(table, definitions());
    drawMap(picture, layer, h);
    picture.addEventListener("pointermove", (event) => {
      const cell = cellAt(picture, layer, event);
      readout.textContent = cell ? `${nameOf(cell.from, cell.to, layer)}  ${say(at(layer.map, h, cell.row, cell.col))}${isMasked(layer, cell.row, cell.col) ? " (masked)" : ""}` : "";
    });
    picture.addEventListener("pointerleave", () => { readout.textContent = ""; });
    picture.addEventListener("click", (event) => {
      const cell = cellAt(picture, layer, event);
      if (cell) change({ token: cell.from, side: "query" });
    });
    return (token, side) => {
      const near = token >= 0 ? linksOf(layer, h, token, side) : all;
      lines.show(token, side, near);
      list.replaceChildren(strongest(token, side, near.slice(0, LIST)));
    };
  }

  const nameOf = (from, to, layer) =>
    isDense(layer) ? `${label(tokens[from], 24)} → ${label(tokens[to], 24)}` : `tokens from ${from} → from ${to}, mean`;

  /** A number that leads to what it means. */
  function define(word, number) {
    return make("button", { type: "button", class: "ch-number", title: `What is ${word}?`, onclick: () => {
      const box = more.querySelector(".ch-words");
      box.open = true;
      const entry = box.querySelector(`[data-word="${word}"]`);
      entry.focus();
      entry.scrollIntoView({ block: "nearest" });
    } }, number);
  }

  function definitions() {
    const words = {
      weight: "How much of a key's value a query takes: the softmax of the scaled, masked logits over the row. 0 to 1; a row adds up to 1.",
      spread: "How evenly a head's queries look: the mean entropy of its rows over the most it could be (the log of the number of keys). 0: each query looks at one key; 1: at all alike.",
      query: "The token that looks. One row of the map.",
      key: "The token that is looked at. One column of the map.",
    };
    return make("details", { class: "ch-words" }, make("summary", {}, "What the words mean"),
      make("dl", {}, ...Object.entries(words).flatMap(([word, text]) => [make("dt", { "data-word": word, tabindex: "-1" }, word), make("dd", {}, text)])));
  }

  function strongest(token, side, near) {
    const title = token < 0 ? "Strongest links of this head"
      : side === "query" ? `“${label(tokens[token], 24)}” looks at` : `“${label(tokens[token], 24)}” is looked at by`;
    const items = near.map((link) => make("li", {},
      make("span", { class: "ch-pair" },
        ...(token < 0 || side === "key" ? [make("span", { class: "ch-q", title: tokens[link.from] }, label(tokens[link.from]))] : []),
        ...(token < 0 ? [" → "] : []),
        ...(token < 0 || side === "query" ? [make("span", { class: "ch-k", title: tokens[link.to] }, label(tokens[link.to]))] : []),
        make("small", {}, token < 0 ? `${link.from} → ${link.to}` : String(side === "query" ? link.to : link.from))),
      make("span", { class: "ch-meter", "aria-hidden": "true" }, make("span", { style: { width: `${100 * Math.min(link.weight, 1)}%` } })),
      define("weight", say(link.weight))));
    const nothing = make("p", { class: "ch-note" }, isDense(layers[state().layer]) ? "No weight: this token is masked out here." : "No link of this token was kept.");
    return make("div", {}, make("h3", {}, title), items.length ? make("ol", {}, ...items) : nothing);
  }

  function tokenLines(layer, h, all) {
    const row = 24, width = 150, inset = 2;
    const [queries, keys] = layer.shape;
    const svg = make("svg:svg", { class: "ch-links", viewBox: `0 0 ${width} ${row * Math.max(queries, keys)}`, preserveAspectRatio: "none", height: row * Math.max(queries, keys), "aria-hidden": "true" });
    const line = (side, count) => make("div", { class: `ch-line ch-line-${side}`, role: "group", "aria-label": side === "query" ? "Queries" : "Keys" },
      make("p", { class: `ch-${side[0]} ch-line-name` }, side === "query" ? "queries" : "keys"),
      ...Array.from({ length: count }, (_, i) => make("button", {
        type: "button", class: "ch-token", tabindex: i === 0 && side === "query" ? "0" : "-1", title: tokens[i], "data-side": side, "data-token": i,
      }, label(tokens[i]))));
    const element = make("div", { class: "ch-lines" }, line("query", queries), svg, line("key", keys));
    const button = (side, token) => element.querySelector(`[data-side="${side}"][data-token="${token}"]`);
    const path = (link) => {
      const [y, to] = [(link.from + 0.5) * row, (link.to + 0.5) * row];
      return make("svg:path", {
        d: `M${inset} ${y}C${width / 2} ${y} ${width / 2} ${to} ${width - inset} ${to}`,
        "vector-effect": "non-scaling-stroke", "stroke-width": Math.max(LINK_WIDTH * link.weight, 0.2).toFixed(2),
      });
    };
    const point = (event) => {
      const { token, side } = event.target.dataset;
      if (token !== undefined && (state().token !== Number(token) || state().side !== side)) change({ token: Number(token), side });
    };
    element.addEventListener("pointerover", (event) => event.pointerType === "mouse" && point(event));
    element.addEventListener("focusin", point);
    element.addEventListener("click", point);
    element.addEventListener("keydown", (event) => {
      const { token, side } = event.target.dataset;
      const to = { ArrowUp: [side, Number(token) - 1], ArrowDown: [side, Number(token) + 1], ArrowLeft: ["query", token], ArrowRight: ["key", token] }[event.key];
      const target = to && button(to[0], to[1]);
      if (!target) return;
      event.preventDefault();
      target.focus();
    });
    return {
      element,
      show(token, side, near) {
        svg.replaceChildren(...near.slice(0, token < 0 ? RESTING_LINKS : near.length).filter((link) => link.weight * LINK_WIDTH > 0.1).map(path));
        element.classList.toggle("ch-pointed", token >= 0);
        const lit = new Set(near.slice(0, LIST).map((link) => (side === "query" ? link.to : link.from)));
        for (const node of element.querySelectorAll(".ch-token")) {
          const here = node.dataset.side === side && Number(node.dataset.token) === token;
          node.classList.toggle("ch-here", here);
          node.classList.toggle("ch-lit", token >= 0 && (here || (node.dataset.side !== side && lit.has(Number(node.dataset.token)))));
          if (token >= 0) node.setAttribute("tabindex", here ? "0" : "-1");
        }
      },
    };
  }

  // -- the map
  const MAP = 440; // side of the map with its labels, in pixels before it is fitted to the page
  const named = (layer) => isDense(layer) && Math.max(...layer.shape) <= 32;
  const letters = (layer) => Math.min(13, (0.72 * (MAP - 80)) / Math.max(...layer.shape));
  const longest = Math.max(...tokens.map((token) => [...label(token, 11)].length));
  const room = (layer) => (named(layer) ? Math.ceil(10 + 0.62 * letters(layer) * longest) : 1);

  function drawMap(canvas, layer, h) {
    const size = MAP, ratio = window.devicePixelRatio || 1, margin = room(layer);
    const style = getComputedStyle(root);
    const [, rows, cols] = layer.map.shape;
    const side = size - margin, cell = side / cols, high = side / rows;
    canvas.width = canvas.height = size * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.imageSmoothingEnabled = false;
    context.drawImage(paint(layer.map, h, top, colours), margin, margin, side, side);
    context.strokeStyle = style.getPropertyValue("--hairline").trim() || "#ccc";
    hatch(context, layer, margin, cell, high);
    context.lineWidth = 1;
    context.strokeRect(margin - 0.5, margin - 0.5, side + 1, side + 1);
    if (!named(layer)) return;
    context.font = `${letters(layer)}px ${style.fontFamily || "sans-serif"}`;
    context.textBaseline = "middle";
    context.textAlign = "right";
    context.fillStyle = style.getPropertyValue("--query").trim() || "#a0522d";
    for (let i = 0; i < rows; i++) context.fillText(label(tokens[i], 11), margin - 6, margin + (i + 0.5) * high);
    context.fillStyle = style.getPropertyValue("--key").trim() || "#2f6f4f";
    context.textAlign = "left";
    for (let j = 0; j < cols; j++) {
      context.save();
      context.translate(margin + (j + 0.5) * cell, margin - 6);
      context.rotate(-Math.PI / 2);
      context.fillText(label(tokens[j], 11), 0, 0);
      context.restore();
    }
  }

  /** Masked cells are hatched, never coloured. */
  function hatch(context, layer, margin, cell, high) {
    if (!layer.masked) return;
    const [, rows, cols] = layer.map.shape;
    context.save();
    context.beginPath();
    for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) {
      if (isMasked(layer, i, j)) context.rect(margin + j * cell, margin + i * high, cell, high);
    }
    context.clip();
    context.beginPath();
    for (let x = -MAP; x < MAP; x += 6) {
      context.moveTo(margin + x, margin);
      context.lineTo(margin + x + MAP, margin + MAP);
    }
    context.stroke();
    context.restore();
  }

  function cellAt(canvas, layer, event) {
    const box = canvas.getBoundingClientRect();
    const margin = (room(layer) / MAP) * box.width, side = box.width - margin;
    const [, rows, cols] = layer.map.shape;
    const col = Math.floor(((event.clientX - box.left - margin) / side) * cols);
    const row = Math.floor(((event.clientY - box.top - margin) / side) * rows);
    if (row < 0 || col < 0 || row >= rows || col >= cols) return null;
    return { row, col, from: Math.floor((row * layer.shape[0]) / rows), to: Math.floor((col * layer.shape[1]) / cols) };
  }

  // -- the same numbers as a table
  function numbersTable(layer, h) {
    const [queries, keys] = layer.shape;
    const full = isDense(layer) && keys <= 24;
    const most = Math.min(queries, 512);
    const head = full ? tokens.slice(0, keys).map((token) => make("th", { scope: "col" }, label(token)))
      : [make("th", { scope: "col" }, "strongest keys, with weights")];
    const rows = Array.from({ length: most }, (_, i) => make("tr", {}, make("th", { scope: "row" }, `${i} ${label(tokens[i])}`),
      ...(full ? Array.from({ length: keys }, (_, j) => make("td", {}, isMasked(layer, i, j) ? "–" : say(at(layer.map, h, i, j))))
        : [make("td", {}, linksOf(layer, h, i, "query").slice(0, LIST).map((link) => `${label(tokens[link.to])} ${say(link.weight)}`).join(", ") || "not kept")])));
    return make("div", { class: "ch-scroll", tabindex: "0", role: "region", "aria-label": "Weights" },
      make("table", {}, make("caption", {}, `Weights: rows are queries, columns are keys${most < queries ? `; the first ${most} of ${queries} queries` : ""}`),
        make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "query"), ...head)), make("tbody", {}, ...rows)));
  }

  const repaint = () => {
    colours = palette(el);
    paintGrid();
    shown = "";
    update();
  };
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const theme = new MutationObserver(repaint);
  theme.observe(document.documentElement, { attributes: true, attributeFilter: ["class", "data-theme"] });
  dark.addEventListener("change", repaint);
  const events = ["change:layer", "change:head", "change:token", "change:side"];
  events.forEach((event) => model.on(event, update));
  paintGrid();
  update();
  return () => {
    theme.disconnect();
    dark.removeEventListener("change", repaint);
    events.forEach((event) => model.off(event, update));
    el.replaceChildren();
  };
}

/** A model of plain values, for pages that have no notebook behind them. @param {Record<string, any>} values */
export function plainModel(values) {
  const held = { layer: -1, head: -1, token: -1, side: "query", ...values };
  /** @type {Map<string, Set<() => void>>} */
  const calls = new Map();
  const changed = new Set();
  return {
    get: (name) => held[name],
    set(name, value) {
      if (held[name] === value) return;
      held[name] = value;
      changed.add(name);
    },
    save_changes() {
      const names = [...changed];
      changed.clear();
      for (const name of [...names, ""]) for (const call of calls.get(name ? `change:${name}` : "change") || []) if (names.length) call();
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
