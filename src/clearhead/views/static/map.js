// @ts-check
/** One head as a map that can be zoomed: the cells at hand first, then the exact tile if Python can be asked. */
import { at, atHand, crop, decode, isDense, isMasked, label, move, roundUp, say, saySigned, subtract, topOf, whole, zoom } from "./numbers.js";
import { make, paint, scaleBar } from "./paint.js";
import { _ } from "./words.js";

const NAMED = 32; // tokens a side up to which a map carries their names
const CELLS = 192; // cells a side of a requested tile, the same as SIDE in long_texts.py
const PAUSE = 120; // milliseconds a view must rest before its tile is asked for

/** @param {any} scene @param {any} layer @param {number} l @param {number} h
 * @param {{layer: any, head: number, place: [number, number], model: number} | null} pinned a head of the same shape to
 *   take away from this one */
export function headMap(scene, layer, l, h, pinned) {
  const { colours, change } = scene;
  const { rows, cols } = layer;
  const titles = pinned ? [_("difference"), _("mean difference")] : [_("weight"), _("mean weight")];
  const frame = make("div", { class: "ch-frame" });
  const box = make("div", { class: "ch-hatch", role: "img", "aria-label": _("Map of the head: rows are queries, columns are keys. The table below holds the numbers.") });
  const mark = make("div", { class: "ch-mark", hidden: true });
  const readout = make("p", { class: "ch-readout" });
  const scale = make("div");
  const working = make("span", { class: "ch-note" }); // how far the exact map is
  let view = whole(layer);
  /** @type {any} the block drawn: its cells, and the view they cover */
  let drawn = null;
  let marked = { token: -1, side: "query" };
  let waiting = 0;
  let asking = Promise.resolve(); // one view at a time: views that are no longer shown are not requested

  function draw(block, masked, top) {
    drawn = { block, masked, view };
    const exact = block.shape[1] === view.rows[1] - view.rows[0] && block.shape[2] === view.cols[1] - view.cols[0];
    drawn.exact = exact;
    const canvas = paint(block, masked, 0, top, colours(), pinned ? colours("d") : colours());
    canvas.setAttribute("class", "ch-map");
    box.replaceChildren(canvas, mark);
    const names = (kind, [start, stop]) => make("div", { class: `ch-names-${kind}`, "aria-hidden": "true", style: { "--count": String(stop - start) } },
      ...Array.from({ length: stop - start }, (_, i) => make("span", {}, label((kind === "key" ? cols : rows).tokens[start + i], 11))));
    const named = exact && Math.max(block.shape[1], block.shape[2]) <= NAMED;
    frame.classList.toggle("ch-named", named);
    frame.replaceChildren(...(named ? [names("key", view.cols), names("query", view.rows)] : []), box);
    scale.replaceChildren(scaleBar(top, titles[exact ? 0 : 1], Boolean(pinned)));
    where.textContent = isWhole() ? "" : _("queries %(first)s–%(last)s, keys %(left)s–%(right)s", { first: rows.place(view.rows[0]), last: rows.place(view.rows[1] - 1), left: cols.place(view.cols[0]), right: cols.place(view.cols[1] - 1) });
    setMark();
  }

  const isWhole = () => view.rows[1] - view.rows[0] === layer.shape[0] && view.cols[1] - view.cols[0] === layer.shape[1];

  function look(next) {
    const near = crop(atHand(layer, h), 0, next);
    view = near.view;
    const block = pinned ? subtract(near.block, crop(atHand(pinned.layer, pinned.head), 0, view).block) : near.block;
    draw(block, near.masked, roundUp(topOf(block, 0)));
    working.textContent = "";
    clearTimeout(waiting);
    if (!scene.ask || isDense(layer) || (isWhole() && isWorked())) return;
    const asked = view;
    waiting = setTimeout(() => { asking = asking.then(() => sharpen(asked)); }, PAUSE);
  }

  const isWorked = () => (!layer.few || layer.worked?.has(h)) && (!pinned?.layer.few || pinned.layer.worked?.has(pinned.head));

  /** Request the exact tile of a view; if that takes long, first an outline, then part after part. */
  async function sharpen(asked) {
    const wanted = () => view === asked && box.isConnected;
    const tile = ([layer, head], model, part) => scene.ask({ kind: "tile", model, layer, head, rows: asked.rows, cols: asked.cols, cells: CELLS, part });
    const both = (part = null) => Promise.all([tile([l, h], 0, part), pinned && tile(pinned.place, pinned.model, part)]);
    if (!wanted()) return;
    const replies = await both();
    if (!wanted() || !replies[0]?.map || (pinned && !replies[1]?.map)) return;
    const maps = replies.map((reply) => reply && decode(reply.map));
    const masked = replies[0].masked?.data ? decode(replies[0].masked) : replies[0].masked;
    const show = () => {
      const block = pinned ? subtract(maps[0], maps[1]) : maps[0];
      draw(block, masked, roundUp(topOf(block, 0)));
    };
    show();
    const total = replies[0].parts || 1;
    if (total < 2) return;
    const exact = maps.map((map) => map && { ...map, scale: 1, values: Float32Array.from(map.values, (value) => value * map.scale) });
    for (let part = 0; part < total; part++) {
      working.textContent = _("In outline; worked out: %(done)s of %(total)s.", { done: part, total });
      const rows = await both([part, total]);
      if (!wanted() || !rows[0]?.map || (pinned && !rows[1]?.map)) return;
      rows.forEach((reply, i) => {
        if (!reply) return;
        const { values, scale } = decode(reply.map);
        exact[i].values.set(Float32Array.from(values, (value) => value * scale), part * values.length);
      });
      maps.splice(0, 2, ...exact);
      show();
    }
    working.textContent = "";
    if (isWhole()) keep(exact, masked);
  }

  /** Keep a whole map that was computed, for as long as the page is open. */
  function keep([mine, other], masked) {
    (layer.worked ??= new Map()).set(h, { block: mine, masked });
    if (pinned) (pinned.layer.worked ??= new Map()).set(pinned.head, { block: other, masked });
  }

  // -- pointing
  const cellAt = (event) => {
    const place = box.getBoundingClientRect();
    const [, rows, cols] = drawn.block.shape;
    const row = Math.floor(((event.clientY - place.top) / place.height) * rows);
    const col = Math.floor(((event.clientX - place.left) / place.width) * cols);
    if (row < 0 || col < 0 || row >= rows || col >= cols) return null;
    const first = (cell, count, [start, stop]) => start + Math.floor((cell * (stop - start)) / count);
    return { row, col, from: first(row, rows, view.rows), to: first(col, cols, view.cols) };
  };
  let held = null; // where a drag began
  box.addEventListener("pointerdown", (event) => { held = { x: event.clientX, y: event.clientY, view, far: false }; });
  box.addEventListener("pointermove", (event) => {
    if (held && event.buttons && !isWhole()) {
      const place = box.getBoundingClientRect();
      const [dx, dy] = [(event.clientX - held.x) / place.width, (event.clientY - held.y) / place.height];
      held.far ||= Math.hypot(event.clientX - held.x, event.clientY - held.y) > 4;
      if (held.far) return look(move(layer, held.view, -dy, -dx));
    }
    const cell = cellAt(event);
    if (!cell) return;
    const pair = drawn.exact ? `${label(rows.tokens[cell.from], 24)} → ${label(cols.tokens[cell.to], 24)}` : _("%(from)s… → %(to)s…, mean", { from: rows.place(cell.from), to: cols.place(cell.to) });
    const masked = isMasked(drawn.masked, drawn.block.shape, cell.row, cell.col) ? " " + _("masked") : "";
    readout.textContent = `${pair}  ${(pinned ? saySigned : say)(at(drawn.block, 0, cell.row, cell.col))}${masked}`;
  });
  box.addEventListener("pointerleave", () => { readout.textContent = ""; });
  box.addEventListener("click", (event) => {
    const cell = held && !held.far && cellAt(event);
    held = null;
    if (cell) change({ token: cell.from, side: "query" });
  });
  box.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && isWhole() && event.deltaY > 0) return; // nothing wider to show: let the page scroll
    if (!canZoom) return;
    event.preventDefault();
    const place = box.getBoundingClientRect();
    look(zoom(layer, view, event.deltaY < 0 ? 0.8 : 1.25, (event.clientY - place.top) / place.height, (event.clientX - place.left) / place.width));
  }, { passive: false });

  // -- the same by keyboard
  const canZoom = Math.max(...layer.shape) > NAMED;
  const press = (text, name, act) => make("button", { type: "button", class: "ch-zoom", "aria-label": name, title: name, onclick: act }, text);
  const where = make("small", { "aria-live": "polite" });
  const tools = make("div", { class: "ch-tools", role: "group", "aria-label": _("Zoom; arrow keys move the view") },
    press("+", _("Zoom in"), () => look(zoom(layer, view, 0.5, ...centre()))), press("−", _("Zoom out"), () => look(zoom(layer, view, 2, 0.5, 0.5))),
    press(_("Whole"), _("Show the whole map"), () => look(whole(layer))), where, working);
  tools.addEventListener("keydown", (event) => {
    const to = { ArrowUp: [-0.25, 0], ArrowDown: [0.25, 0], ArrowLeft: [0, -0.25], ArrowRight: [0, 0.25] }[event.key];
    if (!to) return;
    event.preventDefault();
    look(move(layer, view, to[0], to[1]));
  });

  /** Zoom towards the token pointed at, where it is in sight. */
  function centre() {
    const part = (token, [start, stop]) => (token >= start && token < stop ? (token - start + 0.5) / (stop - start) : 0.5);
    return [part(marked.token, view.rows), part(marked.token, view.cols)];
  }

  function setMark() {
    const [start, stop] = marked.side === "query" ? view.rows : view.cols;
    mark.hidden = marked.token < start || marked.token >= stop;
    const size = `${Math.max(100 / (stop - start), 0.4)}%`, from = `${(100 * (marked.token - start)) / (stop - start)}%`;
    const place = marked.side === "query" ? { top: from, height: size, left: "0", width: "100%" } : { left: from, width: size, top: "0", height: "100%" };
    for (const [key, value] of Object.entries(place)) mark.style.setProperty(key, value);
  }

  look(view);
  return {
    element: make("figure", { class: "ch-mapbox" }, frame,
      make("figcaption", {},
        make("div", { class: "ch-caption" }, make("span", {}, make("span", { class: "ch-q" }, rowsAre(rows.sequence)), " · ", make("span", { class: "ch-k" }, columnsAre(cols.sequence))), scale),
        canZoom ? tools : null, readout)),
    mark(token, side) {
      marked = { token, side };
      setMark();
    },
  };
}

/** What the rows of a map are. @param {string} sequence */
function rowsAre(sequence) {
  if (sequence === "decoder") return _("rows: queries of the decoder");
  return sequence === "other" ? _("rows: queries that are not tokens") : _("rows: queries");
}

/** What its columns are. @param {string} sequence */
function columnsAre(sequence) {
  if (sequence === "decoder") return _("columns: keys of the decoder");
  return sequence === "other" ? _("columns: keys that are not tokens") : _("columns: keys");
}
