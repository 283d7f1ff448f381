// @ts-check
/** What the pictures compute; nothing here touches a page. */

/** @typedef {{type: "u8" | "u16" | "u32" | "bits", shape: number[], scale: number, data: string}} Packed */
/** @typedef {{shape: number[], scale: number, top: number, signed?: boolean,
 *   values: Uint8Array | Uint16Array | Uint32Array | Float32Array}} Block */
/** @typedef {null | "causal" | Block} Masked */
/** @typedef {{name: string, heads: number, shape: number[], top: number, thumb: Block, map: Block, masked: Masked,
 *   thumbMasked: Masked, few?: number, worked?: Map<number, {block: Block, masked: Masked}>, links: {stride: number, weights: Block, keys: Block}}} Layer */
/** @typedef {{from: number, to: number, weight: number}} Link */

/** @param {Packed} packed @returns {Block} */
export function decode(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
  if (packed.type === "bits") {
    const size = packed.shape.reduce((size, length) => size * length, 1);
    return { shape: packed.shape, scale: 1, top: 1, values: Uint8Array.from({ length: size }, (_, i) => (bytes[i >> 3] >> (7 - (i & 7))) & 1) };
  }
  const Kind = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array }[packed.type];
  const top = packed.scale * (256 ** Kind.BYTES_PER_ELEMENT - 1);
  return { shape: packed.shape, scale: packed.scale, top, values: new Kind(bytes.buffer) };
}

/** A layer of the payload with its blocks unpacked. @returns {Layer} */
export function decodeLayer(layer) {
  const masked = (said) => (said && said.data ? decode(said) : said);
  return {
    ...layer, thumb: decode(layer.thumb), map: decode(layer.map), masked: masked(layer.masked), thumbMasked: masked(layer.thumb_masked),
    links: { ...layer.links, weights: decode(layer.links.weights), keys: decode(layer.links.keys) },
  };
}

/** The tokens along the queries (or the keys) of a layer: their names, and the position of each entry in its text.
 * @param {any} raw the payload @param {any} layer @param {"queries" | "keys"} side
 * @returns {{tokens: string[], sequence: string, place: (i: number) => number}} */
export function axisOf(raw, layer, side) {
  const axis = raw.axes?.[layer[side]];
  const start = axis?.start ?? 0;
  return { tokens: axis?.tokens ?? raw.tokens, sequence: axis?.sequence ?? "input", place: (i) => axis?.positions?.[i] ?? start + i };
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

/** The largest value of one head, whatever its sign. @param {Block} block */
export function topOf(block, head) {
  const size = block.shape[1] * block.shape[2];
  let top = 0;
  for (let i = head * size; i < (head + 1) * size; i++) top = Math.max(top, Math.abs(block.values[i]));
  return top * block.scale;
}

/** One head of a block (H, rows, cols), as a block (1, rows, cols). @param {Block} block @returns {Block} */
export function oneHead(block, head) {
  const [, rows, cols] = block.shape;
  return { ...block, shape: [1, rows, cols], values: block.values.subarray(head * rows * cols, (head + 1) * rows * cols) };
}

/** One head's masked cells. @param {Masked} masked @param {number} head @returns {Masked} */
export function maskOf(masked, head) {
  if (!masked || masked === "causal" || masked.shape.length < 3) return masked;
  return { ...oneHead(masked, head), shape: masked.shape.slice(1) };
}

/** One map less another of the same shape: a block with values of either sign. @param {Block} minuend @param {Block} subtrahend */
export function subtract(minuend, subtrahend) {
  const values = Float32Array.from(minuend.values, (value, i) => value * minuend.scale - subtrahend.values[i] * subtrahend.scale);
  return { shape: minuend.shape, scale: 1, top: Math.max(minuend.top, subtrahend.top), values, signed: true };
}

/** A round number at or above the largest weight, for the end of a scale bar. @param {number} top */
export function roundUp(top) {
  if (!(top > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(top));
  return Number((unit * [1, 2, 5, 10].find((step) => step * unit >= top * 0.999)).toPrecision(1));
}

/** The head an arrow key leads to in a grid of rows of heads; null for another key.
 * @param {[number, number][][]} rows [layer, head] as shown @returns {[number, number] | null} */
export function step(rows, layer, head, key) {
  const row = rows.findIndex((some) => some.some(([l, h]) => l === layer && h === head));
  const col = rows[row].findIndex(([l, h]) => l === layer && h === head);
  const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -Infinity], End: [0, Infinity] }[key];
  if (!move) return null;
  const within = (place, count) => Math.min(Math.max(place, 0), count - 1);
  const to = rows[within(row + move[0], rows.length)];
  return to[within(col + move[1], to.length)];
}

/** Rows of heads: layers down, or, with values given, all heads from the largest value to the smallest.
 * @param {number[]} heads in each layer @param {number[][] | null} values @returns {[number, number][][]} */
export function arrange(heads, values) {
  const all = heads.map((count, layer) => Array.from({ length: count }, (_, head) => /** @type {[number, number]} */ ([layer, head])));
  if (!values) return all;
  const across = Math.max(...heads);
  const sorted = all.flat().sort((a, b) => (values[b[0]][b[1]] ?? -Infinity) - (values[a[0]][a[1]] ?? -Infinity) || 0);
  return Array.from({ length: Math.ceil(sorted.length / across) }, (_, i) => sorted.slice(i * across, (i + 1) * across));
}

/** Whether the map holds every weight, not means over tiles. @param {Layer} layer */
export const isDense = (layer) => layer.map.shape[1] === layer.shape[0] && layer.map.shape[2] === layer.shape[1];

/** The links kept for one head, strongest first. @param {Layer} layer @returns {Link[]} */
export function links(layer, head) {
  const { stride, weights, keys } = layer.links;
  const [, rows, count] = weights.shape;
  const links = [];
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < count; i++) {
      const weight = at(weights, head, row, i);
      if (weight > 0) links.push({ from: row * stride, to: at(keys, head, row, i), weight });
    }
  }
  return links.sort((a, b) => b.weight - a.weight);
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

/** Whether a cell of a head's map is masked. @param {Masked} masked @param {number[]} shape (H, rows, cols) */
export function isMasked(masked, shape, row, col, head = 0) {
  if (!masked) return false;
  if (masked === "causal") return col > row;
  const own = masked.shape.length === 3 ? head * shape[1] * shape[2] : 0; // each head's own, or one for all
  return masked.values[own + row * shape[2] + col] > 0;
}

/** A difference with its sign. @param {number} weight */
export const saySigned = (weight) => `${weight < 0 ? "−" : "+"}${say(Math.abs(weight))}`;

/** @param {number} weight */
export const say = (weight) => (weight >= 0.9995 ? "1.000" : weight.toFixed(weight < 0.001 && weight > 0 ? 5 : 3));

/** A token as shown: spaces and newlines made visible, long ones cut. @param {string} token */
export function label(token, most = 14) {
  const shown = (token ?? "?").replace(/^[Ġ▁]/, "␣").replace(/\n|Ċ/g, "⏎").replace(/ /g, "␣") || "∅";
  return shown.length > most ? `${shown.slice(0, most - 1)}…` : shown;
}

/** Which of the links to draw while no token is pointed at: the strongest; in a long text only those whose two ends
 * can be seen together. @param {Link[]} all @param {number} tokens */
export function resting(all, tokens) {
  return tokens <= 48 ? all : all.filter((link) => Math.abs(link.from - link.to) <= 16).slice(0, 2000);
}

// ---- views: the part of a map that is shown, in tokens ---------------------------------------------------------

/** @typedef {{rows: [number, number], cols: [number, number]}} View start and stop of queries and of keys */

/** @param {Layer} layer @returns {View} */
export const whole = (layer) => ({ rows: [0, layer.shape[0]], cols: [0, layer.shape[1]] });

const LEAST = 8; // tokens a side of the closest view

/** A span of `size` tokens that keeps `start` where it can, inside 0 … count. @returns {[number, number]} */
function span(start, size, count) {
  const wide = Math.min(Math.max(Math.round(size), Math.min(LEAST, count)), count);
  const from = Math.min(Math.max(Math.round(start), 0), count - wide);
  return [from, from + wide];
}

/** A view `factor` times as wide, with the point at (y, x) of the old one (0 to 1) kept in its place.
 * @param {Layer} layer @param {View} view @returns {View} */
export function zoom(layer, view, factor, y, x) {
  const moved = ([start, stop], part, count) => span(start + (stop - start) * part * (1 - factor), (stop - start) * factor, count);
  return { rows: moved(view.rows, y, layer.shape[0]), cols: moved(view.cols, x, layer.shape[1]) };
}

/** A view moved by shares of itself. @param {Layer} layer @param {View} view @returns {View} */
export function move(layer, view, down, right) {
  const moved = ([start, stop], part, count) => span(start + (stop - start) * part, stop - start, count);
  return { rows: moved(view.rows, down, layer.shape[0]), cols: moved(view.cols, right, layer.shape[1]) };
}

/** A head as it is at hand: from what was worked out of it whole, else from its layer. @param {Layer} layer @returns {any} */
export function atHand(layer, head) {
  const worked = layer.worked?.get(head);
  return { shape: layer.shape, map: worked?.block ?? oneHead(layer.map, head), masked: worked ? worked.masked : maskOf(layer.masked, head) };
}

/** The cells at hand that cover a view: one head's block, and the view widened to whole cells.
 * @param {Layer} layer @param {View} view @returns {{block: Block, masked: Masked, view: View}} */
export function crop(layer, head, view) {
  const [, rows, cols] = layer.map.shape;
  const cells = ([start, stop], count, size) => [Math.floor((start * count) / size), Math.ceil((stop * count) / size)];
  const [top, bottom] = cells(view.rows, rows, layer.shape[0]);
  const [left, right] = cells(view.cols, cols, layer.shape[1]);
  const shape = [1, bottom - top, right - left];
  const values = new (/** @type {any} */ (layer.map.values.constructor))(shape[1] * shape[2]);
  const hidden = new Uint8Array(values.length);
  for (let row = top; row < bottom; row++) {
    const from = (head * rows + row) * cols;
    values.set(layer.map.values.subarray(from + left, from + right), (row - top) * shape[2]);
    for (let col = left; col < right; col++) hidden[(row - top) * shape[2] + col - left] = isMasked(layer.masked, layer.map.shape, row, col, head) ? 1 : 0;
  }
  const tokens = (first, last, count, size) => /** @type {[number, number]} */ ([Math.floor((first * size) / count), Math.ceil((last * size) / count)]);
  return {
    block: { shape, scale: layer.map.scale, top: layer.map.top, values },
    masked: { shape: shape.slice(1), scale: 1, top: 1, values: hidden },
    view: { rows: tokens(top, bottom, rows, layer.shape[0]), cols: tokens(left, right, cols, layer.shape[1]) },
  };
}
