// @ts-check
/** A picture instead of lines of tokens: point at a patch on one side, and the other shows where its weight goes. */
import { decode, isDense, label, roundUp, say, shade } from "./numbers.js";
import { make, scaleBar } from "./paint.js";
import { _ } from "./words.js";

const FULL = 235; // opacity of the largest weight, of 255: the picture still shows through

/** @param {any} scene @param {any} layer @param {number} l @param {number} h */
export function patchView(scene, layer, l, h) {
  const { state, change, tokens } = scene;
  const { src, rows, cols, first } = scene.raw.picture;
  const scale = make("div");
  const sides = { query: side("query", _("queries: point at a patch")), key: side("key", _("keys: where it looks")) };
  let turn = 0;

  /** One copy of the picture, what lies over it, and the model's own tokens above it. */
  function side(name, said) {
    const over = make("canvas", { width: cols, height: rows, class: "ch-over" });
    const mark = make("div", { class: "ch-mark", hidden: true });
    const box = make("div", { class: "ch-picture", tabindex: "0", role: "group", "aria-label": name === "query" ? _("Patches as queries; arrow keys move") : _("Patches as keys; arrow keys move") },
      make("img", { src, alt: _("The picture as the model saw it") }), over, mark);
    const chips = Array.from({ length: first }, (_, token) => make("button", { type: "button", class: `ch-chip ch-${name[0]}`, onclick: () => change({ token, side: name }) },
      label(tokens[token]), make("small")));
    const at = (event) => {
      const place = box.getBoundingClientRect();
      const part = (from, size, count) => Math.min(Math.max(Math.floor((from / size) * count), 0), count - 1);
      return first + part(event.clientY - place.top, place.height, rows) * cols + part(event.clientX - place.left, place.width, cols);
    };
    const point = (token) => (state().token !== token || state().side !== name) && change({ token, side: name });
    let byKeys = false; // a page that scrolls under a still mouse sends a move too: it must not undo what keys chose
    box.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "mouse" || (byKeys && !event.movementX && !event.movementY)) return;
      byKeys = false;
      point(at(event));
    });
    box.addEventListener("click", (event) => point(at(event)));
    box.addEventListener("keydown", (event) => {
      const by = { ArrowUp: -cols, ArrowDown: cols, ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      byKeys = true;
      const now = state().side === name && state().token >= first ? state().token - first : -1;
      const to = now < 0 ? 0 : now + by;
      if (to >= 0 && to < rows * cols && (Math.abs(by) > 1 || now < 0 || Math.floor(to / cols) === Math.floor(now / cols))) point(first + to);
    });
    return { over, mark, box, chips, said: make("p", { class: `ch-${name[0]} ch-line-name` }, said), element: null };
  }

  function paintOver({ over, chips }, values, top) {
    const [context, colours] = [over.getContext("2d"), scene.colours()];
    const image = context.createImageData(cols, rows);
    for (let i = 0; values && i < rows * cols; i++) {
      const part = shade(values[first + i], top);
      image.data.set(colours.subarray(Math.round(255 * part) * 4, Math.round(255 * part) * 4 + 3), 4 * i);
      image.data[4 * i + 3] = Math.round(FULL * part);
    }
    context.putImageData(image, 0, 0);
    chips.forEach((chip, token) => { chip.lastChild.textContent = values ? say(values[token]) : ""; });
  }

  function fill(token, side, values) {
    const top = roundUp(Math.max(...values));
    const [from, to] = side === "key" ? [sides.key, sides.query] : [sides.query, sides.key];
    paintOver(to, values, top);
    paintOver(from, null, 1);
    to.box.classList.add("ch-told");
    from.box.classList.remove("ch-told");
    to.mark.hidden = true;
    from.mark.hidden = token < first;
    const [row, col] = [Math.floor((token - first) / cols), (token - first) % cols];
    const place = { left: `${(100 * col) / cols}%`, top: `${(100 * row) / rows}%`, width: `${100 / cols}%`, height: `${100 / rows}%` };
    for (const [key, value] of Object.entries(place)) from.mark.style.setProperty(key, value);
    from.chips.forEach((chip, i) => chip.classList.toggle("ch-here", i === token));
    to.chips.forEach((chip) => chip.classList.remove("ch-here"));
    const said = side === "key" ? [_("queries: what looks at it"), _("keys: point at a patch")] : [_("queries: point at a patch"), _("keys: where it looks")];
    [sides.query.said.textContent, sides.key.said.textContent] = said;
    scale.replaceChildren(scaleBar(top, _("weight")));
  }

  async function show(token, side, near) {
    const now = ++turn;
    if (token < 0) {
      for (const side of Object.values(sides)) {
        paintOver(side, null, 1);
        side.mark.hidden = true;
        side.box.classList.remove("ch-told");
      }
      return scale.replaceChildren();
    }
    const values = new Float32Array(tokens.length);
    for (const link of near) values[side === "key" ? link.from : link.to] = link.weight;
    fill(token, side, values);
    if (isDense(layer) || !scene.ask) return;
    const reply = await scene.ask({ kind: "row", layer: l, head: h, token, side });
    if (!reply?.row || now !== turn) return;
    const block = decode(reply.row);
    fill(token, side, Float32Array.from(block.values, (value) => value * block.scale));
  }

  const half = ({ box, chips, said }) => make("div", { class: "ch-half" }, said, chips.length ? make("p", { class: "ch-chips" }, ...chips) : null, box);
  const few = isDense(layer) || scene.ask ? "" : " " + _("In this file the eight strongest of each patch are kept.");
  return {
    element: make("figure", { class: "ch-linebox ch-patches" }, make("div", { class: "ch-halves" }, half(sides.query), half(sides.key)),
      make("figcaption", {}, scale, _("Point at a patch of either picture, or walk with the arrow keys: the other is coloured by its weights."), few)),
    show,
  };
}
