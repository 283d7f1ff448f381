// @ts-check
/** One picture of a side: its patches are pointed at, marked, or coloured by weights. */
import { shade } from "./numbers.js";
import { make } from "./paint.js";
import { _ } from "./words.js";

const FULL = 235; // opacity of the largest weight, of 255: the picture still shows through

/** Weights as a small picture: a colour's opacity is the weight. Cells without a value stay clear.
 * @param {any} canvas @param {(number | undefined)[]} weights a weight a cell, row by row @param {number} top @param {Uint8ClampedArray} colours */
export function veil(canvas, weights, top, colours) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  weights.forEach((weight, i) => {
    const part = shade(weight ?? 0, top);
    image.data.set(colours.subarray(Math.round(255 * part) * 4, Math.round(255 * part) * 4 + 3), 4 * i);
    image.data[4 * i + 3] = Math.round(FULL * part);
  });
  context.putImageData(image, 0, 0);
}

/** Pointing by mouse, touch and arrow keys. A page that scrolls under a still mouse sends a move too: it must not undo
 * what keys chose. @param {any} box @param {(event: any) => number} at the token under the pointer
 * @param {(token: number) => void} point @param {(key: string) => number | null} walk the token a key leads to */
export function pointing(box, at, point, walk) {
  let byKeys = false;
  box.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "mouse" || (byKeys && !event.movementX && !event.movementY)) return;
    byKeys = false;
    point(at(event));
  });
  box.addEventListener("click", (event) => point(at(event)));
  box.addEventListener("keydown", (event) => {
    if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    byKeys = true;
    const to = walk(event.key);
    if (to !== null) point(to);
  });
}

/** Which of `count` equal parts of a length holds a place. */
export const partAt = (from, size, count) => Math.min(Math.max(Math.floor((from / size) * count), 0), count - 1);

/** @param {{src: string, rows: number, cols: number, first: number, gap: number}} picture @param {string} side
 * @param {() => number} here the token that is pointed at on this side, -1 for none @param {(token: number) => void} point */
export function pictureBox(picture, side, here, point) {
  const { src, rows, cols, first, gap } = picture;
  const tokenAt = (row, col) => first + row * (cols + gap) + col;
  const placeOf = (token) => {
    const [row, col] = [Math.floor((token - first) / (cols + gap)), (token - first) % (cols + gap)];
    return token >= first && row < rows && col < cols ? [row, col] : null;
  };
  const over = make("canvas", { width: cols, height: rows, class: "ch-over" });
  const mark = make("div", { class: "ch-mark", hidden: true });
  const box = make("div", { class: "ch-picture", tabindex: "0", role: "group", "aria-label": side === "query" ? _("Patches as queries; arrow keys move") : _("Patches as keys; arrow keys move") },
    make("img", { src, alt: _("The picture as the model saw it") }), over, mark);
  pointing(box, (event) => {
    const place = box.getBoundingClientRect();
    return tokenAt(partAt(event.clientY - place.top, place.height, rows), partAt(event.clientX - place.left, place.width, cols));
  }, point, (key) => {
    const now = placeOf(here());
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key] ?? [0, 0];
    const [row, col] = now ? [now[0] + down, now[1] + right] : [0, 0];
    return row >= 0 && row < rows && col >= 0 && col < cols ? tokenAt(row, col) : null;
  });
  return {
    element: box,
    holds: (token) => placeOf(token) !== null,
    /** @param {Float32Array} values by token */
    largest: (values) => values.reduce((most, value, token) => (placeOf(token) ? Math.max(most, value) : most), 0),
    /** @param {Float32Array | null} values by token */
    paint: (values, top, colours) => veil(over, Array.from({ length: rows * cols }, (_, i) => values?.[tokenAt(Math.floor(i / cols), i % cols)]), top, colours),
    mark(token) {
      const place = placeOf(token);
      mark.hidden = !place;
      if (!place) return;
      const sizes = { left: `${(100 * place[1]) / cols}%`, top: `${(100 * place[0]) / rows}%`, width: `${100 / cols}%`, height: `${100 / rows}%` };
      for (const [key, value] of Object.entries(sizes)) mark.style.setProperty(key, value);
    },
  };
}
